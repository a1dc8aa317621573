"""Candles drawn anew from real ones: what else the same market could have shown, and markets without any pattern.

A candle is taken as its open, high, low and close over the close before it, and its volume; the first one's close
before is its own open. Candles are put together in another order from the same first price. Times stay where they are,
gaps included.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np

from tradepulse_pipeline.backtest.result import Metrics
from tradepulse_pipeline.backtest.settings import AccountSettings, BarRange
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import BoolArray, Candles, FloatArray, IntArray
from tradepulse_pipeline.market.series import MS_PER_DAY
from tradepulse_pipeline.optimizers.deadline import Deadline
from tradepulse_pipeline.strategies.base import Strategy
from tradepulse_pipeline.strategies.decisions import Side
from tradepulse_pipeline.validation.monte_carlo import FAN_LEVELS, fan_points
from tradepulse_pipeline.validation.paths import Paths, follow_paths


def bootstrapped_candles(candles: Candles, mean_block: int, rng: np.random.Generator) -> Candles:
    """Return candles drawn in blocks from ``candles``, as many and at the same times.

    The stationary bootstrap of Politis and Romano (1994), JASA 89(428): blocks begin anywhere and have geometric
    lengths with mean ``mean_block`` bars; the last candle is followed by the first. Volatility clusters, and patterns
    live, within blocks.

    Raises
    ------
    InvalidInputError
        If the mean block is not between 1 and the number of candles.
    """
    from arch.bootstrap import StationaryBootstrap

    _check_block("mean_block", mean_block, candles)
    bootstrap = StationaryBootstrap(mean_block, np.arange(len(candles)), seed=rng)
    ((order,), _) = next(bootstrap.bootstrap(1))
    return _relative(candles).take(order).following(candles, candles.is_filled[order])


def permuted_candles(
    candles: Candles, block: int, rng: np.random.Generator, *, reflect_every: int | None = None
) -> Candles:
    """Return the same candles with blocks of ``block`` bars in random order; a shorter last block stays in place.

    Volatility clusters within blocks, and what is told by one block about the next is gone. With a day as block, each
    candle keeps its time of day where there are no gaps.

    Reflection also takes the drift, and the patterns that span more than ``reflect_every`` bars: each such stretch is
    turned upside down by a coin of its own (prices over the close before become their inverse, high and low change
    places). A stretch over which price grows by the factor g is turned with the chance ``g / (1 + g)``, so that its
    mean factor, ``1 / (1 + g) * g + g / (1 + g) * 1 / g``, is exactly 1: closes at the ends of stretches are a
    martingale, and a rule that only trades at these makes nothing in the mean, whatever it is. A fair coin would make
    the logarithm driftless, and price itself grow by half of its variance. With ``reflect_every=1`` that holds for
    every close. Within a candle high, low and close keep the relation that they have in the market.

    Parameters
    ----------
    reflect_every : int, optional
        Bars for each coin, counted from the start of the permuted series; None for no reflection.

    Raises
    ------
    InvalidInputError
        If a number of bars is not between 1 and the number of candles.
    """
    _check_block("block", block, candles)
    n_blocks = len(candles) // block
    order = np.arange(len(candles))
    order[: n_blocks * block] = (rng.permutation(n_blocks)[:, None] * block + np.arange(block)).ravel()
    moves = _relative(candles).take(order)
    if reflect_every is not None:
        _check_block("reflect_every", reflect_every, candles)
        moves = moves.reflected(_turned(moves.close, reflect_every, rng))
    return moves.following(candles, candles.is_filled[order])


def _check_block(name: str, block: int, candles: Candles) -> None:
    if not 1 <= block <= len(candles):
        raise InvalidInputError(f"{name}: found {block}, expected 1 to {len(candles)} bars, the number of candles.")


def _turned(moves: FloatArray, every: int, rng: np.random.Generator) -> BoolArray:
    """Draw which bars are turned upside down, ``every`` bars by one coin that makes their mean factor 1."""
    growth = np.multiply.reduceat(moves, np.arange(0, len(moves), every))
    is_turned: BoolArray = np.repeat(rng.random(len(growth)) < growth / (1 + growth), every)[: len(moves)]
    return is_turned


class _Relative(NamedTuple):
    """Prices over the close before, and volume; arrays of shape (n_candles,)."""

    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray

    def take(self, rows: IntArray) -> _Relative:
        return _Relative(*(column[rows] for column in self))

    def reflected(self, is_turned: BoolArray) -> _Relative:
        """Return the candles with some of them upside down."""
        turned = (1 / self.open, 1 / self.low, 1 / self.high, 1 / self.close)
        columns = zip(turned, self[:4], strict=True)
        return _Relative._make([*(np.where(is_turned, one, other) for one, other in columns), self.volume])

    def following(self, candles: Candles, is_filled: BoolArray) -> Candles:
        """Return the candles at the times of ``candles``, from its first price on.

        Rounding is monotonic: a high at or above a close is so after multiplication by the same price.
        """
        before = candles.open[0] * np.append(1.0, np.cumprod(self.close[:-1]))
        prices = {name: before * getattr(self, name) for name in ("open", "high", "low", "close")}
        return replace(candles, **prices, volume=self.volume, is_filled=is_filled)


def _relative(candles: Candles) -> _Relative:
    before = np.append(candles.open[:1], candles.close[:-1])
    prices = (candles.open, candles.high, candles.low, candles.close)
    return _Relative._make([*(price / before for price in prices), candles.volume])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CandleMonteCarlo:
    """What one combination made of each series, in the order of the draws, and of the candles themselves.

    Attributes
    ----------
    net_profit : float64 array of shape (n_series,)
        Quote currency.
    max_drawdown : float64 array of shape (n_series,)
        A fraction.
    n_trades : int64 array of shape (n_series,)
    longest_under_water : int64 array of shape (n_series,)
        Most days in a row at whose end equity was below its running maximum.
    lowest_equity : float64 array of shape (n_series,)
        Of the start and the ends of the days.
    fan_days : int64 array of shape (n_points,)
        Numbers of UTC days with candles, from 0 to all.
    fan_equity : float64 array of shape (5, n_points)
        Quantiles of equity after so many days, see ``FAN_LEVELS``; NaN without series.
    own_equity : float64 array of shape (n_points,)
        Equity on the candles themselves after so many days.
    """

    net_profit: FloatArray
    max_drawdown: FloatArray
    n_trades: IntArray
    longest_under_water: IntArray
    lowest_equity: FloatArray
    fan_days: IntArray
    fan_equity: FloatArray
    own_equity: FloatArray

    def __len__(self) -> int:
        return len(self.net_profit)


#: Series that one worker makes between two looks at the time.
_AT_ONCE: Final = 4


def candle_monte_carlo(
    candles: Candles,
    strategy: Strategy,
    combination: int,
    *,
    mean_block: int,
    n_series: int,
    seed: int,
    side: Side = "long",
    account: AccountSettings | None = None,
    workers: int = 1,
    deadline: Deadline | None = None,
) -> CandleMonteCarlo:
    """Run a combination over bootstrapped candles; the first series are the same for any number of them and of workers.

    Parameters
    ----------
    candles : Candles
        As a training sees them, with short gaps filled.
    mean_block : int
        Mean length of a block in bars. Patterns longer than a block are torn; blocks should be much longer than what
        the strategy looks at.
    deadline : Deadline, optional
        When it has passed, what was made until then is returned.
    """
    from tradepulse_pipeline.backtest.evaluators import PlainEvaluator
    from tradepulse_pipeline.backtest.metrics import daily_returns

    deadline, account = deadline or Deadline(), account or AccountSettings()
    capital = account.initial_capital
    n_days = len(np.unique(candles.open_time_ms // MS_PER_DAY))
    fan_days = fan_points(n_days)

    def run(drawn: Candles) -> tuple[Metrics, Paths]:
        frame = IndicatorFrame.compute(drawn, strategy.indicators)
        evaluator = PlainEvaluator(frame, strategy, side=side, account=account)
        made = evaluator.run(combination, BarRange(0, len(frame)))
        returns = daily_returns(made.equity, frame.open_time_ms, capital)
        return made.metrics, follow_paths(returns, lambda n: np.tile(np.arange(n_days), (n, 1)), 1, fan_days)

    def run_drawn(draw: np.random.SeedSequence) -> tuple[Metrics, Paths]:
        return run(bootstrapped_candles(candles, mean_block, np.random.default_rng(draw)))

    draws = np.random.SeedSequence(seed).spawn(n_series)
    found: list[tuple[Metrics, Paths]] = []
    step = _AT_ONCE * workers
    with ThreadPoolExecutor(workers) as pool:
        for first in range(0, n_series, step):
            if deadline.has_passed:
                break
            found.extend(pool.map(run_drawn, draws[first : first + step]))
    seen = np.concatenate([np.empty((0, len(fan_days))), *(paths.seen for _, paths in found)])
    return CandleMonteCarlo(
        net_profit=np.array([metrics.net_profit for metrics, _ in found], dtype=np.float64),
        max_drawdown=np.array([metrics.max_drawdown for metrics, _ in found], dtype=np.float64),
        n_trades=np.array([metrics.sample_size for metrics, _ in found], dtype=np.int64),
        longest_under_water=np.array([paths.longest_under_water[0] for _, paths in found], dtype=np.int64),
        lowest_equity=capital * np.array([paths.lowest[0] for _, paths in found], dtype=np.float64),
        fan_days=fan_days,
        fan_equity=capital * _quantiles(seen),
        own_equity=capital * run(candles)[1].seen[0],
    )


def _quantiles(seen: FloatArray) -> FloatArray:
    if not len(seen):
        return np.full((len(FAN_LEVELS), seen.shape[1]), np.nan)
    return np.quantile(seen, FAN_LEVELS, axis=0)
