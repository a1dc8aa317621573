"""Whether losses exceed what was predicted more, or less, often than predicted."""

from __future__ import annotations

from typing import NamedTuple

from tradepulse_pipeline.errors import InvalidInputError


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
