"""`make run` installs what the locks name, with the chosen extras, and no hint names an installation that fails."""

import os
import re
import shutil
import subprocess
import time
import tomllib
from pathlib import Path

import pytest

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").is_file())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = sorted(PROJECT["optional-dependencies"].keys() - {"dev"})
INSTALLED = ".venv/lib/python3.11/site-packages/aiseg2_pipeline/__init__.py"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder in which `make run` has installed the core, without the rest of the project."""
    for name in ("Makefile", "pyproject.toml", *(path.name for path in ROOT.glob("requirements*.lock"))):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    set_age(tmp_path / ".venv" / "run.stamp", 60)
    for path in tmp_path.rglob("*"):
        if path.suffix != ".stamp":
            set_age(path, 120)
    return tmp_path


def set_age(path: Path, age_s: float) -> None:
    path.touch()
    os.utime(path, times=(time.time() - age_s,) * 2)


def planned(clone: Path, *arguments: str) -> str:
    """Return the commands that `make run` would execute."""
    command = ["make", "--dry-run", "run", *arguments]
    return subprocess.run(command, cwd=clone, capture_output=True, text=True, check=True).stdout  # noqa: S603 - our own


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@needs_make
@pytest.mark.parametrize(
    ("given", "installed"),
    [([], ["report"]), (["EXTRAS=report,alerts"], ["alerts", "report"]), (["EXTRAS="], [])],
    ids=["report by default", "two", "none"],
)
def test_make_run_installs_the_chosen_extras_by_their_locks(
    clone: Path, given: list[str], installed: list[str]
) -> None:
    commands = planned(clone, *given)
    assert re.findall(r"--require-hashes .*requirements-(\w+)\.lock", commands) == installed
    assert "--editable" not in commands
    # An extra of an earlier run follows its lock.
    set_age(clone / ".venv" / "extra-postgres.stamp", 30)
    assert "postgres" not in planned(clone, *given)
    (clone / "requirements-postgres.lock").touch()
    assert "requirements-postgres.lock" in planned(clone, *given)


@needs_make
@pytest.mark.parametrize(
    ("version", "folder", "said"),
    [
        ("3.11", None, None),
        ("3.13", None, ".venv was made for Python 3.11, and this is now 3.13: building .venv anew"),
        ("", None, "The Python of .venv is gone: building .venv anew"),
        ("3.11", "/elsewhere", ".venv was made in another folder: building .venv anew"),
    ],
    ids=["as it was built", "Python was replaced", "Python was removed", "the clone was moved"],
)
def test_make_run_builds_the_environment_anew_once_its_python_or_its_folder_is_another(
    clone: Path, version: str, folder: str | None, said: str | None
) -> None:
    set_age(clone / ".venv" / "extra-postgres.stamp", 30)
    set_age(clone / ".venv" / "extra-report.stamp", 30)
    python = clone / ".venv" / "bin" / "python"
    python.write_text(f"#!/bin/sh\necho {version}\n" if version else "#!/bin/sh\nexit 127\n", encoding="ascii")
    python.chmod(0o755)
    set_age(python, 120)
    made = f"version = 3.11.7\ncommand = /usr/bin/python3 -m venv {folder or clone}/.venv\n"
    (clone / ".venv" / "pyvenv.cfg").write_text(made, encoding="utf-8")
    commands = planned(clone)
    if said is None:
        assert "install" not in commands
        return
    assert said in commands
    order = re.findall(r"rm -rf .venv$|-m venv|requirements-\w+\.lock|--editable", commands, re.MULTILINE)
    locks = [f"requirements-{name}.lock" for name in ("postgres", "report")]
    assert order[:4] == ["rm -rf .venv", "-m venv", "requirements-core.lock", "--editable"]
    assert sorted(order[4:]) == locks


@needs_make
def test_make_run_replaces_a_copy_of_the_package_by_the_folder(clone: Path) -> None:
    (clone / INSTALLED).parent.mkdir(parents=True)
    assert "--editable" not in planned(clone)
    (clone / INSTALLED).touch()
    assert "--editable ." in planned(clone)


@needs_make
def test_an_unknown_extra_is_refused_with_the_names_of_the_others(clone: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as raised:
        planned(clone, "EXTRAS=report,plots")
    assert f"There is no extra plots: choose from {', '.join(EXTRAS[:-1])} and {EXTRAS[-1]}" in raised.value.stderr


def test_no_hint_names_an_installation_that_fails_or_makes_a_copy() -> None:
    files = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("aiseg2_pipeline/**/*.py")]
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    # There is no package of this name in an index.
    assert [path for path, text in texts.items() if "aiseg2-pipeline[" in text] == []
    assert [path for path, text in texts.items() if "pip install '." in text.replace("pipx install", "")] == []
    named = {
        extra
        for text in texts.values()
        for given in re.findall(r"EXTRAS=([a-z,]+)", text)
        for extra in given.split(",")
    }
    assert named == set(EXTRAS)
