"""The table of faults in the documentation: every row is there, and every test that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tradepulse_pipeline.settings import Settings

TESTS = Path(__file__).parents[1]
TABLE = TESTS.parent / "docs" / "faults.md"


def test_every_test_in_the_table_exists():
    rows = [line.split(" | ") for line in TABLE.read_text().splitlines() if re.match(r"\| \d", line)]
    assert [int(row[0].strip("| ")) for row in rows] == list(range(1, 39))
    for row in rows:
        shown_by = row[-1]
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", shown_by)
        assert named
        assert len(named) == shown_by.count("`") // 2, row
        for file, test in named:
            tree = ast.parse((TESTS / file).read_text())
            assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, (file, test)


def test_the_web_ui_is_for_this_machine_alone_and_the_readme_says_how_to_share_it():
    assert Settings.model_fields["web_host"].default == "127.0.0.1"
    readme = (TESTS.parent / "README.md").read_text()
    assert "dagster-webserver -w workspace.yaml -h 127.0.0.1 -p 3001 --read-only" in readme
    assert "reverse proxy with authentication" in re.sub(r"\s+", " ", readme)
