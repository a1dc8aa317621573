"""Walk-forward: search each train window, run what was found on the test window after it, and judge the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from tradepulse_pipeline.backtest.result import EXIT_REASONS, METRIC_NAMES, Metrics, Trades
from tradepulse_pipeline.backtest.settings import BarRange
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import FloatArray, IntArray
from tradepulse_pipeline.market.series import MS_PER_DAY
from tradepulse_pipeline.optimizers.base import NO_MORE
from tradepulse_pipeline.optimizers.deadline import Deadline
from tradepulse_pipeline.optimizers.pace import Pace
from tradepulse_pipeline.optimizers.search import check_limit, search_batches
from tradepulse_pipeline.progress import Progress, ProgressListener, ignore_progress
from tradepulse_pipeline.strategies.base import Strategy
from tradepulse_pipeline.strategies.decisions import LONG
from tradepulse_pipeline.strategies.space import ParameterSpace
from tradepulse_pipeline.validation.record import ChosenTrial, OutOfSampleRecord, WindowResult, metrics_from_dict
from tradepulse_pipeline.validation.significance import is_overfit, p_value, walk_forward_efficiency, z_score
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline.validation.trials import N_BLOCKS, Recalled, SearchResult, Tally, TrialKeeper, WindowSearch
from tradepulse_pipeline.validation.windows import Window, WindowSettings, latest_train, make_windows

if TYPE_CHECKING:
    import polars as pl

    from tradepulse_pipeline.backtest.evaluators import PlainEvaluator, TabledEvaluator

T = TypeVar("T", np.int64, np.float64)

#: The number that the latest train window has among the searched ones.
LATEST: Final = -1

#: Combinations whose moments by block are worked out, and kept, in one go.
_BLOCKS_AT_ONCE: Final = 262_144


def search_windows(
    frame: IndicatorFrame,
    strategy: Strategy,
    settings: TrainingSettings,
    on_progress: ProgressListener = ignore_progress,
    keeper: TrialKeeper | None = None,
) -> SearchResult:
    """Search the latest train window and, unless parameters stay fixed, the train window of each test window.

    When ``max_runtime_seconds`` runs out, what is missing are the oldest windows: the latest train window comes first,
    because without it there are no parameters to store, and then the windows from the newest back, so that the record
    is one unbroken stretch up to now.

    A ``keeper`` gets every trial as it is made, and in the end, of every parameter set that was tried, the sums of its
    daily returns and of their squares over ``N_BLOCKS`` blocks of all days: what the statistics of overfitting need.
    Trials that it recalls from an unfinished attempt are not made again; the result is the same.

    Raises
    ------
    InsufficientHistoryError
        If there are too few candles for one window.
    SearchLimitError
        If a search would make more trials than it may.
    """
    import polars as pl

    space = ParameterSpace(strategy.parameters)
    check_limit(space, settings.search)
    trains = train_windows(frame, settings.windows)
    evaluator = evaluator_of(frame, strategy, settings)
    planned = settings.search.planned_trials(space.size)
    deadline, pace = Deadline.after(settings.search.max_runtime_seconds), Pace()
    progress = _OverallProgress(on_progress, total=planned * len(trains))
    found: dict[int, tuple[WindowSearch, pl.DataFrame]] = {}
    tried: IntArray = NO_MORE
    for index, train in trains.items():
        tally = Tally(index, space, settings.search)
        recalled = keeper.recall(index) if keeper else None
        n_known = 0 if recalled is None else len(recalled)
        # The seed is the same in every window. A random search thus draws the same parameter sets everywhere: signals
        # are computed once for all windows, and '1,000 samples' are 1,000 parameter sets, not 1,000 in each window.
        for trials in search_batches(
            evaluator if recalled is None else Recalled(evaluator, recalled),
            train,
            settings.search,
            deadline=deadline,
            pace=pace,
            on_progress=progress.of_part(len(found), len(trains)),
            initial=np.array(settings.initial if index == LATEST else (), dtype=np.int64),
        ):
            first, last = tally.n_trials, tally.n_trials + len(trials)
            tally.add(trials)
            if keeper and last > n_known:
                keeper.keep(index, trials.take(slice(max(0, n_known - first), None)))
            if settings.search.method != "grid":
                tried = np.union1d(tried, trials.combination)
        found[index] = tally.result(), tally.best_table(partial(evaluator.evaluate, window=train))
    searches, best = zip(*(found[index] for index in sorted(found)), strict=True)
    result = SearchResult(searches=searches, best=pl.concat(best), planned=planned)
    if keeper and result.is_complete:
        _keep_blocks(evaluator, keeper, np.arange(space.size) if settings.search.method == "grid" else tried)
    return result


def evaluator_of(frame: IndicatorFrame, strategy: Strategy, settings: TrainingSettings) -> TabledEvaluator:
    """Return what evaluates the trials of a training, within its limits."""
    from tradepulse_pipeline.backtest.evaluators import TabledEvaluator

    return TabledEvaluator(
        frame,
        strategy,
        side=settings.side,
        account=settings.account,
        workers=settings.search.threads,
        memory_limit=settings.search.memory_limit_mib << 20,
    )


def train_windows(frame: IndicatorFrame, settings: WindowSettings) -> dict[int, BarRange]:
    """Return the train windows that a training searches, by number, in the order in which it does.

    Raises
    ------
    InsufficientHistoryError
        If there are too few candles for one window.
    """
    windows = make_windows(frame.open_time_ms, frame.timeframe, settings)
    trains = {LATEST: latest_train(frame.open_time_ms, frame.timeframe, settings)}
    if settings.reoptimise:
        trains |= {window.index: window.train for window in reversed(windows)}
    return trains


def _keep_blocks(evaluator: TabledEvaluator, keeper: TrialKeeper, combinations: IntArray) -> None:
    for first in range(0, len(combinations), _BLOCKS_AT_ONCE):
        part = combinations[first : first + _BLOCKS_AT_ONCE]
        keeper.keep_blocks(part, *evaluator.block_moments(part, N_BLOCKS))


class _OverallProgress:
    """Turns the progress of one search into that of all searches."""

    def __init__(self, on_progress: ProgressListener, *, total: int) -> None:
        self._on_progress: Final = on_progress
        self._total: Final = total
        self._best: float | None = None

    def of_part(self, position: int, n_parts: int) -> ProgressListener:
        """Return the listener for one of ``n_parts`` equally long searches."""

        def report(progress: Progress) -> None:
            self._best = max((best for best in (self._best, progress.best) if best is not None), default=None)
            self._on_progress(
                Progress(
                    phase=progress.phase,
                    done=position * progress.total + progress.done,
                    total=self._total,
                    unit=progress.unit,
                    best=self._best,
                    measure=progress.measure,
                    detail=f"train window {position + 1} of {n_parts}",
                )
            )

        return report


def judge_windows(
    frame: IndicatorFrame,
    strategy: Strategy,
    settings: TrainingSettings,
    found: SearchResult,
    on_progress: ProgressListener = ignore_progress,
) -> OutOfSampleRecord:
    """Run each window's chosen trial on its test window and put the out-of-sample record together.

    A window without a valid trial trades nothing and its days count as flat. A window that was not searched is left
    out of the record. With fixed parameters the chosen trial of the latest train window runs on all test windows.

    Parameters
    ----------
    frame, strategy, settings
        Those of the search.
    found : SearchResult
        What the search came to.

    Raises
    ------
    InvalidInputError
        If what was found comes from another parameter grid or from other windows.
    """
    from tradepulse_pipeline.backtest.api import cost_per_trade_r, metrics_of
    from tradepulse_pipeline.backtest.evaluators import PlainEvaluator

    windows = make_windows(frame.open_time_ms, frame.timeframe, settings.windows)
    evaluator = PlainEvaluator(frame, strategy, side=settings.side, account=settings.account)
    searches = _searches(found, evaluator.space, windows)
    account, capital = settings.account, settings.account.initial_capital
    results: list[WindowResult] = []
    runs: list[_Run] = []
    for done, window in enumerate(windows, start=1):
        result, run = _judge_window(window, searches, evaluator, settings, capital)
        results.append(result)
        if run is not None:
            runs.append(run)
            capital = float(run.equity[-1])
        on_progress(Progress(phase="walk_forward", done=done, total=len(windows), unit="windows"))
    judged = [result for result in results if result.status == "judged"]
    in_sample = _mean([result.chosen.in_sample for result in judged if result.chosen])
    times = _joined([frame.open_time_ms[run.bars.start : run.bars.stop] for run in runs], np.int64)
    equity = _joined([run.equity for run in runs], np.float64)
    trades = Trades.concatenated([run.trades for run in runs if run.trades is not None])
    metrics = metrics_of(
        equity,
        times,
        trades,
        initial_capital=account.initial_capital,
        days=sum(_days(frame, run.bars) for run in runs),
    )
    planned = settings.search.planned_trials(evaluator.space.size)
    needed = [LATEST, *(window.index for window in windows)] if settings.windows.reoptimise else [LATEST]
    z = z_score(trades.returns)
    return OutOfSampleRecord(
        metrics=metrics,
        in_sample=in_sample,
        latest=searches[LATEST].chosen,
        latest_trials=searches[LATEST].n_trials,
        windows=tuple(results),
        trades=_trades_table(frame, runs, trades),
        daily=_daily_table(equity, times, account.initial_capital),
        total_trials=found.total_trials,
        is_out_of_sample=settings.windows.reoptimise,
        is_complete=all(searches[index].n_trials == planned for index in needed),
        cost_per_trade_r=cost_per_trade_r(trades, account),
        z_score=z,
        p_value=p_value(z),
        is_overfit=is_overfit(
            [result.chosen.in_sample.sharpe_ratio for result in judged if result.chosen],
            [result.out_of_sample.sharpe_ratio for result in judged if result.out_of_sample],
        ),
        walk_forward_efficiency=walk_forward_efficiency(
            in_sample and in_sample.annualized_return, metrics.annualized_return
        ),
    )


class _Search(NamedTuple):
    """What a window's search came to."""

    n_trials: int
    chosen: ChosenTrial | None


class _Run(NamedTuple):
    """What a window adds to the record: equity at each bar, and trades where something was run."""

    window: int
    bars: BarRange
    equity: FloatArray
    trades: Trades | None


def _judge_window(
    window: Window,
    searches: Mapping[int, _Search],
    evaluator: PlainEvaluator,
    settings: TrainingSettings,
    capital: float,
) -> tuple[WindowResult, _Run | None]:
    made, chosen = searches[window.index if settings.windows.reoptimise else LATEST]
    if not made:
        return WindowResult.of(window, "not searched", n_trials=0), None
    if chosen is None:
        flat = np.full(window.test.stop - window.test.start, capital)
        return WindowResult.of(window, "no valid trial", n_trials=made), _Run(window.index, window.test, flat, None)
    if not settings.windows.reoptimise:
        row = evaluator.evaluate(np.array([chosen.combination]), window.train)[0]
        chosen = replace(chosen, in_sample=Metrics(*row.tolist()))
    result = evaluator.run(chosen.combination, window.test, initial_capital=capital)
    return (
        WindowResult.of(window, "judged", n_trials=made, chosen=chosen, out_of_sample=result.metrics),
        _Run(window.index, window.test, result.equity, result.trades),
    )


def _searches(found: SearchResult, space: ParameterSpace, windows: Sequence[Window]) -> dict[int, _Search]:
    """Return, for each window and the latest train window, what its search came to."""
    searches = {index: _Search(0, None) for index in (LATEST, *(window.index for window in windows))}
    chosen = {row["window"]: _chosen(row, space) for row in found.best.filter(found.best["rank"] == 1).to_dicts()}
    for search in found.searches:
        if search.window not in searches:
            raise InvalidInputError(
                f"The trials have a window {search.window}; these candles and window settings have windows "
                f"{sorted(searches)}. Run the search again."
            )
        searches[search.window] = _Search(search.n_trials, chosen.get(search.window))
    return searches


def _chosen(row: Mapping[str, Any], space: ParameterSpace) -> ChosenTrial:
    combination = int(row["combination"])
    parameters = space.values(combination) if combination < space.size else None
    stored = {parameter.name: row.get(parameter.name) for parameter in space.parameters}
    if parameters is None or parameters != stored:
        raise InvalidInputError(
            f"Combination {combination} of the trials is {stored}, in the strategy's grid it is {parameters}: the grid "
            "has changed. Run the search again."
        )
    return ChosenTrial(
        combination=combination,
        parameters=parameters,
        in_sample=metrics_from_dict({name: row[name] for name in METRIC_NAMES}),
    )


def _mean(metrics: Sequence[Metrics]) -> Metrics | None:
    """Return the mean of each metric; an infinite profit factor (NaN) makes the mean infinite, as it should."""
    return Metrics(*np.mean(metrics, axis=0).tolist()) if metrics else None


def _joined(parts: Sequence[NDArray[T]], dtype: type[T]) -> NDArray[T]:
    return np.concatenate([np.empty(0, dtype=dtype), *parts])


def _days(frame: IndicatorFrame, bars: BarRange) -> float:
    times = frame.open_time_ms
    return float(times[bars.stop - 1] + frame.timeframe.milliseconds - times[bars.start]) / MS_PER_DAY


def _trades_table(frame: IndicatorFrame, runs: Sequence[_Run], trades: Trades) -> pl.DataFrame:
    import polars as pl

    table = pl.DataFrame(
        {
            "window": np.repeat(
                np.array([run.window for run in runs], dtype=np.int64),
                [0 if run.trades is None else len(run.trades) for run in runs],
            ),
            "decision_time": frame.open_time_ms[trades.decision_bar],
            "entry_time": frame.open_time_ms[trades.entry_bar],
            "exit_time": frame.open_time_ms[trades.exit_bar],
            "side": np.where(trades.side == LONG, "long", "short"),
            "entry_price": trades.entry_price,
            "exit_price": trades.exit_price,
            "stop_price": trades.stop_price,
            "target_price": trades.target_price,
            "quantity": trades.quantity,
            "pnl": trades.pnl,
            "r_multiple": trades.r_multiple,
            "trade_return": trades.returns,
            "exit_reason": np.array(EXIT_REASONS)[trades.exit_reason],
        },
        nan_to_null=True,
    )
    return table.with_columns(pl.col("decision_time", "entry_time", "exit_time").cast(pl.Datetime("ms", "UTC")))


def _daily_table(equity: FloatArray, open_time_ms: IntArray, initial_capital: float) -> pl.DataFrame:
    import polars as pl

    from tradepulse_pipeline.backtest.metrics import daily_returns

    day = open_time_ms // MS_PER_DAY
    is_last_of_day = np.append(np.diff(day) != 0, True)[: len(day)]
    return pl.DataFrame(
        {
            "date": pl.Series(day[is_last_of_day], dtype=pl.Int32).cast(pl.Date),
            "equity": equity[is_last_of_day],
            "daily_return": daily_returns(equity, open_time_ms, initial_capital),
        }
    )
