"""How sure a Sharpe ratio is: its standard error, the odds that it is skill, and what luck alone reaches.

Sharpe ratios are per period (of daily returns: per day), the risk-free rate is 0, and kurtosis is raw, 3 for a normal
distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.candles import FloatArray

#: Deviations below this share of the largest value are rounding, not variation.
_ROUNDING: Final = 1e-12

_NORMAL: Final = NormalDist()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnMoments:
    """What a Sharpe ratio and its standard error depend on.

    Attributes
    ----------
    n : int
        Number of returns, at least 2.
    sharpe : float
        Mean / standard deviation (ddof 1), per period.
    skewness, kurtosis : float
        Third and fourth standardised moment (ddof 0); kurtosis is raw.

    Raises
    ------
    InvalidInputError
        For fewer than two returns, and for moments that no distribution has: ``kurtosis >= 1 + skewness**2``.
    """

    n: int
    sharpe: float
    skewness: float = 0.0
    kurtosis: float = 3.0

    def __post_init__(self) -> None:
        if self.n < 2:
            raise InvalidInputError(f"A Sharpe ratio needs at least 2 returns, found {self.n}.")
        if not (math.isfinite(self.sharpe) and self.kurtosis * (1 + 1e-9) >= 1 + self.skewness**2):
            raise InvalidInputError(
                f"No distribution has Sharpe ratio {self.sharpe}, skewness {self.skewness} and kurtosis "
                f"{self.kurtosis}: kurtosis is raw (3 for a normal distribution), at least 1 + skewness**2."
            )

    @classmethod
    def of(cls, returns: FloatArray) -> ReturnMoments | None:
        """Return the moments of returns of shape (n,); None for fewer than two or returns that do not vary."""
        if len(returns) < 2:
            return None
        mean, deviation = float(np.mean(returns)), float(np.std(returns, ddof=1))
        if deviation <= _ROUNDING * float(np.abs(returns).max()):
            return None
        standardised = (returns - mean) / float(np.std(returns))
        return cls(
            n=len(returns),
            sharpe=mean / deviation,
            skewness=float(np.mean(standardised**3)),
            kurtosis=float(np.mean(standardised**4)),
        )

    @property
    def variance_factor(self) -> float:
        """``1 - skewness * SR + (kurtosis - 1) / 4 * SR**2``: the variance of the Sharpe ratio times n."""
        return 1 - self.skewness * self.sharpe + (self.kurtosis - 1) / 4 * self.sharpe**2


def sharpe_standard_error(moments: ReturnMoments) -> float:
    """Return the standard error of a Sharpe ratio: ``sqrt((1 - skew * SR + (kurt - 1) / 4 * SR**2) / n)``.

    Mertens (2002), Comments on variance of the IID estimator in Lo (2002); of normal returns it is that of Lo (2002),
    Financial Analysts Journal 58(4). The returns are taken as independent.

    Examples
    --------
    >>> round(sharpe_standard_error(ReturnMoments(n=12, sharpe=0.5)), 3)
    0.306
    """
    return math.sqrt(max(moments.variance_factor, 0.0) / moments.n)


def probabilistic_sharpe_ratio(moments: ReturnMoments | None, *, benchmark: float = 0.0) -> float | None:
    """Return the probability that the true Sharpe ratio is above ``benchmark``.

    ``Phi((SR - benchmark) * sqrt(n - 1) / sqrt(1 - skew * SR + (kurt - 1) / 4 * SR**2))``: Bailey and Lopez de Prado
    (2012), The Sharpe ratio efficient frontier, Journal of Risk 15(2). None without moments, and where the variance of
    the Sharpe ratio is 0.

    Examples
    --------
    >>> moments = ReturnMoments(n=24, sharpe=0.036 / 0.079, skewness=-2.448, kurtosis=10.164)
    >>> round(probabilistic_sharpe_ratio(moments), 3)
    0.913
    """
    if moments is None or moments.variance_factor <= _ROUNDING:
        return None
    z = (moments.sharpe - benchmark) * math.sqrt((moments.n - 1) / moments.variance_factor)
    return 0.5 * math.erfc(-z / math.sqrt(2))


def minimum_track_record_length(
    moments: ReturnMoments | None, *, benchmark: float = 0.0, confidence: float = 0.95
) -> float | None:
    """Return the number of returns from which the probabilistic Sharpe ratio is ``confidence``, all else equal.

    ``1 + (1 - skew * SR + (kurt - 1) / 4 * SR**2) * (z / (SR - benchmark))**2``: Bailey and Lopez de Prado (2012).
    None without moments, and where the Sharpe ratio is not above the benchmark: no length suffices.

    Examples
    --------
    >>> daily = ReturnMoments(n=252, sharpe=2 / math.sqrt(252))
    >>> round(minimum_track_record_length(daily, benchmark=1 / math.sqrt(252)) / 252, 2)
    2.73
    """
    if moments is None or moments.sharpe <= benchmark:
        return None
    z = _NORMAL.inv_cdf(confidence)
    return 1 + moments.variance_factor * (z / (moments.sharpe - benchmark)) ** 2


def expected_maximum(n: float) -> float:
    """Return about the expected maximum of ``n`` independent standard normal numbers.

    ``(1 - g) * Phi^-1(1 - 1/n) + g * Phi^-1(1 - 1/(n e))``, g being the Euler-Mascheroni constant: Bailey and Lopez
    de Prado (2014), The deflated Sharpe ratio, Journal of Portfolio Management 40(5). 0 where the formula is below it
    (``n`` near 1, which has no maximum to expect). ``n`` may be a fraction: an effective number.

    Raises
    ------
    InvalidInputError
        For ``n`` below 1.

    Examples
    --------
    >>> round(expected_maximum(10), 4), round(expected_maximum(201_600), 2), expected_maximum(1)
    (1.5746, 4.54, 0.0)
    """
    if not n >= 1:
        raise InvalidInputError(f"The maximum is of at least 1 number, found n = {n}.")
    if n == 1:
        return 0.0
    gamma = float(np.euler_gamma)
    # -Phi^-1(p) instead of Phi^-1(1 - p): exact for large n.
    return max(0.0, -(1 - gamma) * _NORMAL.inv_cdf(1 / n) - gamma * _NORMAL.inv_cdf(1 / (n * math.e)))


def luck_ceiling(n_trials: float, trials_variance: float) -> float:
    """Return the Sharpe ratio that the best of ``n_trials`` without skill reaches in the mean.

    ``sqrt(trials_variance) * expected_maximum(n_trials)``: Bailey and Lopez de Prado (2014).

    Parameters
    ----------
    n_trials : float
        Number of independent trials, at least 1.
    trials_variance : float
        Variance of the trials' Sharpe ratios. What comes back is in the same unit: annual for annual ones. Over one
        year, annual Sharpe ratios without skill have a variance of 1.

    Examples
    --------
    >>> [round(luck_ceiling(n, trials_variance=1.0), 2) for n in (24, 1_000, 201_600)]
    [1.98, 3.26, 4.54]
    """
    if not (math.isfinite(trials_variance) and trials_variance >= 0):
        raise InvalidInputError(f"The variance of the trials' Sharpe ratios is a number >= 0, found {trials_variance}.")
    return math.sqrt(trials_variance) * expected_maximum(n_trials)


def deflated_sharpe_ratio(moments: ReturnMoments | None, *, n_trials: float, trials_variance: float) -> float | None:
    """Return the probability that the true Sharpe ratio is above what luck reaches in as many trials.

    The probabilistic Sharpe ratio against ``luck_ceiling``: Bailey and Lopez de Prado (2014).

    Parameters
    ----------
    moments : ReturnMoments or None
        Of the returns to be judged; None gives None.
    n_trials : float
        Number of independent trials that these returns were chosen from.
    trials_variance : float
        Variance of the trials' Sharpe ratios, per period as in ``moments``: that of annual ones / periods per year.

    Examples
    --------
    >>> moments = ReturnMoments(n=1250, sharpe=2.5 / math.sqrt(250), skewness=-3, kurtosis=10)
    >>> round(deflated_sharpe_ratio(moments, n_trials=100, trials_variance=0.5 / 250), 3)
    0.9
    """
    return probabilistic_sharpe_ratio(moments, benchmark=luck_ceiling(n_trials, trials_variance))
