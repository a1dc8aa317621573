"""Strategies of a user's own: found in files and installed packages, and refused with a sentence that helps."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tradepulse_pipeline.errors import InvalidInputError, StrategyError
from tradepulse_pipeline.strategies.own import register_own_strategies, strategies_of_file
from tradepulse_pipeline.strategies.registry import get_strategy, register, strategy_names
from tradepulse_pipeline_tests.reference.own_strategy import EXAMPLE

SHIPPED = strategy_names()


@pytest.fixture(autouse=True)
def only_shipped() -> Iterator[None]:
    yield
    register([])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ma_cross.py"
    path.write_text(EXAMPLE)
    return path


def line_of(source: str, words: str) -> int:
    return source[: source.index(words)].count("\n") + 1


def test_the_strategies_of_files_are_known_by_name(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "others.py"
    other.write_text(
        EXAMPLE.replace("MA_CROSS", "SECOND").replace("class MaCross", "class Second")
        + "\n\nclass Third(Second):\n    name = 'THIRD'\n    title = 'Third'\n"
    )
    register_own_strategies([file, other])
    assert strategy_names() == (*SHIPPED, "MA_CROSS", "SECOND", "THIRD")
    assert get_strategy("THIRD").title == "Third"
    with pytest.raises(InvalidInputError, match=r"Unknown strategy 'MA_CROS'. Did you mean 'MA_CROSS'"):
        get_strategy("MA_CROS")
    register_own_strategies([other])
    assert strategy_names() == (*SHIPPED, "SECOND", "THIRD")


def test_a_strategy_knows_what_it_was_loaded_from(file: Path) -> None:
    (strategy,) = strategies_of_file(file)
    assert strategy.origin is not None
    assert strategy.origin.place == str(file)
    assert strategy.origin.sha256 == hashlib.sha256(EXAMPLE.encode()).hexdigest()
    assert all(get_strategy(name).origin is None for name in SHIPPED)


def test_an_edit_is_read_even_within_the_same_second_and_of_the_same_length(file: Path) -> None:
    (before,) = strategies_of_file(file)
    file.write_text(EXAMPLE.replace("(5, 10, 20)", "(6, 11, 21)"))
    (after,) = strategies_of_file(file)
    assert (before.parameter("fast").grid, after.parameter("fast").grid) == ((5, 10, 20), (6, 11, 21))
    assert before.origin != after.origin


def test_jitted_functions_follow_edits_of_their_file_too(file: Path) -> None:
    jitted = "from numba import njit\n" + EXAMPLE.replace("def moving_average", "@njit(cache=True)\ndef moving_average")
    jitted = jitted.replace('np.convolve(prices, np.ones(n) / n, mode="valid")', "n * FACTOR").replace(
        "BARS =", "FACTOR = 2\nBARS ="
    )
    results = []
    for source in (jitted, jitted.replace("FACTOR = 2", "FACTOR = 3")):
        file.write_text(source)
        module = sys.modules[type(strategies_of_file(file)[0]).__module__]
        results.append(module.moving_average(np.ones(4), 3)[-1])
    assert results == [6.0, 9.0]


def test_a_base_without_a_name_is_no_strategy_and_neither_is_an_import(file: Path) -> None:
    source = EXAMPLE.replace("class MaCross(Strategy):\n    name", "class Base(Strategy):\n    nickname")
    file.write_text(
        "from tradepulse_pipeline.strategies.liquidity_sweep_v3 import LiquiditySweepV3\n"
        + source
        + "\n\nclass One(Base):\n    name = 'ONE'\n\n\nclass Two(Base):\n    name = 'TWO'\n"
    )
    assert [strategy.name for strategy in strategies_of_file(file)] == ["ONE", "TWO"]


def test_dataclasses_and_other_modules_of_python_work_in_a_file(file: Path) -> None:
    file.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n" + EXAMPLE.split("\n", 1)[1]
    )
    file.write_text(file.read_text() + "\n\n@dataclass\nclass Pair:\n    fast: int\n    slow: int\n")
    assert len(strategies_of_file(file)) == 1


PARAMETERS = EXAMPLE[EXAMPLE.index("    parameters = (") : EXAMPLE.index("    def signals")]
CLASS, FIRST = "class MaCross", "        Parameter(name="


@pytest.mark.parametrize(
    ("old", "new", "at", "message"),
    [
        ("import numpy as np", "import numpi as np", "import numpi", "ModuleNotFoundError: No module named 'numpi'."),
        ("import numpy as np", "import numpy as", "import numpy as\n", "SyntaxError: invalid syntax"),
        ("import numpy as np", "import helpers", "import helpers", "but no file next to it"),
        ("import numpy as np", "1 / 0", "1 / 0", "ZeroDivisionError: division by zero"),
        ("import numpy as np", "raise SystemExit", "raise SystemExit", "SystemExit: "),
        ("grid=(5, 10, 20), ", "", FIRST, "missing 1 required keyword-only argument: 'grid'. A parameter needs name, "),
        ("grid=(5, 10, 20)", "grid=()", FIRST, "'grid' must be ascending and not empty"),
        ("grid=(5, 10, 20)", "grid=(5, 10.5)", FIRST, "found 10.5, expected a whole number from 2"),
        ('"kind": "signal"', '"kind": "entry"', FIRST, "'kind' is 'entry', expected 'signal' or 'exit'"),
        ('name = "MA_CROSS"', "", CLASS, "name is missing, expected a text: the name by which it is trained"),
        ('name = "MA_CROSS"', 'name = "ma-cross"', CLASS, "name is 'ma-cross', expected capitals, digits"),
        ('title = "Moving-average cross"', "", CLASS, "title is missing, expected a text"),
        ('title = "Moving-average cross"', "title = 5", CLASS, "title is 5, expected a text"),
        ("    indicators =", "    version = 2\n    indicators =", CLASS, "version is 2, expected a text"),
        ("def exits", "def leave", CLASS, "exits is missing: expected a method of that name"),
        ("def signals", "def signal", CLASS, "signals is missing: expected a method of that name"),
        (PARAMETERS, "\n", CLASS, "parameters is missing, expected a tuple of Parameter objects"),
        (PARAMETERS, "    parameters = ()\n\n", CLASS, "no parameter of kind 'signal', expected one or more"),
        ("    parameters = (", "    parameters = (5,", CLASS, "parameters holds 5, expected Parameter objects"),
        ('name="slow"', 'name="fast"', CLASS, "parameters has 2 of the name 'fast', expected each name once"),
        ('name="slow"', 'name="Slow"', CLASS, "parameter 'Slow': expected lower-case letters, digits and"),
        ('name="slow"', 'name="window"', CLASS, "parameter 'window': the tables of trials have a column of this"),
        ('"kind": "exit"', '"kind": "signal"', CLASS, "no parameter of kind 'exit', expected one or more. What is"),
        ("indicators = (ATR,)", "indicators = ATR", CLASS, "indicators is of type Indicator, expected a tuple"),
        ("indicators = (ATR,)", 'indicators = ("atr_14",)', CLASS, "indicators holds 'atr_14', expected Indicator"),
        ("indicators = (ATR,)", "indicators = (ATR, ATR)", CLASS, "indicators has 2 of the name 'atr_14'"),
        ("    def exits", "    def __init__(self, x):\n        pass\n\n    def exits", CLASS, "made without arguments"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_told_with_its_line(file: Path, old: str, new: str, at: str, message: str) -> None:
    source = EXAMPLE.replace(old, new)
    assert source != EXAMPLE
    file.write_text(source)
    with pytest.raises(StrategyError, match=re.escape(message)) as raised:
        strategies_of_file(file)
    assert str(raised.value).startswith(f"{file}, line {line_of(source, at)}: ")


def test_a_file_without_a_strategy_and_a_missing_one_are_told(file: Path, tmp_path: Path) -> None:
    file.write_text("x = 1\n")
    with pytest.raises(
        StrategyError, match=r"ma_cross.py: found no strategy in it, expected a class that derives from"
    ):
        strategies_of_file(file)
    with pytest.raises(
        StrategyError, match=r"none.py: expected a Python file .* No such file or directory. Names in own_"
    ):
        strategies_of_file(tmp_path / "none.py")
    with pytest.raises(StrategyError, match="Is a directory"):
        strategies_of_file(tmp_path)


def test_a_name_that_is_taken_is_refused_and_what_was_known_stays(file: Path, tmp_path: Path) -> None:
    register_own_strategies([file])
    again, shipped = tmp_path / "again.py", tmp_path / "shipped.py"
    again.write_text(EXAMPLE)
    shipped.write_text(EXAMPLE.replace("MA_CROSS", "LIQUIDITY_SWEEP_V3"))
    with pytest.raises(StrategyError, match=rf"again.py: the name MA_CROSS is taken: {file} has it. Choose another"):
        register_own_strategies([file, again])
    with pytest.raises(StrategyError, match=r"shipped.py: the name LIQUIDITY_SWEEP_V3 is taken: TradePulse has it"):
        register_own_strategies([shipped])
    assert strategy_names() == (*SHIPPED, "MA_CROSS")


def install(folder: Path, entry_point: str, **files: str) -> None:
    """Put an installed distribution with one entry point into a folder."""
    (folder / "my_signals").mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / "my_signals" / f"{name}.py").write_text(text)
    info = folder / "my_signals-2.1.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-signals\nVersion: 2.1\n")
    (info / "entry_points.txt").write_text(f"[tradepulse.strategies]\ncross = {entry_point}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_signals"]:
        del sys.modules[name]


def test_strategies_of_installed_packages_are_known(site: Path) -> None:
    install(site, "my_signals.cross:MaCross", __init__="", cross=EXAMPLE, unused="")
    register_own_strategies([])
    origin = get_strategy("MA_CROSS").origin
    assert origin is not None
    assert origin.place == "my-signals 2.1 (entry point cross = my_signals.cross:MaCross)"
    install(site, "my_signals.cross:MaCross", unused="x = 1")
    register_own_strategies([])
    assert get_strategy("MA_CROSS").origin != origin  # any file of the package may matter


@pytest.mark.parametrize(
    ("entry_point", "message"),
    [
        ("my_signals.cross:Nothing", "AttributeError: .*'Nothing'. Mend or uninstall the package"),
        ("my_signals.absent:MaCross", "ModuleNotFoundError: No module named 'my_signals.absent'. Mend or uninstall"),
        (
            "my_signals.cross:moving_average",
            "found <function moving_average at .*>, expected a class that derives from",
        ),
        ("my_signals.cross:Nameless", "name is missing, expected a text"),
    ],
)
def test_a_wrong_entry_point_is_told_with_its_package(site: Path, entry_point: str, message: str) -> None:
    nameless = (
        EXAMPLE[EXAMPLE.index("class MaCross") :]
        .replace("class MaCross", "class Nameless")
        .replace("name = ", "n = ", 1)
    )
    install(site, entry_point, __init__="", cross=f"{EXAMPLE}\n\n{nameless}")
    with pytest.raises(StrategyError, match=rf"my-signals 2.1 \(entry point cross = {entry_point}\): {message}"):
        register_own_strategies([])
    assert strategy_names() == SHIPPED
