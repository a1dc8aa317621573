"""Changing lists in ``tradepulse.toml``: all else in it, comments and spacing too, stays as a person wrote it."""

from __future__ import annotations

import os
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradepulse_pipeline.errors import InvalidInputError

if TYPE_CHECKING:
    from tomlkit import TOMLDocument
    from tomlkit.items import Array


def with_added(text: str, name: str, values: Sequence[str]) -> str:
    """Return TOML text whose list ``name`` has ``values`` at its end; the list is made where it is missing.

    Raises
    ------
    InvalidInputError
        If the text is no TOML, or has something else than a list under this name.
    """
    import tomlkit

    before = _list_of(_read(text), name)
    if not values:
        return text
    document = _parse(text)
    if name not in document:
        document[name] = tomlkit.array().multiline(multiline=True)
    array: Array = document[name]
    for value in values:
        array.append(value)
    after = [*before, *values]
    if not _holds(document.as_string(), text, name, after):
        # A comma that a comment follows, or none at all after the last value.
        document = _parse(text)
        array = document[name]
        for value in reversed(values):
            array.insert(0, value)
        after = [*values, *before]
    return _checked(document.as_string(), text, name, after)


def without(text: str, name: str, is_meant: Callable[[Any], bool]) -> str:
    """Return TOML text whose list ``name`` lacks the values that are meant; comments behind them go with them.

    Raises
    ------
    InvalidInputError
        As for :func:`with_added`.
    """
    before = _list_of(_read(text), name)
    places = [place for place, value in enumerate(before) if is_meant(value)]
    if not places:
        return text
    document = _parse(text)
    array: Array = document[name]
    for place in reversed(places):
        del array[place]
    return _checked(document.as_string(), text, name, [value for value in before if not is_meant(value)])


@contextmanager
def rewriting(path: Path, lock: Path) -> Iterator[Callable[[Callable[[str], str]], bool]]:
    """Yield what changes a file by a function of its text, and returns whether that changed anything.

    One process at a time does it, by the file ``lock``. The new text takes the place of the old one at once: whoever
    reads, or pulls the plug, finds the one or the other.
    """
    import fasteners

    lock.parent.mkdir(parents=True, exist_ok=True)
    with fasteners.InterProcessLock(lock):

        def change(by: Callable[[str], str]) -> bool:
            place = path.resolve()  # of a link, what it points to is replaced
            # Line ends stay as they are.
            old = place.read_bytes().decode("utf-8") if place.exists() else ""
            new = by(old)
            if new == old:
                return False
            _replace(place, new)
            return True

        yield change


def _replace(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(path.stat().st_mode if path.exists() else 0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _parse(text: str) -> TOMLDocument:
    import tomlkit

    return tomlkit.parse(text)


def _read(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(f"The settings file is not valid TOML: {error}. Mend it first.") from None


def _list_of(values: dict[str, Any], name: str) -> list[Any]:
    found = values.get(name, [])
    if not isinstance(found, list):
        raise InvalidInputError(f"{name} in the settings file: found {found!r}, expected a list.")
    return found


def _holds(new: str, old: str, name: str, values: list[Any]) -> bool:
    """Whether the new text is the old one with the list as it should be, by another reader than the one that wrote."""
    try:
        found = tomllib.loads(new)
    except tomllib.TOMLDecodeError:
        return False
    return found == {**tomllib.loads(old), name: values}


def _checked(new: str, old: str, name: str, values: list[Any]) -> str:
    if not _holds(new, old, name, values):
        raise InvalidInputError(
            f"The list {name} in the settings file is written in a way that cannot be changed safely: nothing was "
            "changed. Write it with a value per line and a comma after each, or edit it by hand."
        )
    return new
