"""What is known of the sources of a series: what they do not have, and how far they disagree with what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import numpy as np

from tradepulse_pipeline.database.connection import Database, jsonb
from tradepulse_pipeline.database.values import milliseconds_of, names_of, time_of
from tradepulse_pipeline.market.candles import IntArray
from tradepulse_pipeline.market.deviation import Deviation
from tradepulse_pipeline.market.series import SeriesKey

if TYPE_CHECKING:
    from tradepulse_pipeline.database.connection import Connection

#: Exchanges mend their history at times: after this long a source is asked again for what it did not have.
FORGET_AFTER: Final = timedelta(days=30)

_SERIES: Final = "exchange = %(exchange)s AND pair = %(pair)s AND timeframe = %(timeframe)s"
_ABSENT: Final = f"""
    SELECT start_at, end_at FROM absent_candles
    WHERE {_SERIES} AND source = %(source)s AND asked_at > now() - %(forget_after)s
    ORDER BY start_at
"""  # noqa: S608 - the names of columns and parameters alone
_REMEMBER: Final = """
    INSERT INTO absent_candles (exchange, pair, timeframe, source, start_at, end_at)
    VALUES (%(exchange)s, %(pair)s, %(timeframe)s, %(source)s, %(start)s, %(end)s)
    ON CONFLICT (exchange, pair, timeframe, source, start_at, end_at) DO UPDATE SET asked_at = now()
"""
_OTHERS: Final = f"""
    SELECT "timestamp", source FROM market_data
    WHERE {_SERIES} AND source <> %(source)s AND "timestamp" = ANY(%(times)s)
    ORDER BY "timestamp"
"""  # noqa: S608 - the names of columns and parameters alone
_STORE_DEVIATION: Final = """
    INSERT INTO source_deviations (exchange, pair, timeframe, source, against, figures, sentence, is_notable)
    VALUES (%(exchange)s, %(pair)s, %(timeframe)s, %(source)s, %(against)s, %(figures)s, %(sentence)s,
        %(is_notable)s)
    ON CONFLICT (exchange, pair, timeframe, source, against)
    DO UPDATE SET figures = excluded.figures, sentence = excluded.sentence,
        is_notable = excluded.is_notable, at = now()
"""
_DEVIATIONS: Final = f"""
    SELECT source, against, sentence, is_notable, at FROM source_deviations WHERE {_SERIES} ORDER BY at DESC
"""  # noqa: S608 - the names of columns and parameters alone


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDeviation:
    """How the candles of ``source`` compared with the stored ones of ``against``, in a sentence."""

    source: str
    against: str
    sentence: str
    is_notable: bool
    at: datetime


def absent_spans(database: Database, series: SeriesKey, source: str) -> list[tuple[int, int]]:
    """Return the half-open spans, in UTC milliseconds, that ``source`` was found to have no candle of lately."""
    values = {**names_of(series), "source": source, "forget_after": FORGET_AFTER}
    rows = database.run(lambda connection: connection.execute(_ABSENT, values).fetchall())
    return [(milliseconds_of(start), milliseconds_of(end)) for start, end in rows]


def remember_absent(database: Database, series: SeriesKey, source: str, spans: Sequence[tuple[int, int]]) -> None:
    """Note that ``source`` was asked for half-open ``spans``, in UTC milliseconds, and had no candle of them."""
    values = [
        {**names_of(series), "source": source, "start": time_of(start), "end": time_of(end)} for start, end in spans
    ]

    def insert(connection: Connection) -> None:
        with connection.cursor() as cursor:
            cursor.executemany(_REMEMBER, values)

    if values:
        database.run(insert)


def given_by_others(
    database: Database, series: SeriesKey, source: str, open_time_ms: IntArray
) -> tuple[IntArray, tuple[str, ...]]:
    """Return at which of these open times a candle of another source than ``source`` is stored, and of which ones."""
    values = {
        **names_of(series),
        "source": source,
        "times": [time_of(time) for time in open_time_ms.tolist()],
    }
    rows = database.run(lambda connection: connection.execute(_OTHERS, values).fetchall())
    times = np.array([milliseconds_of(at) for at, _ in rows], dtype=np.int64)
    return times, tuple(sorted({name for _, name in rows}))


def store_deviation(database: Database, series: SeriesKey, deviation: Deviation, source: str, against: str) -> None:
    """Keep the latest comparison of two sources of a series."""
    values = {
        **names_of(series),
        "source": source,
        "against": against,
        "figures": jsonb(asdict(deviation), "A deviation"),
        "sentence": deviation.sentence(against, source),
        "is_notable": deviation.is_notable,
    }
    database.run(lambda connection: connection.execute(_STORE_DEVIATION, values))


def deviations(database: Database, series: SeriesKey) -> list[StoredDeviation]:
    """Return the comparisons of the series' sources, the latest first."""
    rows = database.run(lambda connection: connection.execute(_DEVIATIONS, names_of(series)).fetchall())
    return [
        StoredDeviation(source=row[0], against=row[1], sentence=row[2], is_notable=row[3], at=row[4]) for row in rows
    ]
