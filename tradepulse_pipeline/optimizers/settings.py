"""What is asked of a search: the method, how many trials, what is maximised, and the limits."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Final, Literal, get_args

from tradepulse_pipeline.errors import InvalidInputError, one_of

#: ``auto`` stands for ``grid`` where that takes less than a minute, else for ``random``: see ``validation.estimate``.
Method = Literal["auto", "grid", "random", "bayesian", "tpe", "genetic"]
METHODS: Final[tuple[Method, ...]] = get_args(Method)

Objective = Literal["net_profit", "sharpe", "sortino", "calmar", "profit_factor", "expectancy", "drawdown"]
OBJECTIVES: Final[tuple[Objective, ...]] = get_args(Objective)

#: Which valid trial a search chooses: the one with the best objective, or the one with the best mean objective of its
#: neighbourhood in the grid.
Selection = Literal["best", "plateau"]
SELECTIONS: Final[tuple[Selection, ...]] = get_args(Selection)

#: Trials of a search whose budget is not given. A grid search has no budget: it tries everything.
DEFAULT_BUDGETS: Final = {"random": 1_000, "bayesian": 60, "tpe": 300, "genetic": 600}

#: What the random generators of all methods take.
LARGEST_SEED: Final = 2**32 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """How parameter sets are searched in one train window.

    Every trial of a search is a different parameter set, so that a budget of n means n sets that were looked at.
    """

    #: With a budget, ``auto`` is ``random``.
    method: Method = "auto"
    #: Number of trials; None for the method's default. A grid search tries all combinations whatever it says.
    budget: int | None = None
    #: The one that chooses: the parameters of its best trial are those that are run and stored.
    objective: Objective = "net_profit"
    #: With ``plateau``, which takes a grid search, those of the trial whose neighbourhood has the best mean.
    selection: Selection = "best"
    #: What a genetic search weighs beside it, in search of trials that none beats in everything: the Pareto front.
    further_objectives: tuple[Objective, ...] = ()
    #: Trades that a trial needs in its train window to be valid.
    minimum_trades: int = 10
    seed: int = 0
    #: Threads that evaluate trials, 0 for one per core. No result depends on it.
    workers: int = 0
    #: Mebibytes that the tables of decisions and outcomes may hold before they are begun anew. No result depends on it.
    memory_limit_mib: int = 1_024
    #: Time for all searches of a training together, 0 for no limit.
    max_runtime_seconds: float = 0.0
    #: Largest number of trials that one search may make.
    max_combinations: int = 5_000_000

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise one_of("method", self.method, METHODS)
        if self.method == "auto" and self.budget is not None:
            object.__setattr__(self, "method", "random")
        if self.objective not in OBJECTIVES:
            raise one_of("objective", self.objective, OBJECTIVES)
        if self.selection not in SELECTIONS:
            raise one_of("selection", self.selection, SELECTIONS)
        if self.selection == "plateau" and self.method not in ("grid", "auto"):
            raise InvalidInputError(
                f"selection: found 'plateau' with the method {self.method!r}; only a grid search tries all neighbours "
                "of a parameter set. Take the method 'grid' or the selection 'best'. ('auto' is 'random' with a "
                "budget, or where the whole grid takes more than a minute.)"
            )
        for objective in self.further_objectives:
            if objective not in OBJECTIVES:
                raise one_of("objective", objective, OBJECTIVES, where="further_objectives")
        found = f"further_objectives: found {', '.join(self.further_objectives)}"
        if self.further_objectives and self.method != "genetic":
            raise InvalidInputError(
                f"{found} with the method {self.method!r}; only a genetic search weighs several objectives. Take the "
                "method 'genetic' or leave them out."
            )
        if len(set(self.objectives)) < len(self.objectives):
            raise InvalidInputError(
                f"{found} beside the objective {self.objective!r}, expected each objective once. Leave out what is "
                "there already."
            )
        if self.budget is not None and self.budget < 1:
            raise InvalidInputError(f"budget: found {self.budget}, expected at least 1 trial, or none for the default.")
        for name, least in (("minimum_trades", 1), ("workers", 0), ("memory_limit_mib", 1), ("max_combinations", 1)):
            if getattr(self, name) < least:
                raise InvalidInputError(
                    f"{name}: found {getattr(self, name)}, expected a whole number of at least {least}."
                )
        if not 0 <= self.seed <= LARGEST_SEED:
            raise InvalidInputError(f"seed: found {self.seed}, expected a whole number from 0 to {LARGEST_SEED}.")
        if not 0 <= self.max_runtime_seconds < math.inf:
            raise InvalidInputError(
                f"max_runtime_seconds: found {self.max_runtime_seconds}, expected a number of at least 0 (0: no limit)."
            )

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """All objectives, the one that chooses first."""
        return (self.objective, *self.further_objectives)

    @property
    def threads(self) -> int:
        """Number of threads, with 0 resolved to this machine's cores."""
        return self.workers or os.cpu_count() or 1

    def planned_trials(self, space_size: int) -> int:
        """Return how many trials a search of a space with ``space_size`` combinations makes.

        Raises
        ------
        InvalidInputError
            If the method is still to be chosen.

        Examples
        --------
        >>> SearchSettings(method="tpe").planned_trials(201_600), SearchSettings(method="grid").planned_trials(201_600)
        (300, 201600)
        """
        if self.method == "auto":
            raise InvalidInputError("method: found 'auto'; choose a method, or have 'settled' choose one, to search.")
        if self.method == "grid":
            return space_size
        return min(self.budget or DEFAULT_BUDGETS[self.method], space_size)
