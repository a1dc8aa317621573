"""A market that TradePulse makes up itself: no network, the same candles for ever, and a known edge or none.

Each pair is a random walk in the logarithm of the price, made of 1m candles from which every timeframe is resampled:

- The variance of a day follows two mean-reverting components (weeks and days), that of a minute a daily pattern with
  its peak at 15:00 UTC and hourly bursts. The volatility averages ``annual_volatility``.
- Jumps with Laplace-distributed size strike at random minutes.
- Volume is log-normal and grows with the volatility of the minute and with the move that it made.
- Outages take candles away, at the same times in all pairs of a seed.
- The simple return of the next minute has mean 0, whatever came before: no rule can earn anything but luck, before
  costs, unless an edge is planted.

The planted edge, when ``edge`` is not 0, is the pattern that a long sweep of liquidity looks for. It is laid out on
the 5m grid, once in every quarter of a day, at a random time. In units of A, the mean range of a 5m candle at that
day's volatility, the price

1. drifts down by 1.25 A over 30 minutes;
2. in the 5m candle that follows, has a wick that reaches 0.04 % below the lowest low of the two hours before (lower
   only where the price goes there by itself), and no drift; the volume of that candle is multiplied by 6;
3. drifts up by 1.25 A in the next 5m candle: bought back;
4. drifts by ``edge`` times A over the 60 minutes after that. This is all that the pattern leaves behind.

With a stop one ATR away, ``edge`` is therefore about the mean drift in R that follows an entry after the pattern,
before costs. A negative edge makes the pattern a trap. Nothing is planted for the short side.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import numpy as np

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.candles import BoolArray, Candles, FloatArray, IntArray
from tradepulse_pipeline.market.series import (
    MS_PER_DAY,
    MS_PER_MINUTE,
    SIMULATED_EXCHANGE,
    TIMEFRAMES,
    Market,
    SeriesKey,
    Timeframe,
)
from tradepulse_pipeline.market.sources.base import Offer, Page

#: The first day of every simulated market: 2017-01-01.
ORIGIN_MS: Final = 1_483_228_800_000

DAYS_PER_PAGE: Final = 30
MINUTES_PER_DAY: Final = 1_440

#: Persistence from day to day and standard deviation of the two components of log volatility, and of the hourly one.
SLOW_VOLATILITY: Final = (0.98, 0.35)
FAST_VOLATILITY: Final = (0.60, 0.25)
HOURLY_VOLATILITY: Final = 0.3

JUMP_SCALE: Final = 0.015
OUTAGE_MEDIAN_MINUTES: Final = 90
TURNOVER_PER_MINUTE: Final = 50_000.0

#: The planted pattern, in minutes of its quarter of a day and units of A.
QUARTER: Final = MINUTES_PER_DAY // 4
SLIDE_MINUTES, CANDLE_MINUTES, DRIFT_MINUTES, LEVEL_MINUTES = 30, 5, 60, 120
SLIDE_IN_RANGES: Final = 1.25
PIERCE: Final = 0.0004
VOLUME_BURST: Final = 6.0
#: Mean range of a Brownian motion over a unit of time, sqrt(8 / pi): Feller (1951), Ann. Math. Statist. 22(3).
MEAN_RANGE: Final = (8 / np.pi) ** 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedMarketSettings:
    """What the simulated market is like. Equal settings and pair give equal candles, whatever range is asked for."""

    seed: int = 0
    edge: float = 0.0
    annual_volatility: float = 0.7
    jumps_per_year: float = 40.0
    outages_per_year: float = 6.0

    def __post_init__(self) -> None:
        limits = {
            "seed": (0, 2**63 - 1),
            "edge": (-20, 20),
            "annual_volatility": (0.01, 5),
            "jumps_per_year": (0, 365),
            "outages_per_year": (0, 365),
        }
        for name, (lowest, highest) in limits.items():
            value = getattr(self, name)
            if not lowest <= value <= highest:
                raise InvalidInputError(
                    f"simulated market: {name} is {value}, expected a number from {lowest} to {highest}."
                )


class SimulatedSource:
    """The simulated market as a source: every pair and every timeframe, up to the present.

    Parameters
    ----------
    settings : SimulatedMarketSettings or None
        None for the defaults.
    clock : callable
        The present in seconds since 1970.
    """

    name = SIMULATED_EXCHANGE

    def __init__(
        self, settings: SimulatedMarketSettings | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.settings = settings or SimulatedMarketSettings()
        self._clock = clock

    def offer(self) -> Offer:
        """See :class:`CandleSource`."""
        return Offer(
            timeframes=TIMEFRAMES,
            history="any span of time, made up anew each time",
            limits="Its candles prove that the machinery works, and nothing about any market.",
        )

    def check(self, series: SeriesKey) -> None:
        """See :class:`CandleSource`: there is nothing that could be missing."""

    def pages(self, series: SeriesKey, start_ms: int, end_ms: int) -> Iterator[Page]:
        """See :class:`CandleSource`; a page holds up to 30 days."""
        step = series.timeframe.milliseconds
        closed_end = min(end_ms, int(self._clock() * 1000) // step * step)
        for first in range(max(start_ms, ORIGIN_MS), closed_end, DAYS_PER_PAGE * MS_PER_DAY):
            last = min(first + DAYS_PER_PAGE * MS_PER_DAY, closed_end)
            yield Page(candles=simulate(series.market, series.timeframe, first, last, self.settings))


def simulate(
    market: Market, timeframe: Timeframe, start_ms: int, end_ms: int, settings: SimulatedMarketSettings
) -> Candles:
    """Return the simulated candles with an open time in ``[start_ms, end_ms)``; none before 2017.

    Only the pair of the market matters. See the module for what is simulated.
    """
    first_day = max(start_ms - ORIGIN_MS, 0) // MS_PER_DAY
    last_day = max(-(-(end_ms - ORIGIN_MS) // MS_PER_DAY), first_day)
    days = _Days.draw(market.pair, last_day, settings)
    minutes = [days.minutes(day, settings) for day in range(first_day, last_day)]
    open_, high, low, close, volume = (
        np.concatenate([minute[column] for minute in minutes]) if minutes else np.empty(0) for column in range(5)
    )
    times = ORIGIN_MS + first_day * MS_PER_DAY + MS_PER_MINUTE * np.arange(len(close), dtype=np.int64)
    here = ~days.outages(first_day, last_day)
    candles = _resampled(timeframe, times[here], open_[here], high[here], low[here], close[here], volume[here])
    return candles.between(start_ms, end_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Days:
    """What is drawn once per day since the origin, in arrays of shape (n_days,): cheap enough to draw them all.

    A day's minutes are drawn apart, so that the path of any day can be had without that of the days before; they are
    tied to the day's return drawn here, as a Brownian bridge is to its end.
    """

    entropy: tuple[int, int]
    start_log_price: FloatArray
    volatility: FloatArray
    diffusion: FloatArray
    jump: FloatArray
    jump_minute: IntArray
    outage_minute: IntArray
    outage_minutes: IntArray
    base_volume: float

    @classmethod
    def draw(cls, pair: str, n_days: int, settings: SimulatedMarketSettings) -> _Days:
        """Draw the days of a pair; the first of them are the same for any ``n_days``."""
        entropy = (settings.seed, int.from_bytes(hashlib.sha256(pair.encode()).digest()[:8]))
        # One stream per quantity: only then does the number of days leave the first ones as they are.
        slow, fast, diffusion, strikes, sizes, at = (np.random.default_rng((*entropy, 1, k)) for k in range(6))
        breaks, begins, lasts = (np.random.default_rng((settings.seed, 2, k)) for k in range(3))

        log_volatility = _mean_reverting(slow, n_days, *SLOW_VOLATILITY) + _mean_reverting(
            fast, n_days, *FAST_VOLATILITY
        )
        spread = SLOW_VOLATILITY[1] ** 2 + FAST_VOLATILITY[1] ** 2
        volatility = settings.annual_volatility / 365**0.5 * np.exp(log_volatility - spread)
        drawn = diffusion.standard_normal(n_days) * volatility - volatility**2 / 2
        # log1p(-scale²) makes the mean of exp(jump) 1.
        struck = strikes.random(n_days) < settings.jumps_per_year / 365
        jump = struck * (sizes.laplace(scale=JUMP_SCALE, size=n_days) + np.log1p(-(JUMP_SCALE**2)))
        planted = 4 * settings.edge * _five_minute_range(volatility)
        start_price = float(10 ** np.random.default_rng((*entropy, 0)).uniform(-1, 4.5))
        log_price = np.log(start_price) + np.cumsum(drawn + jump + planted)
        return cls(
            entropy=entropy,
            start_log_price=np.append(np.log(start_price), log_price)[:n_days],
            volatility=volatility,
            diffusion=drawn,
            jump=jump,
            jump_minute=at.integers(MINUTES_PER_DAY, size=n_days),
            outage_minute=begins.integers(MINUTES_PER_DAY, size=n_days),
            outage_minutes=(breaks.random(n_days) < settings.outages_per_year / 365)
            * np.ceil(OUTAGE_MEDIAN_MINUTES * np.exp(lasts.standard_normal(n_days))).astype(np.int64),
            base_volume=TURNOVER_PER_MINUTE / start_price,
        )

    def outages(self, first_day: int, last_day: int) -> BoolArray:
        """Mark the minutes of ``[first_day, last_day)`` without trading, shape (n_minutes,); none crosses midnight."""
        minute = np.arange(MINUTES_PER_DAY)
        begin = self.outage_minute[first_day:last_day, None]
        return ((minute >= begin) & (minute < begin + self.outage_minutes[first_day:last_day, None])).ravel()

    def minutes(self, day: int, settings: SimulatedMarketSettings) -> tuple[FloatArray, ...]:
        """Return open, high, low, close and volume of a day's minutes, each of shape (1440,)."""
        random = np.random.default_rng((*self.entropy, 3, day))
        volatility = self.volatility[day] * _share_of_day(random)
        noise = random.standard_normal(MINUTES_PER_DAY) * volatility
        moves = noise + (self.diffusion[day] - noise.sum()) * volatility**2 / self.volatility[day] ** 2
        moves[self.jump_minute[day]] += self.jump[day]
        activity = np.exp(0.5 * random.standard_normal(MINUTES_PER_DAY))
        sweeps = _sweep_minutes(random) if settings.edge else []
        unit = float(_five_minute_range(self.volatility)[day])
        for sweep in sweeps:
            buy_back, drift = sweep + CANDLE_MINUTES, sweep + 2 * CANDLE_MINUTES
            moves[sweep - SLIDE_MINUTES : sweep] -= SLIDE_IN_RANGES * unit / SLIDE_MINUTES
            activity[sweep:buy_back] *= VOLUME_BURST
            moves[buy_back:drift] += SLIDE_IN_RANGES * unit / CANDLE_MINUTES
            moves[drift : drift + DRIFT_MINUTES] += settings.edge * unit / DRIFT_MINUTES

        log_close = self.start_log_price[day] + np.cumsum(moves)
        log_open = np.append(self.start_log_price[day], log_close[:-1])
        log_high = _extreme(log_open, log_close, volatility, random)
        log_low = -_extreme(-log_open, -log_close, volatility, random)
        for sweep in sweeps:
            level = log_low[sweep - LEVEL_MINUTES : sweep].min()
            wick = sweep + CANDLE_MINUTES // 2
            log_low[wick] = min(log_low[wick], level + np.log1p(-PIERCE))

        average = settings.annual_volatility / (365 * MINUTES_PER_DAY) ** 0.5
        volume = self.base_volume * activity * (volatility / average) * (0.4 + 0.75 * np.abs(moves) / volatility)
        return np.exp(log_open), np.exp(log_high), np.exp(log_low), np.exp(log_close), volume


def _sweep_minutes(random: np.random.Generator) -> list[int]:
    """Draw the minutes of a day at which the planted sweeps begin: one in each quarter, clear of its edges."""
    latest = QUARTER - DRIFT_MINUTES - 2 * CANDLE_MINUTES
    drawn = random.integers(LEVEL_MINUTES // CANDLE_MINUTES, latest // CANDLE_MINUTES, size=4)
    return [int(QUARTER * quarter + CANDLE_MINUTES * candle) for quarter, candle in enumerate(drawn)]


def _mean_reverting(random: np.random.Generator, n: int, persistence: float, deviation: float) -> FloatArray:
    """Return a first-order autoregression with the given persistence and standard deviation, shape (n,)."""
    shocks = random.standard_normal(n) * deviation
    shocks[1:] *= (1 - persistence**2) ** 0.5
    return np.fromiter(accumulate(shocks, lambda level, shock: persistence * level + shock), np.float64, n)


def _share_of_day(random: np.random.Generator) -> FloatArray:
    """Return each minute's volatility over that of the day, shape (1440,); the squares sum to 1."""
    minute = np.arange(MINUTES_PER_DAY)
    hourly = HOURLY_VOLATILITY * random.standard_normal(25)
    season = 1 + 0.35 * np.cos(2 * np.pi * (minute / 60 - 15) / 24)
    share: FloatArray = season * np.exp(np.interp(minute / 60, np.arange(25), hourly))
    share /= np.sqrt((share**2).sum())
    return share


def _five_minute_range(daily_volatility: FloatArray) -> FloatArray:
    """Mean range of a 5m candle in log price at a day's volatility."""
    mean_range: FloatArray = MEAN_RANGE * daily_volatility * (CANDLE_MINUTES / MINUTES_PER_DAY) ** 0.5
    return mean_range


def _extreme(start: FloatArray, end: FloatArray, volatility: FloatArray, random: np.random.Generator) -> FloatArray:
    """Draw the maximum of a Brownian bridge from ``start`` to ``end``: Glasserman (2003), section 6.4."""
    surprise = -2 * volatility**2 * np.log1p(-random.random(len(start)))
    top: FloatArray = (start + end + np.sqrt((end - start) ** 2 + surprise)) / 2
    extreme: FloatArray = np.maximum(top, np.maximum(start, end))
    return extreme


def _resampled(
    timeframe: Timeframe,
    times: IntArray,
    open_: FloatArray,
    high: FloatArray,
    low: FloatArray,
    close: FloatArray,
    volume: FloatArray,
) -> Candles:
    """Return the candles of a timeframe from those of its minutes that are there."""
    span = times // timeframe.milliseconds
    first = np.flatnonzero(np.diff(span, prepend=-1))
    if not len(first):
        return Candles.from_arrays(timeframe, times, open_, high, low, close, volume)
    last = np.append(first[1:], len(times)) - 1
    return Candles.from_arrays(
        timeframe,
        span[first] * timeframe.milliseconds,
        open_[first],
        np.maximum.reduceat(high, first),
        np.minimum.reduceat(low, first),
        close[last],
        np.add.reduceat(volume, first),
    )
