"""Read `.env`: names and values of settings. What they mean belongs in `settings`."""

import io
from pathlib import Path

from dotenv import dotenv_values


class EnvFileError(Exception):
    """The file cannot be read; the message is one sentence."""


def read(path: Path) -> dict[str, str]:
    """Return the names and values of a file; none where there is no file. Raise EnvFileError."""
    try:
        # Some editors begin a file with a byte order mark.
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        if path.is_symlink():
            raise EnvFileError(
                f"{path} is a link to a missing file: restore that file, or remove the link."
            ) from None
        return {}
    except IsADirectoryError:
        raise EnvFileError(
            f"{path} is a folder: remove it, and write the settings to a file of that name."
        ) from None
    except UnicodeError:
        raise _encoding_error(path) from None
    except OSError as error:
        raise EnvFileError(f"{path} cannot be read ({error.strerror}): let this user read it.") from None
    # UTF-16 without a byte order mark is valid UTF-8.
    if "\0" in text:
        raise _encoding_error(path)
    # Without interpolation: a password may contain a `$`.
    values = dotenv_values(stream=io.StringIO(text), interpolate=False)
    return {name: value for name, value in values.items() if value is not None}


def _encoding_error(path: Path) -> EnvFileError:
    return EnvFileError(f"{path} is not UTF-8 text: save it as UTF-8.")
