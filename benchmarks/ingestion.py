"""How fast candles come from an exchange into the database: a year of 5m candles through ccxt, page by page.

The exchange is a stand-in in a process of its own that speaks Binance's interface from simulated candles; the network
thus costs nothing but the latency that is asked for. The database is an embedded server of the benchmark's own.

Run ``python benchmarks/ingestion.py``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import arguments, as_rate, as_seconds, console, seconds_of, show_machine, show_table

from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.ingestion import ingest
from tradepulse_pipeline.database.migrations import migrate
from tradepulse_pipeline.database.pace import DatabasePace
from tradepulse_pipeline.database.server import database_url, stop_embedded
from tradepulse_pipeline.market.series import MS_PER_DAY, SeriesKey
from tradepulse_pipeline.market.sources.exchange import ExchangeSource
from tradepulse_pipeline.market.sources.pace import Pace

SERIES = SeriesKey.parse("binance:BTC-USDT:5m")
DAYS = 365


class NoPace:
    """Lets every request start at once."""

    def wait(self, seconds: float) -> None:
        """Wait for nothing."""

    def hold(self, seconds: float) -> None:
        """Wait as long as the exchange says."""
        time.sleep(seconds)


@contextmanager
def exchange(latency_s: float) -> Iterator[str]:
    """Yield the address of a stand-in exchange."""
    command = [sys.executable, "-m", "tradepulse_pipeline_tests.loopback", "--latency", str(latency_s)]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:  # noqa: S603
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


@contextmanager
def fresh_database() -> Iterator[Database]:
    """Yield an empty database of an embedded server."""
    folder = Path(tempfile.mkdtemp(prefix="tradepulse-"))
    try:
        with Database(database_url(folder, None)) as database:
            migrate(database)
            yield database
    finally:
        stop_embedded(folder)
        shutil.rmtree(folder)


def fetch(url: str, *, n_threads: int, paced: bool) -> tuple[float, int]:
    """Return the seconds that a year took into an empty database, and how many candles it was."""
    with fresh_database() as database:
        pace: Pace = DatabasePace(database, "binance") if paced else NoPace()
        source = ExchangeSource("binance", base_url=url, pace=pace, n_threads=n_threads)
        source.check(SERIES)
        end = time.time_ns() // 1_000_000 // MS_PER_DAY * MS_PER_DAY
        stored = 0

        def work() -> None:
            nonlocal stored
            stored = ingest(database, SERIES, [source], end - DAYS * MS_PER_DAY, end).inserted

        return seconds_of(work), stored


def main() -> None:
    """Measure and show."""
    arguments(__doc__ or "", runs=1).parse_args()
    show_machine()
    rows = []
    for latency_s in (0.0, 0.1):
        with exchange(latency_s) as url:
            for n_threads, paced in ((1, False), (4, False), (4, True)):
                seconds, stored = fetch(url, n_threads=n_threads, paced=paced)
                limit = "Binance's" if paced else "none"
                rows.append(
                    [
                        f"{1000 * latency_s:.0f} ms",
                        str(n_threads),
                        limit,
                        as_seconds(seconds),
                        as_rate(stored / seconds),
                    ]
                )
    show_table(
        "A year of 5m candles from an exchange into PostgreSQL",
        ["latency", "requests at once", "rate limit", "time", "candles a second"],
        rows,
    )
    console.print("The stand-in exchange runs on the same cores.")


if __name__ == "__main__":
    main()
