"""Splits and dividends: stored idempotently with their former values kept, and applied to the candles of a training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from tradepulse_pipeline.database.candles import StoreReport, load_candles
from tradepulse_pipeline.database.connection import Database, storable_text
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.corporate_actions import CorporateAction, Dividend, Split, adjusted
from tradepulse_pipeline.market.series import Market, SeriesKey

if TYPE_CHECKING:
    from tradepulse_pipeline.database.connection import Connection

_KEEP_FORMER: Final = """
    INSERT INTO corporate_action_revisions (exchange, pair, ex_date, kind, value, source, ingested_at, restated_by)
    SELECT exchange, pair, ex_date, kind, value, source, ingested_at, %(source)s FROM corporate_actions
    WHERE exchange = %(exchange)s AND pair = %(pair)s AND ex_date = %(ex_date)s AND kind = %(kind)s
      AND value <> %(value)s
"""
_STORE: Final = """
    INSERT INTO corporate_actions AS stored (exchange, pair, ex_date, kind, value, source)
    VALUES (%(exchange)s, %(pair)s, %(ex_date)s, %(kind)s, %(value)s, %(source)s)
    ON CONFLICT (exchange, pair, ex_date, kind) DO UPDATE SET
        value = excluded.value, source = excluded.source, ingested_at = excluded.ingested_at
    WHERE stored.value <> excluded.value
"""
_LOAD: Final = """
    SELECT ex_date, kind, value FROM corporate_actions WHERE exchange = %(exchange)s AND pair = %(pair)s
    ORDER BY ex_date, kind DESC
"""


def store_actions(database: Database, market: Market, actions: Iterable[CorporateAction], source: str) -> StoreReport:
    """Store splits and dividends of ``market``, which came from ``source``; several dividends of one day add up.

    Storing the same ones again changes nothing. Where a value differs from the stored one, the former goes to
    ``corporate_action_revisions`` and the new one becomes current. What is stored and no longer listed stays.

    Raises
    ------
    DatabaseError
        If the database cannot be used; nothing is half-written.
    """
    values: dict[tuple[object, str], float] = {}
    for action in actions:
        if isinstance(action, Split):
            values[action.ex_date, "split"] = action.ratio
        else:
            values[action.ex_date, "dividend"] = values.get((action.ex_date, "dividend"), 0.0) + action.amount
    names = {**_names(market), "source": storable_text(source)}

    def store(connection: Connection) -> StoreReport:
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"corporate actions {market}",))
        written = restated = 0
        for (ex_date, kind), value in sorted(values.items(), key=str):
            row = {**names, "ex_date": ex_date, "kind": kind, "value": value}
            restated += connection.execute(_KEEP_FORMER, row).rowcount
            written += connection.execute(_STORE, row).rowcount
        return StoreReport(inserted=written - restated, unchanged=len(values) - written, restated=restated)

    return database.run(store)


def load_actions(database: Database, market: Market) -> tuple[CorporateAction, ...]:
    """Return the splits and dividends of ``market``, in the order of their dates."""
    rows = database.run(lambda connection: connection.execute(_LOAD, _names(market)).fetchall())
    return tuple(
        Split(ex_date=ex_date, ratio=value) if kind == "split" else Dividend(ex_date=ex_date, amount=value)
        for ex_date, kind, value in rows
    )


def candles_for_training(
    database: Database, series: SeriesKey, start_ms: int | None = None, end_ms: int | None = None
) -> Candles:
    """Return the stored candles with open times in ``[start_ms, end_ms)`` as a training sees them.

    Those of a share are adjusted for splits and dividends as of the last of them: what became effective later is not
    known yet. All others come as they are stored.
    """
    candles = load_candles(database, series, start_ms, end_ms)
    if candles.calendar.never_closes or not len(candles):
        return candles
    return adjusted(candles, load_actions(database, series.market), int(candles.open_time_ms[-1]))


def _names(market: Market) -> dict[str, str]:
    return {"exchange": market.exchange, "pair": market.pair}
