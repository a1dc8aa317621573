from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tradepulse_pipeline.database import candles as module
from tradepulse_pipeline.database.candles import (
    SourceShare,
    StoreReport,
    coverage,
    coverage_of,
    load_candles,
    sources_of,
    store_candles,
)
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import TIMEFRAMES, SeriesKey, Timeframe

SERIES = SeriesKey.parse("binance:BTC-USDT:5m")
STEP = SERIES.timeframe.milliseconds
DAY_ONE = 1_704_067_200_000

positive = st.floats(min_value=5e-324, max_value=1.7e308)


def make(
    n: int, *, start: int = DAY_ONE, price: float = 100.0, timeframe: str = "5m", is_filled: bool = False
) -> Candles:
    key = Timeframe(timeframe)
    level = price + np.arange(n, dtype=np.float64)
    times = start + np.arange(n) * key.milliseconds
    return Candles.from_arrays(key, times, level, level + 1, level - 1, level, level * 10, np.full(n, is_filled))


@st.composite
def any_candles(draw: st.DrawFn) -> Candles:
    bars = sorted(draw(st.sets(st.integers(-400_000, 8_000_000), max_size=30)))
    rows = [sorted(draw(st.tuples(positive, positive, positive, positive))) for _ in bars]
    low, open_, close, high = np.array(rows, dtype=np.float64).reshape(-1, 4).T
    volume = draw(st.lists(st.floats(0, 1.7e308), min_size=len(bars), max_size=len(bars)))
    is_filled = draw(st.lists(st.booleans(), min_size=len(bars), max_size=len(bars)))
    times = np.array(bars, dtype=np.int64) * STEP
    return Candles.from_arrays(
        SERIES.timeframe, times, open_, high, low, close, np.array(volume), np.array(is_filled, dtype=np.bool_)
    )


@given(candles=any_candles())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_candles_come_back_to_the_bit(database: Database, candles: Candles) -> None:
    with database.connection() as connection:
        connection.execute("TRUNCATE market_data, market_data_revisions")
    assert store_candles(database, SERIES, candles, "file").inserted == len(candles)
    assert load_candles(database, SERIES).fingerprint() == candles.fingerprint()


def test_a_large_import_is_written_in_parts_and_whole(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tradepulse_pipeline.database.candles._ROWS_PER_WRITE", 7)
    store_candles(database, SERIES, make(100), "file")
    assert load_candles(database, SERIES).fingerprint() == make(100).fingerprint()


@pytest.mark.parametrize("n_rows", [1, 7, 50, 100, 101])
def test_a_long_series_is_read_in_parts_and_whole(
    database: Database, monkeypatch: pytest.MonkeyPatch, n_rows: int
) -> None:
    monkeypatch.setattr("tradepulse_pipeline.database.candles._ROWS_PER_READ", n_rows)
    store_candles(database, SERIES, make(100), "file")
    assert load_candles(database, SERIES).fingerprint() == make(100).fingerprint()
    part = load_candles(database, SERIES, DAY_ONE + STEP, DAY_ONE + 51 * STEP)
    assert part.fingerprint() == make(100).slice(1, 51).fingerprint()


def test_a_series_that_is_read_in_parts_is_that_of_one_moment(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_candles(database, SERIES, make(20), "file")
    load_within = module.load_within

    def load_after_another_writer(connection: Any, *arguments: Any) -> Candles:
        connection.execute("SELECT 1")  # the moment is that of the first statement
        store_candles(database, SERIES, make(20, price=7.0), "exchange")
        return load_within(connection, *arguments)

    monkeypatch.setattr(module, "load_within", load_after_another_writer)
    assert load_candles(database, SERIES).fingerprint() == make(20).fingerprint()


def test_storing_again_changes_nothing(database: Database) -> None:
    query = "SELECT *, xmin::text FROM market_data ORDER BY timestamp"
    assert store_candles(database, SERIES, make(50), "file") == StoreReport(inserted=50, unchanged=0, restated=0)
    before = database.run(lambda connection: connection.execute(query).fetchall())
    assert store_candles(database, SERIES, make(50), "exchange") == StoreReport(inserted=0, unchanged=50, restated=0)
    assert database.run(lambda connection: connection.execute(query).fetchall()) == before


def test_a_restated_candle_leaves_its_former_values(database: Database) -> None:
    store_candles(database, SERIES, make(3), "exchange")
    restated = make(4)
    restated.volume[1] = 7.0
    assert store_candles(database, SERIES, restated, "archive") == StoreReport(inserted=1, unchanged=2, restated=1)
    assert load_candles(database, SERIES).volume.tolist() == [1000.0, 7.0, 1020.0, 1030.0]
    with database.connection() as connection:
        revisions = connection.execute(
            "SELECT timestamp, open, volume, source, restated_by FROM market_data_revisions"
        ).fetchall()
        current = connection.execute("SELECT source FROM market_data ORDER BY timestamp").fetchall()
    assert revisions == [(datetime(2024, 1, 1, 0, 5, tzinfo=UTC), 101.0, 1010.0, "exchange", "archive")]
    assert [row[0] for row in current] == ["exchange", "archive", "exchange", "archive"]


def test_a_filled_candle_gives_way_to_a_traded_one_and_not_the_other_way_round(database: Database) -> None:
    filled, traded = make(2, price=50.0, is_filled=True), make(2)
    store_candles(database, SERIES, filled, "file")
    assert store_candles(database, SERIES, traded, "file") == StoreReport(inserted=0, unchanged=0, restated=2)
    assert store_candles(database, SERIES, filled, "file") == StoreReport(inserted=0, unchanged=2, restated=0)
    assert load_candles(database, SERIES).fingerprint() == traded.fingerprint()


def test_series_do_not_mix(database: Database) -> None:
    others = [SeriesKey.parse(key) for key in ("kraken:BTC-USDT:5m", "binance:ETH-USDT:5m", "binance:BTC-USDT:15m")]
    store_candles(database, SERIES, make(5), "file")
    for other in others:
        store_candles(database, other, make(5, price=7.0, timeframe=str(other.timeframe)), "file")
    assert load_candles(database, SERIES).fingerprint() == make(5).fingerprint()


def test_the_range_is_half_open(database: Database) -> None:
    store_candles(database, SERIES, make(10), "file")
    some = load_candles(database, SERIES, DAY_ONE + 2 * STEP, DAY_ONE + 5 * STEP)
    assert some.fingerprint() == make(10).slice(2, 5).fingerprint()
    assert len(load_candles(database, SERIES, DAY_ONE + 1)) == 9
    assert len(load_candles(database, SERIES, None, DAY_ONE + 9 * STEP)) == 9
    assert len(load_candles(database, SERIES, DAY_ONE + 10 * STEP)) == 0


def test_candles_of_another_timeframe_are_refused(database: Database) -> None:
    with pytest.raises(InvalidInputError, match="expected candles of 5m, found 1h"):
        store_candles(database, SERIES, make(1, timeframe="1h"), "file")


def test_sixteen_writers_of_the_same_candles_leave_each_once(database: Database) -> None:
    with ThreadPoolExecutor(16) as pool:
        jobs = [pool.submit(store_candles, database, SERIES, make(200), f"writer {i}") for i in range(16)]
        reports = [job.result(60) for job in jobs]
    assert sorted(report.inserted for report in reports) == [0] * 15 + [200]
    assert sum(report.restated for report in reports) == 0
    assert load_candles(database, SERIES).fingerprint() == make(200).fingerprint()


def test_a_writer_that_is_killed_leaves_nothing_half_written(database: Database) -> None:
    script = """
import os, signal, sys
import numpy as np
from tradepulse_pipeline.database import candles as module
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import SeriesKey

def encode_and_die(candles, start, stop):
    if start > 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return encoded(candles, start, stop)

encoded, module._encoded, module._ROWS_PER_WRITE = module._encoded, encode_and_die, 500
series, ones = SeriesKey.parse("binance:BTC-USDT:5m"), np.ones(1000)
candles = Candles.from_arrays(series.timeframe, np.arange(1000) * 300_000, *[ones] * 5)
module.store_candles(Database(sys.argv[1]), series, candles, "file")
"""
    done = subprocess.run([sys.executable, "-c", script, database.url], check=False)
    assert done.returncode == -signal.SIGKILL
    assert coverage(database) == []
    assert store_candles(database, SERIES, make(3), "file").inserted == 3


@pytest.mark.parametrize(
    "broken",
    [
        {"open": "NaN"},
        {"high": "NaN"},
        {"low": "NaN"},
        {"close": "NaN"},
        {"volume": "NaN"},
        {"open": "NaN", "high": "NaN", "low": "NaN", "close": "NaN"},
        {"high": "Infinity"},
        {"volume": "Infinity"},
        {"low": "-Infinity"},
        {"low": 0},
        {"low": -1},
        {"open": 0, "high": 0, "low": 0, "close": 0},
        {"high": 1.5},
        {"low": 2.5},
        {"high": 0.5, "low": 2.5},
        {"volume": -1},
        {"timestamp": "2024-01-01 00:01Z"},
        {"timestamp": "2024-01-01 00:00:00.5Z"},
        {"timestamp": "infinity"},
        {"volume": "-Infinity"},
        {"open": 3.5},
        {"close": 0.5},
        {"close": -1, "low": -1},
        {"open": "-Infinity", "low": "-Infinity"},
        {"high": "Infinity", "open": "Infinity"},
    ],
)
def test_the_database_itself_refuses_bad_candles(database: Database, broken: dict[str, Any]) -> None:
    good = {"timestamp": "2024-01-01Z", "open": 2, "high": 3, "low": 1, "close": 2, "volume": 0}
    query = (
        "INSERT INTO market_data (exchange, pair, timeframe, timestamp, open, high, low, close, volume, source) VALUES"
        " ('e', 'p', '5m', %(timestamp)s, %(open)s, %(high)s, %(low)s, %(close)s, %(volume)s, 's')"
    )
    with database.connection() as connection:
        connection.execute(query, good)
    with pytest.raises(psycopg.errors.CheckViolation), database.connection() as connection:
        connection.execute(query, {**good, "timestamp": "2024-01-02Z", **broken})


@pytest.mark.parametrize("column", ["timestamp", "open", "high", "low", "close", "volume", "is_filled", "source"])
def test_the_database_itself_refuses_candles_with_a_hole(database: Database, column: str) -> None:
    store_candles(database, SERIES, make(1), "file")
    with pytest.raises(psycopg.errors.NotNullViolation), database.connection() as connection:
        connection.execute(f'UPDATE market_data SET "{column}" = NULL'.encode())


@pytest.mark.parametrize("timeframe", TIMEFRAMES)
def test_every_timeframe_has_its_grid_in_the_database(database: Database, timeframe: str) -> None:
    store_candles(database, SeriesKey.of("binance", "BTC/USDT", timeframe), make(1, timeframe=timeframe), "file")
    with pytest.raises(psycopg.errors.CheckViolation), database.connection() as connection:
        connection.execute('UPDATE market_data SET "timestamp" = "timestamp" + interval \'30 seconds\'')


@pytest.mark.parametrize("timeframe", TIMEFRAMES)
def test_every_timeframe_can_be_stored(database: Database, timeframe: str) -> None:
    series = SeriesKey.of("binance", "BTC/USDT", timeframe)
    assert store_candles(database, series, make(3, timeframe=timeframe), "file").inserted == 3


def test_coverage_tells_what_is_stored(database: Database) -> None:
    other = SeriesKey.parse("kraken:ETH-EUR:1h")
    assert coverage(database) == []
    assert coverage_of(database, SERIES) is None
    store_candles(database, SERIES, make(10), "file")
    store_candles(database, SERIES, make(20), "exchange")
    store_candles(database, other, make(2, timeframe="1h"), "file")
    first, second = coverage(database)
    assert (first.series, first.n_candles, first.sources) == (SERIES, 20, ("exchange", "file"))
    assert (first.first_ms, first.last_ms) == (DAY_ONE, DAY_ONE + 19 * STEP)
    assert second == coverage_of(database, other)
    assert second.n_candles == 2


def test_the_sources_of_a_span_are_counted(database: Database) -> None:
    store_candles(database, SERIES, make(10), "archive")
    store_candles(database, SERIES, make(30), "binance")
    archive, binance = sources_of(database, SERIES)
    assert archive == SourceShare(source="archive", n_candles=10, first_ms=DAY_ONE, last_ms=DAY_ONE + 9 * STEP)
    assert binance == SourceShare(
        source="binance", n_candles=20, first_ms=DAY_ONE + 10 * STEP, last_ms=DAY_ONE + 29 * STEP
    )
    assert [one.n_candles for one in sources_of(database, SERIES, DAY_ONE + 8 * STEP, DAY_ONE + 11 * STEP)] == [2, 1]
    assert sources_of(database, SeriesKey.parse("kraken:BTC-USDT:5m")) == []


@pytest.mark.parametrize("text", ["'); DROP TABLE market_data; --", "%s %(source)s {} $1", 'a"b\\'])
def test_metacharacters_in_a_source_are_inert(database: Database, text: str) -> None:
    store_candles(database, SERIES, make(1), text)
    covered = coverage_of(database, SERIES)
    assert covered is not None
    assert covered.sources == (text,)
    assert [one.source for one in sources_of(database, SERIES)] == [text]
