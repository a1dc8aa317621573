"""Candles: the rules they keep, ranges, fingerprints, and the filling of short gaps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradepulse_pipeline.errors import CandleError
from tradepulse_pipeline.market.candles import PRICE_COLUMNS, Candles
from tradepulse_pipeline.market.series import Timeframe
from tradepulse_pipeline_tests.reference.candles import filled_forward
from tradepulse_pipeline_tests.reference.comparison import plain_candles
from tradepulse_pipeline_tests.reference.markets import NEW_YEAR_MS, candles_of, cases, random_markets, real_candles

HOUR_MS = 3_600_000
BAR = (2.0, 4.0, 1.0, 3.0)


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("open", np.nan, "Not finite"),
        ("high", np.inf, "Not finite"),
        ("volume", np.nan, "Not finite"),
        ("low", 0.0, "Price not above 0"),
        ("low", -1.0, "Price not above 0"),
        ("high", 2.5, "High below open or close"),
        ("low", 2.5, "Low above open or close"),
        ("volume", -1.0, "Negative volume"),
        ("open_time_ms", NEW_YEAR_MS + 2 * HOUR_MS + 1, "Open time off the timeframe's grid"),
        ("open_time_ms", NEW_YEAR_MS + HOUR_MS, "Open time not after the one before"),
        ("open_time_ms", NEW_YEAR_MS, "Open time not after the one before"),
    ],
)
def test_a_broken_rule_names_the_rule_the_count_and_the_row(column: str, value: float, rule: str) -> None:
    candles = candles_of([BAR] * 4)
    changed = getattr(candles, column).copy()
    changed[2] = value
    with pytest.raises(CandleError, match=rf"^{rule}: 1 of 4 rows, first at row 2\.$"):
        replace(candles, **{column: changed})


def test_many_broken_rows_are_counted_and_the_first_of_them_named() -> None:
    with pytest.raises(CandleError, match=r"Negative volume: 7 of 9 rows, first at row 1, 2, 3, 4, 5\."):
        candles_of([BAR] * 9, volume=[1.0, *[-1.0] * 7, 0.0])


def test_columns_must_be_of_one_length() -> None:
    candles = candles_of([BAR] * 3)
    with pytest.raises(CandleError, match=r"Column 'close' has shape \(2,\), expected \(3,\)"):
        replace(candles, close=candles.close[:2])


def test_boundaries_of_the_rules_are_allowed() -> None:
    flat = candles_of([(1e-9, 1e-9, 1e-9, 1e-9)], volume=[0.0])
    assert len(flat) == 1
    assert len(flat.slice(0, 0)) == 0


def test_arrays_of_any_layout_become_contiguous_float64() -> None:
    wide = np.full((3, 2), 7, dtype=np.int32)
    times = np.arange(0, 6 * HOUR_MS, HOUR_MS, dtype=np.int32)[::2]
    candles = Candles.from_arrays(Timeframe("1h"), times, *(wide[:, 0] for _ in range(5)))
    for name in PRICE_COLUMNS:
        column = getattr(candles, name)
        assert column.dtype == np.float64
        assert column.flags.c_contiguous
    assert candles.open_time_ms.dtype == np.int64
    assert candles.is_filled.tolist() == [False] * 3


def test_ranges_are_half_open() -> None:
    candles = candles_of([BAR] * 6, missing=(3,))  # hours 0, 1, 2, 4, 5, 6
    hour = [NEW_YEAR_MS + h * HOUR_MS for h in range(9)]

    def hours(part: Candles) -> list[int]:
        return [(time - NEW_YEAR_MS) // HOUR_MS for time in part.open_time_ms.tolist()]

    assert hours(candles.slice(1, 4)) == [1, 2, 4]
    assert hours(candles.between(hour[1], hour[4])) == [1, 2]
    assert hours(candles.between(hour[3], hour[5])) == [4]
    assert hours(candles.between(hour[3], hour[4])) == []
    assert hours(candles.between(hour[1] + 1, hour[2] + 1)) == [2]
    assert hours(candles.between(None, hour[2])) == [0, 1]
    assert hours(candles.between(hour[5], None)) == [5, 6]
    assert hours(candles.between(None, None)) == [0, 1, 2, 4, 5, 6]
    assert hours(candles.between(hour[5], hour[1])) == []
    assert candles.end_ms == hour[7]


def test_equal_candles_have_equal_fingerprints_and_any_change_shows() -> None:
    candles = candles_of([BAR] * 3)
    assert candles.fingerprint() == candles_of([BAR] * 3).fingerprint()
    changed = [replace(candles, is_filled=np.array([False, True, False])), candles.slice(0, 2)]
    for name in PRICE_COLUMNS:
        column = getattr(candles, name).copy()
        column[1] = np.nextafter(column[1], column[1] + 1 if name != "low" else 0.0)
        changed.append(replace(candles, **{name: column}))
    changed.append(replace(candles, open_time_ms=candles.open_time_ms + HOUR_MS))
    changed.append(replace(candles, timeframe=Timeframe("30m")))
    prints = {candles.fingerprint(), *(other.fingerprint() for other in changed)}
    assert len(prints) == 1 + len(changed)


def test_filling_by_hand() -> None:
    rows = [(2.0, 4.0, 1.0, 3.0), (5.0, 6.0, 5.0, 5.5), (7.0, 8.0, 6.0, 7.5)]
    candles = candles_of(rows, volume=[1.0, 2.0, 3.0], missing=(1, 2, 4, 5, 6, 7))  # hours 0, 3 and 8
    filled = candles.filled_forward()
    assert ((filled.open_time_ms - NEW_YEAR_MS) // HOUR_MS).tolist() == [0, 1, 2, 3, 8]
    assert filled.is_filled.tolist() == [False, True, True, False, False]
    assert filled.open.tolist() == [2.0, 3.0, 3.0, 5.0, 7.0]
    assert filled.high.tolist() == [4.0, 3.0, 3.0, 6.0, 8.0]
    assert filled.low.tolist() == [1.0, 3.0, 3.0, 5.0, 6.0]
    assert filled.close.tolist() == [3.0, 3.0, 3.0, 5.5, 7.5]
    assert filled.volume.tolist() == [1.0, 0.0, 0.0, 2.0, 3.0]
    assert candles.filled_forward(4).is_filled.sum() == 6
    assert candles.filled_forward(1) is candles
    assert candles.filled_forward(0) is candles


@settings(max_examples=cases(100))
@given(candles=random_markets(), max_fill=st.integers(0, 6))
def test_filling_agrees_with_reference(candles: Candles, max_fill: int) -> None:
    filled = candles.filled_forward(max_fill)
    assert plain_candles(filled) == filled_forward(plain_candles(candles), candles.timeframe.milliseconds, max_fill)
    assert plain_candles(filled.filled_forward(max_fill)) == plain_candles(filled)


@pytest.mark.parametrize("name", ["kraken_BTC-USDC_1m", "kraken_BTC-USDT_15m", "binance_BTC-USDT_1h"])
def test_filling_agrees_with_reference_on_real_candles(market_data_dir: Path, name: str) -> None:
    candles = real_candles(market_data_dir, name, 0, 40_000)
    filled = candles.filled_forward()
    assert 0 < filled.is_filled.sum() < len(filled)
    assert plain_candles(filled) == filled_forward(plain_candles(candles), candles.timeframe.milliseconds)
