from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from tradepulse_pipeline.backtest.api import backtest_strategy
from tradepulse_pipeline.backtest.result import EXIT_REASONS, BacktestResult
from tradepulse_pipeline.backtest.settings import AccountSettings, BarRange
from tradepulse_pipeline.cli.backtest import trade_records
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import PRICE_COLUMNS, Candles
from tradepulse_pipeline.market.series import MS_PER_DAY, Market, Timeframe
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate
from tradepulse_pipeline.strategies.registry import get_strategy

if TYPE_CHECKING:
    from tradepulse_pipeline_tests.cli.conftest import Run

STRATEGY = get_strategy("LIQUIDITY_SWEEP_V3")
PARAMETERS = {
    "pierce_depth": 0.005,
    "rejection_candles": 3,
    "volume_spike_threshold": 1.5,
    "reversal_candle_size": 0.5,
    "key_level_lookback": 50,
    "stop_distance": 1.5,
    "target_multiple": 2,
}
PARAMS = json.dumps(PARAMETERS)
START_MS = 1_735_689_600_000  # 2025-01-01


@pytest.fixture(scope="module")
def candles() -> Candles:
    """Sixty days with a planted edge, and a short and a long gap."""
    market = Market("simulated", "BTC", "USDT")
    settings = SimulatedMarketSettings(edge=3, outages_per_year=0)
    whole = simulate(market, Timeframe("5m"), START_MS, START_MS + 60 * MS_PER_DAY, settings)
    kept = np.ones(len(whole), dtype=bool)
    kept[1_000:1_002] = kept[5_000:5_020] = False
    columns = [getattr(whole, name)[kept] for name in ("open_time_ms", *PRICE_COLUMNS)]
    return Candles.from_arrays(whole.timeframe, *columns)


@pytest.fixture(scope="module")
def file(candles: Candles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("candles") / "binance_BTC-USDT_5m.parquet"
    columns = {"timestamp": candles.open_time_ms, **{name: getattr(candles, name) for name in PRICE_COLUMNS}}
    pl.DataFrame(columns).write_parquet(path)
    return path


@pytest.fixture(autouse=True)
def no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file needs none: whoever tries to use it fails."""
    monkeypatch.setenv("TRADEPULSE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")


def expected(
    candles: Candles, side: Any = "long", account: AccountSettings | None = None, window: BarRange | None = None
) -> tuple[BacktestResult, Candles]:
    filled = candles.filled_forward()
    frame = IndicatorFrame.compute(filled, STRATEGY.indicators)
    return backtest_strategy(frame, STRATEGY, PARAMETERS, side=side, account=account, window=window), filled


def iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()


def assert_same(printed: dict[str, Any], result: BacktestResult, candles: Candles) -> None:
    assert list(printed) == ["metrics", "trades"]
    assert printed["metrics"] == result.metrics.as_dict()
    trades, times = result.trades, candles.open_time_ms
    assert len(printed["trades"]) == len(trades) > 0
    for name in ("entry_price", "exit_price", "stop_price", "target_price", "quantity", "pnl", "r_multiple"):
        assert [trade[name] for trade in printed["trades"]] == getattr(trades, name).tolist()
    for name in ("decision", "entry", "exit"):
        bars = getattr(trades, f"{name}_bar")
        assert [trade[f"{name}_time"] for trade in printed["trades"]] == [iso(times[bar]) for bar in bars]
    assert [trade["exit_reason"] for trade in printed["trades"]] == [EXIT_REASONS[code] for code in trades.exit_reason]
    assert [trade["side"] for trade in printed["trades"]] == ["long" if s > 0 else "short" for s in trades.side]


def test_json_is_the_run_to_the_last_digit(run: Run, candles: Candles, file: Path) -> None:
    done = run("backtest", "--candles", file, "--params", PARAMS, "--json")
    assert done.exit_code == 0, done.stderr
    assert_same(json.loads(done.stdout), *expected(candles))


def test_options_reach_the_account(run: Run, candles: Candles, file: Path) -> None:
    costs = ("--fee", "0.0004", "--slippage", "0", "--max-holding", "6")
    options = ("--side", "both", "--capital", "777", "--risk", "0.05", "--leverage", "2.5", *costs)
    done = run("backtest", "--candles", file, "--params", PARAMS, "--json", *options)
    account = AccountSettings(
        fee_rate=0.0004, slippage=0.0, initial_capital=777, risk_fraction=0.05, max_leverage=2.5, max_holding_bars=6
    )
    assert_same(json.loads(done.stdout), *expected(candles, "both", account))


def test_from_and_to_are_a_window_before_which_indicators_see_everything(
    run: Run, candles: Candles, file: Path
) -> None:
    done = run(
        "backtest", "--candles", file, "--params", PARAMS, "--json", "--from", "2025-01-20", "--to", "2025-02-10T12:00"
    )
    times = candles.filled_forward().open_time_ms
    bounds = np.searchsorted(times, [START_MS + 19 * MS_PER_DAY, START_MS + int(40.5 * MS_PER_DAY)])
    assert_same(json.loads(done.stdout), *expected(candles, window=BarRange(*bounds.tolist())))


def test_costs_come_from_the_environment_where_no_option_is_given(
    run: Run, candles: Candles, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRADEPULSE_FEE_RATE", "0")
    monkeypatch.setenv("TRADEPULSE_SLIPPAGE", "0.002")
    done = run("backtest", "--candles", file, "--params", PARAMS, "--json", "--slippage", "0")
    assert_same(json.loads(done.stdout), *expected(candles, account=AccountSettings(fee_rate=0.0, slippage=0.0)))


def test_parameters_may_come_from_a_file(run: Run, file: Path, tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text(PARAMS)
    from_file = run("backtest", "--candles", file, "--params", "@params.json", "--json")
    assert from_file.stdout == run("backtest", "--candles", file, "--params", PARAMS, "--json").stdout


def test_the_page_shows_figures_span_and_costs(run: Run, candles: Candles, file: Path) -> None:
    done = run("backtest", "--candles", file, "--params", PARAMS)
    result, _ = expected(candles)
    assert done.exit_code == 0
    assert f"{result.metrics.net_profit:,.2f}" in done.stdout
    assert "2025-01-01 00:00 to 2025-03-02 00:00 UTC, 17,260 candles, 2 of them filled" in done.stdout
    assert "Costs per trade, R" in done.stdout


def test_a_trade_without_target_has_null_there(candles: Candles) -> None:
    result, filled = expected(candles)
    without = replace(result.trades, target_price=np.full(len(result.trades), np.nan))
    records = trade_records(replace(result, trades=without), filled)
    assert {record["target_price"] for record in records} == {None}
    json.dumps(records, allow_nan=False)


def test_rows_that_are_no_candles_are_left_out_and_reported(run: Run, file: Path, tmp_path: Path) -> None:
    frame = pl.read_parquet(file).with_row_index()
    price = pl.when(pl.col("index") == 7).then(-1.0).otherwise(pl.col("low"))
    frame.with_columns(low=price).drop("index").write_csv(tmp_path / "dirty_5m.csv")
    done = run("backtest", "--candles", "dirty_5m.csv", "--timeframe", "5m", "--params", PARAMS, "--json")
    assert done.exit_code == 0
    assert "dirty_5m.csv: 1 of 17258 rows left out" in done.stderr
    assert "row 8" in done.stderr
    json.loads(done.stdout)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--params is missing"),
        (("--params", "{}"), "7 of 7 parameters are missing: pierce_depth"),
        (("--params", '{"pierce": 1}'), "Unknown parameter 'pierce' in LIQUIDITY_SWEEP_V3"),
        (("--params", PARAMS.replace("0.005", "0.9")), "'pierce_depth': found 0.9, expected a number from 0.0001"),
        (("--params", PARAMS.replace("50", "50.5")), "'key_level_lookback': found 50.5, expected a whole number"),
        (("--params", PARAMS.replace("0.005", "NaN")), "'pierce_depth': found nan"),
        (("--params", PARAMS.replace("0.005", '"x"')), "'pierce_depth': found 'x', expected a number"),
        (("--params", "{pierce"), "--params: not valid JSON"),
        (("--params", "[1]"), "--params: found '[1]', expected a JSON object"),
        (("--params", "@none.json"), "the file none.json cannot be read"),
        (("--params", PARAMS, "--strategy", "LIQUIDITY"), "Unknown strategy 'LIQUIDITY'"),
        (("--params", PARAMS, "--from", "yesterday"), "--from: found 'yesterday', expected an ISO 8601 date"),
        (("--params", PARAMS, "--from", "2031-01-01"), "leave no candle: there are candles from 2025-01-01 00:00 to"),
        (("--params", PARAMS, "--fee", "0.5"), "fee_rate: found 0.5, expected a number at least 0.0 and at most 0.1"),
        (("--params", PARAMS, "--exchange", "binance"), "Give either --candles FILE, or --exchange and --pair"),
        (("--params", PARAMS, "--timeframe", "1h"), "1h"),
    ],
)
def test_wrong_input_is_told_plainly(run: Run, file: Path, options: tuple[str, ...], message: str) -> None:
    done = run("backtest", "--candles", file, *options)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stdout == ""


def test_an_error_in_parameters_lists_all_of_them_with_their_ranges(run: Run, file: Path) -> None:
    done = run("backtest", "--candles", file, "--params", '{"pierce": 1}')
    for parameter in STRATEGY.parameters:
        assert parameter.name in done.stderr
    assert "0.0001 to 0.05, fraction of the level" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--params", PARAMS), "Candles are missing"),
        (("--params", PARAMS, "--candles", "gone_5m.csv", "--timeframe", "5m"), "gone_5m.csv"),
        (("--params", PARAMS, "--candles", "gone.csv"), "--timeframe is missing, and the file's name does not tell"),
    ],
)
def test_missing_candles_are_told_plainly(run: Run, arguments: tuple[str, ...], message: str) -> None:
    done = run("backtest", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
