"""The recorder: takes events of any feed, notices what is missing or comes twice, and hands the rest on in batches."""

from __future__ import annotations

import statistics
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import Final, Literal, Protocol

import numpy as np

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.live.events import (
    CandleClosed,
    Channel,
    DepthChanged,
    Event,
    Interrupted,
    Trade,
    TradesMade,
    as_trades,
)
from tradepulse_pipeline.market.live.sequence import Break, DepthSequence, Run, Runs
from tradepulse_pipeline.market.series import Market, SeriesKey
from tradepulse_pipeline.market.sources.rows import CleanedRows, clean_rows
from tradepulse_pipeline.market.trades import NO_ID, Trades

#: What tells events apart: the exchange's number, or the time where it gives none.
Key = Literal["id", "time"]

#: The latest messages whose lag is looked at.
_LAGS: Final = 1_000


class Sink(Protocol):
    """Where a recording is kept. What is written is whole on disk when a method returns."""

    def stored(self, market: Market, channel: Channel, key: Key) -> Iterable[Run]:
        """Return which trades or changes of the order book are there: by their numbers, or by the times of others."""
        ...

    def time_of_trade(self, market: Market, trade_id: int) -> int | None:
        """Return the time in ms of the latest numbered trade up to ``trade_id``."""
        ...

    def write_trades(self, market: Market, trades: Trades, key: Key, run: Run) -> None:
        """Keep trades of one UTC day; ``run`` are their numbers, without a hole, or their times."""
        ...

    def write_depth(self, market: Market, changes: Sequence[DepthChanged]) -> None:
        """Keep changes of the order book of one UTC day, in the order of their arrival."""
        ...

    def last_candle(self, series: SeriesKey) -> int | None:
        """Return the open time of the latest candle that is there."""
        ...

    def write_candles(self, series: SeriesKey, cleaned: CleanedRows) -> None:
        """Keep closed candles, and set aside the rows that are none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RecorderSettings:
    """How a recorder batches, and how much it makes up for.

    ``flush_seconds`` and ``flush_events`` say when what was taken is written: what a killed recorder loses at most.
    A hole of more than ``max_backfill`` trades is left open.
    """

    flush_seconds: float = 5.0
    flush_events: int = 50_000
    max_backfill: int = 100_000

    def __post_init__(self) -> None:
        for name in ("flush_seconds", "flush_events", "max_backfill"):
            if getattr(self, name) <= 0:
                raise InvalidInputError(f"recorder: {name} is {getattr(self, name)}, expected a number above 0.")


@dataclass(slots=True)
class Counters:
    """What became of one market's events. ``missing_trades`` are those of holes that are still open."""

    trades: int = 0
    depth_changes: int = 0
    candles: int = 0
    repeated: int = 0
    breaks: int = 0
    interruptions: int = 0
    backfilled_trades: int = 0
    backfilled_candles: int = 0
    missing_trades: int = 0
    has_book: bool = False
    last_price: float | None = None
    last_candle_ms: int | None = None
    lags_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_LAGS))

    @property
    def events(self) -> int:
        """Events that were taken in."""
        return self.trades + self.depth_changes + self.candles

    @property
    def lag_ms(self) -> float | None:
        """Median time from the exchange's clock to ours; negative where ours is behind, None where it is not known."""
        return statistics.median(self.lags_ms) if self.lags_ms else None

    def figures(self) -> dict[str, int | float | bool | None]:
        """Return everything that is counted, by name."""
        return {
            "trades": self.trades,
            "depth_changes": self.depth_changes,
            "candles": self.candles,
            "repeated": self.repeated,
            "breaks": self.breaks,
            "interruptions": self.interruptions,
            "backfilled_trades": self.backfilled_trades,
            "backfilled_candles": self.backfilled_candles,
            "missing_trades": self.missing_trades,
            "has_book": self.has_book,
            "last_price": self.last_price,
            "last_candle_ms": self.last_candle_ms,
            "lag_ms": self.lag_ms,
        }


class Recorder:
    """Takes events, one after the other, and keeps what is new.

    Parameters
    ----------
    sink : Sink
        Where it is kept, and where it is looked up what is there already: trades on disk are never kept twice.
    settings : RecorderSettings or None
        None for the defaults.
    """

    def __init__(self, sink: Sink, settings: RecorderSettings | None = None) -> None:
        self.settings: Final = settings or RecorderSettings()
        self.counters: Final[defaultdict[Market, Counters]] = defaultdict(Counters)
        self._sink: Final = sink
        self._found: Final[list[Break]] = []
        self._trades: Final[defaultdict[Market, list[Trade]]] = defaultdict(list)
        self._depth: Final[defaultdict[Market, list[DepthChanged]]] = defaultdict(list)
        self._candles: Final[defaultdict[SeriesKey, list[CandleClosed]]] = defaultdict(list)
        self._trade_runs: Final[dict[Market, Runs]] = {}
        self._trade_times: Final[dict[Market, Runs]] = {}
        self._depth_runs: Final[dict[Market, Runs]] = {}
        self._depth_times: Final[dict[Market, Runs]] = {}
        self._sequences: Final[dict[Market, DepthSequence]] = {}
        self._last_candles: Final[dict[SeriesKey, int | None]] = {}
        self._trade_holes: Final[defaultdict[Market, list[Break]]] = defaultdict(list)
        self._candle_holes: Final[defaultdict[SeriesKey, list[Break]]] = defaultdict(list)
        self._n_buffered = 0

    @property
    def is_full(self) -> bool:
        """Whether so much is buffered that it should be written now."""
        return self._n_buffered >= self.settings.flush_events

    def take(self, event: Event) -> list[Break]:
        """Take in an event, and return what it shows to be missing before it."""
        self._found.clear()
        match event:
            case TradesMade():
                self._lag(event)
                self._take_trades(event.market, event.trades)
            case DepthChanged():
                self._lag(event)
                self._take_depth(event)
            case CandleClosed():
                self._take_candle(event)
            case Interrupted():
                self.counters[event.market].interruptions += 1
                if event.channel == "depth" and event.market in self._sequences:
                    self._sequences[event.market].restart()
        return list(self._found)

    def flush(self) -> None:
        """Write what is buffered; what cannot be written stays buffered."""
        for market, trades in self._trades.items():
            for part in _parts(trades):
                traded = [trade for trade in part if trade.is_traded]
                if traded:
                    self._sink.write_trades(market, as_trades(traded), *_run_of(part))
            trades.clear()
        for market, changes in self._depth.items():
            for _, day in groupby(changes, key=lambda change: _day(change.time_ms)):
                self._sink.write_depth(market, list(day))
            changes.clear()
        for series, closed in self._candles.items():
            if closed:
                self._sink.write_candles(series, _cleaned(series, closed))
            closed.clear()
        self._n_buffered = 0

    def trade_holes(self) -> list[Break]:
        """Return the holes among numbered trades that are small enough to be filled."""
        return [
            hole for holes in self._trade_holes.values() for hole in holes if len(hole) <= self.settings.max_backfill
        ]

    def time_before(self, hole: Break) -> int:
        """Return the time in ms of the trade before a hole."""
        buffered = (trade.time_ms for trade in self._trades[hole.market] if trade.trade_id == hole.first - 1)
        return next(buffered, None) or self._sink.time_of_trade(hole.market, hole.first - 1) or 0

    def fill_trades(self, hole: Break, trades: Iterable[Trade]) -> None:
        """Take in what was fetched for a hole."""
        wanted = [trade for trade in trades if hole.first <= trade.trade_id <= hole.last]
        self.counters[hole.market].backfilled_trades += self._keep_trades(hole.market, wanted)
        self._look_at_holes(hole.market)

    def candle_holes(self) -> list[tuple[SeriesKey, Break]]:
        """Return the holes among candles that nobody has asked the exchange about."""
        return [(series, hole) for series, holes in self._candle_holes.items() for hole in holes]

    def fill_candles(self, series: SeriesKey, hole: Break, n_candles: int) -> None:
        """Note that a hole's candles were asked for and ``n_candles`` of them came; the exchange lacks the rest too."""
        self._candle_holes[series].remove(hole)
        self.counters[series.market].backfilled_candles += n_candles

    def _lag(self, event: TradesMade | DepthChanged) -> None:
        is_now = isinstance(event, TradesMade) or not event.is_snapshot
        if event.received_ms is not None and is_now:
            time_ms = event.trades[-1].time_ms if isinstance(event, TradesMade) else event.time_ms
            self.counters[event.market].lags_ms.append(event.received_ms - time_ms)

    def _take_trades(self, market: Market, trades: Sequence[Trade]) -> None:
        counters = self.counters[market]
        kept = self._keep_trades(market, trades)
        counters.trades += kept
        counters.repeated += len(trades) - kept
        counters.last_price = next((t.price for t in reversed(trades) if t.is_traded), counters.last_price)

    def _keep_trades(self, market: Market, trades: Sequence[Trade]) -> int:
        if market not in self._trade_runs:
            self._trade_runs[market] = Runs(self._sink.stored(market, "trades", "id"))
            self._trade_times[market] = Runs(self._sink.stored(market, "trades", "time"))
        runs, n_kept = self._trade_runs[market], 0
        for trade in trades:
            if trade.trade_id == NO_ID:
                if trade.time_ms in self._trade_times[market]:
                    continue
            else:
                if not runs.add(trade.trade_id):
                    continue
                hole = None if trade.trade_id - 1 in runs else runs.hole_before(trade.trade_id)
                if hole and not any(known.first <= hole.first <= known.last for known in self._trade_holes[market]):
                    self._broken(Break(market=market, channel="trades", first=hole.first, last=hole.last))
            self._trades[market].append(trade)
            n_kept += 1
        self._n_buffered += n_kept
        return n_kept

    def _take_depth(self, change: DepthChanged) -> None:
        market, counters = change.market, self.counters[change.market]
        if market not in self._sequences:
            self._sequences[market] = DepthSequence(market)
            self._depth_runs[market] = Runs(self._sink.stored(market, "depth", "id"))
            self._depth_times[market] = Runs(self._sink.stored(market, "depth", "time"))
        sequence = self._sequences[market]
        if change.last_id is None:
            is_stored = change.time_ms in self._depth_times[market]
        else:
            is_stored = change.last_id in self._depth_runs[market]
        if is_stored or sequence.is_repeated(change):
            counters.repeated += 1
            return
        if broken := sequence.check(change):
            self._broken(broken)
        counters.depth_changes += 1
        counters.has_book = sequence.has_snapshot
        self._depth[market].append(change)
        self._n_buffered += len(change.bids) + len(change.asks)

    def _take_candle(self, event: CandleClosed) -> None:
        series, opened = event.series, event.row[0]
        if series not in self._last_candles:
            self._last_candles[series] = self._sink.last_candle(series)
        last, step = self._last_candles[series], series.timeframe.milliseconds
        if last is not None and opened <= last:
            self.counters[series.market].repeated += 1
            return
        if last is not None and opened > last + step:
            self._broken(
                Break(market=series.market, channel="candles", first=last + step, last=opened - step), key=series
            )
        self._last_candles[series] = self.counters[series.market].last_candle_ms = opened
        self._candles[series].append(event)
        self.counters[series.market].candles += 1
        self._n_buffered += 1

    def _broken(self, broken: Break, key: SeriesKey | None = None) -> None:
        self.counters[broken.market].breaks += 1
        if broken.channel == "trades":
            self._trade_holes[broken.market].append(broken)
            self._look_at_holes(broken.market)
        elif key is not None:
            self._candle_holes[key].append(broken)
        self._found.append(broken)

    def _look_at_holes(self, market: Market) -> None:
        """Leave of each hole what is still missing."""
        runs = self._trade_runs[market]
        holes = [run for hole in self._trade_holes[market] for run in runs.missing(hole.first, hole.last)]
        self._trade_holes[market] = [
            Break(market=market, channel="trades", first=first, last=last) for first, last in holes
        ]
        self.counters[market].missing_trades = sum(last - first + 1 for first, last in holes)


def _parts(trades: Sequence[Trade]) -> Iterator[list[Trade]]:
    """Cut trades by UTC day and, where they are numbered, at holes."""
    part: list[Trade] = []
    for trade in sorted(trades, key=lambda trade: (trade.trade_id == NO_ID, trade.trade_id, trade.time_ms)):
        if part:
            last = part[-1]
            follows = trade.trade_id == last.trade_id + 1 or trade.trade_id == last.trade_id == NO_ID
            if not follows or _day(trade.time_ms) != _day(last.time_ms):
                yield part
                part = []
        part.append(trade)
    if part:
        yield part


def _run_of(part: Sequence[Trade]) -> tuple[Key, Run]:
    first, last = part[0], part[-1]
    if first.trade_id == NO_ID:
        return "time", Run(first.time_ms, last.time_ms)
    return "id", Run(first.trade_id, last.trade_id)


def _cleaned(series: SeriesKey, closed: Sequence[CandleClosed]) -> CleanedRows:
    rows = np.array([event.row for event in closed], dtype=np.float64)
    closed_ms = closed[-1].row[0] + series.timeframe.milliseconds
    return clean_rows(rows[:, 0], rows[:, 1:], series.timeframe, now_ms=closed_ms)


def _day(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).date().isoformat()
