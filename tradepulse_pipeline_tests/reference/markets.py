"""Markets for the tests: random ones that meet every rule of the bar model, and slices of real candles."""

from __future__ import annotations

import itertools
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from tradepulse_pipeline.backtest.settings import AccountSettings, BarRange
from tradepulse_pipeline.indicators.catalogue import ALL_INDICATORS
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import Timeframe
from tradepulse_pipeline.strategies.decisions import Decisions, Exits

#: 2024-01-01 00:00 UTC.
NEW_YEAR_MS = 1_704_067_200_000


def cases(n: int) -> int:
    """Return the number of cases of a test; TRADEPULSE_TEST_CASES multiplies it, for long runs by hand."""
    return n * int(os.environ.get("TRADEPULSE_TEST_CASES", "1"))


def frame_of(candles: Candles) -> IndicatorFrame:
    return IndicatorFrame.compute(candles.filled_forward(), ALL_INDICATORS)


def candles_of(
    rows: list[tuple[float, float, float, float]],
    *,
    volume: list[float] | None = None,
    missing: tuple[int, ...] = (),
    timeframe: str = "1h",
) -> Candles:
    """Build candles from (open, high, low, close) rows; the places ``missing`` on the time grid are left out."""
    step = Timeframe(timeframe).milliseconds
    places = [place for place in range(len(rows) + len(missing)) if place not in missing]
    open_, high, low, close = (np.array(column) for column in zip(*rows, strict=True))
    return Candles.from_arrays(
        Timeframe(timeframe),
        np.array([NEW_YEAR_MS + place * step for place in places]),
        open_,
        high,
        low,
        close,
        np.array([1.0] * len(rows) if volume is None else volume),
    )


def fractions(*choices: float, low: float, high: float) -> st.SearchStrategy[float]:
    """Return round values, on which ties happen, and values from all of a range."""
    return st.sampled_from(choices) | st.floats(low, high)


@dataclass(slots=True)
class Tape:
    """Writes a market candle by candle; prices are rounded to ``tick`` (0: not), so that ties happen."""

    timeframe: Timeframe
    tick: float
    time_ms: int
    price: float
    rows: list[tuple[int, float, float, float, float, float]] = field(default_factory=list)

    def rounded(self, price: float) -> float:
        if not self.tick:
            return price
        return max(round(price / self.tick), 1) * self.tick

    def write(self, open_: float, high: float, low: float, close: float, volume: float) -> None:
        open_, high, low, close = (self.rounded(price) for price in (open_, high, low, close))
        self.rows.append((self.time_ms, open_, max(open_, high, close), min(open_, low, close), close, volume))
        self.time_ms += self.timeframe.milliseconds
        self.price = close

    def skip(self, n_candles: int) -> None:
        self.time_ms += n_candles * self.timeframe.milliseconds

    def random_bar(self, draws: bytes, volatility: float) -> None:
        """Write a bar from five random bytes, and now and then a gap, a jump, a flat bar or one without volume.

        Zeros make the plainest bar there is, which is what failing examples shrink to.
        """
        gap, jump, move, wicks, volume = draws
        if gap >= 250:
            self.skip(gap - 249)
        open_ = self.price * math.exp(volatility * (jump - 223.5) / 8) if jump >= 192 else self.price
        if move >= 240:
            self.write(open_, open_, open_, open_, 0.0 if volume >= 128 else 10.0)
            return
        close = open_ * math.exp(volatility * (move if move < 120 else 119.5 - move) / 60)
        high = max(open_, close) * (1 + volatility * (wicks % 16) / 16)
        low = min(open_, close) * (1 - volatility * (wicks // 16) / 16)
        if volume < 200:
            traded = 10.0 + volume / 20
        elif volume < 245:
            traded = 10.0 * (volume - 198)
        else:
            traded = 0.0
        self.write(open_, high, low, close, traded)

    def candles(self) -> Candles:
        times, *columns = (np.array(column) for column in zip(*self.rows, strict=True))
        return Candles.from_arrays(self.timeframe, times, *columns)


def write_walk(tape: Tape, draws: bytes, volatility: float) -> None:
    for i in range(0, len(draws) - 4, 5):
        tape.random_bar(draws[i : i + 5], volatility)


@st.composite
def tapes(draw: st.DrawFn) -> Tape:
    timeframe = Timeframe(draw(st.sampled_from(["1m", "15m", "1h", "4h", "1d"])))
    tick = draw(st.sampled_from([0.0, 0.01, 0.25, 1.0]))
    start = NEW_YEAR_MS + draw(st.integers(0, 30)) * timeframe.milliseconds
    return Tape(timeframe, tick, start, draw(st.sampled_from([100.0, 64.0, 1000.0])))


@st.composite
def random_markets(draw: st.DrawFn, min_bars: int = 2, max_bars: int = 90) -> Candles:
    """Random walks with jumps, gaps of 1 to 6 candles, flat bars and bars without volume."""
    tape = draw(tapes())
    volatility = draw(st.sampled_from([0.003, 0.01, 0.02]))
    n_bytes = 5 * draw(st.integers(min_bars, max_bars))
    write_walk(tape, draw(st.binary(min_size=n_bytes, max_size=n_bytes)), volatility)
    return tape.candles()


@st.composite
def decisions_on(draw: st.DrawFn, candles: Candles | IndicatorFrame, max_size: int = 16) -> Decisions:
    """Decisions of both sides, several at a bar, sound ones and void ones.

    Prices lie at a distance from the close, or on the high or low of a bar nearby, so that later bars just touch them.
    """
    n_bars = len(candles)
    distance = fractions(0.0, 0.005, 0.01, 0.02, low=-0.005, high=0.05)
    unit = fractions(0.25, 1.0, low=0.001, high=3.0)

    def price(bar: int, direction: int) -> float:
        if draw(st.booleans()):
            return float(candles.close[bar]) * (1 + direction * draw(distance))
        nearby = min(max(bar + draw(st.integers(-3, 6)), 0), n_bars - 1)
        return float((candles.high if direction == 1 else candles.low)[nearby])

    steps = draw(st.lists(st.integers(0, 9), min_size=1, max_size=max_size))
    rows = []
    for bar in itertools.takewhile(lambda bar: bar < n_bars, itertools.accumulate(steps, initial=0)):
        side = draw(st.sampled_from([1, -1]))
        rows.append(
            (
                bar,
                side,
                price(bar, -side),
                draw(unit),
                price(bar, side),
                draw(unit),
                draw(unit | st.just(math.nan)),
                price(bar, -side) if draw(st.booleans()) else math.nan,
            )
        )
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    names = ("target_anchor", "target_unit", "trail_unit", "exit_level")
    return Decisions.of(*columns[:4], **dict(zip(names, columns[4:], strict=True)))


def exit_rules() -> st.SearchStrategy[Exits]:
    return st.builds(
        Exits,
        stop_multiple=st.just(0.0) | fractions(0.5, 1.0, 100.0, low=0.0, high=3.0),
        target=st.sampled_from(["r", "price", "none"]),
        target_multiple=fractions(0.25, 0.5, 1.0, 2.0, low=0.01, high=3.0),
        trail_activation=st.just(0.0) | fractions(0.25, 0.5, 1.0, low=0.01, high=2.0),
        trail_distance=fractions(0.25, 0.5, low=0.0, high=2.0),
        exit_level_bars=st.integers(0, 6),
        max_holding_bars=st.just(0) | st.integers(0, 20),
    )


def accounts() -> st.SearchStrategy[AccountSettings]:
    return st.builds(
        AccountSettings,
        initial_capital=fractions(10_000.0, low=1.0, high=1e7),
        risk_fraction=fractions(0.01, 0.5, low=0.001, high=1.0),
        max_leverage=fractions(1.0, 5.0, 100.0, low=0.1, high=1000.0),
        fee_rate=fractions(0.0, 0.001, low=0.0, high=0.01),
        slippage=st.just(0.0) | fractions(0.0005, low=0.0, high=0.01),
        max_holding_bars=st.sampled_from([0, 0, 0, 0, 0, 0, 1, 5]),
    )


@st.composite
def windows_of(draw: st.DrawFn, n_bars: int) -> BarRange:
    """Any window with at least one bar, and the whole series more often than not."""
    if draw(st.booleans()):
        return BarRange(0, n_bars)
    start = draw(st.integers(0, n_bars - 1))
    return BarRange(start, draw(st.integers(start + 1, n_bars)))


def real_candles(folder: Path, name: str, first: int, n_candles: int) -> Candles:
    """Read ``n_candles`` rows of a file of real candles, from row ``first`` on; gaps stay gaps."""
    import polars as pl

    table = pl.scan_parquet(folder / f"{name}.parquet").slice(first, n_candles).collect()
    prices = (table[column].to_numpy() for column in ("open", "high", "low", "close", "volume"))
    times = table["timestamp"].dt.epoch("ms").to_numpy()
    return Candles.from_arrays(Timeframe(name.rsplit("_", 1)[1]), times, *prices)
