"""The candles of all series: stored idempotently with their former values kept, and read back fast."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import numpy as np

from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.staleness import mark_stale
from tradepulse_pipeline.database.values import milliseconds_of, names_of, time_of
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.calendars import calendar_of
from tradepulse_pipeline.market.candles import PRICE_COLUMNS, Candles
from tradepulse_pipeline.market.series import SeriesKey

if TYPE_CHECKING:
    from tradepulse_pipeline.database.connection import Connection

# A row in PostgreSQL's binary COPY format: the number of fields, then each field after its length in bytes. No field
# is null or of variable length, so an array of this type is the very stream.
_ROW: Final = np.dtype(
    [
        ("n_fields", ">i2"),
        ("timestamp_length", ">i4"),
        ("timestamp", ">i8"),
        *((name, kind) for column in PRICE_COLUMNS for name, kind in ((f"{column}_length", ">i4"), (column, ">f8"))),
        ("is_filled_length", ">i4"),
        ("is_filled", "?"),
    ]
)
_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_ROWS_PER_WRITE: Final = 100_000

# A row as it is read: the values alone, one after the other. PostgreSQL puts at most 1 GiB into one value.
_LOADED_ROW: Final = np.dtype(
    [("timestamp", ">i8"), *((column, ">f8") for column in PRICE_COLUMNS), ("is_filled", "?")]
)
_ROWS_PER_READ: Final = 1_000_000

#: PostgreSQL counts microseconds from 2000-01-01.
_POSTGRES_EPOCH_MS: Final = 946_684_800_000

_STAGE: Final = """
    CREATE TEMPORARY TABLE staged ON COMMIT DROP AS
    SELECT "timestamp", open, high, low, close, volume, is_filled FROM market_data WITH NO DATA
"""
_FILL_STAGE: Final = """
    COPY staged ("timestamp", open, high, low, close, volume, is_filled) FROM STDIN (FORMAT BINARY)
"""
_ANALYZE_STAGE: Final = "ANALYZE staged"
# The span of what is staged bounds every look into the table: a page must not make it read the whole series.
_DROP_UNCHANGED: Final = """
    DELETE FROM staged USING market_data AS stored
    WHERE exchange = %(exchange)s AND pair = %(pair)s AND timeframe = %(timeframe)s
      AND stored."timestamp" BETWEEN %(first)s AND %(last)s AND stored."timestamp" = staged."timestamp"
      AND ((stored.open, stored.high, stored.low, stored.close, stored.volume, stored.is_filled)
           = (staged.open, staged.high, staged.low, staged.close, staged.volume, staged.is_filled)
           OR (staged.is_filled AND NOT stored.is_filled))
"""
# A candle that a person set aside does not come back by itself; with other values it is another candle.
_DROP_SET_ASIDE: Final = """
    DELETE FROM staged USING market_data_quarantine AS aside
    WHERE exchange = %(exchange)s AND pair = %(pair)s AND timeframe = %(timeframe)s
      AND aside."timestamp" BETWEEN %(first)s AND %(last)s AND aside."timestamp" = staged."timestamp"
      AND decision IS DISTINCT FROM 'released'
      AND (open, high, low, close, volume) = (
          (raw->>'open')::float8, (raw->>'high')::float8, (raw->>'low')::float8, (raw->>'close')::float8,
          (raw->>'volume')::float8)
"""
_RESTATED: Final = """
    SELECT staged."timestamp" FROM staged JOIN market_data AS former USING ("timestamp")
    WHERE exchange = %(exchange)s AND pair = %(pair)s AND timeframe = %(timeframe)s
      AND former."timestamp" BETWEEN %(first)s AND %(last)s
"""
_ADDED: Final = """
    SELECT "timestamp" FROM staged WHERE NOT EXISTS (
        SELECT FROM market_data AS former
        WHERE exchange = %(exchange)s AND pair = %(pair)s AND timeframe = %(timeframe)s
          AND former."timestamp" BETWEEN %(first)s AND %(last)s AND former."timestamp" = staged."timestamp")
"""
_KEEP_FORMER: Final = """
    INSERT INTO market_data_revisions (exchange, pair, timeframe, "timestamp",
        open, high, low, close, volume, is_filled, source, ingested_at, restated_by)
    SELECT exchange, pair, timeframe, "timestamp",
        former.open, former.high, former.low, former.close, former.volume, former.is_filled, source, ingested_at,
        %(source)s
    FROM market_data AS former JOIN staged USING ("timestamp")
    WHERE exchange = %(exchange)s AND pair = %(pair)s AND timeframe = %(timeframe)s
      AND former."timestamp" BETWEEN %(first)s AND %(last)s
    ORDER BY "timestamp"
"""
_STORE: Final = """
    INSERT INTO market_data
        (exchange, pair, timeframe, "timestamp", open, high, low, close, volume, is_filled, source)
    SELECT %(exchange)s, %(pair)s, %(timeframe)s, "timestamp", open, high, low, close, volume, is_filled, %(source)s
    FROM staged ORDER BY "timestamp"
    ON CONFLICT (exchange, pair, timeframe, "timestamp") DO UPDATE SET
        open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,
        volume = excluded.volume, is_filled = excluded.is_filled,
        source = excluded.source, ingested_at = excluded.ingested_at
"""
# All candles in one value: COPY and SELECT hand over a row at a time, which takes several times as long.
_LOAD: Final = """
    SELECT count(*), max("timestamp"), string_agg(
        timestamptz_send("timestamp") || float8send(open) || float8send(high) || float8send(low) || float8send(close)
        || float8send(volume) || boolsend(is_filled), ''::bytea ORDER BY "timestamp")
    FROM (
        SELECT "timestamp", open, high, low, close, volume, is_filled FROM market_data
        WHERE exchange = %(exchange)s AND pair = %(pair)s AND timeframe = %(timeframe)s
          AND "timestamp" >= %(start)s AND "timestamp" < %(end)s
        ORDER BY "timestamp" LIMIT %(n_rows)s
    ) AS part
"""
_COVERAGE: Final = """
    SELECT exchange, pair, timeframe, min(first), max(last), sum(n)::bigint, array_agg(source ORDER BY source)
    FROM (
        SELECT exchange, pair, timeframe, source, min("timestamp") AS first, max("timestamp") AS last, count(*) AS n
        FROM market_data
        WHERE %(exchange)s::text IS NULL
           OR exchange = %(exchange)s AND pair = %(pair)s AND timeframe = %(timeframe)s
        GROUP BY exchange, pair, timeframe, source
    ) AS part
    GROUP BY exchange, pair, timeframe ORDER BY exchange, pair, timeframe
"""
_SOURCES: Final = """
    SELECT source, count(*), min("timestamp"), max("timestamp") FROM market_data
    WHERE exchange = %(exchange)s AND pair = %(pair)s AND timeframe = %(timeframe)s
      AND "timestamp" >= %(start)s AND "timestamp" < %(end)s
    GROUP BY source ORDER BY min("timestamp"), source
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReport:
    """What became of the candles that were to be stored.

    Attributes
    ----------
    inserted, unchanged, restated : int
        Candles that are new, that were stored already, and whose stored values were others before.
    set_aside : int
        Candles that were left out because a person has set them aside.
    made_stale : int
        Trained configurations whose candles are no longer those that are stored, since now.
    """

    inserted: int
    unchanged: int
    restated: int
    set_aside: int = 0
    made_stale: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What is stored of a series. ``first_ms`` and ``last_ms`` are open times in UTC milliseconds."""

    series: SeriesKey
    first_ms: int
    last_ms: int
    n_candles: int
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceShare:
    """How many candles came from a source; ``first_ms`` and ``last_ms`` are open times in UTC milliseconds."""

    source: str
    n_candles: int
    first_ms: int
    last_ms: int


def store_candles(database: Database, series: SeriesKey, candles: Candles, source: str) -> StoreReport:
    """Store ``candles`` of ``series``, which came from ``source``.

    Storing the same candles again changes nothing, however many writers do it at once. Where a candle's values differ
    from the stored ones, the former go to ``market_data_revisions`` and the new ones become current. A candle that was
    filled forward never takes the place of a traded one, and one that a person has set aside stays out. Configurations
    that were trained on a span in which candles change by this are stale from then on.

    Raises
    ------
    InvalidInputError
        If the candles are of another timeframe than the series.
    DatabaseError
        If the database cannot be used; nothing is half-written.
    """
    return database.run(lambda connection: store_within(connection, series, candles, source))


def store_within(connection: Connection, series: SeriesKey, candles: Candles, source: str) -> StoreReport:
    """Do what :func:`store_candles` does, in the caller's transaction."""
    if candles.timeframe != series.timeframe:
        raise InvalidInputError(f"{series}: expected candles of {series.timeframe}, found {candles.timeframe}.")
    if not len(candles):
        return StoreReport(inserted=0, unchanged=0, restated=0)
    first, last = (time_of(int(candles.open_time_ms[bar])) for bar in (0, -1))
    names = {**names_of(series), "source": source, "first": first, "last": last}
    lock_candles(connection, series)
    connection.execute(_STAGE)
    with connection.cursor().copy(_FILL_STAGE) as copy:
        copy.write(_HEADER)
        for start in range(0, len(candles), _ROWS_PER_WRITE):
            copy.write(_encoded(candles, start, start + _ROWS_PER_WRITE))
        copy.write(_TRAILER)
    connection.execute(_ANALYZE_STAGE)
    set_aside = connection.execute(_DROP_SET_ASIDE, names).rowcount
    unchanged = connection.execute(_DROP_UNCHANGED, names).rowcount
    made_stale = mark_stale(connection, series, _RESTATED, names, f"restated by {source}")
    made_stale += mark_stale(connection, series, _ADDED, names, f"added by {source}")
    restated = connection.execute(_KEEP_FORMER, names).rowcount
    written = connection.execute(_STORE, names).rowcount
    return StoreReport(
        inserted=written - restated,
        unchanged=unchanged,
        restated=restated,
        set_aside=set_aside,
        made_stale=made_stale,
    )


def lock_candles(connection: Connection, series: SeriesKey) -> None:
    """Let one transaction at a time change the candles of ``series``, until it ends."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"candles {series}",))


def load_candles(
    database: Database, series: SeriesKey, start_ms: int | None = None, end_ms: int | None = None
) -> Candles:
    """Return the stored candles of ``series`` with open times in ``[start_ms, end_ms)``, none if there are none.

    They are as the source gave them: gaps are not filled. ``None`` leaves that side open.
    """

    def load(connection: Connection) -> Candles:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")  # several reads, one state of the table
        return load_within(connection, series, start_ms, end_ms)

    return database.run(load)


def load_within(
    connection: Connection, series: SeriesKey, start_ms: int | None = None, end_ms: int | None = None
) -> Candles:
    """Do what :func:`load_candles` does, in the caller's transaction."""
    values = {**names_of(series), **_bounds(start_ms, end_ms), "n_rows": _ROWS_PER_READ}
    parts: list[bytes] = []
    n = _ROWS_PER_READ
    while n == _ROWS_PER_READ:
        row = connection.execute(_LOAD, values, binary=True).fetchone()
        assert row is not None
        n, last, packed = row
        if n:
            parts.append(packed)
            values["start"] = last + timedelta(microseconds=1)
    return _decoded(series, parts)


def sources_of(
    database: Database, series: SeriesKey, start_ms: int | None = None, end_ms: int | None = None
) -> list[SourceShare]:
    """Return which sources the candles of ``series`` with open times in ``[start_ms, end_ms)`` came from.

    They are in the order of their first candle. ``None`` leaves that side open.
    """
    values = {**names_of(series), **_bounds(start_ms, end_ms)}
    return [
        SourceShare(source=row[0], n_candles=row[1], first_ms=milliseconds_of(row[2]), last_ms=milliseconds_of(row[3]))
        for row in database.run(lambda connection: connection.execute(_SOURCES, values).fetchall())
    ]


def coverage(database: Database) -> list[Coverage]:
    """Return what is stored of every series, in the order of exchange, pair and timeframe."""
    return _coverage(database, None)


def coverage_of(database: Database, series: SeriesKey) -> Coverage | None:
    """Return what is stored of ``series``, or None where nothing is."""
    return next(iter(_coverage(database, series)), None)


def _coverage(database: Database, series: SeriesKey | None) -> list[Coverage]:
    return [
        Coverage(
            series=SeriesKey.of(*row[:3]),
            first_ms=milliseconds_of(row[3]),
            last_ms=milliseconds_of(row[4]),
            n_candles=row[5],
            sources=tuple(row[6]),
        )
        for row in database.run(lambda connection: connection.execute(_COVERAGE, names_of(series)).fetchall())
    ]


def _bounds(start_ms: int | None, end_ms: int | None) -> dict[str, datetime | str]:
    return {
        "start": "-infinity" if start_ms is None else time_of(start_ms),
        "end": "infinity" if end_ms is None else time_of(end_ms),
    }


def _encoded(candles: Candles, start: int, stop: int) -> bytes:
    part = slice(start, stop)
    rows = np.empty(len(candles.open_time_ms[part]), dtype=_ROW)
    rows["n_fields"] = 2 + len(PRICE_COLUMNS)
    rows["timestamp_length"] = 8
    rows["timestamp"] = (candles.open_time_ms[part] - _POSTGRES_EPOCH_MS) * 1000
    for name in PRICE_COLUMNS:
        rows[f"{name}_length"] = 8
        rows[name] = getattr(candles, name)[part]
    rows["is_filled_length"] = 1
    rows["is_filled"] = candles.is_filled[part]
    return rows.tobytes()


def _decoded(series: SeriesKey, parts: list[bytes]) -> Candles:
    rows = np.frombuffer(parts[0] if len(parts) == 1 else b"".join(parts), dtype=_LOADED_ROW)
    return Candles.from_arrays(
        series.timeframe,
        rows["timestamp"].astype(np.int64) // 1000 + _POSTGRES_EPOCH_MS,
        rows["open"],
        rows["high"],
        rows["low"],
        rows["close"],
        rows["volume"],
        rows["is_filled"],
        calendar_of(series.exchange),
    )
