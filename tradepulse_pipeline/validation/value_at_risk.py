"""How much a day may lose, and whether days lost more than was predicted more, or less, often than predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.candles import FloatArray

#: Days that a value at risk is told from, at least: three of them lie beyond it at 95 %.
LEAST_HISTORY: Final = 60

#: Days beyond the value at risk that are to be expected, at least, before predictions are judged.
LEAST_EXPECTED: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueAtRisk:
    """What one day may lose, as fractions of equity; 0 for a gain. See ``value_at_risk``.

    Attributes
    ----------
    value_at_risk : float
        Loss that a day exceeds with the chance ``1 - confidence``.
    expected_shortfall : float
        Mean loss of the days beyond it, also known as conditional value at risk.
    """

    value_at_risk: float
    expected_shortfall: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueAtRiskBacktest:
    """What came of predictions of the next day's value at risk: see ``backtest_value_at_risk``.

    Attributes
    ----------
    n_days, n_exceptions : int
        Days that were predicted, and how many of them lost more.
    expected_exceptions : float
        How many were to be expected.
    test : KupiecTest
    """

    n_days: int
    n_exceptions: int
    expected_exceptions: float
    test: KupiecTest


def value_at_risk(returns: FloatArray, *, confidence: float = 0.95) -> ValueAtRisk | None:
    """Return what one day may lose, by historical simulation: the quantile of the returns that were.

    The quantile is that at ``(n + 1) * (1 - confidence)`` of the n sorted returns: the chance that another one of the
    same kind is below it is then exact. The expected shortfall is ``VaR + mean(max(loss - VaR, 0)) / (1 -
    confidence)``: Rockafellar and Uryasev (2000), Optimization of conditional value-at-risk, Journal of Risk 2(3).

    Parameters
    ----------
    returns : float64 array of shape (n_days,)
        Daily returns, fractions.

    Returns
    -------
    ValueAtRisk or None
        None for fewer than 60 days, and where nothing happened on any of them.
    """
    if len(returns) < LEAST_HISTORY or not returns.any():
        return None
    loss = _predicted_loss(returns, confidence)
    shortfall = loss + float(np.mean(np.maximum(-returns - loss, 0.0))) / (1 - confidence)
    return ValueAtRisk(value_at_risk=max(loss, 0.0), expected_shortfall=max(shortfall, 0.0))


def backtest_value_at_risk(returns: FloatArray, *, confidence: float = 0.95) -> ValueAtRiskBacktest | None:
    """Tell each day's value at risk from all days before it, and return what came of that.

    Where returns are independent and of one distribution, the rank of each among those before it is independent of all
    earlier ranks (Renyi 1962): exceptions are then independent, and ``kupiec_test`` rejects as often as it says. A
    rejection therefore says that days are no longer what they were: losses have grown or shrunk.

    Parameters
    ----------
    returns : float64 array of shape (n_days,)
        Daily returns in time order. A day is predicted from 60 on before it. Days of which no loss is predicted,
        because fewer than one in twenty lost before them, are left out: that they are exceeded too seldom is no fault.

    Returns
    -------
    ValueAtRiskBacktest or None
        None for fewer days than 5 exceptions take, 100 at 95 %.
    """
    losses = np.array([_predicted_loss(returns[:day], confidence) for day in range(LEAST_HISTORY, len(returns))])
    is_judged = losses > 0
    n_days = int(np.count_nonzero(is_judged))
    expected = round(n_days * (1 - confidence), 9)
    if expected < LEAST_EXPECTED:
        return None
    n_exceptions = int(np.count_nonzero(returns[LEAST_HISTORY:][is_judged] < -losses[is_judged]))
    test = kupiec_test(n_exceptions, n_days, confidence=confidence)
    assert test is not None
    return ValueAtRiskBacktest(n_days=n_days, n_exceptions=n_exceptions, expected_exceptions=expected, test=test)


def _predicted_loss(returns: FloatArray, confidence: float) -> float:
    return -float(np.quantile(returns, 1 - confidence, method="weibull"))


class KupiecTest(NamedTuple):
    """Statistic and p-value of Kupiec's test."""

    likelihood_ratio: float
    p_value: float


def kupiec_test(n_exceptions: int, n_days: int, *, confidence: float) -> KupiecTest | None:
    """Test whether the share of days beyond the value at risk is the ``1 - confidence`` that it was predicted to be.

    The proportion-of-failures test of Kupiec (1995), Techniques for verifying the accuracy of risk measurement models,
    Journal of Derivatives 3(2): with x exceptions in n days and p = 1 - confidence, ``2 * log`` of the likelihood of
    x / n over that of p is distributed as chi-squared with one degree of freedom. Above 3.84 it rejects at 5 %; it
    says nothing about the direction, nor about exceptions that come together.

    Returns
    -------
    KupiecTest or None
        None without days.

    Raises
    ------
    InvalidInputError
        If there are more exceptions than days, or ``confidence`` is not between 0 and 1.

    Examples
    --------
    >>> round(kupiec_test(20, 252, confidence=0.95).likelihood_ratio, 2)
    3.91
    """
    if not (0 <= n_exceptions <= n_days and 0 < confidence < 1):
        raise InvalidInputError(
            f"Expected 0 <= exceptions <= days and 0 < confidence < 1, found {n_exceptions} exceptions in {n_days} "
            f"days and confidence {confidence}."
        )
    if not n_days:
        return None
    from scipy.special import chdtrc, xlogy

    expected, kept = 1 - confidence, n_days - n_exceptions
    share = n_exceptions / n_days
    observed = xlogy(n_exceptions, share) + xlogy(kept, 1 - share)
    predicted = xlogy(n_exceptions, expected) + xlogy(kept, confidence)
    ratio = max(0.0, 2 * float(observed - predicted))
    return KupiecTest(ratio, float(chdtrc(1, ratio)))
