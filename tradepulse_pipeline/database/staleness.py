"""Trained configurations whose candles have become others: they are marked in the transaction that changes a candle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from tradepulse_pipeline.database.connection import storable_text
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.market.sources.times import iso_utc

if TYPE_CHECKING:
    from datetime import datetime

    from tradepulse_pipeline.database.connection import Connection

_IS_TRAINED: Final = """
    SELECT FROM trained_configurations WHERE exchange = %s AND pair = %s AND timeframe = %s LIMIT 1
"""
_TOUCHED: Final = """
    SELECT id, stale_at IS NULL, count(*), min("timestamp"), max("timestamp")
    FROM trained_configurations JOIN ({changed}) AS changed ON "timestamp" >= data_start AND "timestamp" < data_end
    WHERE exchange = %(exchange)s AND pair = %(pair)s AND timeframe = %(timeframe)s
    GROUP BY id ORDER BY id
"""
_MARK: Final = """
    UPDATE trained_configurations SET
        stale_at = coalesce(stale_at, now()), stale_reason = coalesce(stale_reason, %(reason)s),
        stale_candles = stale_candles + %(n)s
    WHERE id = %(id)s
"""


def mark_stale(
    connection: Connection, series: SeriesKey, changed: str, values: Mapping[str, Any], what_happened: str
) -> int:
    """Mark the configurations of ``series`` whose training span holds a changed candle, in the caller's transaction.

    The caller holds the lock of the series' candles. The reason of the first change stays; further ones are counted.

    Parameters
    ----------
    changed : str
        A query for the column ``timestamp``: the open times of the candles that change.
    values : mapping
        The parameters of that query, among them exchange, pair and timeframe.
    what_happened : str
        Such as ``restated by binance``: how the sentence goes on after the candles.

    Returns
    -------
    int
        How many configurations are stale that were not before.
    """
    if connection.execute(_IS_TRAINED, (series.exchange, series.pair, str(series.timeframe))).rowcount == 0:
        return 0
    touched = connection.execute(_TOUCHED.format(changed=changed).encode(), values).fetchall()
    for configuration_id, _, n, first, last in touched:
        reason = storable_text(_sentence(n, first, last, what_happened))
        connection.execute(_MARK, {"id": configuration_id, "n": n, "reason": reason})
    return sum(was_fresh for _, was_fresh, *_ in touched)


def stale_sentence(made_stale: int) -> str:
    """Return what a person should know when configurations have become stale."""
    subject, verb = ("configuration", "is") if made_stale == 1 else ("configurations", "are")
    return f"{made_stale} {subject} trained on the old candles {verb} now marked stale; train again."


def _sentence(n: int, first: datetime, last: datetime, what_happened: str) -> str:
    start, end = (iso_utc(round(time.timestamp() * 1000)) for time in (first, last))
    if n == 1:
        return f"1 candle at {start} was {what_happened}"
    return f"{n:,} candles from {start} to {end} were {what_happened}"
