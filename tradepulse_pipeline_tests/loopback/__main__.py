"""Start the stand-in exchange by hand: python -m tradepulse_pipeline_tests.loopback --candles FILE…"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from pathlib import Path

from tradepulse_pipeline.errors import TradePulseError
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import MS_PER_DAY, SeriesKey, Timeframe
from tradepulse_pipeline.market.sources.files import read_candle_file
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate
from tradepulse_pipeline_tests.loopback.faults import Fault
from tradepulse_pipeline_tests.loopback.server import LoopbackExchange


def series_in(path: Path) -> tuple[SeriesKey, Candles]:
    """Read a file called like binance_BTC-USDT_5m.parquet."""
    exchange, pair, timeframe = path.name.split(".")[0].split("_")
    return SeriesKey.of(exchange, pair, timeframe), read_candle_file(path, Timeframe(timeframe)).candles


def simulated_series() -> dict[SeriesKey, Candles]:
    """Return two years of simulated candles up to tomorrow, for Binance and Kraken."""
    today = time.time_ns() // 1_000_000 // MS_PER_DAY * MS_PER_DAY
    keys = [
        SeriesKey.of(exchange, pair, timeframe)
        for exchange in ("binance", "kraken")
        for pair in ("BTC/USDT", "ETH/USDT")
        for timeframe in ("5m", "15m", "1h")
    ]
    return {
        key: simulate(
            key.market, key.timeframe, today - 730 * MS_PER_DAY, today + MS_PER_DAY, SimulatedMarketSettings()
        )
        for key in keys
    }


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tradepulse_pipeline_tests.loopback", description=__doc__)
    parser.add_argument(
        "--candles", type=Path, nargs="*", default=[], help="files named {exchange}_{BASE}-{QUOTE}_{tf}.*"
    )
    parser.add_argument(
        "--fault", action="append", default=[], help="such as status,status=429,retry_after=2,path=klines"
    )
    parser.add_argument("--limit", type=int, help="requests a second; more are answered 429")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that every reply takes")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    arguments = parser.parse_args()
    try:
        series = dict(map(series_in, arguments.candles)) or simulated_series()
        faults = [Fault.parse(text) for text in arguments.fault]
    except (TradePulseError, ValueError) as error:
        sys.exit(f"loopback: {error}")
    with LoopbackExchange(
        series,
        faults=faults,
        limit_per_second=arguments.limit,
        latency_s=arguments.latency,
        port=arguments.port,
    ) as exchange:
        sys.stdout.write(
            f"{exchange.base_url}\n" + "".join(f"  {key}: {len(one)} candles\n" for key, one in series.items())
        )
        sys.stdout.write(f"Use it with TRADEPULSE_EXCHANGE_URL={exchange.base_url}. Ctrl-C ends it.\n")
        sys.stdout.flush()
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            sys.stdout.write("\n")


if __name__ == "__main__":
    main()
