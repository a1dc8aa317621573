"""Changing a list in a TOML file that a person has written."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradepulse_pipeline.cli.settings_file import rewriting, with_added, without
from tradepulse_pipeline.errors import InvalidInputError

words = st.text("abc:/-1", min_size=1, max_size=5)
comments = st.text("xyz ,]#[\"'", max_size=6)


@st.composite
def files(draw: st.DrawFn) -> tuple[str, list[str], list[str]]:
    """Return the text of a file, its list, and the comments that stand on lines of their own."""
    head = draw(st.sampled_from(["", "# top\n\n", "seed = 1 # s\n"]))
    tail = draw(st.sampled_from(["", "\n[filters]\na = 1 # x\n", "[a.b]\nc=[1,\n2]\n"]))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    values = draw(st.lists(words, max_size=4))
    form = draw(st.sampled_from(["no list", "one line", "many lines"]))
    own: list[str] = []
    if form == "no list":
        return (head + tail).replace("\n", end), [], own
    if form == "one line":
        body = ", ".join(f'"{value}"' for value in values) + f"] # {draw(comments)}\n"
        return (head + "markets = [" + body + tail).replace("\n", end), values, own
    lines = []
    for place, value in enumerate(values):
        if draw(st.booleans()):
            own.append(f"# {draw(comments)}{place}")
            lines.append(f"  {own[-1]}")
        comma = "" if place == len(values) - 1 and draw(st.booleans()) else ","
        behind = draw(st.sampled_from(["", f" # {draw(comments)}"]))
        lines.append(draw(st.sampled_from(["  ", "\t", ""])) + f'"{value}"{comma}{behind}')
    if draw(st.booleans()):
        own.append("# end")
        lines.append("# end")
    body = "".join(f"{line}\n" for line in lines)
    return (f"{head}markets = [\n{body}] # tail\n{tail}").replace("\n", end), values, own


def others(text: str) -> dict[str, object]:
    return {name: value for name, value in tomllib.loads(text).items() if name != "markets"}


@given(files(), st.lists(words, max_size=3))
def test_what_is_added_is_there_and_all_else_is_as_it_was(
    file: tuple[str, list[str], list[str]], new: list[str]
) -> None:
    text, values, own = file
    changed = with_added(text, "markets", new)
    assert sorted(tomllib.loads(changed).get("markets", [])) == sorted([*values, *new])
    assert others(changed) == others(text)
    assert all(comment.strip() in changed for comment in own)
    if not new:
        assert changed == text


@given(files(), st.data())
def test_what_is_removed_is_gone_and_all_else_is_as_it_was(
    file: tuple[str, list[str], list[str]], data: st.DataObject
) -> None:
    text, values, own = file
    unwanted = set(data.draw(st.lists(st.sampled_from(values)) if values else st.just([])))
    changed = without(text, "markets", lambda value: value in unwanted)
    kept = [value for value in values if value not in unwanted]
    assert tomllib.loads(changed).get("markets", []) == kept
    assert others(changed) == others(text)
    assert all(comment.strip() in changed for comment in own)
    if kept == values:
        assert changed == text


@given(files(), st.lists(words, min_size=1, max_size=3))
def test_what_was_added_can_be_removed_again(file: tuple[str, list[str], list[str]], new: list[str]) -> None:
    text, values, _ = file
    changed = without(with_added(text, "markets", new), "markets", lambda value: value in new)
    assert tomllib.loads(changed)["markets"] == [value for value in values if value not in new]


def test_it_looks_as_a_person_would_have_written_it() -> None:
    text = 'seed = 1 # luck\n\nmarkets = [\n  # the big ones\n  "a", # first\n  "b",\n]\n\n[filters]\nx = 1\n'
    added = with_added(text, "markets", ["c"])
    assert added == text.replace('  "b",\n', '  "b",\n  "c",\n')
    assert without(added, "markets", lambda value: value == "b") == text.replace('  "b",\n', '  "c",\n')
    made = with_added("[filters]\nx = 1\n", "markets", ["a", "b"])
    assert made == 'markets = [\n    "a",\n    "b",\n]\n\n[filters]\nx = 1\n'


@pytest.mark.parametrize(
    ("text", "said"), [("markets = [", "not valid TOML"), ("markets = 'a'", "found 'a', expected a list")]
)
def test_a_file_that_is_wrong_is_not_touched(text: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        with_added(text, "markets", ["b"])
    with pytest.raises(InvalidInputError, match=said):
        without(text, "markets", lambda _: True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    made.mkdir()
    return made


def test_the_file_is_replaced_at_once_with_its_rights_through_a_link(folder: Path) -> None:
    real, link, lock = folder / "real.toml", folder / "link.toml", folder / "deep" / "lock"
    real.write_bytes(b"a = 1\r\n")
    real.chmod(0o600)
    link.symlink_to(real)
    before = real.stat().st_ino
    with rewriting(link, lock) as change:
        assert change(lambda text: text + "b = 2\r\n")
        assert not change(lambda text: text)
    assert (link.is_symlink(), real.read_bytes()) == (True, b"a = 1\r\nb = 2\r\n")
    assert stat.S_IMODE(real.stat().st_mode) == 0o600
    assert real.stat().st_ino != before
    assert sorted(path.name for path in folder.iterdir()) == ["deep", "link.toml", "real.toml"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "tradepulse.toml"
    path.write_text("a = 1\n")

    def full(_: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), rewriting(path, folder / "lock") as change:
        change(lambda text: text + "b = 2\n")
    assert path.read_text() == "a = 1\n"
    assert sorted(one.name for one in folder.iterdir()) == ["lock", "tradepulse.toml"]


def test_several_processes_at_once_lose_nothing(folder: Path) -> None:
    path = folder / "tradepulse.toml"
    script = """
import sys
from pathlib import Path
from tradepulse_pipeline.cli.settings_file import rewriting, with_added
for number in range(10):
    with rewriting(Path(sys.argv[1]), Path(sys.argv[2])) as change:
        change(lambda text: with_added(text, "markets", [f"{sys.argv[3]}{number}"]))
"""
    arguments = [sys.executable, "-c", script, str(path), str(folder / "lock")]
    writers = [subprocess.Popen([*arguments, name]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert sorted(tomllib.loads(path.read_text())["markets"]) == [f"{name}{n}" for name in "abc" for n in range(10)]
