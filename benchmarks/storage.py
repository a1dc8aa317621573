"""What candles cost in PostgreSQL at ten million and more: storing, storing again, loading, space.

A year of 1m candles of each of 19 series and a year of 5m candles of one, made by a random walk, in an embedded server
of the benchmark's own. Then the same with fewer candles for other ways to lay out the table and to write to it.

Run ``python benchmarks/storage.py``; it needs some 4 GB in the temporary folder.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
from common import (
    arguments,
    as_mebibytes,
    as_rate,
    as_seconds,
    console,
    median_seconds,
    positive,
    seconds_of,
    show_machine,
    show_table,
)

from tradepulse_pipeline.database import candles as candles_table
from tradepulse_pipeline.database.candles import load_candles, store_candles
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.migrations import migrate
from tradepulse_pipeline.database.server import database_url, stop_embedded
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import SeriesKey, Timeframe

START_MS = 1_704_067_200_000
N_SERIES = 19
DAYS = 366
PAGE = 1_000

FIVE_MINUTES = SeriesKey.parse("binance:FIVE-USDT:5m")
SIZES = """
    WITH part AS (
        SELECT 'market_data'::regclass AS id UNION SELECT inhrelid FROM pg_inherits
        WHERE inhparent = 'market_data'::regclass
    )
    SELECT sum(pg_table_size(id))::bigint, sum(pg_indexes_size(id))::bigint FROM part
"""
PARTITIONED = """
    ALTER TABLE market_data RENAME TO whole;
    CREATE TABLE market_data (LIKE whole INCLUDING ALL) PARTITION BY LIST (exchange);
    CREATE TABLE market_data_binance PARTITION OF market_data FOR VALUES IN ('binance');
    CREATE TABLE market_data_others PARTITION OF market_data DEFAULT;
"""
COVERING = """
    ALTER TABLE market_data DROP CONSTRAINT market_data_pkey,
        ADD PRIMARY KEY (exchange, pair, timeframe, "timestamp") INCLUDE (open, high, low, close, volume, is_filled)
"""
WITHOUT_CONFLICTS = candles_table._STORE.split("ON CONFLICT")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A way to keep candles: SQL that is run on the empty table, and SQL of the writer that is replaced."""

    layout: str = "SELECT"
    statements: Mapping[str, str] = field(default_factory=dict)


LAYOUTS = {
    "as it is": Layout(),
    "a list partition per exchange": Layout(layout=PARTITIONED),
    "a BRIN index on the open time besides": Layout(layout='CREATE INDEX ON market_data USING brin ("timestamp")'),
    "a primary key that covers the values": Layout(layout=COVERING),
    "no ANALYZE of the staging table": Layout(statements={"_ANALYZE_STAGE": "SELECT"}),
    "no ON CONFLICT, new candles only": Layout(statements={"_STORE": WITHOUT_CONFLICTS}),
    "commit without waiting for the disk": Layout(
        statements={"_STAGE": f"SET LOCAL synchronous_commit = off; {candles_table._STAGE}"}
    ),
    "no CHECK constraints": Layout(
        layout="ALTER TABLE market_data DROP CONSTRAINT market_data_prices, DROP CONSTRAINT market_data_volume, "
        "DROP CONSTRAINT market_data_grid"
    ),
}


def random_walk(timeframe: Timeframe, n: int, seed: int) -> Candles:
    """Return ``n`` candles whose closes are a geometric random walk."""
    random = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(random.normal(0, 1e-3, n)))
    open_ = np.append(100.0, close[:-1])
    wicks = 1 + random.exponential(5e-4, (2, n))
    high, low = np.maximum(open_, close) * wicks[0], np.minimum(open_, close) / wicks[1]
    times = START_MS + np.arange(n) * timeframe.milliseconds
    return Candles.from_arrays(timeframe, times, open_, high, low, close, random.exponential(10.0, n))


def a_year(series: SeriesKey, seed: int = 0) -> Candles:
    """Return a year of candles of ``series``."""
    return random_walk(series.timeframe, round(DAYS * series.timeframe.candles_per_day), seed)


def one_minute_series(number: int) -> SeriesKey:
    """Return a series of 1m candles; exchanges take turns, as they do where several are stored."""
    exchange = ("binance", "kraken", "bybit", "okx")[number % 4]
    return SeriesKey.of(exchange, f"COIN{number}/USDT", "1m")


@contextmanager
def own_server() -> Iterator[str]:
    """Yield the URL of an embedded server that nothing is left of at the end."""
    with tempfile.TemporaryDirectory(prefix="tradepulse-benchmark-") as folder:
        data_dir = Path(folder) / "data"
        try:
            yield database_url(data_dir, None)
        finally:
            stop_embedded(data_dir)
            pgdata = data_dir / "pgdata"
            if pgdata.is_symlink():  # root's server keeps its data where its own account may enter
                shutil.rmtree(pgdata.resolve().parent)


@contextmanager
def own_database(url: str, name: str) -> Iterator[Database]:
    """Yield a database with all tables on the server, and remove it at the end."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        with Database(url.replace("/postgres?", f"/{name}?")) as database:
            migrate(database)
            yield database
        connection.execute(f"DROP DATABASE {name}".encode())


def sizes_of(database: Database) -> tuple[int, int]:
    """Return the bytes of the table and of its indexes."""
    row = database.run(lambda connection: connection.execute(SIZES).fetchone())
    assert row is not None
    return row[0], row[1]


def show_many(database: Database, n_series: int, runs: int) -> None:
    """Fill the table, measure what everybody does with it, and print a table."""
    seconds = []
    for number in range(n_series):
        with console.status(f"storing series {number + 1} of {n_series}"):
            series, candles = one_minute_series(number), a_year(one_minute_series(number), number)
            seconds.append(seconds_of(partial(store_candles, database, series, candles, "benchmark")))
    stored = store_candles(database, FIVE_MINUTES, a_year(FIVE_MINUTES), "benchmark").inserted
    n_year = len(a_year(one_minute_series(0)))
    n_all = n_series * n_year + stored
    database.run(lambda connection: connection.execute("ANALYZE market_data"))
    middle, pages = one_minute_series(n_series // 2), a_year(FIVE_MINUTES).slice(0, PAGE)
    minutes = a_year(middle, n_series // 2)
    again = median_seconds(partial(store_candles, database, middle, minutes, "benchmark"), runs)
    page = median_seconds(partial(store_candles, database, FIVE_MINUTES, pages, "benchmark"), runs)
    year_of_5m = median_seconds(partial(load_candles, database, FIVE_MINUTES), runs)
    year_of_1m = median_seconds(partial(load_candles, database, middle), runs)
    day = partial(load_candles, database, middle, START_MS, START_MS + 1_440 * 60_000)
    one_day = median_seconds(day, runs)
    minutes.volume[::100] += 1.0
    restated = seconds_of(partial(store_candles, database, middle, minutes, "benchmark"))
    heap, index = sizes_of(database)
    rows = [
        ("store a year of 1m, the first one", n_year, seconds[0]),
        ("store a year of 1m, the last one", n_year, seconds[-1]),
        ("store all years of 1m", n_series * n_year, sum(seconds)),
        ("store a year of 1m again, unchanged", n_year, again),
        ("store it again, every 100th restated", n_year, restated),
        (f"store a page of {PAGE:,} again, unchanged", PAGE, page),
        ("load a year of 5m", stored, year_of_5m),
        ("load a year of 1m", n_year, year_of_1m),
        ("load a day of 1m", 1_440, one_day),
    ]
    show_table(
        f"{n_all:,} candles of {n_series + 1} series",
        ("", "candles", "time", "candles\nper second"),
        ((name, f"{n:,}", as_seconds(spent), as_rate(n / spent)) for name, n, spent in rows),
        caption=f"Table {as_mebibytes(heap)} ({heap / n_all:.0f} bytes per candle), primary key {as_mebibytes(index)} "
        f"({index / n_all:.0f} bytes per candle), before the restated ones are vacuumed.",
    )


def show_layouts(url: str, n_series: int, runs: int) -> None:
    """Measure every layout with fewer candles and print a table."""
    rows = []
    first: list[float] = []
    for name, layout in LAYOUTS.items():
        with console.status(name), own_database(url, "layout") as database, ExitStack() as replaced:
            database.run(lambda connection, sql=layout.layout: connection.execute(sql.encode()))
            for constant, statement in layout.statements.items():
                replaced.enter_context(patch.object(candles_table, constant, statement))
            years = {one_minute_series(number): a_year(one_minute_series(number), number) for number in range(n_series)}
            years[FIVE_MINUTES] = a_year(FIVE_MINUTES)
            stored = sum(
                seconds_of(partial(store_candles, database, series, candles, "benchmark"))
                for series, candles in years.items()
            )
            database.run(lambda connection: connection.execute("ANALYZE market_data"))
            minutes = one_minute_series(0)
            again = median_seconds(partial(store_candles, database, minutes, years[minutes], "benchmark"), runs)
            loaded = median_seconds(partial(load_candles, database, FIVE_MINUTES), runs)
            heap, index = sizes_of(database)
        n = sum(map(len, years.values()))
        times = [stored, again, loaded]
        first = first or times
        cells = (f"{as_seconds(spent)}  {spent / base:4.2f}" for spent, base in zip(times, first, strict=True))
        rows.append((name, *cells, f"{heap / n:.0f}", f"{index / n:.0f}"))
    show_table(
        f"Other layouts and ways to write: {n:,} candles of {n_series + 1} series",
        ("", "store all", "store a year of\n1m again", "load a year\nof 5m", "bytes,\ntable", "bytes,\nindexes"),
        rows,
        caption="Times beside them as multiples of the first row. Bytes per candle.",
    )


def main() -> None:
    """Measure and show."""
    parser = arguments("What candles cost in PostgreSQL. All of them are made up by a random walk.", runs=3)
    parser.add_argument("--series", type=positive, default=N_SERIES, help="series of a year of 1m candles")
    parser.add_argument("--layout-series", type=positive, default=2, help="such series for each other layout")
    options = parser.parse_args()
    show_machine()
    with own_server() as url:
        with own_database(url, "many") as database:
            show_many(database, options.series, options.runs)
        show_layouts(url, options.layout_series, options.runs)


if __name__ == "__main__":
    main()
