"""Attribution: groups by hand, regimes that know only the past, intervals that hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from scipy import stats

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.validation.attribution import attribution
from tradepulse_pipeline.validation.regimes import candles_of as candles_of_frame
from tradepulse_pipeline.validation.regimes import thirds, trend, volatility, volume_multiple
from tradepulse_pipeline_tests.reference.comparison import plain_candles
from tradepulse_pipeline_tests.reference.indicators import average_true_range, mean_volume
from tradepulse_pipeline_tests.reference.markets import candles_of

START = datetime(2024, 1, 1, tzinfo=UTC)  # a Monday


def market(n: int, seed: int = 3) -> IndicatorFrame:
    """An hourly walk whose volatility changes every few days."""
    rng = np.random.default_rng(seed)
    width = 0.002 * np.exp(np.repeat(rng.standard_normal(n // 60 + 1), 60)[:n])
    close = 100 * np.exp(np.cumsum(width * rng.standard_normal(n)))
    open_ = np.append(100.0, close[:-1])
    rows = zip(
        open_, np.maximum(open_, close) * (1 + width), np.minimum(open_, close) * (1 - width), close, strict=True
    )
    return IndicatorFrame.compute(candles_of(list(rows), volume=rng.lognormal(size=n).tolist()), ())


def trades_table(rows: list[tuple[int, str, str, float, float]]) -> pl.DataFrame:
    """Trades from (hours from the start to the decision, side, exit reason, pnl, R-multiple)."""
    hours, side, reason, pnl, r_multiple = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    decided = pl.Series([START + timedelta(hours=h) for h in hours], dtype=pl.Datetime("ms", "UTC"))
    return pl.DataFrame(
        {
            "decision_time": decided,
            "entry_time": decided.dt.offset_by("1h"),
            "side": pl.Series(side, dtype=pl.String),
            "exit_reason": pl.Series(reason, dtype=pl.String),
            "pnl": pl.Series(pnl, dtype=pl.Float64),
            "r_multiple": pl.Series(r_multiple, dtype=pl.Float64),
        }
    )


def groups_of(table: pl.DataFrame, attribute: str) -> dict[str, dict[str, object]]:
    return {row["group"]: row for row in table.filter(pl.col("attribute") == attribute).to_dicts()}


def test_groups_by_hand() -> None:
    rows = [
        (5, "long", "STOP_LOSS", -100.0, -1.1),
        (29, "long", "TAKE_PROFIT", 180.0, 1.8),
        (23, "short", "STOP_LOSS", -80.0, -0.9),
        (50, "long", "TAKE_PROFIT", 100.0, 1.2),
    ]
    table = attribution(trades_table(rows), market(60))
    hours = groups_of(table, "hour")
    assert list(hours) == ["00", "03", "06"]  # of the entry, an hour after the decision's candle opens
    assert hours["06"]["n_trades"] == 2
    assert hours["06"]["net_profit"] == pytest.approx(80.0)
    assert hours["06"]["profit_share"] == pytest.approx(0.8)
    assert hours["06"]["mean_r"] == pytest.approx(0.35)
    assert hours["06"]["win_rate"] == 0.5
    assert (hours["00"]["mean_r_low"], hours["00"]["mean_r_high"]) == (None, None)
    assert list(groups_of(table, "weekday")) == ["Monday", "Tuesday", "Wednesday"]
    assert groups_of(table, "weekday")["Tuesday"]["n_trades"] == 2
    reasons = groups_of(table, "exit_reason")
    assert {name: row["net_profit"] for name, row in reasons.items()} == {"STOP_LOSS": -180.0, "TAKE_PROFIT": 280.0}
    # Two groups of an attribute: 97.5 % each.
    low, high = stats.t.interval(0.975, 1, loc=1.5, scale=stats.sem([1.8, 1.2]))
    assert reasons["TAKE_PROFIT"]["mean_r_low"] == pytest.approx(low)
    assert reasons["TAKE_PROFIT"]["mean_r_high"] == pytest.approx(high)
    sides = groups_of(table, "side")
    assert [sides["long"]["n_trades"], sides["short"]["n_trades"]] == [3, 1]
    assert {row["group"] for row in table.filter(pl.col("attribute").is_in(["trend", "volume"])).to_dicts()} == {
        "unknown"
    }
    assert table["is_too_few"].all()
    for attribute in table["attribute"].unique():
        assert table.filter(pl.col("attribute") == attribute)["n_trades"].sum() == 4


def test_a_record_without_profit_has_no_shares_of_it() -> None:
    table = attribution(trades_table([(5, "long", "STOP_LOSS", -100.0, -1.0)]), market(30))
    assert table["profit_share"].null_count() == table.height > 0


def test_no_trades_make_no_groups() -> None:
    table = attribution(trades_table([]), market(30))
    assert table.height == 0
    assert "mean_r_low" in table.columns


def test_trades_of_other_candles_are_refused() -> None:
    trades = trades_table([(5, "long", "STOP_LOSS", -1.0, -1.0), (70, "long", "STOP_LOSS", -1.0, -1.0)])
    with pytest.raises(InvalidInputError, match=r"1 of 2 trades .* these 60, first at 2024-01-03T22:00Z"):
        attribution(trades, market(60))


def test_twenty_trades_are_enough_to_be_looked_at() -> None:
    for n, is_too_few in ((19, True), (20, False)):
        rows = [(hour, "long", "STOP_LOSS", -1.0, -1.0 - hour / 100) for hour in range(n)]
        table = attribution(trades_table(rows), market(60))
        assert groups_of(table, "side")["long"]["is_too_few"] is is_too_few


def test_regimes_from_their_definitions() -> None:
    frame = market(420)
    candles = plain_candles(frame)
    atr = average_true_range(candles)
    for i in (14, 15, 230, 419):
        assert volatility(frame)[i] == pytest.approx(atr[i] / candles[i].close)
        usual = mean_volume(candles, 20, i)
        assert volume_multiple(frame)[i] == pytest.approx(
            np.nan if usual is None else candles[i].volume / usual, nan_ok=True
        )
    for i in (199, 230, 419):
        mean = sum(candle.close for candle in candles[i - 199 : i + 1]) / 200
        assert trend(frame)[i] == pytest.approx((candles[i].close - mean) / atr[i])
    assert np.isnan(trend(frame)[:199]).all()
    assert np.isnan(volatility(frame)[:14]).all()


def test_thirds_by_hand() -> None:
    n = 24 * 90 + 2_100
    times = candles_of_frame(market(n)).open_time_ms
    values = np.arange(n, dtype=np.float64) % 10
    values[:50] = np.nan
    assert thirds(values, times, np.array([149])).tolist() == [3]  # 99 values before it
    # 0..9 ten times before bar 150: ten times v are below v, and ten are equal.
    found = [thirds(np.where(np.arange(n) == 150, v, values), times, np.array([150]))[0] for v in range(10)]
    assert found == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    constant = np.ones(n)
    assert thirds(constant, times, np.array([150, 500])).tolist() == [1, 1]
    # Only the last 90 days count: before them, all was higher.
    falling = np.where(np.arange(n) < 2_000, 100.0, values)
    assert thirds(falling, times, np.array([2_000 + 24 * 90 + 9])).tolist() == [2]


def test_thirds_do_not_know_the_future() -> None:
    frame = market(900)
    bars = np.arange(0, 900, 7)
    for measure in (volatility, trend, volume_multiple):
        whole = thirds(measure(frame), frame.open_time_ms, bars)
        assert set(whole.tolist()) == {0, 1, 2, 3}
        for cut in (250, 500, 777):
            part = IndicatorFrame.compute(candles_of_frame(frame).slice(0, cut), ())
            known = bars[bars < cut]
            np.testing.assert_array_equal(thirds(measure(part), part.open_time_ms, known), whole[: len(known)])


def test_intervals_hold_for_all_groups_of_an_attribute_at_once() -> None:
    """Of 120 records without any difference between hours, about 95 % have the true mean in all 24 intervals."""
    rng, frame, n_records, n_trades = np.random.default_rng(11), market(30 * 24), 120, 24 * 30
    held = 0
    for _ in range(n_records):
        r_multiple = rng.normal(0.1, 1.0, n_trades)
        rows = [
            (hour, "long", "STOP_LOSS", float(r), float(r)) for hour, r in zip(range(n_trades), r_multiple, strict=True)
        ]
        table = attribution(trades_table(rows), frame).filter(pl.col("attribute") == "hour")
        held += ((table["mean_r_low"] < 0.1) & (table["mean_r_high"] > 0.1)).all()
    # Binomial, three standard errors below; Bonferroni never holds less often.
    assert held / n_records > 0.95 - 3 * (0.95 * 0.05 / n_records) ** 0.5
