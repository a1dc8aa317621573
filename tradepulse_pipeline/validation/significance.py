"""Whether an out-of-sample record can be told from luck, and from its own in-sample promise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from tradepulse_pipeline.market.candles import FloatArray

#: Out-of-sample Sharpe below this share of the in-sample one counts as overfit.
OVERFIT_SHARE: Final = 0.5

#: Deviations below this share of the largest value are rounding, not variation.
_ROUNDING: Final = 1e-12


def z_score(returns: FloatArray) -> float | None:
    """Return the z-score of the mean trade return against 0: ``mean / (std / sqrt(n))``, ddof 1.

    The one-sample z-test; the trades are taken as independent.

    Parameters
    ----------
    returns : float64 array of shape (n_trades,)
        Result of each trade as a fraction of the equity before it.

    Returns
    -------
    float or None
        None for fewer than two trades or returns that do not vary.

    Examples
    --------
    >>> round(z_score(np.array([0.01, -0.005, 0.02, 0.0])), 6)
    1.127469
    """
    if len(returns) < 2:
        return None
    deviation = float(np.std(returns, ddof=1))
    if deviation <= _ROUNDING * float(np.abs(returns).max()):
        return None
    return float(np.mean(returns)) / (deviation / math.sqrt(len(returns)))


def p_value(z: float | None) -> float | None:
    """Return the one-sided p-value of a z-score, the chance of one at least as high without any edge: ``1 - Phi(z)``.

    Examples
    --------
    >>> p_value(0.0), round(p_value(1.959964), 6), p_value(None)
    (0.5, 0.025, None)
    """
    # By the complementary error function: 1 - Phi(z) would be 0 from z = 8.3 on.
    return None if z is None else 0.5 * math.erfc(z / math.sqrt(2))


def is_overfit(in_sample_sharpe: Sequence[float], out_of_sample_sharpe: Sequence[float]) -> bool | None:
    """Return whether the mean out-of-sample Sharpe ratio is below half of the mean in-sample one.

    Both sequences have one value per window; None without windows.

    Examples
    --------
    >>> is_overfit([2.0, 4.0], [1.4, 1.7]), is_overfit([2.0, 4.0], [1.4, 1.5])
    (False, True)
    """
    if not in_sample_sharpe:
        return None
    return bool(np.mean(out_of_sample_sharpe) < OVERFIT_SHARE * np.mean(in_sample_sharpe))


def walk_forward_efficiency(in_sample_return: float | None, out_of_sample_return: float | None) -> float | None:
    """Return annualised out-of-sample return / annualised in-sample return.

    Pardo (2008), The Evaluation and Optimization of Trading Strategies. None where the in-sample return is not above
    0: a share of nothing, or of a loss, says nothing.

    Examples
    --------
    >>> walk_forward_efficiency(0.4, 0.1), walk_forward_efficiency(-0.1, 0.1)
    (0.25, None)
    """
    if in_sample_return is None or out_of_sample_return is None or in_sample_return <= 0:
        return None
    return out_of_sample_return / in_sample_return
