"""Whether the best of several candidates is better than nothing, once it is known how many there were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.candles import FloatArray

#: Candidates that are compared at most: the time grows with their number.
MOST_CANDIDATES: Final = 50

#: Deviations below this share of the largest value are rounding, not variation.
_ROUNDING: Final = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSnooping:
    """What the tests of several candidates came to. See ``data_snooping``.

    Attributes
    ----------
    reality_check : float
        P-value of White's reality check.
    superior_predictive_ability : float
        P-value of Hansen's test, the consistent one.
    better_than_nothing : tuple of int
        Columns of the candidates that StepM finds to earn more than nothing, in ascending order.
    """

    reality_check: float
    superior_predictive_ability: float
    better_than_nothing: tuple[int, ...]


def data_snooping(
    returns: FloatArray, *, seed: int, n_resamples: int = 1_000, block_length: float | None = None, size: float = 0.05
) -> DataSnooping | None:
    """Test whether any of the candidates has a mean return above 0, and which ones do.

    White (2000), A reality check for data snooping, Econometrica 68(5); Hansen (2005), A test for superior predictive
    ability, Journal of Business and Economic Statistics 23(4), of which the former is the upper p-value; Romano and
    Wolf (2005), Stepwise multiple testing as formalized data snooping, Econometrica 73(4). All with the stationary
    bootstrap, by the package arch, of returns over their standard deviation: otherwise the most volatile candidate
    decides alone.

    The candidates must have been chosen without these returns, or be all that were tried: of the best few of a
    search over the same days the tests know nothing of those that were left out.

    Parameters
    ----------
    returns : float64 array of shape (n_days, n_candidates)
        Daily returns, at most 50 candidates. Those that do not vary are left out: they have no distribution.
    seed : int
        Of the resamples.
    n_resamples : int
        Resampled histories.
    block_length : float, optional
        Mean length of the blocks, in days; by default the square root of the number of days.
    size : float
        Chance of even one false finding that StepM may take.

    Returns
    -------
    DataSnooping or None
        None for fewer than three days or without a candidate whose returns vary.

    Raises
    ------
    InvalidInputError
        For more candidates, other shapes or values that are not finite.
    """
    if returns.ndim != 2 or returns.shape[1] > MOST_CANDIDATES or not np.isfinite(returns).all():
        raise InvalidInputError(
            f"Expected finite returns of shape (n_days, n_candidates) with at most {MOST_CANDIDATES} candidates, found "
            f"shape {returns.shape}, {np.count_nonzero(~np.isfinite(returns))} values not finite."
        )
    if len(returns) < 3 or not returns.shape[1]:
        return None
    deviation = returns.std(axis=0)
    candidates = np.flatnonzero(deviation > _ROUNDING * np.abs(returns).max(axis=0))
    if not len(candidates):
        return None
    from arch.bootstrap import SPA, StepM

    # What arch compares are losses, the benchmark's against the candidates'. Its own studentising does not reach the
    # p-values of SPA.
    losses, nothing = -returns[:, candidates] / deviation[candidates], np.zeros(len(returns))
    length = max(1, round(np.sqrt(len(returns)) if block_length is None else block_length))
    test = SPA(
        nothing, losses, block_size=length, reps=n_resamples, bootstrap="stationary", studentize=False, seed=seed
    )
    test.compute()
    # Beside them one that earns nothing: arch fails once all candidates are found, and this one never is.
    beside = np.column_stack([losses, nothing])
    steps = StepM(
        nothing, beside, size, block_size=length, reps=n_resamples, bootstrap="stationary", studentize=False, seed=seed
    )
    steps.compute()
    # What was observed counts as one more resample, so that no p-value is 0.
    p_values = (1 + n_resamples * test.pvalues) / (1 + n_resamples)
    return DataSnooping(
        reality_check=float(p_values["upper"]),
        superior_predictive_ability=float(p_values["consistent"]),
        better_than_nothing=tuple(np.sort(candidates[np.array(steps.superior_models, dtype=np.int64)]).tolist()),
    )
