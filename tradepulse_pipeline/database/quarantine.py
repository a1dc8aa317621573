"""What is no candle: rows that were refused, candles that a person set aside, and what a person decided about them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import numpy as np

from tradepulse_pipeline.database.candles import StoreReport, lock_candles, store_within
from tradepulse_pipeline.database.connection import Database, jsonb, storable_text
from tradepulse_pipeline.database.staleness import mark_stale
from tradepulse_pipeline.database.values import milliseconds_of, names_of, time_of
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.candles import PRICE_COLUMNS, Candles, IntArray
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.market.sources.rows import Rejected, clean_rows
from tradepulse_pipeline.market.sources.times import iso_utc

if TYPE_CHECKING:
    from tradepulse_pipeline.database.connection import Connection

_RAW_COLUMNS: Final = ("open_time_ms", *PRICE_COLUMNS)
#: What the open time of a row from a file was called once.
_FORMER_TIME: Final = "timestamp"

_QUARANTINE: Final = """
    INSERT INTO market_data_quarantine (exchange, pair, timeframe, source, row_number, raw, reason)
    VALUES (%(exchange)s, %(pair)s, %(timeframe)s, %(source)s, %(row_number)s, %(raw)s, %(reason)s)
    ON CONFLICT DO NOTHING
"""
_SELECT: Final = """
    SELECT id, exchange, pair, timeframe, source, row_number, raw, reason, at, decision, decided_at
    FROM market_data_quarantine
"""
_QUARANTINED: Final = f"""{_SELECT}
    WHERE (%(exchange)s::text IS NULL OR exchange = %(exchange)s AND pair = %(pair)s AND timeframe = %(timeframe)s)
      AND (%(include_decided)s OR decision IS NULL)
    ORDER BY id LIMIT %(limit)s
"""
_ONE: Final = f"{_SELECT} WHERE id = %s FOR UPDATE"
_DECIDE: Final = """
    UPDATE market_data_quarantine SET decision = %s, decided_at = now() WHERE id = %s
"""
_TAKE_OUT: Final = """
    WITH taken AS (
        DELETE FROM market_data
        WHERE exchange = %(exchange)s AND pair = %(pair)s AND timeframe = %(timeframe)s
          AND "timestamp" = %(timestamp)s
        RETURNING *
    )
    INSERT INTO market_data_quarantine (exchange, pair, timeframe, "timestamp", source, reason, raw)
    SELECT exchange, pair, timeframe, "timestamp", source, %(reason)s, jsonb_build_object(
        'open_time_ms', %(open_time_ms)s::bigint, 'open', open, 'high', high, 'low', low, 'close', close,
        'volume', volume, 'is_filled', is_filled)
    FROM taken
"""
_IS_SET_ASIDE: Final = """
    SELECT FROM market_data_quarantine
    WHERE exchange = %(exchange)s AND pair = %(pair)s AND timeframe = %(timeframe)s
      AND "timestamp" = %(timestamp)s AND decision IS DISTINCT FROM 'released'
"""
_CONFIRM: Final = """
    INSERT INTO market_data_confirmed (exchange, pair, timeframe, "timestamp", open, high, low, close, volume)
    SELECT exchange, pair, timeframe, "timestamp", open, high, low, close, volume FROM market_data
    WHERE exchange = %(exchange)s AND pair = %(pair)s AND timeframe = %(timeframe)s AND "timestamp" = %(timestamp)s
    ON CONFLICT (exchange, pair, timeframe, "timestamp") DO UPDATE SET
        open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,
        volume = excluded.volume, confirmed_at = excluded.confirmed_at
"""
_CONFIRMED: Final = """
    SELECT "timestamp" FROM market_data_confirmed AS confirmed
    JOIN market_data AS stored USING (exchange, pair, timeframe, "timestamp")
    WHERE exchange = %(exchange)s AND pair = %(pair)s AND timeframe = %(timeframe)s
      AND (stored.open, stored.high, stored.low, stored.close, stored.volume)
          = (confirmed.open, confirmed.high, confirmed.low, confirmed.close, confirmed.volume)
    ORDER BY "timestamp"
"""

Decision = Literal["released", "dismissed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedRow:
    """A row that breaks the data contract, as it came: ``row_number`` within its source, counted from 0."""

    row_number: int
    raw: Mapping[str, object]
    reason: str

    @classmethod
    def of(cls, rejected: Rejected) -> Self:
        """Return what a source's rejected row is in quarantine."""
        raw = dict(zip(_RAW_COLUMNS, rejected.values, strict=True))
        return cls(row_number=rejected.row - 1, raw=raw, reason=rejected.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantinedRow:
    """A row in quarantine.

    Numbers that JSON does not know (NaN, infinity) are text in ``raw``. ``row_number`` is None for a candle that a
    person set aside, and ``decision`` while nobody has decided about the row.
    """

    id: int
    series: SeriesKey
    source: str
    row_number: int | None
    raw: dict[str, object]
    reason: str
    at: datetime
    decision: Decision | None
    decided_at: datetime | None

    @property
    def is_set_aside(self) -> bool:
        """Whether it was a candle that a person set aside, and not a row that was refused."""
        return self.row_number is None

    @property
    def open_time_ms(self) -> float:
        """Open time in UTC milliseconds as the row gave it; NaN where it gave none."""
        return _number(self.raw.get("open_time_ms", self.raw.get(_FORMER_TIME)))

    @property
    def values(self) -> tuple[float, ...]:
        """Open, high, low, close and volume as the row gave them; NaN where it gave no number."""
        return tuple(_number(self.raw.get(name)) for name in PRICE_COLUMNS)


def quarantine(database: Database, series: SeriesKey, rows: Iterable[RefusedRow], source: str) -> int:
    """Put ``rows`` that ``source`` gave into quarantine and return how many of them were not there yet."""
    values = [
        {
            **names_of(series),
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
    database: Database, series: SeriesKey | None = None, *, include_decided: bool = False, limit: int = 1000
) -> list[QuarantinedRow]:
    """Return up to ``limit`` rows in quarantine, of ``series`` or of all, in the order of their arrival.

    Those that a person released or dismissed are left out unless they are asked for.
    """
    values = {**names_of(series), "include_decided": include_decided, "limit": limit}
    return [_row(row) for row in database.run(lambda connection: connection.execute(_QUARANTINED, values).fetchall())]


def set_aside(database: Database, series: SeriesKey, open_time_ms: int, reason: str) -> int:
    """Take a stored candle out of ``series`` into quarantine, and return how many configurations that makes stale.

    The same candle does not come back when a source gives it again; one with other values does. Doing it twice
    changes nothing.

    Raises
    ------
    InvalidInputError
        If no candle with this open time is stored.
    """
    values = {
        **names_of(series),
        "timestamp": time_of(open_time_ms),
        "open_time_ms": open_time_ms,
        "reason": storable_text(reason),
    }

    def take_out(connection: Connection) -> int:
        lock_candles(connection, series)
        if connection.execute(_TAKE_OUT, values).rowcount:
            connection.execute(
                "DELETE FROM market_data_confirmed WHERE exchange = %(exchange)s AND pair = %(pair)s"
                ' AND timeframe = %(timeframe)s AND "timestamp" = %(timestamp)s',
                values,
            )
            changed = 'SELECT %(timestamp)s::timestamptz AS "timestamp"'
            return mark_stale(connection, series, changed, values, "set aside by a person")
        if connection.execute(_IS_SET_ASIDE, values).rowcount:
            return 0
        raise _not_stored(series, open_time_ms)

    return database.run(take_out)


def release(database: Database, row_id: int) -> StoreReport:
    """Make a row in quarantine a candle, which a person thereby calls true, and return what became of it.

    A stored candle with the same open time and other values is kept as a revision. Releasing it again changes nothing.

    Raises
    ------
    InvalidInputError
        If there is no such row, or it breaks the data contract; the message names the rule.
    """

    def put_back(connection: Connection) -> StoreReport:
        row = _find(connection, row_id)
        candles = _candle(row)
        if row.decision == "released":
            return StoreReport(inserted=0, unchanged=1, restated=0)
        connection.execute(_DECIDE, ("released", row.id))
        report = store_within(connection, row.series, candles, f"{row.source}, released")
        timestamp = time_of(int(candles.open_time_ms[0]))
        connection.execute(_CONFIRM, {**names_of(row.series), "timestamp": timestamp})
        return report

    return database.run(put_back)


def dismiss(database: Database, row_id: int) -> None:
    """Mark a row in quarantine as needing no more attention; it stays there.

    Raises
    ------
    InvalidInputError
        If there is no such row, or it was released.
    """

    def decide(connection: Connection) -> None:
        row = _find(connection, row_id)
        if row.decision == "released":
            raise InvalidInputError(f"Row {row_id} was released: it is a candle of {row.series} now.")
        if row.decision is None:
            connection.execute(_DECIDE, ("dismissed", row_id))

    database.run(decide)


def keep(database: Database, series: SeriesKey, open_time_ms: int) -> None:
    """Remember that a person calls a stored candle true, for as long as it has the values that it has now.

    Raises
    ------
    InvalidInputError
        If no candle with this open time is stored.
    """
    values = {**names_of(series), "timestamp": time_of(open_time_ms)}
    if database.run(lambda connection: connection.execute(_CONFIRM, values).rowcount) == 0:
        raise _not_stored(series, open_time_ms)


def confirmed_times(database: Database, series: SeriesKey) -> IntArray:
    """Return the open times, UTC milliseconds, ascending, of the candles that a person called true."""
    names = names_of(series)
    rows = database.run(lambda connection: connection.execute(_CONFIRMED, names).fetchall())
    return np.array([milliseconds_of(row[0]) for row in rows], dtype=np.int64)


def _find(connection: Connection, row_id: int) -> QuarantinedRow:
    # An id may be larger than the column's type.
    found = connection.execute(_ONE, (row_id,)).fetchone() if abs(row_id) < 2**63 else None
    if found is None:
        raise InvalidInputError(f"There is no row {row_id} in quarantine. 'tradepulse quarantine list' shows them.")
    return _row(found)


def _candle(row: QuarantinedRow) -> Candles:
    """Return the row as the one candle that it is.

    Raises
    ------
    InvalidInputError
        If it is none.
    """
    time_ms = row.open_time_ms
    values = np.array([row.values])
    now_ms = time.time_ns() // 1_000_000
    cleaned = clean_rows(np.array([time_ms]), values, row.series.timeframe, now_ms=now_ms)
    if cleaned.rejected:
        raise InvalidInputError(
            f"Row {row.id} of {row.series} cannot be a candle: it is one {cleaned.rejected[0].reason}. "
            f"'tradepulse quarantine dismiss {row.id}' says that it needs no more attention."
        )
    is_filled = np.array([row.raw.get("is_filled") is True])
    open_, high, low, close, volume = values.T
    times = np.array([round(time_ms)])
    return Candles.from_arrays(row.series.timeframe, times, open_, high, low, close, volume, is_filled)


def _row(row: tuple[Any, ...]) -> QuarantinedRow:
    return QuarantinedRow(
        id=row[0],
        series=SeriesKey.of(*row[1:4]),
        source=row[4],
        row_number=row[5],
        raw=row[6],
        reason=row[7],
        at=row[8],
        decision=row[9],
        decided_at=row[10],
    )


def _not_stored(series: SeriesKey, open_time_ms: int) -> InvalidInputError:
    return InvalidInputError(
        f"No candle of {series} with the open time {iso_utc(open_time_ms)} is stored: expected the open time of a "
        f"stored candle, on the {series.timeframe} grid."
    )


def _number(value: object) -> float:
    try:
        return float(value) if isinstance(value, (int, float, str)) else math.nan
    except ValueError:
        return math.nan


def _raw(value: object) -> object:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return storable_text(str(value))
