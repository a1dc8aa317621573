from __future__ import annotations

import math
import time

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tradepulse_pipeline.database.candles import StoreReport, load_candles, sources_of, store_candles
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.quarantine import (
    RefusedRow,
    confirmed_times,
    dismiss,
    keep,
    quarantine,
    quarantined,
    release,
    set_aside,
)
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.market.sources.rows import Rejected

SERIES = SeriesKey.parse("binance:BTC-USDT:5m")
STEP = SERIES.timeframe.milliseconds
DAY_ONE = 1_704_067_200_000
UNCHANGED = StoreReport(inserted=0, unchanged=1, restated=0)


def make(n: int, price: float = 100.0, start: int = DAY_ONE) -> Candles:
    level = price + np.arange(n, dtype=np.float64)
    times = start + np.arange(n) * STEP
    return Candles.from_arrays(SERIES.timeframe, times, level, level + 1, level - 1, level, level * 10)


def refused(**changes: float) -> RefusedRow:
    values = {"time": DAY_ONE, "open": 2.0, "high": 3.0, "low": 1.0, "close": 2.5, "volume": 7.0, **changes}
    return RefusedRow.of(Rejected(row=8, reason="looked odd", values=tuple(values.values())))


def the_row(database: Database) -> int:
    (row,) = quarantined(database, include_decided=True)
    return row.id


def test_quarantined_rows_are_kept_as_they_came_and_once(database: Database) -> None:
    rows = [
        RefusedRow(row_number=7, raw={"open": float("nan"), "high": np.float64(2.5)}, reason="Not finite"),
        RefusedRow(row_number=8, raw={"volume": -1, "note": "a\0b", "at": None}, reason="Negative volume"),
    ]
    assert quarantine(database, SERIES, rows, "file a.csv") == 2
    assert quarantine(database, SERIES, rows, "file a.csv") == 0
    assert quarantine(database, SERIES, [], "file a.csv") == 0
    first, second = quarantined(database, SERIES)
    assert (first.row_number, first.raw, first.reason) == (7, {"open": "nan", "high": 2.5}, "Not finite")
    assert first.values[1] == 2.5
    assert math.isnan(first.open_time_ms)
    assert second.raw == {"volume": -1, "note": "a\N{REPLACEMENT CHARACTER}b", "at": None}
    assert (second.series, second.source, second.decision, second.is_set_aside) == (SERIES, "file a.csv", None, False)
    assert quarantined(database, SeriesKey.parse("kraken:BTC-USDT:5m")) == []


def test_dismissed_rows_need_no_more_attention(database: Database) -> None:
    quarantine(database, SERIES, [RefusedRow(row_number=i, raw={}, reason="r") for i in range(3)], "file")
    first = quarantined(database)[0]
    dismiss(database, first.id)
    decided_at = quarantined(database, include_decided=True)[0].decided_at
    dismiss(database, first.id)
    assert [row.row_number for row in quarantined(database)] == [1, 2]
    everything = quarantined(database, include_decided=True)
    assert [row.decision for row in everything] == ["dismissed", None, None]
    assert everything[0].decided_at == decided_at
    assert len(quarantined(database, limit=1)) == 1


def test_a_refused_row_that_is_a_candle_becomes_one(database: Database) -> None:
    quarantine(database, SERIES, [refused()], "binance")
    row_id = the_row(database)
    assert release(database, row_id) == StoreReport(inserted=1, unchanged=0, restated=0)
    assert release(database, row_id) == UNCHANGED
    candles = load_candles(database, SERIES)
    assert (candles.open_time_ms.tolist(), candles.close.tolist()) == ([DAY_ONE], [2.5])
    assert [one.source for one in sources_of(database, SERIES)] == ["binance, released"]
    assert confirmed_times(database, SERIES).tolist() == [DAY_ONE]
    assert quarantined(database) == []
    with pytest.raises(InvalidInputError, match=f"Row {row_id} was released: it is a candle of {SERIES} now"):
        dismiss(database, row_id)


def test_what_takes_the_place_of_a_stored_candle_leaves_it_as_a_revision(database: Database) -> None:
    store_candles(database, SERIES, make(1), "binance")
    quarantine(database, SERIES, [refused()], "file")
    assert release(database, the_row(database)).restated == 1
    with database.connection() as connection:
        revisions = connection.execute("SELECT open, source, restated_by FROM market_data_revisions").fetchall()
    assert revisions == [(100.0, "binance", "file, released")]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"open": math.nan}, "with a value that is missing or not a number"),
        ({"volume": math.inf}, "with an infinite value"),
        ({"high": 0.5}, "with the high below open, low or close"),
        ({"low": 2.2}, "with the low above open or close"),
        ({"low": 0.0}, "with a price not above 0"),
        ({"low": -1.0}, "with a price not above 0"),
        ({"volume": -1.0}, "with a negative volume"),
        ({"time": DAY_ONE + 1}, "with an open time off the 5m grid"),
        ({"time": DAY_ONE + 0.25}, "with an open time off the 5m grid"),
        ({"time": math.nan}, "without an open time"),
        ({"time": 4_102_444_800_000}, "in the future"),
    ],
)
def test_what_breaks_the_contract_is_not_released(database: Database, changes: dict[str, float], reason: str) -> None:
    quarantine(database, SERIES, [refused(**changes)], "file")
    row_id = the_row(database)
    with pytest.raises(InvalidInputError, match=f"Row {row_id} of {SERIES} cannot be a candle: it is one {reason}"):
        release(database, row_id)
    assert quarantined(database)[0].decision is None
    assert len(load_candles(database, SERIES)) == 0


def test_a_candle_that_has_not_closed_is_not_released(database: Database) -> None:
    now_ms = time.time_ns() // 1_000_000
    quarantine(database, SERIES, [refused(time=now_ms // STEP * STEP)], "binance")
    with pytest.raises(InvalidInputError, match="not closed yet"):
        release(database, the_row(database))


@pytest.mark.parametrize("row_id", [0, -1, 999, 2**62, 2**70])
def test_an_unknown_row_is_an_error(database: Database, row_id: int) -> None:
    for decide in (release, dismiss):
        with pytest.raises(InvalidInputError, match=f"There is no row {row_id} in quarantine"):
            decide(database, row_id)


def test_a_candle_that_is_set_aside_does_not_come_back_by_itself(database: Database) -> None:
    store_candles(database, SERIES, make(3), "binance")
    at = DAY_ONE + STEP
    assert set_aside(database, SERIES, at, "a tenth of the price") == 0
    assert set_aside(database, SERIES, at, "a tenth of the price") == 0
    (row,) = quarantined(database)
    assert (row.is_set_aside, row.open_time_ms, row.source, row.reason) == (True, at, "binance", "a tenth of the price")
    assert row.values == (101.0, 102.0, 100.0, 101.0, 1010.0)
    assert load_candles(database, SERIES).open_time_ms.tolist() == [DAY_ONE, DAY_ONE + 2 * STEP]
    again = store_candles(database, SERIES, make(3), "archive")
    assert again == StoreReport(inserted=0, unchanged=2, restated=0, set_aside=1)
    dismiss(database, row.id)
    assert store_candles(database, SERIES, make(3), "archive").set_aside == 1
    assert len(load_candles(database, SERIES)) == 2


def test_refused_rows_keep_no_candle_out_whatever_they_hold(database: Database) -> None:
    rows = [RefusedRow(row_number=i, raw={"open_time_ms": DAY_ONE, "open": "no number"}, reason="r") for i in range(50)]
    quarantine(database, SERIES, rows, "file")
    assert store_candles(database, SERIES, make(3), "binance").inserted == 3


def test_a_restated_candle_comes_in_the_place_of_one_that_was_set_aside(database: Database) -> None:
    store_candles(database, SERIES, make(1), "binance")
    set_aside(database, SERIES, DAY_ONE, "wrong")
    assert store_candles(database, SERIES, make(1, price=90.0), "binance").inserted == 1
    assert store_candles(database, SERIES, make(1), "archive").set_aside == 1
    assert load_candles(database, SERIES).open.tolist() == [90.0]


@given(price=st.floats(1e-300, 1e300), volume=st.floats(0, 1.7e308))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_candle_that_was_set_aside_is_known_again_and_released_to_the_bit(
    database: Database, price: float, volume: float
) -> None:
    with database.connection() as connection:
        connection.execute("TRUNCATE market_data, market_data_quarantine, market_data_revisions")
    prices = [np.array([value]) for value in (price, price * 1.1, price / 3, price, volume)]
    candles = Candles.from_arrays(SERIES.timeframe, np.array([DAY_ONE]), *prices)
    store_candles(database, SERIES, candles, "file")
    set_aside(database, SERIES, DAY_ONE, "wrong")
    assert store_candles(database, SERIES, candles, "file").set_aside == 1
    assert release(database, the_row(database)).inserted == 1
    assert load_candles(database, SERIES).fingerprint() == candles.fingerprint()
    assert store_candles(database, SERIES, candles, "file") == UNCHANGED


def test_a_filled_candle_is_one_again_when_it_is_released(database: Database) -> None:
    level = np.array([5.0])
    filled = Candles.from_arrays(SERIES.timeframe, np.array([DAY_ONE]), *[level] * 5, np.array([True]))
    store_candles(database, SERIES, filled, "file")
    set_aside(database, SERIES, DAY_ONE, "wrong")
    release(database, the_row(database))
    assert load_candles(database, SERIES).fingerprint() == filled.fingerprint()


def test_what_a_person_calls_true_holds_while_it_has_these_values(database: Database) -> None:
    store_candles(database, SERIES, make(3), "binance")
    assert confirmed_times(database, SERIES).tolist() == []
    for _ in range(2):
        keep(database, SERIES, DAY_ONE + STEP)
    keep(database, SERIES, DAY_ONE)
    assert confirmed_times(database, SERIES).tolist() == [DAY_ONE, DAY_ONE + STEP]
    assert confirmed_times(database, SERIES).dtype == np.int64
    store_candles(database, SERIES, make(1, price=90.0), "binance")
    assert confirmed_times(database, SERIES).tolist() == [DAY_ONE + STEP]
    keep(database, SERIES, DAY_ONE)
    set_aside(database, SERIES, DAY_ONE + STEP, "on second thoughts")
    assert confirmed_times(database, SERIES).tolist() == [DAY_ONE]


@pytest.mark.parametrize("at", [DAY_ONE + STEP, DAY_ONE + 1, 0])
def test_only_stored_candles_can_be_kept_or_set_aside(database: Database, at: int) -> None:
    store_candles(database, SERIES, make(1), "binance")
    with pytest.raises(InvalidInputError, match=f"No candle of {SERIES} with the open time .* is stored"):
        keep(database, SERIES, at)
    with pytest.raises(InvalidInputError, match=f"No candle of {SERIES} with the open time .* is stored"):
        set_aside(database, SERIES, at, "wrong")


@pytest.mark.parametrize("text", ["'); DROP TABLE market_data; --", "%s %(source)s {} $1", 'a"b\\'])
def test_metacharacters_in_quarantine_are_inert(database: Database, text: str) -> None:
    quarantine(database, SERIES, [RefusedRow(row_number=0, raw={text: text}, reason=text)], text)
    store_candles(database, SERIES, make(1), text)
    set_aside(database, SERIES, DAY_ONE, text)
    first, second = quarantined(database)
    assert (first.source, first.raw, first.reason) == (text, {text: text}, text)
    assert (second.source, second.reason) == (text, text)
    release(database, second.id)
    assert [one.source for one in sources_of(database, SERIES)] == [f"{text}, released"]


def test_characters_that_postgresql_refuses_are_replaced_in_quarantine(database: Database) -> None:
    quarantine(database, SERIES, [RefusedRow(row_number=0, raw={"a\0": "\ud800"}, reason="\0")], "file")
    row = quarantined(database)[0]
    assert (row.raw, row.reason) == ({"a\N{REPLACEMENT CHARACTER}": "?"}, "\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE market_data_quarantine SET decision = 'maybe', decided_at = now()",
        "UPDATE market_data_quarantine SET decision = 'released'",
        "UPDATE market_data_quarantine SET row_number = NULL",
        'UPDATE market_data_quarantine SET "timestamp" = now()',
    ],
)
def test_the_database_itself_refuses_decisions_that_make_no_sense(database: Database, statement: str) -> None:
    quarantine(database, SERIES, [refused()], "file")
    with pytest.raises(psycopg.errors.CheckViolation), database.connection() as connection:
        connection.execute(statement.encode())
