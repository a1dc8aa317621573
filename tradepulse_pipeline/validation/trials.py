"""The trials of a training: what each search came to, its best ones, and who keeps them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple, dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import numpy as np

from tradepulse_pipeline.backtest.result import METRIC_NAMES
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.candles import BoolArray, FloatArray, IntArray
from tradepulse_pipeline.optimizers.objective import best_trial, objective_values, pareto_front
from tradepulse_pipeline.optimizers.search import Trials
from tradepulse_pipeline.optimizers.settings import SearchSettings
from tradepulse_pipeline.strategies.space import ParameterSpace
from tradepulse_pipeline.validation.plateau import neighbourhood_of, neighbourhoods

if TYPE_CHECKING:
    import polars as pl

    from tradepulse_pipeline.backtest.evaluators import Evaluator
    from tradepulse_pipeline.backtest.settings import BarRange

#: Blocks of days whose returns are summed for every parameter set that was tried (Bailey et al. 2015 take 16).
N_BLOCKS: Final = 16

#: Trials of a window that stay at hand, the best first.
N_BEST: Final = 20

#: How the neighbours of a window's chosen trial fare, in ``SearchResult.best``: see ``Neighbourhoods``.
NEIGHBOUR_COLUMNS: Final = ("neighbours_mean", "neighbours_worst", "neighbours_kept")


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSearch:
    """What the search of one train window came to; ``window`` -1 is the latest train window."""

    window: int
    n_trials: int
    n_valid: int
    #: The highest of the valid trials, None without any.
    best_net_profit: float | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SearchResult:
    """What all searches of a training came to.

    Attributes
    ----------
    searches : tuple of WindowSearch
        One per train window that was to be searched, ordered by window.
    best : polars.DataFrame
        The best valid trials of each window, at most 20, ordered by window and rank: window, rank (from 1), trial (its
        number within the window's search), combination, a column per parameter, a column per metric, objective.
        Rank 1 is the trial that is chosen; with the selection ``plateau`` the others follow it by objective.

        Of the chosen trial of a grid search also neighbours_mean, neighbours_worst and neighbours_kept: mean and lowest
        objective of it and its neighbours in the grid, and what share of these keep half of its objective, null where
        that is not above 0. They tell a lone spike from a plateau.

        With further objectives also on_pareto_front: whether no other trial of the window is as good in all objectives
        and better in one. Then the whole front is there; what lies beyond the 20 best has no rank (null).
    planned : int
        Trials that each search was to make.
    """

    searches: tuple[WindowSearch, ...]
    best: pl.DataFrame
    planned: int

    @property
    def total_trials(self) -> int:
        """Trials of all searches together."""
        return sum(search.n_trials for search in self.searches)

    @property
    def invalid_trials(self) -> int:
        """Trials that did not qualify."""
        return sum(search.n_trials - search.n_valid for search in self.searches)

    @property
    def best_net_profit(self) -> float | None:
        """The highest of all valid trials, None without any."""
        return max((s.best_net_profit for s in self.searches if s.best_net_profit is not None), default=None)

    @property
    def is_complete(self) -> bool:
        """False when the time was over before all planned trials were made."""
        return all(search.n_trials == self.planned for search in self.searches)

    @property
    def not_searched(self) -> tuple[int, ...]:
        """The windows in which no trial was made."""
        return tuple(search.window for search in self.searches if not search.n_trials)

    def to_json_dict(self) -> dict[str, Any]:
        """Return all but the table ``best`` as JSON values."""
        return {"searches": [asdict(search) for search in self.searches], "planned": self.planned}

    @classmethod
    def from_json_dict(cls, values: Mapping[str, Any], *, best: pl.DataFrame) -> Self:
        """Join what ``to_json_dict`` wrote and the table."""
        searches = tuple(WindowSearch(**search) for search in values["searches"])
        return cls(searches=searches, best=best, planned=values["planned"])


class TrialKeeper(Protocol):
    """Keeps every trial of a training as it is made, so that a search that was killed goes on where it was."""

    def recall(self, window: int) -> Trials | None:
        """Return the trials that an unfinished attempt at the same training made in a window, in their order."""
        ...

    def keep(self, window: int, trials: Trials) -> None:
        """Keep trials that follow those of the window that are kept already."""
        ...

    def keep_blocks(self, combination: IntArray, sums: FloatArray, squares: FloatArray) -> None:
        """Keep the sums of daily returns and of their squares over equal blocks of days.

        Both are of shape (n, n_blocks), ``combination`` of shape (n,).
        """
        ...


class Recalled:
    """An evaluator that answers from trials that were made before, in their order, and evaluates what follows.

    Raises
    ------
    InvalidInputError
        If other combinations are asked for than those that were tried.
    """

    def __init__(self, evaluator: Evaluator, trials: Trials) -> None:
        self.space: Final = evaluator.space
        self._evaluator: Final = evaluator
        self._trials: Final = trials
        self._position = 0

    def evaluate(self, combinations: IntArray, window: BarRange) -> FloatArray:
        """Return the metrics of each combination over ``window``, shape (n, n_metrics)."""
        first, last = self._position, min(self._position + len(combinations), len(self._trials))
        self._position = last
        if not np.array_equal(self._trials.combination[first:last], combinations[: last - first]):
            raise InvalidInputError(
                f"Trials {first:,} to {last:,} of an unfinished search are of other combinations than this search asks "
                "for. Remove the unfinished search's files and run it again."
            )
        fresh = combinations[last - first :]
        made = self._trials.metrics[first:last]
        return np.concatenate([made, self._evaluator.evaluate(fresh, window)]) if len(fresh) else made


class Tally:
    """Counts the trials of one window and remembers the best."""

    def __init__(self, window: int, space: ParameterSpace, settings: SearchSettings) -> None:
        self._window: Final = window
        self._space: Final = space
        self._settings: Final = settings
        self.n_trials = 0
        self._n_valid = 0
        self._best_net_profit: float | None = None
        self._best = Trials.none()
        self._best_numbers: IntArray = np.empty(0, dtype=np.int64)
        #: Of every combination of the grid, NaN until it is tried.
        self._objective: Final = np.full(space.size if settings.method == "grid" else 0, np.nan)

    def add(self, trials: Trials) -> None:
        """Count more trials."""
        if self._settings.method == "grid":
            self._objective[trials.combination] = trials.objective
        rows = np.flatnonzero(~np.isnan(trials.objective))
        if len(rows):
            self._n_valid += len(rows)
            highest = float(trials.metrics[rows, METRIC_NAMES.index("net_profit")].max())
            if self._best_net_profit is None or highest > self._best_net_profit:
                self._best_net_profit = highest
            if len(rows) > N_BEST and not self._settings.further_objectives:
                # Few of many are among the best: those that are no worse than the last of them.
                objective = trials.objective[rows]
                rows = rows[objective >= np.partition(objective, -N_BEST)[-N_BEST]]
            candidates = Trials.joined([self._best, trials.take(rows)])
            numbers = np.concatenate([self._best_numbers, self.n_trials + rows])
            order = np.argsort(-candidates.objective, kind="stable")
            is_kept = np.arange(len(order)) < N_BEST
            if self._settings.further_objectives:
                is_kept |= self._is_on_front(candidates.take(order))
            self._best, self._best_numbers = candidates.take(order[is_kept]), numbers[order[is_kept]]
        self.n_trials += len(trials)

    def _is_on_front(self, trials: Trials) -> BoolArray:
        settings = self._settings
        return pareto_front(
            objective_values(trials.metrics, objectives=settings.objectives, minimum_trades=settings.minimum_trades)
        )

    def result(self) -> WindowSearch:
        """Return what the search came to."""
        return WindowSearch(
            window=self._window,
            n_trials=self.n_trials,
            n_valid=self._n_valid,
            best_net_profit=self._best_net_profit,
        )

    def best_table(self, evaluate: Callable[[IntArray], FloatArray]) -> pl.DataFrame:
        """Return the rows of ``SearchResult.best`` for this window.

        ``evaluate`` gives the metrics of combinations over it: those of a plateau need not be at hand.
        """
        import polars as pl

        best, numbers = self._best, self._best_numbers
        if self._settings.selection == "plateau":
            best = self._with_plateau_first(evaluate)
            numbers = best.combination  # in a grid they are the same
        table = trials_table(self._window, 0, best, self._space)
        rank = pl.Series("rank", [n if n <= N_BEST else None for n in range(1, len(best) + 1)], dtype=pl.Int64)
        if self._settings.further_objectives:
            table = table.with_columns(on_pareto_front=pl.Series(self._is_on_front(best)))
        table = table.with_columns(trial=pl.Series(numbers)).insert_column(1, rank)
        return pl.concat([table, self._neighbours_table(best)], how="horizontal")

    def _with_plateau_first(self, evaluate: Callable[[IntArray], FloatArray]) -> Trials:
        """Return the trial of the grid with the best neighbourhood, and after it the best others."""
        chosen = best_trial(neighbourhoods(self._objective, self._space.shape).mean)
        if chosen is None:
            return self._best
        rows = np.array([chosen], dtype=np.int64)
        first = Trials(combination=rows, metrics=evaluate(rows), objective=self._objective[rows])
        others = np.flatnonzero(self._best.combination != chosen)[: N_BEST - 1]
        return Trials.joined([first, self._best.take(others)])

    def _neighbours_table(self, best: Trials) -> pl.DataFrame:
        """Return ``NEIGHBOUR_COLUMNS`` of the best trials: figures of the first one of a grid, else null."""
        import polars as pl

        figures = np.full((len(best), len(NEIGHBOUR_COLUMNS)), np.nan)
        if self._settings.method == "grid" and len(best):
            chosen = int(best.combination[0])
            figures[0] = astuple(neighbourhood_of(chosen, self._objective, self._space.shape))
        return pl.DataFrame(figures, schema=NEIGHBOUR_COLUMNS, nan_to_null=True)


def trials_table(window: int, first: int, trials: Trials, space: ParameterSpace) -> pl.DataFrame:
    """Return trials as rows: window, trial (numbered from ``first``), combination, parameters, metrics, objective.

    What is NaN (an infinite profit factor, the objective of an invalid trial) is null.
    """
    import polars as pl

    columns = {
        "window": np.full(len(trials), window, dtype=np.int64),
        "trial": np.arange(first, first + len(trials), dtype=np.int64),
        "combination": trials.combination,
        **space.columns(trials.combination),
        **{name: trials.metrics[:, column] for column, name in enumerate(METRIC_NAMES)},
        "objective": trials.objective,
    }
    return pl.DataFrame(columns, nan_to_null=True)


def trials_of_table(table: pl.DataFrame) -> Trials:
    """Return the trials whose rows ``trials_table`` made."""
    import polars as pl

    return Trials(
        combination=table["combination"].to_numpy(),
        metrics=table.select(pl.col(METRIC_NAMES).fill_null(np.nan)).to_numpy(),
        objective=table["objective"].fill_null(np.nan).to_numpy(),
    )


def blocks_table(combination: IntArray, sums: FloatArray, squares: FloatArray) -> pl.DataFrame:
    """Return a row per combination: combination, block_0, block_1, …, square_0, square_1, …"""
    import polars as pl

    columns = {f"block_{k}": block for k, block in enumerate(sums.T)}
    columns |= {f"square_{k}": block for k, block in enumerate(squares.T)}
    return pl.DataFrame({"combination": combination, **columns})


def blocks_of_table(table: pl.DataFrame) -> tuple[IntArray, FloatArray, FloatArray]:
    """Return the combinations, (n,), sums and squares, both (n, n_blocks), whose rows ``blocks_table`` made."""
    sums, squares = (
        table.select(name for name in table.columns if name.startswith(kind)).to_numpy(order="c")
        for kind in ("block_", "square_")
    )
    return table["combination"].to_numpy(), sums, squares
