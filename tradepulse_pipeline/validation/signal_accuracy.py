"""Signal accuracy: how often what followed a decision was what it promised, and for how long it holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from tradepulse_pipeline.backtest.settings import BarRange
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import FloatArray, IntArray
from tradepulse_pipeline.strategies.base import Strategy
from tradepulse_pipeline.strategies.decisions import Side
from tradepulse_pipeline.validation.barriers import (
    STOP_FIRST,
    TARGET_FIRST,
    TIMEOUT,
    UNLABELLED,
    Labels,
    triple_barrier,
)
from tradepulse_pipeline.validation.chosen import ChosenDecisions, ChosenRun, chosen_decisions
from tradepulse_pipeline.validation.folds import DEFAULT_FOLDS, purged_folds
from tradepulse_pipeline.validation.regimes import atr_of, volume_multiple

if TYPE_CHECKING:
    import polars as pl

#: Bars after the decision at which its forward return is measured.
HORIZONS: Final = (1, 2, 5, 10, 20, 50)

#: A month with fewer decisions has no information coefficient.
LEAST_PER_MONTH: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracySettings:
    """Barriers, folds and resampling."""

    #: Bars until the vertical barrier.
    horizon: int = 50
    #: Distance of both barriers in ATR at the decision; None for that of the decision's own stop.
    atr_multiple: float | None = 1.0
    n_folds: int = DEFAULT_FOLDS
    #: Bars after a fold's test span from which nothing is learned.
    embargo: int = 50
    n_resamples: int = 1_000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"horizon": 1, "n_folds": 2, "embargo": 0, "n_resamples": 100}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise InvalidInputError(f"{name}: found {getattr(self, name)}, expected at least {value}.")
        if self.atr_multiple is not None and not self.atr_multiple > 0:
            raise InvalidInputError(f"atr_multiple: found {self.atr_multiple}, expected a number above 0.")
        if not 0 < self.confidence < 1:
            raise InvalidInputError(f"confidence: found {self.confidence}, expected a fraction between 0 and 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hits:
    """How often which barrier came first; shares are of all labelled decisions, 0 without any."""

    target_first: int
    stop_first: int
    timeout: int

    @classmethod
    def of(cls, label: IntArray) -> Hits:
        """Count labels."""
        counts = np.bincount(label, minlength=UNLABELLED + 1).tolist()
        return cls(target_first=counts[TARGET_FIRST], stop_first=counts[STOP_FIRST], timeout=counts[TIMEOUT])

    @property
    def n(self) -> int:
        """Labelled decisions."""
        return self.target_first + self.stop_first + self.timeout

    @property
    def precision(self) -> float:
        """Share of decisions after which the target came first."""
        return self.target_first / max(self.n, 1)

    @property
    def false_positive_share(self) -> float:
        """Share of decisions after which the stop came first."""
        return self.stop_first / max(self.n, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldAccuracy:
    """Precision in one stretch of time, and of what may be learned from without it; None without train samples."""

    test: Hits
    interval: tuple[float, float]
    n_train: int
    train_precision: float | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SignalAccuracy:
    """How accurate the decisions of a record's test windows were.

    Attributes
    ----------
    n_decisions : int
        Bars with a decision, entered or not; one that comes while another's position is open counts as well.
    hits : Hits
    interval : tuple of float
        Interval of the precision, see ``AccuracySettings.confidence``.
    base_precision, base_false_positive_share : float
        The same shares for the same barriers at all bars of the same windows; 0 without decisions.
    folds : tuple of FoldAccuracy
        In time order; empty with fewer labelled decisions than folds.
    decay : polars.DataFrame
        See ``signal_decay``.
    """

    n_decisions: int
    hits: Hits
    interval: tuple[float, float]
    base_precision: float
    base_false_positive_share: float
    folds: tuple[FoldAccuracy, ...]
    decay: pl.DataFrame

    @property
    def verdict(self) -> str:
        """What the precision is worth, in words."""
        if not self.hits.n:
            return "No decision whose outcome is known: nothing can be said about accuracy."
        low, high = self.interval
        place = "above" if low > self.base_precision else "below" if high < self.base_precision else "not told from"
        return (
            f"Precision {self.hits.precision:.1%} ({low:.1%} to {high:.1%}) over {self.hits.n} decisions, {place} the "
            f"{self.base_precision:.1%} of any bar; the stop came first in {self.hits.false_positive_share:.1%}, "
            f"against {self.base_false_positive_share:.1%}."
        )


def signal_accuracy(
    frame: IndicatorFrame,
    strategy: Strategy,
    side: Side,
    runs: Sequence[ChosenRun],
    settings: AccuracySettings | None = None,
) -> SignalAccuracy:
    """Judge the decisions of each test window's chosen combination by what followed, whatever the exits make of it.

    Each bar counts as one decision, with the nearest of its stops. What follows may reach beyond the test window.
    The base rate is that of every bar of the windows, each under side and barriers (in ATR) of a random decision of its
    window; windows weigh as much as they have decisions. Barriers that are hit by 50 % of all bars make 55 % of them a
    small thing.

    Parameters
    ----------
    runs : sequence of ChosenRun
        Test windows in time order, see ``chosen_runs``.
    """
    settings = settings or AccuracySettings()
    rng = np.random.default_rng(settings.seed)
    atr = atr_of(frame)
    parts = [_Signals.of(frame, atr, part, settings) for part in chosen_decisions(frame, strategy, side, runs)]
    bar = np.concatenate([np.empty(0, np.int64), *(part.bar for part in parts)])
    sides = np.concatenate([np.empty(0, np.int64), *(part.side for part in parts)])
    multiple = np.concatenate([np.empty(0), *(part.multiple for part in parts)])
    labels = triple_barrier(frame, bar, sides, multiple * atr[bar], settings.horizon)
    is_labelled = labels.label != UNLABELLED
    known = Labels(labels.label[is_labelled], labels.end[is_labelled])
    base = _base_shares(frame, atr, parts, settings, rng)
    return SignalAccuracy(
        n_decisions=len(bar),
        hits=Hits.of(known.label),
        interval=_precision_interval(bar[is_labelled], known, settings, rng),
        base_precision=float(base[TARGET_FIRST]),
        base_false_positive_share=float(base[STOP_FIRST]),
        folds=_fold_accuracy(bar[is_labelled], known, settings, rng),
        decay=signal_decay(frame, bar, sides, volume_multiple(frame)[bar]),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Signals:
    """The decisions of one window, one per bar: their side, and the distance of their barriers in ATR."""

    window: BarRange
    bar: IntArray
    side: IntArray
    multiple: FloatArray

    @classmethod
    def of(cls, frame: IndicatorFrame, atr: FloatArray, part: ChosenDecisions, settings: AccuracySettings) -> _Signals:
        decisions = part.decisions
        stop = decisions.stop_anchor - decisions.side * part.exits.stop_multiple * decisions.stop_unit
        order = np.lexsort([np.abs(frame.close[decisions.bar] - stop), decisions.bar])
        rows = order[np.diff(decisions.bar[order], prepend=-1) > 0]
        bar, side = decisions.bar[rows], decisions.side[rows]
        entry = frame.open[np.minimum(bar + 1, len(frame) - 1)]
        own = side * (entry - stop[rows]) / atr[bar]
        multiple = own if settings.atr_multiple is None else np.full(len(bar), settings.atr_multiple)
        return cls(window=part.window, bar=bar, side=side, multiple=multiple)


def _base_shares(
    frame: IndicatorFrame,
    atr: FloatArray,
    parts: Sequence[_Signals],
    settings: AccuracySettings,
    rng: np.random.Generator,
) -> FloatArray:
    """Return the share of each label among all bars of the windows that have decisions, weighted by their number."""
    shares, total = np.zeros(UNLABELLED), 0
    for part in parts:
        if not len(part.bar):
            continue
        bar = np.arange(*part.window, dtype=np.int64)
        like = rng.integers(len(part.bar), size=len(bar))
        found = triple_barrier(frame, bar, part.side[like], part.multiple[like] * atr[bar], settings.horizon).label
        counts = np.bincount(found, minlength=UNLABELLED + 1)[:UNLABELLED]
        if counts.any():
            shares += len(part.bar) * counts / counts.sum()
            total += len(part.bar)
    return shares / max(total, 1)


def _fold_accuracy(
    bar: IntArray, labels: Labels, settings: AccuracySettings, rng: np.random.Generator
) -> tuple[FoldAccuracy, ...]:
    if len(bar) < settings.n_folds:
        return ()
    found = []
    for train, test in purged_folds(bar, labels.end, n_folds=settings.n_folds, embargo=settings.embargo):
        of_test = Labels(labels.label[test], labels.end[test])
        found.append(
            FoldAccuracy(
                test=Hits.of(of_test.label),
                interval=_precision_interval(bar[test], of_test, settings, rng),
                n_train=len(train),
                train_precision=Hits.of(labels.label[train]).precision if len(train) else None,
            )
        )
    return tuple(found)


def _precision_interval(
    bar: IntArray, labels: Labels, settings: AccuracySettings, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the wider of two intervals of the precision; (0, 1), no knowledge, without any label.

    Wilson's score interval (1927, JASA 22(158)) takes labels as independent, and holds for few of them. The percentile
    interval of the stationary bootstrap (Politis and Romano 1994, JASA 89(428)) allows for labels that overlap in
    time: blocks are as long, in the mean, as there are labels that overlap.
    """
    from arch.bootstrap import StationaryBootstrap
    from scipy.stats import binomtest

    if not len(bar):
        return 0.0, 1.0
    overlapping = np.mean(np.searchsorted(bar, labels.end, side="right") - np.arange(len(bar)))
    is_hit = (labels.label == TARGET_FIRST).astype(np.float64)
    bootstrap = StationaryBootstrap(math.ceil(overlapping), is_hit, seed=rng)
    precision = bootstrap.apply(np.mean, settings.n_resamples)[:, 0]
    tail = (1 - settings.confidence) / 2
    low, high = np.quantile(precision, (tail, 1 - tail)).tolist()
    wilson = binomtest(int(is_hit.sum()), len(is_hit)).proportion_ci(settings.confidence, method="wilson")
    return min(low, float(wilson.low)), max(high, float(wilson.high))


def signal_decay(
    frame: IndicatorFrame,
    bar: IntArray,
    side: IntArray,
    strength: FloatArray,
    horizons: Sequence[int] = HORIZONS,
) -> pl.DataFrame:
    """Return how decisions do at several horizons, and whether stronger ones do better; one row for each horizon.

    The forward return over h bars is ``side * log(close[j + h] / open[j + 1])`` in units of ATR / close at the
    decision. Decisions that cannot be entered, have no ATR, or whose horizon the data do not cover are left out.

    Parameters
    ----------
    bar, side : int64 arrays of shape (n,)
        Decisions in time order, no bar twice.
    strength : float64 array of shape (n,)
        A value known at the decision, NaN where undefined. In a record it is the volume multiple of the decision bar,
        as decisions carry no strength of their own.

    Returns
    -------
    polars.DataFrame
        horizon, n, mean, standard_error, t_value, information_coefficient, information_ratio, n_months; null where
        undefined.

        Returns over the same bars are correlated. Their variance is summed over decisions less than h bars apart, by
        the larger of Hansen and Hodrick's estimate (1980, JPE 88(5); equal weights) and Newey and West's (1987,
        Econometrica 55(3); falling weights). Lags are bars, not decisions: bars without one count as 0 (Datta and Du
        2012, IFDP 1060).

        The information coefficient is Spearman's rank correlation of strength and forward return; the information
        ratio is mean over standard deviation (ddof 1) of its values in single months (UTC) with 5 decisions or more,
        not annualised: Grinold and Kahn (1999), Active Portfolio Management.
    """
    import polars as pl

    n_bars, atr = len(frame), atr_of(frame)
    entry = np.minimum(bar + 1, n_bars - 1)
    can_enter = frame.is_adjacent[entry] & (entry > bar) & (atr[bar] > 0)
    can_enter &= ~(frame.is_filled[bar] | frame.is_filled[entry])
    rows = []
    for horizon in horizons:
        kept = np.flatnonzero(can_enter & (bar + horizon < n_bars))
        j = bar[kept]
        moves = side[kept] * np.log(frame.close[j + horizon] / frame.open[j + 1]) * frame.close[j] / atr[j]
        months = frame.open_time_ms[j].astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64)
        rows.append(
            {"horizon": horizon, "n": len(j), **_mean_and_error(j, moves, horizon)}
            | _information(strength[kept], moves, months)
        )
    floats = ("mean", "standard_error", "t_value", "information_coefficient", "information_ratio")
    integers = dict.fromkeys(("horizon", "n"), pl.Int64)
    return pl.DataFrame(rows, schema={**integers, **dict.fromkeys(floats, pl.Float64), "n_months": pl.Int64})


def _mean_and_error(bar: IntArray, moves: FloatArray, horizon: int) -> dict[str, float | None]:
    """Return the mean and its standard error, robust against overlap."""
    from statsmodels.stats.sandwich_covariance import S_hac_simple, weights_bartlett, weights_uniform

    n = len(moves)
    if n < 2:
        return {"mean": float(moves[0]) if n else None, "standard_error": None, "t_value": None}
    mean = float(moves.mean())
    by_bar = np.zeros(int(bar[-1] - bar[0]) + horizon)
    by_bar[bar - bar[0]] = moves - mean
    estimates = [S_hac_simple(by_bar, horizon - 1, weights).item() for weights in (weights_uniform, weights_bartlett)]
    error = (max(estimates) / (n * (n - 1))) ** 0.5
    return {"mean": mean, "standard_error": error, "t_value": mean / error if error > 0 else None}


def _information(strength: FloatArray, moves: FloatArray, months: IntArray) -> dict[str, float | int | None]:
    """Return the information coefficient, and the information ratio of its values in single months."""
    by_month = [
        coefficient
        for month in np.unique(months)
        if (coefficient := _rank_correlation(strength[months == month], moves[months == month])) is not None
    ]
    spread = float(np.std(by_month, ddof=1)) if len(by_month) > 1 else 0.0
    return {
        "information_coefficient": _rank_correlation(strength, moves),
        "information_ratio": float(np.mean(by_month)) / spread if spread > 0 else None,
        "n_months": len(by_month),
    }


def _rank_correlation(strength: FloatArray, moves: FloatArray) -> float | None:
    """Return Spearman's correlation, None for too few values or values that do not vary."""
    from scipy.stats import spearmanr

    is_defined = ~np.isnan(strength)
    strength, moves = strength[is_defined], moves[is_defined]
    if len(moves) < LEAST_PER_MONTH or np.ptp(strength) == 0 or np.ptp(moves) == 0:
        return None
    return float(spearmanr(strength, moves).statistic)
