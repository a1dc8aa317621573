"""Drift of trade results, by river's Page-Hinkley test with a threshold that the configuration's own trades give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from tradepulse_pipeline.market.candles import FloatArray
from tradepulse_pipeline.monitoring.prediction import REACHED_BY, continuations

#: Chance of an alarm within 50 trades, while results go on as they were, that is not exceeded: docs/monitoring.md
#: tells what was measured.
FALSE_ALARM_RATE: Final = 0.05

#: Trades over which that chance is taken; a longer record has the next multiple of it.
HORIZON_TRADES: Final = 100

#: Out-of-sample trades that it takes to know what is usual.
LEAST_TRADES: Final = 30

#: Fall of the mean, in standard deviations of a trade's result, that is not counted: half of what is to be found.
TOLERANCE: Final = 0.25

N_PATHS: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """What the test says of a record of trades.

    Attributes
    ----------
    detected_at : int or None
        Number of the paper trade, from 1, at which the alarm was raised.
    statistic, threshold : float
        The test's statistic after the last trade (at the alarm, where there was one), and where it raises the alarm;
        in standard deviations of a trade's result.
    horizon : int
        Trades within which 2 % of the continuations raise an alarm. Records that go on as they were do so more often,
        the more so the fewer trades are usual: docs/monitoring.md has measured rates.
    """

    detected_at: int | None
    statistic: float
    threshold: float
    horizon: int


def detect_drift(usual: FloatArray, results: FloatArray, *, seed: int, n_paths: int = N_PATHS) -> Drift | None:
    """Return whether the results of trades have fallen below what is usual, by river's Page-Hinkley test.

    Results are centred and scaled by what is usual. The detector first learns the usual mean, as often as there are
    usual trades, which leaves its statistic at 0; from then on its mean moves on with the new results. Its threshold
    is calibrated: of the continuations of the usual results, 2 % reach it within the horizon. Page (1954), Continuous
    inspection schemes, Biometrika 41; river.drift.PageHinkley.

    Parameters
    ----------
    usual : float64 array of shape (n_usual,)
        R multiples of the out-of-sample trades, in time order.
    results : float64 array of shape (n_trades,)
        R multiples of the paper trades, in time order.
    seed : int
        Of the continuations.

    Returns
    -------
    Drift or None
        None for fewer than 30 usual trades, or results that do not vary.
    """
    if len(usual) < LEAST_TRADES or np.ptp(usual) == 0:
        return None
    from river.drift import PageHinkley

    mean, deviation, n = float(np.mean(usual)), float(np.std(usual, ddof=1)), len(usual)
    horizon = max(1, -(-len(results) // HORIZON_TRADES)) * HORIZON_TRADES
    paths = (continuations(usual, horizon, n_paths=n_paths, seed=seed) - mean) / deviation
    threshold = float(np.quantile(statistics(paths, n).max(axis=1), 1 - REACHED_BY))
    scaled = (results - mean) / deviation
    detector = PageHinkley(min_instances=1, delta=TOLERANCE, threshold=threshold, alpha=1.0, mode="down")
    detected_at = None
    for number, value in enumerate([0.0] * n + scaled.tolist(), start=1 - n):
        detector.update(value)  # type: ignore[no-untyped-call]
        if detector.drift_detected:
            detected_at = number
            break
    seen = statistics(scaled[None], n)[0]
    statistic = 0.0 if not len(seen) else float(seen[-1 if detected_at is None else detected_at - 1])
    return Drift(detected_at=detected_at, statistic=statistic, threshold=threshold, horizon=horizon)


def statistics(paths: FloatArray, n_usual: int) -> FloatArray:
    """Return the statistic of the Page-Hinkley test for a fall, after each value of each path: (n_paths, length).

    The same as river's, for thousands of paths at once: ``n_usual`` zeros have been learned before.
    """
    count = n_usual + np.arange(1, paths.shape[1] + 1)
    deviation = paths - np.cumsum(paths, axis=1) / count
    learned = n_usual * TOLERANCE
    total = learned + np.cumsum(deviation + TOLERANCE, axis=1)
    highest = np.maximum(np.maximum.accumulate(total, axis=1), learned)
    statistic: FloatArray = highest - total
    return statistic
