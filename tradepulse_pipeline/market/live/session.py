"""A recording session: a feed or a replay, a recorder, and the making up for what was missed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from tradepulse_pipeline.errors import SourceError, TradePulseError
from tradepulse_pipeline.market.live.events import Event
from tradepulse_pipeline.market.live.feed import LiveFeed
from tradepulse_pipeline.market.live.recorder import Recorder
from tradepulse_pipeline.market.live.sequence import Break
from tradepulse_pipeline.market.series import SeriesKey

#: Fetches the candles of a series from a source and stores them: open times from, to (exclusive); returns how many.
FillCandles = Callable[[SeriesKey, int, int], int]

#: A hole that an exchange does not fill when asked so many times stays open.
_ATTEMPTS: Final = 3

_TICK_S: Final = 0.1


def record_replay(events: Iterable[Event], recorder: Recorder, on_tick: Callable[[], None] = lambda: None) -> None:
    """Record what a replay tells; nothing is fetched for what is missing in it."""
    next_tick = time.monotonic()
    for event in events:
        recorder.take(event)
        if recorder.is_full:
            recorder.flush()
        if time.monotonic() > next_tick:
            on_tick()
            next_tick = time.monotonic() + _TICK_S
    recorder.flush()


async def record_live(
    feed: LiveFeed,
    recorder: Recorder,
    fill_candles: FillCandles,
    *,
    is_over: Callable[[], bool],
    on_tick: Callable[[], None] = lambda: None,
    on_trouble: Callable[[str], None] = lambda _: None,
) -> None:
    """Record what a feed tells until ``is_over`` or cancelled, and fetch what it has missed.

    What was taken is written in the end, however it ends. ``on_tick`` is called ten times a second, ``on_trouble`` with
    a sentence when something could not be fetched, which is tried again.

    Raises
    ------
    TradePulseError
        If the feed is refused, or what was recorded cannot be kept.
    """

    def take(event: Event) -> None:
        if any(broken.channel == "depth" for broken in recorder.take(event)):
            feed.renew_book("the order book has lost a change")

    try:
        async with feed, asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(feed.run(take)),
                tasks.create_task(_keep_flushing(recorder)),
                tasks.create_task(_keep_filling(feed, recorder, fill_candles, on_trouble)),
            ]
            while not is_over():
                on_tick()
                await asyncio.sleep(_TICK_S)
            for task in running:
                task.cancel()
    except BaseExceptionGroup as group:
        known = group.subgroup(TradePulseError)
        raise (group if known is None else _first(known)) from None
    finally:
        recorder.flush()


async def _keep_flushing(recorder: Recorder) -> None:
    next_flush = time.monotonic() + recorder.settings.flush_seconds
    while True:
        await asyncio.sleep(_TICK_S)
        if recorder.is_full or time.monotonic() >= next_flush:
            recorder.flush()
            next_flush = time.monotonic() + recorder.settings.flush_seconds


async def _keep_filling(
    feed: LiveFeed, recorder: Recorder, fill_candles: FillCandles, on_trouble: Callable[[str], None]
) -> None:
    attempts: Counter[Break] = Counter()
    while True:
        await asyncio.sleep(_TICK_S)
        for hole in recorder.trade_holes():
            if attempts[hole] < _ATTEMPTS:
                attempts[hole] += 1
                try:
                    recorder.fill_trades(hole, await feed.trades(hole, recorder.time_before(hole)))
                except SourceError as error:
                    on_trouble(str(error))
                    await asyncio.sleep(2.0 ** attempts[hole])
        for series, hole in recorder.candle_holes():
            try:
                n_candles = await asyncio.to_thread(
                    fill_candles, series, hole.first, hole.last + series.timeframe.milliseconds
                )
            except SourceError as error:
                on_trouble(str(error))
                attempts[hole] += 1
                if attempts[hole] < _ATTEMPTS:
                    await asyncio.sleep(2.0 ** attempts[hole])
                    continue
                n_candles = 0
            recorder.fill_candles(series, hole, n_candles)


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
