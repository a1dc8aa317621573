"""What the database knows around a series, for judging the quality of its candles."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Final

from tradepulse_pipeline.database.candles import load_candles
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.corporate_actions import load_actions
from tradepulse_pipeline.database.quarantine import confirmed_times
from tradepulse_pipeline.database.sources import deviations
from tradepulse_pipeline.database.values import names_of
from tradepulse_pipeline.market.calendars import calendar_of
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.corporate_actions import suspicious_moves
from tradepulse_pipeline.market.quality import Neighbours, Surroundings, is_same_asset
from tradepulse_pipeline.market.series import SeriesKey

#: Other series that are asked at most: those with the longest history know most.
MAX_PAIRS: Final = 8
MAX_VENUES: Final = 4

# The names of all series, from one to the next by the primary key: DISTINCT would read every candle.
_STORED_SERIES: Final = """
    WITH RECURSIVE series AS (
        (SELECT exchange, pair, timeframe FROM market_data ORDER BY exchange, pair, timeframe LIMIT 1)
        UNION ALL
        SELECT following.* FROM series, LATERAL (
            SELECT market_data.exchange, market_data.pair, market_data.timeframe FROM market_data
            WHERE (market_data.exchange, market_data.pair, market_data.timeframe)
                  > (series.exchange, series.pair, series.timeframe)
            ORDER BY market_data.exchange, market_data.pair, market_data.timeframe LIMIT 1
        ) AS following
    )
    SELECT exchange, pair, timeframe FROM series, LATERAL (
        SELECT min("timestamp") AS first FROM market_data
        WHERE (market_data.exchange, market_data.pair, market_data.timeframe)
              = (series.exchange, series.pair, series.timeframe)
    ) AS beginning ORDER BY first, exchange, pair, timeframe
"""
_SET_ASIDE: Final = """
    SELECT reason, count(*) FROM market_data_quarantine
    WHERE exchange = %(exchange)s AND pair = %(pair)s AND timeframe = %(timeframe)s AND decided_at IS NULL
    GROUP BY reason ORDER BY count(*) DESC, reason
"""


def surroundings_of(
    database: Database,
    series: SeriesKey,
    candles: Candles,
    *,
    now_ms: int | None = None,
    sentences: Iterable[str] = (),
) -> Surroundings:
    """Return what is stored around ``candles`` of ``series``.

    Names are read at once; candles of other series, within the span of ``candles``, when they are asked for. The
    ``sentences`` of an ingestion are followed by what is known of sources that disagree and, of shares, of prices that
    do not fit their splits and dividends.
    """
    stored = stored_series(database)
    set_aside = database.run(lambda connection: connection.execute(_SET_ASIDE, names_of(series)).fetchall())
    start_ms, end_ms = (int(candles.open_time_ms[0]), candles.end_ms) if len(candles) else (0, 0)

    def neighbours(chosen: Iterable[SeriesKey]) -> Neighbours:
        def loader(one: SeriesKey) -> Callable[[], Candles]:
            return cache(partial(load_candles, database, one, start_ms, end_ms))

        return {str(one): loader(one) for one in chosen}

    # A made-up market stands beside made-up ones only.
    others = [one for one in stored if one.market.is_simulated == series.market.is_simulated]
    alike = [one for one in others if one.timeframe == series.timeframe and one.market != series.market]
    pairs = [one for one in alike if one.exchange == series.exchange]
    venues = [one for one in alike if one.exchange != series.exchange and is_same_asset(one.market, series.market)]
    timeframes = [one for one in others if one.market == series.market and one.timeframe != series.timeframe]
    return Surroundings(
        pairs=neighbours(pairs[:MAX_PAIRS]),
        venues=neighbours(venues[:MAX_VENUES]),
        timeframes=neighbours(timeframes),
        now_ms=now_ms,
        confirmed_ms=frozenset(confirmed_times(database, series).tolist()),
        set_aside=dict(set_aside),
        sentences=tuple(dict.fromkeys((*sentences, *_disagreements(database, series), *_misfits(database, series)))),
    )


def _disagreements(database: Database, series: SeriesKey) -> list[str]:
    return [one.sentence for one in deviations(database, series) if one.is_notable]


def _misfits(database: Database, series: SeriesKey) -> list[str]:
    if calendar_of(series.exchange).never_closes:
        return []
    found = suspicious_moves(load_candles(database, series), load_actions(database, series.market))
    return [suspicion.sentence for suspicion in found]


def stored_series(database: Database) -> list[SeriesKey]:
    """Return all series that have candles, the one with the longest history first."""
    rows = database.run(lambda connection: connection.execute(_STORED_SERIES).fetchall())
    return [SeriesKey.of(*row) for row in rows]
