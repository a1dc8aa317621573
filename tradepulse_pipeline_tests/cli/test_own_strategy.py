"""A strategy of one's own, from the document's text to a stored configuration, as a reader would do it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from tradepulse_pipeline.definitions import defs
from tradepulse_pipeline.errors import StrategyError
from tradepulse_pipeline.indicators.frame import Indicator, IndicatorFrame
from tradepulse_pipeline.market.candles import PRICE_COLUMNS, Candles
from tradepulse_pipeline.market.series import MS_PER_DAY, Market, Timeframe
from tradepulse_pipeline.market.sources.simulated import ORIGIN_MS, SimulatedMarketSettings, simulate
from tradepulse_pipeline.strategies.causality import check_causality
from tradepulse_pipeline.strategies.own import strategies_of_file
from tradepulse_pipeline.strategies.registry import register
from tradepulse_pipeline_tests.reference.own_strategy import EXAMPLE, INDICATOR, blocks, mistakes, write_example

if TYPE_CHECKING:
    from tradepulse_pipeline_tests.cli.conftest import Run

#: What Dagster does with its own dependencies is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")

PARAMETERS = {"fast": 10, "slow": 50, "stop_distance": 2, "target_multiple": 2}


@pytest.fixture
def example(in_project: Path) -> Iterator[Path]:
    """The example in a project with a database, which other tests use as well."""
    yield write_example(in_project)
    (in_project / "tradepulse.toml").unlink(missing_ok=True)
    shutil.rmtree(in_project / "strategies")
    register([])


@pytest.fixture(scope="module")
def candles() -> Candles:
    market, settings = Market("simulated", "BTC", "USDT"), SimulatedMarketSettings(outages_per_year=0)
    return simulate(market, Timeframe("15m"), ORIGIN_MS, ORIGIN_MS + 60 * MS_PER_DAY, settings)


def test_the_document_leads_to_a_trained_strategy(run: Run, example: Path, in_project: Path) -> None:
    commands = [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]
    assert [command[:2] for command in commands] == [["tradepulse", "check"], ["tradepulse", "train"]]
    checked, trained = (run(*command[1:]) for command in commands)
    assert checked.exit_code == 0, checked.stderr
    assert "MA_CROSS on simulated:BTC-USDT:15m SIMULATED, long" in checked.stdout
    assert "No look-ahead found" in checked.stdout
    assert trained.exit_code == 0, trained.stderr
    assert "MA_CROSS on simulated:BTC-USDT:15m SIMULATED" in trained.stdout
    assert "PAPER: " in trained.stdout

    keys = {key.to_user_string() for key in defs().get_repository_def().asset_graph.get_all_asset_keys()}
    assert {"ma_cross/optimization_results", "ma_cross/trained_configurations"} < keys
    assert "train_ma_cross" in [job.name for job in defs().get_repository_def().get_all_jobs()]

    (configuration,) = json.loads(run("results", "--strategy", "MA_CROSS", "--json").stdout)
    assert list(configuration["parameters"]) == list(PARAMETERS)
    assert "Identical to the bit" in run("replay", configuration["id"]).stdout

    example.write_text(EXAMPLE + "# An edit that changes nothing.\n")
    edited = run("replay", configuration["id"])
    assert "Identical to the bit" in edited.stdout
    assert f"Changed since: the engine or {example}: " in "".join(edited.stdout.splitlines())

    (in_project / "tradepulse.toml").unlink()
    (listed,) = [one for one in json.loads(run("results", "--json").stdout) if one["strategy"] == "MA_CROSS"]
    assert listed["parameters"] == configuration["parameters"]
    assert "MA_CROSS on simulated:BTC-USDT:15m" in run("show", configuration["id"]).stdout
    assert "Unknown strategy 'MA_CROSS'" in run("replay", configuration["id"]).stderr


def test_a_backtest_and_an_estimate_of_it(run: Run, example: Path, candles: Candles, tmp_path: Path) -> None:
    file = tmp_path / "binance_BTC-USDT_15m.parquet"
    columns = {"timestamp": candles.open_time_ms, **{name: getattr(candles, name) for name in PRICE_COLUMNS}}
    pl.DataFrame(columns).write_parquet(file)
    options = ("--candles", str(file), "--strategy", "MA_CROSS", "--side", "both", "--json")
    done = run("backtest", *options, "--params", json.dumps(PARAMETERS))
    assert done.exit_code == 0, done.stderr
    assert {trade["side"] for trade in json.loads(done.stdout)["trades"]} == {"long", "short"}
    estimated = run("estimate", "--strategy", "MA_CROSS", "--timeframe", "1h", "--history", "130", "--json")
    assert json.loads(estimated.stdout)[0]["combinations"] == 81


def test_a_file_can_be_checked_before_it_is_named_anywhere(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "ma_cross.py"
    file.write_text(EXAMPLE)
    options = ("--source", "simulated", "--timeframe", "4h", "--history", "60", "--side", "both", "--json")
    done = run("check", "ma_cross.py", *options)
    assert done.exit_code == 0, done.stderr
    assert "ma_cross.py is not among own_strategies of tradepulse.toml" in done.stderr
    (found,) = json.loads(done.stdout)
    assert (found["strategy"], found["series"], found["n_candles"]) == ("MA_CROSS", "simulated:BTC-USDT:4h", 360)
    assert found["n_decisions"] > 0
    assert not (tmp_path / ".tradepulse").exists()

    (tmp_path / "tradepulse.toml").write_text('own_strategies = "ma_cross.py"')
    assert "not among" not in run("check", "ma_cross.py", *options).stderr
    file.write_text(EXAMPLE.replace("MA_CROSS", "LIQUIDITY_SWEEP_V3"))
    refused = run("check", "ma_cross.py", *options)
    assert refused.exit_code == 2
    assert "the name LIQUIDITY_SWEEP_V3 is taken: TradePulse has it" in refused.stderr
    (tmp_path / "tradepulse.toml").write_text('own_strategies = ["none.py"]')
    assert "none.py: expected a Python file with a strategy" in run("check", "X", "--source", "simulated").stderr
    (tmp_path / "tradepulse.toml").unlink()
    assert "Unknown strategy 'X'" in run("check", "X", "--source", "simulated").stderr


def test_a_cheat_fails_the_check_with_a_sentence(run: Run, tmp_path: Path) -> None:
    (instead_of, one_writes, _), *_ = mistakes()
    (tmp_path / "cheat.py").write_text(EXAMPLE.replace(instead_of, one_writes))
    done = run("check", "cheat.py", "--source", "simulated", "--timeframe", "4h", "--history", "200")
    assert done.exit_code == 2
    assert "Error: MA_CROSS looks ahead: with fast=" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("instead_of", "one_writes", "told"), mistakes())
def test_a_mistake_is_told_as_the_document_says(
    candles: Candles, tmp_path: Path, instead_of: str, one_writes: str, told: str
) -> None:
    assert instead_of in EXAMPLE
    file = tmp_path / "ma_cross.py"
    file.write_text(EXAMPLE.replace(instead_of, one_writes))

    def check_it() -> None:
        strategies = strategies_of_file(file)
        register(strategies)
        check_causality(strategies[0], candles)

    pattern = ".*".join(re.escape(part) for part in told.split("…"))
    with pytest.raises(StrategyError, match=pattern):
        check_it()
    register([])


def test_the_indicator_of_the_document_works_in_the_example(candles: Candles, tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(compile(INDICATOR, "indicator", "exec"), names)
    indicator = names["MEAN_CLOSE"]
    assert isinstance(indicator, Indicator)
    frame = IndicatorFrame.compute(candles, [indicator])
    assert frame[indicator.name][99] == pytest.approx(candles.close[80:100].mean())
    mirror = frame.mirrored()
    assert mirror[indicator.name][99] == pytest.approx(mirror.close[80:100].mean())

    file = tmp_path / "ma_cross.py"
    file.write_text(INDICATOR + EXAMPLE.replace("indicators = (ATR,)", "indicators = (ATR, MEAN_CLOSE)"))
    (strategy,) = strategies_of_file(file)
    assert check_causality(strategy, candles, "both").n_decisions > 0
