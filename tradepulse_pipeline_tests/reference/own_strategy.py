"""The example of ``docs/own-strategy.md``, as the document's text has it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

DOCUMENT: Final = (Path(__file__).parents[2] / "docs" / "own-strategy.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the code blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)


#: The strategy, and the indicator that follows it.
EXAMPLE, INDICATOR = blocks("python")


def mistakes() -> list[tuple[str, str, str]]:
    """Return the rows of the table of mistakes: what stands in the example, what one writes instead, what is told."""
    rows = [line.strip("|").split("|") for line in DOCUMENT.splitlines() if line.startswith("| `")]
    return [(right.strip().strip("`"), wrong.strip().strip("`"), told.strip()) for right, wrong, told in rows]


def write_example(project: Path, source: str = EXAMPLE) -> Path:
    """Put the example into a project as the document says, and return where it is."""
    (setting,) = blocks("toml")
    (project / "tradepulse.toml").write_text(setting, encoding="utf-8")
    path = project / "strategies" / "ma_cross.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(source, encoding="utf-8")
    return path
