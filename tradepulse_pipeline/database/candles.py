"""The candles of all series: stored idempotently with their former values kept, read back fast, bad rows set aside."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import numpy as np

from tradepulse_pipeline.database.connection import Database, jsonb, storable_text
from tradepulse_pipeline.errors import InvalidInputError
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

#: PostgreSQL counts microseconds from 2000-01-01.
_POSTGRES_EPOCH_MS: Final = 946_684_800_000

_STAGE: Final = """
    CREATE TEMPORARY TABLE staged ON COMMIT DROP AS
    SELECT "timestamp", open, high, low, close, volume, is_filled FROM market_data WITH NO DATA
"""
_FILL_STAGE: Final = """
    COPY staged ("timestamp", open, high, low, close, volume, is_filled) FROM STDIN (FORMAT BINARY)
"""
_DROP_UNCHANGED: Final = """
    DELETE FROM staged USING market_data AS stored
    WHERE exchange = %(exchange)s AND pair = %(pair)s AND timeframe = %(timeframe)s
      AND stored."timestamp" = staged."timestamp"
      AND ((stored.open, stored.high, stored.low, stored.close, stored.volume, stored.is_filled)
           = (staged.open, staged.high, staged.low, staged.close, staged.volume, staged.is_filled)
           OR (staged.is_filled AND NOT stored.is_filled))
"""
_KEEP_FORMER: Final = """
    INSERT INTO market_data_revisions (exchange, pair, timeframe, "timestamp",
        open, high, low, close, volume, is_filled, source, ingested_at, restated_by)
    SELECT exchange, pair, timeframe, "timestamp",
        former.open, former.high, former.low, former.close, former.volume, former.is_filled, source, ingested_at,
        %(source)s
    FROM market_data AS former JOIN staged USING ("timestamp")
    WHERE exchange = %(exchange)s AND pair = %(pair)s AND timeframe = %(timeframe)s
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
_LOAD: Final = """
    COPY (
        SELECT "timestamp", open, high, low, close, volume, is_filled FROM market_data
        WHERE exchange = %(exchange)s AND pair = %(pair)s AND timeframe = %(timeframe)s
          AND "timestamp" >= %(start)s AND "timestamp" < %(end)s
        ORDER BY "timestamp"
    ) TO STDOUT (FORMAT BINARY)
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
_QUARANTINE: Final = """
    INSERT INTO market_data_quarantine (exchange, pair, timeframe, source, row_number, raw, reason)
    VALUES (%(exchange)s, %(pair)s, %(timeframe)s, %(source)s, %(row_number)s, %(raw)s, %(reason)s)
    ON CONFLICT DO NOTHING
"""
_QUARANTINED: Final = """
    SELECT id, exchange, pair, timeframe, source, row_number, raw, reason, at, released_at
    FROM market_data_quarantine
    WHERE (%(exchange)s::text IS NULL OR exchange = %(exchange)s AND pair = %(pair)s AND timeframe = %(timeframe)s)
      AND (%(include_released)s OR released_at IS NULL)
    ORDER BY id LIMIT %(limit)s
"""
_RELEASE: Final = """
    UPDATE market_data_quarantine SET released_at = now() WHERE id = ANY(%s) AND released_at IS NULL
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReport:
    """What became of stored candles: new rows, rows that were there already, rows with other values than before."""

    inserted: int
    unchanged: int
    restated: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What is stored of a series. ``first_ms`` and ``last_ms`` are open times in UTC milliseconds."""

    series: SeriesKey
    first_ms: int
    last_ms: int
    n_candles: int
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedRow:
    """A row that breaks the data contract, as it came: ``row_number`` within its source, counted from 0."""

    row_number: int
    raw: Mapping[str, object]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantinedRow:
    """A refused row in quarantine. Numbers that JSON does not know (NaN, infinity) are text in ``raw``."""

    id: int
    series: SeriesKey
    source: str
    row_number: int
    raw: dict[str, object]
    reason: str
    at: datetime
    released_at: datetime | None


def store_candles(database: Database, series: SeriesKey, candles: Candles, source: str) -> StoreReport:
    """Store ``candles`` of ``series``, which came from ``source``.

    Storing the same candles again changes nothing, however many writers do it at once. Where a candle's values differ
    from the stored ones, the former go to ``market_data_revisions`` and the new ones become current. A candle that was
    filled forward never takes the place of a traded one.

    Raises
    ------
    InvalidInputError
        If the candles are of another timeframe than the series.
    DatabaseError
        If the database cannot be used; nothing is half-written.
    """
    if candles.timeframe != series.timeframe:
        raise InvalidInputError(f"{series}: expected candles of {series.timeframe}, found {candles.timeframe}.")
    names = {**_names(series), "source": source}

    def store(connection: Connection) -> StoreReport:
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"candles {series}",))
        connection.execute(_STAGE)
        with connection.cursor().copy(_FILL_STAGE) as copy:
            copy.write(_HEADER)
            for start in range(0, len(candles), _ROWS_PER_WRITE):
                copy.write(_encoded(candles, start, start + _ROWS_PER_WRITE))
            copy.write(_TRAILER)
        connection.execute("ANALYZE staged")
        unchanged = connection.execute(_DROP_UNCHANGED, names).rowcount
        restated = connection.execute(_KEEP_FORMER, names).rowcount
        written = connection.execute(_STORE, names).rowcount
        return StoreReport(inserted=written - restated, unchanged=unchanged, restated=restated)

    return database.run(store)


def load_candles(
    database: Database, series: SeriesKey, start_ms: int | None = None, end_ms: int | None = None
) -> Candles:
    """Return the stored candles of ``series`` with open times in ``[start_ms, end_ms)``, none if there are none.

    They are as the source gave them: gaps are not filled. ``None`` leaves that side open.
    """
    bounds = {
        "start": "-infinity" if start_ms is None else _time(start_ms),
        "end": "infinity" if end_ms is None else _time(end_ms),
    }

    def load(connection: Connection) -> bytes:
        with connection.cursor().copy(_LOAD, {**_names(series), **bounds}) as copy:
            return b"".join(copy)

    return _decoded(series, database.run(load))


def coverage(database: Database) -> list[Coverage]:
    """Return what is stored of every series, in the order of exchange, pair and timeframe."""
    return _coverage(database, None)


def coverage_of(database: Database, series: SeriesKey) -> Coverage | None:
    """Return what is stored of ``series``, or None where nothing is."""
    return next(iter(_coverage(database, series)), None)


def quarantine(database: Database, series: SeriesKey, rows: Iterable[RefusedRow], source: str) -> int:
    """Set ``rows`` of ``source`` aside and return how many of them were not in quarantine yet."""
    values = [
        {
            **_names(series),
            "source": source,
            "row_number": row.row_number,
            "raw": jsonb({storable_text(name): _raw(value) for name, value in row.raw.items()}, "A quarantined row"),
            "reason": storable_text(row.reason),
        }
        for row in rows
    ]

    def insert(connection: Connection) -> int:
        with connection.cursor() as cursor:
            cursor.executemany(_QUARANTINE, values)
            return cursor.rowcount

    return database.run(insert) if values else 0


def quarantined(
    database: Database, series: SeriesKey | None = None, *, include_released: bool = False, limit: int = 1000
) -> list[QuarantinedRow]:
    """Return up to ``limit`` rows in quarantine, of ``series`` or of all, in the order of their arrival."""
    values = {**_names(series), "include_released": include_released, "limit": limit}
    return [
        QuarantinedRow(
            id=row[0],
            series=SeriesKey.of(*row[1:4]),
            source=row[4],
            row_number=row[5],
            raw=row[6],
            reason=row[7],
            at=row[8],
            released_at=row[9],
        )
        for row in database.run(lambda connection: connection.execute(_QUARANTINED, values).fetchall())
    ]


def release_quarantined(database: Database, ids: Sequence[int]) -> int:
    """Mark rows as needing no more attention and return for how many that is new."""
    return database.run(lambda connection: connection.execute(_RELEASE, (list(ids),)).rowcount)


def _coverage(database: Database, series: SeriesKey | None) -> list[Coverage]:
    return [
        Coverage(
            series=SeriesKey.of(*row[:3]),
            first_ms=_milliseconds(row[3]),
            last_ms=_milliseconds(row[4]),
            n_candles=row[5],
            sources=tuple(row[6]),
        )
        for row in database.run(lambda connection: connection.execute(_COVERAGE, _names(series)).fetchall())
    ]


def _names(series: SeriesKey | None) -> dict[str, str | None]:
    if series is None:
        return {"exchange": None, "pair": None, "timeframe": None}
    return {"exchange": series.exchange, "pair": series.pair, "timeframe": str(series.timeframe)}


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=ms)


def _milliseconds(at: datetime) -> int:
    return (at - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)


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


def _decoded(series: SeriesKey, stream: bytes) -> Candles:
    assert stream.startswith(_HEADER)
    rows = np.frombuffer(stream[len(_HEADER) : -len(_TRAILER)], dtype=_ROW)
    return Candles.from_arrays(
        series.timeframe,
        rows["timestamp"].astype(np.int64) // 1000 + _POSTGRES_EPOCH_MS,
        rows["open"],
        rows["high"],
        rows["low"],
        rows["close"],
        rows["volume"],
        rows["is_filled"],
    )


def _raw(value: object) -> object:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return storable_text(str(value))
