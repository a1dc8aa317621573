"""The house rules that code can check: imports go one way, and the domain knows no framework."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tradepulse_pipeline"

#: Lower layers first; a package may import its own layer and those before it.
LAYERS = (
    {"compiled", "errors", "processes", "progress"},
    {"market"},
    {"indicators"},
    {"strategies"},
    {"backtest"},
    {"optimizers"},
    {"validation"},
    {"monitoring"},
    {"configurations", "database"},
    {"settings"},
    {"orchestration", "cli", "definitions"},
)
DOMAIN = ("market", "indicators", "strategies", "backtest", "optimizers", "validation", "monitoring", "configurations")


def _layer(name: str) -> int:
    return next(level for level, names in enumerate(LAYERS) if name in names)


def _imported_packages(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    prefix = "tradepulse_pipeline."
    return {name.removeprefix(prefix).split(".")[0] for name in found if name.startswith(prefix)}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    reached = {name for name in _imported_packages(path) if any(name in names for names in LAYERS)}
    assert all(_layer(name) <= _layer(own) for name in reached), f"{own} reaches up to {reached}"


def test_no_package_hides_a_module_of_its_name():
    assert [path for path in PACKAGE.rglob("*.py") if path.with_suffix("").is_dir()] == []


@pytest.mark.parametrize("package", DOMAIN)
def test_the_domain_loads_without_frameworks(package):
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (PACKAGE / package).rglob("*.py")
    ]
    script = (
        f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
        "print(sorted({'dagster', 'psycopg', 'ccxt'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_ci_script_runs_the_test_command_of_the_readme():
    readme = (ROOT / "README.md").read_text()
    commands = [line.strip() for line in readme.splitlines() if line.strip().endswith("pytest")]
    assert len(commands) == 1
    assert commands[0] in (ROOT / ".ci" / "run").read_text().splitlines()


def test_no_file_is_larger_than_a_megabyte():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    sizes = {
        name: (ROOT / name).stat().st_size for name in tracked.stdout.split("\0") if name and (ROOT / name).exists()
    }
    assert {name: size for name, size in sizes.items() if size > 1_000_000} == {}
