"""Evaluators: what a search asks for the metrics of parameter sets. One walks bars, the other hops through tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, pairwise
from typing import Final, NamedTuple, Protocol, TypeVar

import numpy as np

from tradepulse_pipeline.backtest.api import (
    account_of,
    bars_of,
    checked_window,
    days_covered,
    exit_rule_of,
    run_backtest,
)
from tradepulse_pipeline.backtest.book import DecisionBook, grown
from tradepulse_pipeline.backtest.kernel import Account, Bars, ExitRule
from tradepulse_pipeline.backtest.metrics import N_METRICS
from tradepulse_pipeline.backtest.outcomes import OUTCOME, find_outcomes
from tradepulse_pipeline.backtest.result import BacktestResult
from tradepulse_pipeline.backtest.settings import AccountSettings, BarRange
from tradepulse_pipeline.backtest.tables import OutcomeTable, hop_all
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import FloatArray, IndexArray, IntArray
from tradepulse_pipeline.market.series import MS_PER_DAY
from tradepulse_pipeline.strategies.base import SignalSource, Strategy
from tradepulse_pipeline.strategies.decisions import Side
from tradepulse_pipeline.strategies.space import ParameterSpace

T = TypeVar("T")
R = TypeVar("R")

#: What the tables of one evaluator may hold before they are begun anew.
DEFAULT_MEMORY_LIMIT: Final = 1 << 30

#: Sets of signal parameters whose decisions are found between two looks at the memory limit, and by one worker at once.
_SETS_PER_BATCH: Final = 16_384
_SETS_PER_TASK: Final = 2_048

#: Combinations that one worker evaluates in one go.
_ROWS_PER_TASK: Final = 4_096


class Evaluator(Protocol):
    """Anything that turns combinations of a parameter space into metrics over a range of bars."""

    @property
    def space(self) -> ParameterSpace:
        """The space whose combinations are evaluated."""
        ...

    def evaluate(self, combinations: IntArray, window: BarRange) -> FloatArray:
        """Return the metrics of each combination, shape (n, n_metrics), in the order of ``Metrics``."""
        ...


class PlainEvaluator:
    """Evaluates each combination by walking its bars: slow, and the measure of the other."""

    def __init__(
        self,
        frame: IndicatorFrame,
        strategy: Strategy,
        *,
        side: Side = "long",
        account: AccountSettings | None = None,
    ) -> None:
        self.space: Final = ParameterSpace(strategy.parameters)
        self._strategy: Final = strategy
        self._frame: Final = frame
        self._source: Final = SignalSource(strategy, frame, side)
        self._account: Final = account or AccountSettings()

    def evaluate(self, combinations: IntArray, window: BarRange) -> FloatArray:
        """Return the metrics of each combination over ``window``, shape (n, n_metrics), in the order of ``Metrics``."""
        rows = [self.run(int(combination), window).metrics for combination in combinations]
        return np.array(rows, dtype=np.float64).reshape(-1, N_METRICS)

    def run(self, combination: int, window: BarRange, *, initial_capital: float | None = None) -> BacktestResult:
        """Return trades, equity and metrics of one combination over ``window``."""
        parameters = self.space.values(combination)
        return run_backtest(
            self._frame,
            self._source.decisions(parameters),
            self._strategy.exits(parameters),
            self._account,
            window,
            initial_capital=initial_capital,
        )


class TabledEvaluator(PlainEvaluator):
    """Evaluates combinations exactly, from decisions and outcomes that are found once.

    Which bars are decisions depends on the signal parameters alone, what becomes of a decision on the exit parameters
    alone. Both are tabled, over the whole series; a combination then hops from decision to exit, in any window.
    Results do not depend on ``workers``, nor on what was evaluated before.

    Parameters
    ----------
    memory_limit : int
        Bytes that the tables may hold; beyond it they are begun anew.
    """

    def __init__(
        self,
        frame: IndicatorFrame,
        strategy: Strategy,
        *,
        side: Side = "long",
        account: AccountSettings | None = None,
        workers: int = 1,
        memory_limit: int = DEFAULT_MEMORY_LIMIT,
    ) -> None:
        super().__init__(frame, strategy, side=side, account=account)
        self._signal: Final = _SubSpace(self.space, "signal")
        self._exit: Final = _SubSpace(self.space, "exit")
        self._workers: Final = max(1, workers)
        self._memory_limit: Final = memory_limit
        self._bars: Final = bars_of(frame)
        days = np.diff(frame.open_time_ms // MS_PER_DAY, prepend=frame.open_time_ms[:1] // MS_PER_DAY)
        self._day_of_bar: Final = np.cumsum(days > 0).astype(np.int32)
        self._reciprocal: Final = 1.0 / np.maximum(1, np.arange(int(self._day_of_bar[-1]) + 3))
        self._combinations: IntArray = np.empty(0, dtype=np.int64)
        self._batches: list[_Batch] = []
        self._begin_anew()

    def evaluate(self, combinations: IntArray, window: BarRange) -> FloatArray:
        """Return the metrics of each combination over ``window``, shape (n, n_metrics), in the order of ``Metrics``."""
        return self.evaluate_blocks(combinations, window, 0)[0]

    def evaluate_blocks(
        self, combinations: IntArray, window: BarRange, n_blocks: int
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return metrics, and the sums of daily returns and of their squares over ``n_blocks`` equal blocks of days.

        Returns
        -------
        metrics : float64 array of shape (n, n_metrics)
        sums, squares : float64 array of shape (n, n_blocks)
        """
        start, stop = checked_window(window, self._frame)
        metrics = np.empty((len(combinations), N_METRICS), dtype=np.float64)
        block_moments = np.zeros((2, len(combinations), n_blocks), dtype=np.float64)
        if not np.array_equal(combinations, self._combinations):  # the next window mostly asks for the same ones
            self._combinations, self._batches = combinations.copy(), self._batches_of(combinations)
        for batch in self._batches:
            if self.nbytes > self._memory_limit:
                self._begin_anew()
            self._find_decisions(batch.signals)
            self._hop(batch, BarRange(start, stop), metrics, block_moments)
        sums, squares = block_moments
        return metrics, sums, squares

    def block_moments(self, combinations: IntArray, n_blocks: int) -> tuple[FloatArray, FloatArray]:
        """Return the sums of daily returns and of their squares over ``n_blocks`` equal blocks of all days.

        Both are of shape (n, n_blocks).
        """
        _, sums, squares = self.evaluate_blocks(combinations, BarRange(0, len(self._frame)), n_blocks)
        return sums, squares

    @property
    def nbytes(self) -> int:
        """Bytes that the tables hold."""
        return self._book.nbytes + sum(table.nbytes for table in self._outcomes.values())

    def _begin_anew(self) -> None:
        self._book = DecisionBook(len(self._frame))
        self._outcomes: dict[int, _Outcomes] = {}

    def _batches_of(self, combinations: IntArray) -> list[_Batch]:
        """Sort combinations by what they share."""
        exits = self._exit.of(combinations)
        signals, set_of_row = np.unique(self._signal.of(combinations), return_inverse=True)
        by_exit = np.argsort(exits, kind="stable")
        batches = []
        for first in range(0, len(signals), _SETS_PER_BATCH):
            batch = signals[first : first + _SETS_PER_BATCH]
            sets = set_of_row[by_exit] - first
            is_here = (sets >= 0) & (sets < len(batch))
            rows, sets = by_exit[is_here], sets[is_here]
            bounds = np.flatnonzero(np.diff(exits[rows], prepend=-1, append=-1))
            groups = [_Group(int(exits[rows[a]]), rows[a:b], sets[a:b]) for a, b in pairwise(bounds.tolist())]
            batches.append(_Batch(batch, groups))
        return batches

    def _find_decisions(self, signals: IntArray) -> None:
        """Enter the decisions of those signal parameter sets that are not in the book yet."""
        unknown = self._book.unknown(signals)
        n = min(_SETS_PER_TASK, 1 + len(unknown) // self._workers)
        tasks = [unknown[k : k + n] for k in range(0, len(unknown), n)]
        found = self._in_parallel(lambda ids: self._source.decision_sets(self._signal.columns(ids)), tasks)
        for ids, sets in zip(tasks, found, strict=True):
            self._book.enter(ids, sets)

    def _hop(self, batch: _Batch, window: BarRange, metrics: FloatArray, block_moments: FloatArray) -> None:
        """Evaluate a batch, combinations with the same exit rule together."""
        covered = days_covered(self._frame, window.start, window.stop)
        spans = self._book.spans_of(batch.signals, window.start)
        account = account_of(self._account)

        def find(group: _Group) -> _Outcomes:
            if group.exit not in self._outcomes:
                rule = exit_rule_of(self._strategy.exits(self._exit.values(group.exit)), self._account)
                self._outcomes[group.exit] = _Outcomes(rule)
            table = self._outcomes[group.exit]
            table.extend(self._bars, self._day_of_bar, self._book, account)
            return table

        tasks = [
            (table, group.sets[k : k + _ROWS_PER_TASK], group.rows[k : k + _ROWS_PER_TASK])
            for table, group in zip(list(self._in_parallel(find, batch.groups)), batch.groups, strict=True)
            for k in range(0, len(group.rows), _ROWS_PER_TASK)
        ]

        def hop(task: tuple[_Outcomes, IntArray, IntArray]) -> None:
            table, sets, rows = task
            hop_all(
                self._bars,
                self._day_of_bar,
                self._book.columns,
                account,
                table.table,
                self._book.members,
                spans,
                window.start,
                window.stop,
                covered,
                self._reciprocal,
                np.zeros(1, dtype=OUTCOME),
                sets,
                rows,
                metrics,
                block_moments,
            )

        for _ in self._in_parallel(hop, tasks):
            pass

    def _in_parallel(self, function: Callable[[T], R], tasks: list[T]) -> Iterator[R]:
        """Yield the results in the order of the tasks, as they come."""
        if self._workers == 1 or len(tasks) < 2:
            yield from map(function, tasks)
            return
        pool = ThreadPoolExecutor(self._workers)
        try:
            yield from pool.map(function, tasks)
        finally:
            pool.shutdown(cancel_futures=True)


class _Group(NamedTuple):
    """Combinations that share an exit rule: the rows they come from, and which of the batch's sets each of them has."""

    exit: int
    rows: IntArray
    sets: IntArray


class _Batch(NamedTuple):
    """Combinations that need the decisions of ``signals``, not too many sets to be found in one go."""

    signals: IntArray
    groups: list[_Group]


class _SubSpace:
    """The part of a space that the parameters of one kind span, with its own numbers."""

    def __init__(self, space: ParameterSpace, kind: str) -> None:
        self._space: Final = ParameterSpace(tuple(p for p in space.parameters if p.kind == kind))
        #: For each run of neighbouring parameters of this kind: its stride and size in the whole space, and its stride
        #: here.
        self._strides: Final[list[tuple[int, int, int]]] = []
        stride, own_stride = 1, 1
        for is_own, run in groupby(reversed(space.parameters), lambda p: p.kind == kind):
            size = math.prod(len(p.grid) for p in run)
            if is_own:
                self._strides.append((stride, size, own_stride))
                own_stride *= size
            stride *= size

    def of(self, combinations: IntArray) -> IntArray:
        """Return the numbers of the sets in this space, shape (n,), for combinations of the whole space, (n,)."""
        numbers = np.zeros(len(combinations), dtype=np.int64)
        for stride, size, own_stride in self._strides:
            numbers += combinations // stride % size * own_stride
        return numbers

    def columns(self, numbers: IntArray) -> dict[str, FloatArray]:
        """Return the parameter sets of some numbers, as columns of shape (n,)."""
        return self._space.columns(numbers)

    def values(self, number: int) -> dict[str, float]:
        """Return the parameter set of a number."""
        return self._space.values(number)


class _Outcomes:
    """The outcomes of the book's decisions under one exit rule, as far as they were found."""

    def __init__(self, rule: ExitRule) -> None:
        self._rule: Final = rule
        self._n_known = 0
        self._n_parts = 0
        self._outcomes = np.empty(0, dtype=OUTCOME)
        self._parts = np.empty(0, dtype=np.float64)

    def extend(self, bars: Bars, day_of_bar: IndexArray, book: DecisionBook, account: Account) -> None:
        """Find the outcomes of the decisions that are new in the book."""
        n = book.n_decisions
        if n > len(self._outcomes):
            self._outcomes = grown(self._outcomes, self._n_known, n)
        while True:
            n_parts = find_outcomes(
                bars,
                day_of_bar,
                book.columns,
                self._rule,
                account,
                self._n_known,
                n,
                self._outcomes,
                self._parts,
                self._n_parts,
            )
            if n_parts <= len(self._parts):
                break
            self._parts = grown(self._parts, self._n_parts, n_parts)
        self._n_known, self._n_parts = n, n_parts

    @property
    def table(self) -> OutcomeTable:
        """The outcomes as the kernel reads them."""
        return OutcomeTable(self._rule, self._outcomes, self._parts)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._outcomes.nbytes + self._parts.nbytes
