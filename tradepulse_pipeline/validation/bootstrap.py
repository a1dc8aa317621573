"""The stationary bootstrap: how far figures of daily returns could have come out elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.random import Generator

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.candles import FloatArray, IntArray
from tradepulse_pipeline.validation.paths import follow_paths

#: Deviations below this share of the largest value are rounding, not variation.
_ROUNDING: Final = 1e-12

#: Cosine transforms that a standard error is made of: cycles of twice the record, the whole, and two thirds of it.
_N_CYCLES: Final = 3

#: Numbers that are drawn at once: bounds the memory.
_DRAWN_AT_ONCE: Final = 1 << 19


class Interval(NamedTuple):
    """Bounds between which a figure lies with the confidence asked for."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapIntervals:
    """Intervals of what a record came to. See ``bootstrap_intervals``."""

    sharpe_ratio: Interval
    net_profit: Interval
    max_drawdown: Interval
    block_length: float
    n_resamples: int


def optimal_block_length(returns: FloatArray) -> float:
    """Return the mean block length, at least 1, at which the stationary bootstrap estimates a mean's variance best.

    Politis and White (2004), Automatic block-length selection for the dependent bootstrap, Econometric Reviews 23(1),
    as corrected by Patton, Politis and White (2009), 28(4); by the package arch. 1 for fewer than 8 returns or returns
    that do not vary: there is no dependence to estimate.
    """
    if len(returns) < 8 or not _varies(returns):
        return 1.0
    from arch.bootstrap import optimal_block_length as estimated

    with np.errstate(divide="ignore", invalid="ignore"):  # a stretch of equal returns has no autocorrelation
        length = float(estimated(returns)["stationary"].iloc[0])
    return max(1.0, length) if np.isfinite(length) else 1.0


def stationary_orders(n: int, n_resamples: int, *, block_length: float, generator: Generator) -> IntArray:
    """Draw resamples of a series of length ``n`` for the stationary bootstrap: positions, (n_resamples, n).

    Blocks begin anywhere, last ``block_length`` in the mean (geometrically distributed) and go on at the beginning
    where the series ends. Politis and Romano (1994), The stationary bootstrap, Journal of the American Statistical
    Association 89(428).

    Raises
    ------
    InvalidInputError
        For a block length below 1.
    """
    if not block_length >= 1:
        raise InvalidInputError(f"Blocks have a mean length of at least 1, found {block_length}.")
    step = np.arange(n)
    begins = generator.random((n_resamples, n)) < 1 / block_length
    begins[:, :1] = True
    last_begin = np.maximum.accumulate(np.where(begins, step, 0), axis=1)
    starts = generator.integers(0, n, size=(n_resamples, n))
    return (np.take_along_axis(starts, last_begin, axis=1) + step - last_begin) % n


def bootstrap_intervals(
    returns: FloatArray,
    *,
    initial_capital: float,
    periods_per_year: float,
    seed: int,
    n_resamples: int = 2_000,
    confidence: float = 0.95,
) -> BootstrapIntervals | None:
    """Return intervals of Sharpe ratio, net profit and maximum drawdown from resampled daily returns.

    Blocks are of the optimal length b, but no shorter than ``n_days**(1/3)``, the rate at which that length grows: what
    is estimated from a year is often too short.

    Those of the Sharpe ratio and of the growth, which makes the net profit, are studentised: quantiles of
    ``(x* - x) / se*`` over the resamples, times ``se``, around x; Ledoit and Wolf (2008), Robust performance hypothesis
    testing with the Sharpe ratio, Journal of Empirical Finance 15(5). The standard error, of the record as of each
    resample, is that of the slowest cycles of the estimate's influence function: the mean square of its first
    3 cosine transforms; Lazarus, Lewis, Stock and Watson (2018), HAR inference, Journal of Business & Economic
    Statistics 36(4), with fewer of them than proposed there, because the volatility of markets, and with it what a
    pattern earns, has cycles of months. Resamples spread too little, by about ``(2 b - 1) / n_days`` of the variance,
    because they vary around the mean of the record; their deviations are widened by as much.

    The maximum drawdown's are quantiles of the resampled ones: how far a history of this length and these returns may
    fall, rather than where a constant lies.

    Parameters
    ----------
    returns : float64 array of shape (n_days,)
        Simple daily returns.
    initial_capital : float
        What net profit is measured in.
    periods_per_year : float
        Annualises the Sharpe ratio, 365 for daily returns.
    seed : int
        Of the resamples.
    n_resamples, confidence
        Number of resamples, and the share of intervals that are to cover.

    Returns
    -------
    BootstrapIntervals or None
        None for fewer than two returns or returns that do not vary.
    """
    if len(returns) < 2 or not _varies(returns):
        return None
    block_length = _block_length(returns)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    generator, resampled = np.random.default_rng(seed), []

    def draw(n: int) -> IntArray:
        orders = stationary_orders(len(returns), n, block_length=block_length, generator=generator)
        resampled.append(_estimates(returns[orders]))
        return orders

    paths = follow_paths(returns, draw, n_resamples)
    estimates, errors = _estimates(returns[None])
    deviations = np.concatenate([found - estimates for found, _ in resampled], axis=1)
    spreads = np.concatenate([spread for _, spread in resampled], axis=1)
    intervals = []
    for estimate, error, deviation, spread in zip(estimates, errors, deviations, spreads, strict=True):
        is_defined = spread > 0
        studentised = _widening(len(returns), block_length) * deviation[is_defined] / spread[is_defined]
        intervals.append(estimate - error * np.quantile(studentised, tails[::-1]))
    sharpe, growth = intervals
    return BootstrapIntervals(
        sharpe_ratio=Interval(*(np.sqrt(periods_per_year) * sharpe).tolist()),
        net_profit=Interval(*(initial_capital * np.expm1(len(returns) * growth)).tolist()),
        max_drawdown=Interval(*np.quantile(paths.max_drawdown, tails).tolist()),
        block_length=block_length,
        n_resamples=n_resamples,
    )


def equity_band(
    returns: FloatArray, *, initial_capital: float, seed: int, n_resamples: int = 1_000, confidence: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Return the interval of equity after each day, over stationary resamples of the daily returns.

    Each end is a quantile of its own day: a path may well leave the band somewhere.

    Parameters
    ----------
    returns : float64 array of shape (n_days,)
        Daily returns, fractions.

    Returns
    -------
    low, high : float64 arrays of shape (n_days,)
        Quote currency; the record itself where the returns do not vary.
    """
    if len(returns) < 2 or not _varies(returns):
        flat = initial_capital * np.cumprod(1.0 + returns, dtype=np.float64)
        return flat, flat
    parts = _orders(len(returns), n_resamples, _block_length(returns), seed)
    equity = initial_capital * np.concatenate([np.cumprod(1.0 + returns[orders], axis=1) for orders in parts])
    low: FloatArray = np.quantile(equity, (1 - confidence) / 2, axis=0)
    high: FloatArray = np.quantile(equity, (1 + confidence) / 2, axis=0)
    return low, high


def bootstrap_p_value(returns: FloatArray, *, seed: int, n_resamples: int = 10_000) -> float | None:
    """Return the one-sided p-value of the mean against 0: how often chance alone gives a mean at least as high.

    ``(1 + k) / (1 + n_resamples)``, k being the number of resamples of the centred returns whose t-statistic is as
    high, with the blocks and the widening of ``bootstrap_intervals``; Davison and Hinkley (1997), Bootstrap methods
    and their application, chapter 4. Of trade returns or of daily returns, in time order. None for fewer than two
    returns or returns that do not vary.
    """
    if len(returns) < 2 or not _varies(returns):
        return None
    block_length = _block_length(returns)
    bar = _sharpe_ratios(returns[None])[0] / _widening(len(returns), block_length)
    centred = returns - returns.mean()
    n_as_high = 0
    for orders in _orders(len(returns), n_resamples, block_length, seed):
        n_as_high += int(np.count_nonzero(_sharpe_ratios(centred[orders]) >= bar))
    return (1 + n_as_high) / (1 + n_resamples)


def _varies(returns: FloatArray) -> bool:
    return float(np.std(returns)) > _ROUNDING * float(np.abs(returns).max())


def _block_length(returns: FloatArray) -> float:
    return max(optimal_block_length(returns), math.cbrt(len(returns)))


def _widening(n: int, block_length: float) -> float:
    """Return the factor by which resampled deviations are too small; ``sqrt(n / (n - 1))`` for blocks of 1."""
    return math.sqrt(n / max(1.0, n - 2 * block_length + 1))


def _orders(n: int, n_resamples: int, block_length: float, seed: int) -> Iterator[IntArray]:
    """Yield resamples in parts that bound the memory."""
    generator, n_at_once = np.random.default_rng(seed), max(1, _DRAWN_AT_ONCE // n)
    for first in range(0, n_resamples, n_at_once):
        yield stationary_orders(n, min(n_at_once, n_resamples - first), block_length=block_length, generator=generator)


def _sharpe_ratios(returns: FloatArray) -> FloatArray:
    """Return Sharpe ratios per period, (n,), of returns (n, n_periods); 0 for returns that do not vary."""
    deviation = returns.std(axis=1, ddof=1)
    varies = deviation > _ROUNDING * np.abs(returns).max(axis=1)
    return np.where(varies, returns.mean(axis=1) / np.where(varies, deviation, 1.0), 0.0)


def _estimates(returns: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return Sharpe ratio and mean growth per period of returns (n, n_periods), and their standard errors: (2, n) each.

    Errors are 0 for returns that do not vary. The Sharpe ratio's influence function is ``z - SR / 2 * (z**2 - 1)``
    of the standardised returns z; a total loss counts as one of all but a rounding error.
    """
    growth = np.log1p(np.maximum(returns, _ROUNDING - 1))
    sharpe = _sharpe_ratios(returns)
    deviations = returns - returns.mean(axis=1, keepdims=True)
    deviation = deviations.std(axis=1, keepdims=True)
    varies = deviation > _ROUNDING * np.abs(returns).max(axis=1, keepdims=True)
    scores = deviations / np.where(varies, deviation, 1.0)
    influence = scores - sharpe[:, None] / 2 * (scores * scores - 1)
    n = returns.shape[1]
    cycles = np.cos(np.pi * np.outer(np.arange(n) + 0.5, np.arange(1, _N_CYCLES + 1)) / n)
    errors = [np.sqrt(2 * np.mean((series @ cycles) ** 2, axis=1)) / n for series in (influence, growth)]
    return np.stack([sharpe, growth.mean(axis=1)]), np.where(varies[:, 0], np.stack(errors), 0.0)
