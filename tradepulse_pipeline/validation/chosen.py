"""What was chosen for each test window: the runs behind an out-of-sample record, to be looked at again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from tradepulse_pipeline.backtest.settings import BarRange
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import FloatArray, IntArray
from tradepulse_pipeline.strategies.base import SignalSource, Strategy
from tradepulse_pipeline.strategies.decisions import LONG, Decisions, Exits, Side
from tradepulse_pipeline.strategies.space import ParameterSpace
from tradepulse_pipeline.validation.record import OutOfSampleRecord
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline.validation.windows import WindowSettings, make_windows

_NOTHING: Final = np.empty(0)


class ChosenRun(NamedTuple):
    """A test window, and the combination that was chosen for it; None where no trial was valid: it stays flat."""

    window: BarRange
    combination: int | None


class ChosenDecisions(NamedTuple):
    """The decisions of a chosen combination that fall into its test window, and how their positions end."""

    window: BarRange
    decisions: Decisions
    exits: Exits


def chosen_runs(record: OutOfSampleRecord, frame: IndicatorFrame, settings: WindowSettings) -> tuple[ChosenRun, ...]:
    """Return the runs that a record was put together from, in time order; windows not searched are left out.

    Raises
    ------
    InvalidInputError
        If the record's windows are not those of these candles and settings.
    """
    windows = make_windows(frame.open_time_ms, frame.timeframe, settings)
    spans = [(window.test_start_ms, window.test_end_ms) for window in windows]
    found = [(result.test_start_ms, result.test_end_ms) for result in record.windows]
    if found != spans:
        raise InvalidInputError(
            f"The record has {len(found)} test windows, these candles and window settings give {len(spans)}, not the "
            "same ones. Use the candles and settings of the training."
        )
    return tuple(
        ChosenRun(window.test, result.chosen.combination if result.chosen else None)
        for window, result in zip(windows, record.windows, strict=True)
        if result.status != "not searched"
    )


def in_sample_equity(
    record: OutOfSampleRecord, frame: IndicatorFrame, strategy: Strategy, settings: TrainingSettings
) -> list[tuple[IntArray, FloatArray]]:
    """Return the equity of each judged window's chosen trial over the train window that it was chosen on.

    Each is a pair of open times (UTC ms) and equity (quote currency), of shape (n_bars,), from the initial capital.
    """
    from tradepulse_pipeline.backtest.evaluators import PlainEvaluator

    evaluator = PlainEvaluator(frame, strategy, side=settings.side, account=settings.account)
    capital = settings.account.initial_capital
    windows = make_windows(frame.open_time_ms, frame.timeframe, settings.windows)
    curves = []
    for window, result in zip(windows, record.windows, strict=True):
        if result.chosen is not None:
            bars = window.train
            equity = evaluator.run(result.chosen.combination, bars, initial_capital=capital).equity
            curves.append((frame.open_time_ms[bars.start : bars.stop], equity))
    return curves


def chosen_decisions(
    frame: IndicatorFrame, strategy: Strategy, side: Side, runs: Sequence[ChosenRun]
) -> list[ChosenDecisions]:
    """Return what each run decides within its window; one without a combination decides nothing."""
    space, source = ParameterSpace(strategy.parameters), SignalSource(strategy, frame, side)
    found = []
    for window, combination in runs:
        decisions, exits = Decisions.of(_NOTHING.astype(np.int64), LONG, _NOTHING, _NOTHING), Exits()
        if combination is not None:
            parameters = space.values(combination)
            decisions, exits = source.decisions(parameters), strategy.exits(parameters)
            first, last = np.searchsorted(decisions.bar, window)
            decisions = decisions.take(np.arange(first, last))
        found.append(ChosenDecisions(window, decisions, exits))
    return found
