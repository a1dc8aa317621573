"""P-values of many markets and strategies at once: how many of the findings are expected to be luck."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tradepulse_pipeline.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectedPValues:
    """Corrected p-values in the order given; None where there was none.

    Attributes
    ----------
    benjamini_hochberg : tuple of float or None
        Below q: found, where the share of false findings among all findings is at most q in the mean.
    bonferroni : tuple of float or None
        Below a: found, where the chance of even one false finding is at most a.
    """

    benjamini_hochberg: tuple[float | None, ...]
    bonferroni: tuple[float | None, ...]


def corrected_p_values(p_values: Sequence[float | None]) -> CorrectedPValues:
    """Return the p-values of all hypotheses that were tested together, corrected for their number.

    Benjamini and Hochberg (1995), Controlling the false discovery rate, Journal of the Royal Statistical Society B
    57(1): with the p-values sorted, ``min over j >= i of p_j * m / j``; and Bonferroni's ``min(1, m * p)``.

    Parameters
    ----------
    p_values : sequence of float or None
        One per training of a job. None (a record without enough trades) is not a finding but was an attempt at one:
        it stays None and counts in m, as a p-value of 1 would.

    Raises
    ------
    InvalidInputError
        If a p-value is not between 0 and 1.

    Examples
    --------
    >>> corrected_p_values([0.01, None, 0.02, 0.5]).benjamini_hochberg
    (0.04, None, 0.04, 0.6666666666666666)
    """
    wrong = [p for p in p_values if p is not None and not 0 <= p <= 1]
    if wrong:
        raise InvalidInputError(f"P-values are between 0 and 1, found {wrong}.")
    if not p_values:
        return CorrectedPValues(benjamini_hochberg=(), bonferroni=())
    from statsmodels.stats.multitest import multipletests

    filled = np.array([1.0 if p is None else p for p in p_values])

    def corrected(method: str) -> tuple[float | None, ...]:
        values = multipletests(filled, method=method)[1].tolist()
        return tuple(None if p is None else value for p, value in zip(p_values, values, strict=True))

    return CorrectedPValues(benjamini_hochberg=corrected("fdr_bh"), bonferroni=corrected("bonferroni"))
