"""The page's texts in Japanese and English, and the choice between them by the browser's language.

They are JSON because the scripts need them too. Both files have the same keys.
"""

import json
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("texts")
LANGUAGES = ("ja", "en")


@cache
def texts(language: str) -> dict[str, str]:
    """Return the texts of one of LANGUAGES by key."""
    found: dict[str, str] = json.loads((FOLDER / f"{language}.json").read_text(encoding="utf-8"))
    return found


def chosen(accept_language: str) -> str:
    """Return the language that a browser's Accept-Language prefers, the first of equals; English where it names neither."""
    best, weight = "en", 0.0
    for part in accept_language.split(","):
        name, _, parameter = part.strip().partition(";")
        language = name.strip().lower().partition("-")[0]
        if language in LANGUAGES and _weight(parameter) > weight:
            best, weight = language, _weight(parameter)
    return best


def _weight(parameter: str) -> float:
    _, _, number = parameter.partition("=")
    try:
        return float(number) if parameter.strip() else 1.0
    except ValueError:
        return 0.0
