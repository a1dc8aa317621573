"""What a training would take, and whether it can prove anything, before it starts."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from tradepulse_pipeline.backtest.evaluators import TabledEvaluator
from tradepulse_pipeline.backtest.result import METRIC_NAMES
from tradepulse_pipeline.backtest.settings import BarRange
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import Candles, FloatArray, IntArray
from tradepulse_pipeline.market.series import MS_PER_DAY, SeriesKey
from tradepulse_pipeline.optimizers.deadline import Deadline
from tradepulse_pipeline.optimizers.search import search
from tradepulse_pipeline.strategies.base import Strategy
from tradepulse_pipeline.strategies.space import ParameterSpace
from tradepulse_pipeline.validation.lifecycle import MATURE_TRADES
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline.validation.walk_forward import evaluator_of, train_windows
from tradepulse_pipeline.validation.windows import WindowSettings, make_windows

#: How long up to two windows are searched, or each of them, to see how fast this machine tries parameter sets.
BENCHMARK_SECONDS: Final = 2.0

#: How many parameter sets are drawn to count trades.
N_DRAWS: Final = 200

#: A grid search that takes no longer is what ``auto`` stands for.
LONGEST_GRID_SECONDS: Final = 60.0

#: With how many exits a set of signal parameters is tried to see what a grid search costs.
_MOST_EXITS: Final = 64

DAYS_PER_YEAR: Final = 365


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeForecast:
    """How many trades a training can hope for: the median of parameter sets drawn at random, and the busiest of them.

    ``months_for_proof`` is the history in which they make enough trades out-of-sample, None for never.
    """

    n_draws: int
    trades_per_year: float
    busiest_trades_per_year: float
    out_of_sample_days: float
    out_of_sample_trades: float
    busiest_out_of_sample_trades: float
    trades_for_proof: int
    share_with_enough_trades: float
    can_be_proved: bool
    months_for_proof: float | None
    busiest_months_for_proof: float | None

    @property
    def verdict(self) -> str:
        """Whether enough trades for a proof can be reached, and if not, in which history they could."""
        share = f"{self.share_with_enough_trades:.{0 if self.share_with_enough_trades >= 0.1 else 1}%}"
        wanted = f"{self.trades_for_proof} out-of-sample trades"
        if self.share_with_enough_trades >= 0.5:
            return f"{wanted} can be reached: {share} of parameter sets do."
        if self.can_be_proved:
            verdict, who, months = f"can be reached, but only by the busiest {share}", "median", self.months_for_proof
        else:
            verdict, who, months = "cannot be reached in these windows", "busiest", self.busiest_months_for_proof
        if months is None:
            return f"{wanted} {verdict}. The {who} parameter set makes no trades here."
        return (
            f"{wanted} {verdict}. The {who} parameter set needs about {math.ceil(months)} months of history: "
            f"{math.ceil(months / 12 * DAYS_PER_YEAR):,} days."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What is to be expected of one training."""

    series: str
    strategy: str
    is_simulated: bool
    n_candles: int
    days: float
    combinations: int
    method: str
    trials_per_search: int
    searches: int
    trials: int
    seconds: float
    windows: int
    forecast: TradeForecast


def estimate_training(strategy: Strategy, series: SeriesKey, candles: Candles, training: TrainingSettings) -> Estimate:
    """Return what a training on ``candles`` would take, measured for a few seconds, and how many trades to expect.

    Raises
    ------
    InsufficientHistoryError
        If there are too few candles for one window.
    """
    frame = IndicatorFrame.compute(candles.filled_forward(), strategy.indicators)
    n_searches = len(train_windows(frame, training.windows))
    training = settled(frame, strategy, training)
    is_grid = training.search.method == "grid"
    size = ParameterSpace(strategy.parameters).size
    planned = training.search.planned_trials(size)
    return Estimate(
        series=str(series),
        strategy=strategy.name,
        is_simulated=series.market.is_simulated,
        n_candles=len(candles),
        days=_days(frame),
        combinations=size,
        trials_per_search=planned,
        method=training.search.method,
        searches=n_searches,
        trials=planned * n_searches,
        seconds=(grid_seconds if is_grid else _search_seconds)(frame, strategy, training),
        windows=len(make_windows(frame.open_time_ms, frame.timeframe, training.windows)),
        forecast=forecast_trades(frame, strategy, training),
    )


def forecast_trades(frame: IndicatorFrame, strategy: Strategy, training: TrainingSettings) -> TradeForecast:
    """Return how many trades to expect: of parameter sets drawn at random, over all candles.

    Raises
    ------
    InsufficientHistoryError
        If there are too few candles for one window.
    """
    windows = make_windows(frame.open_time_ms, frame.timeframe, training.windows)
    evaluator = evaluator_of(frame, strategy, training)
    n_draws = min(N_DRAWS, evaluator.space.size)
    draws = np.random.default_rng(training.search.seed).choice(evaluator.space.size, n_draws, replace=False)
    metrics = evaluator.evaluate(draws, BarRange(0, len(frame)))
    per_day: FloatArray = metrics[:, METRIC_NAMES.index("sample_size")] / _days(frame)
    median, busiest = float(np.median(per_day)), float(per_day.max())
    test_days = sum(window.test_end_ms - window.test_start_ms for window in windows) / MS_PER_DAY
    return TradeForecast(
        n_draws=n_draws,
        trades_per_year=median * DAYS_PER_YEAR,
        busiest_trades_per_year=busiest * DAYS_PER_YEAR,
        out_of_sample_days=test_days,
        out_of_sample_trades=median * test_days,
        busiest_out_of_sample_trades=busiest * test_days,
        trades_for_proof=MATURE_TRADES,
        share_with_enough_trades=float((per_day * test_days >= MATURE_TRADES).mean()),
        can_be_proved=busiest * test_days >= MATURE_TRADES,
        months_for_proof=_months(MATURE_TRADES, median, training.windows),
        busiest_months_for_proof=_months(MATURE_TRADES, busiest, training.windows),
    )


def _days(frame: IndicatorFrame) -> float:
    return float(frame.open_time_ms[-1] + frame.timeframe.milliseconds - frame.open_time_ms[0]) / MS_PER_DAY


def settled(frame: IndicatorFrame, strategy: Strategy, training: TrainingSettings) -> TrainingSettings:
    """Return the settings with a method in the place of ``auto``: ``grid`` where it takes less than a minute here.

    A grid beyond ``max_combinations`` is not tried. What was chosen is what gets stored: a repetition does not choose
    again.
    """
    if training.search.method != "auto":
        return training
    size = ParameterSpace(strategy.parameters).size
    is_small = size <= training.search.max_combinations
    is_quick = is_small and grid_seconds(frame, strategy, training, enough=LONGEST_GRID_SECONDS) <= LONGEST_GRID_SECONDS
    return replace(training, search=replace(training.search, method="grid" if is_quick else "random"))


def grid_seconds(
    frame: IndicatorFrame, strategy: Strategy, training: TrainingSettings, *, enough: float = 0.0
) -> float:
    """Return about how long a search of the whole grid takes in all train windows, from a quick measurement.

    Sets of signal parameters are drawn at random, each with all exits, and tried, ever more of them for a few seconds:
    decisions that sets share are found once, so that the first sets cost more than those that follow. The measurement
    ends before when it comes to ``enough`` seconds or less.
    """
    evaluator = evaluator_of(frame, strategy, training)
    first, *others = train_windows(frame, training.windows).values()
    evaluator.evaluate(np.zeros(1, dtype=np.int64), first)  # compiled from here on
    deadline, seconds = Deadline.after(BENCHMARK_SECONDS), math.inf
    for part in _growing_parts(evaluator.space, training.search.seed):
        seconds = _seconds(evaluator, part, first)
        if others:  # they cost less: they find the decisions known
            seconds += _seconds(evaluator, part, others[0]) * len(others)
        seconds *= evaluator.space.size / len(part)
        if seconds <= enough or deadline.has_passed:
            break
    return seconds


def _growing_parts(space: ParameterSpace, seed: int) -> Iterator[IntArray]:
    """Yield combinations of the grid in ever larger parts: random sets of signal parameters, each with all exits."""
    rng = np.random.default_rng(seed)
    shape = np.array(space.shape)
    is_exit = np.array([parameter.kind == "exit" for parameter in space.parameters])
    n_signals, n_exits = (math.prod(shape[kind].tolist()) for kind in (~is_exit, is_exit))
    exits = np.stack(np.unravel_index(rng.permutation(n_exits)[:_MOST_EXITS], shape[is_exit]), axis=-1)
    n_sets = 4
    while True:
        indices = np.zeros((n_sets, len(exits), len(shape)), dtype=np.int64)
        indices[:, :, ~is_exit] = rng.integers(shape[~is_exit], size=(n_sets, 1, int((~is_exit).sum())))
        indices[:, :, is_exit] = exits
        yield space.combinations(indices.reshape(-1, len(shape)))
        if n_sets >= n_signals:
            return
        n_sets *= 2


def _seconds(evaluator: TabledEvaluator, combinations: IntArray, window: BarRange) -> float:
    begin = time.perf_counter()
    evaluator.evaluate(combinations, window)
    return time.perf_counter() - begin


def _search_seconds(frame: IndicatorFrame, strategy: Strategy, training: TrainingSettings) -> float:
    """Return about how long all searches of a training take, measured on the first two.

    The later searches are quicker than the first one: they find the signals of the parameter sets computed.
    """
    evaluator, trains = evaluator_of(frame, strategy, training), list(train_windows(frame, training.windows).values())
    planned, measured = training.search.planned_trials(evaluator.space.size), []
    for train in trains[:2]:
        started = time.perf_counter()
        trials = search(evaluator, train, training.search, deadline=Deadline.after(BENCHMARK_SECONDS))
        measured.append((time.perf_counter() - started) * planned / len(trials))
    return measured[0] + measured[-1] * (len(trains) - 1)


def _months(trades: int, per_day: float, windows: WindowSettings) -> float | None:
    """Return the months of history in which ``trades`` out-of-sample trades are made, None for never."""
    if per_day == 0:
        return None
    test_days = trades / per_day
    if windows.scheme == "train_test_split":
        days = (test_days + windows.gap_days) / (1 - windows.train_ratio)
    else:
        n_windows = math.ceil(test_days / (windows.test_days - windows.gap_days))
        days = windows.train_days + windows.test_days + (n_windows - 1) * windows.step
    return days * 12 / DAYS_PER_YEAR
