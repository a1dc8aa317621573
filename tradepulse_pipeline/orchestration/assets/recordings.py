"""A market as it happens: a long run that records trades, the order book and closing candles."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

import dagster as dg
from pydantic import Field

from tradepulse_pipeline.database.pace import DatabasePace
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.live.events import CHANNELS, parse_channels
from tradepulse_pipeline.market.live.feed import LiveFeed
from tradepulse_pipeline.market.live.recorder import Recorder
from tradepulse_pipeline.market.live.session import FillCandles, record_live
from tradepulse_pipeline.market.series import TIMEFRAMES, Timeframe
from tradepulse_pipeline.market.sources.registry import sources_for
from tradepulse_pipeline.orchestration.failures import told_plainly
from tradepulse_pipeline.orchestration.partitions import MARKETS, markets_of
from tradepulse_pipeline.orchestration.presentation import place
from tradepulse_pipeline.orchestration.recordings import RecordingStore, candle_filler
from tradepulse_pipeline.orchestration.resources import ArtifactsResource, DatabaseResource
from tradepulse_pipeline.settings import load_settings

#: Dagster ends any run after a day.
LONGEST_MINUTES: Final = 23 * 60

_LOG_SECONDS: Final = 60.0

_COLUMNS: Final = dg.TableSchema(
    columns=[
        dg.TableColumn("trade_id", "int64", "The exchange's number; -1 where it gives none"),
        dg.TableColumn("time_ms", "int64", "UTC milliseconds by the exchange's clock"),
        dg.TableColumn("price", "float64", "Quote currency"),
        dg.TableColumn("amount", "float64", "Base currency"),
        dg.TableColumn("side", "int8", "+1: the buyer took liquidity; -1: the seller"),
    ]
)


class RecordingConfig(dg.Config):
    """What to record, and for how long."""

    minutes: float = Field(default=60.0, description=f"Above 0, at most {LONGEST_MINUTES:,}; then the run ends.")
    timeframe: str = Field(default="1m", description=f"Of the candles: one of {', '.join(TIMEFRAMES)}.")
    channels: list[str] = Field(default=list(CHANNELS), description=f"One or several of {', '.join(CHANNELS)}.")


@dg.asset(
    partitions_def=MARKETS,
    group_name="market",
    owners=["team:market-data"],
    kinds={"python", "parquet", "postgres"},
    tags={"domain": "market"},
    code_version="1",
    metadata={"dagster/column_schema": _COLUMNS},
)
def recordings(
    context: dg.AssetExecutionContext,
    config: RecordingConfig,
    database: DatabaseResource,
    artifacts: ArtifactsResource,
) -> dg.MaterializeResult[None]:
    """Trades and order book of one market over WebSocket, in Parquet files by day; its closed candles in PostgreSQL.

    The run lasts for `minutes`, and ends cleanly when it is terminated: what was taken is kept. Lost messages are
    noticed by the exchange's numbers, connections that break or fall silent are taken up again, and trades and candles
    that were missed are fetched. The next run goes on from there.

    Add a market as a new partition `exchange:BASE-QUOTE`, such as `kraken:BTC-USD`.
    """
    with told_plainly():
        if not 0 < config.minutes <= LONGEST_MINUTES:
            raise InvalidInputError(
                f"minutes: found {config.minutes:g}, expected a number above 0 and at most {LONGEST_MINUTES:,}."
            )
        markets, timeframe = markets_of(context), Timeframe(config.timeframe)
        if len({market.exchange for market in markets}) > 1:
            raise InvalidInputError(
                f"One run records one exchange; found {', '.join(map(str, markets))}. Launch a run for each."
            )
        db, store, settings = database.open(), artifacts.open(), load_settings()
        feed = LiveFeed(markets, timeframe, parse_channels(config.channels), base_url=settings.exchange_url)
        sources = settings.sources(partial(DatabasePace, db))
        recorder = Recorder(RecordingStore(store, db))
        _record(
            context,
            feed,
            recorder,
            candle_filler(db, partial(sources_for, settings=sources), context.log.warning),
            60 * config.minutes,
        )
        for market in markets:
            figures = {name: value for name, value in recorder.counters[market].figures().items() if value is not None}
            context.add_asset_metadata(
                {**figures, "files": place(store.recordings(market).url)}, partition_key=str(market)
            )
    return dg.MaterializeResult()


def _record(
    context: dg.AssetExecutionContext, feed: LiveFeed, recorder: Recorder, fill_candles: FillCandles, seconds: float
) -> None:
    """Record in a thread of its own, which is told to end when Dagster interrupts this one."""
    is_ended = threading.Event()
    end = time.monotonic() + seconds
    next_line = time.monotonic() + _LOG_SECONDS

    def tell() -> None:
        nonlocal next_line
        if time.monotonic() >= next_line:
            next_line += _LOG_SECONDS
            for market, counters in recorder.counters.items():
                context.log.info(f"{market}: {counters.figures()}")

    recording = record_live(
        feed,
        recorder,
        fill_candles,
        is_over=lambda: is_ended.is_set() or time.monotonic() >= end,
        on_tick=tell,
        on_trouble=context.log.warning,
    )
    with ThreadPoolExecutor(max_workers=1) as pool:
        done = pool.submit(asyncio.run, recording)
        try:
            done.result()
        finally:
            is_ended.set()  # leaving the block waits until the rest is written
