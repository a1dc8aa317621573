"""What a strategy declares: its parameters, the indicators it reads, its decisions and its exits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal, Self

import numpy as np

from tradepulse_pipeline.errors import InvalidInputError, StrategyError, blamed_on, one_of
from tradepulse_pipeline.indicators.frame import Indicator, IndicatorFrame
from tradepulse_pipeline.market.candles import FloatArray, IntArray
from tradepulse_pipeline.market.sources.times import iso_utc
from tradepulse_pipeline.strategies.decisions import LONG, SIDES, Decisions, DecisionSets, Exits, Side

#: One parameter set: every parameter of the strategy by name.
Parameters = Mapping[str, float]

#: Many parameter sets: a column of shape (n_sets,) for each parameter.
ParameterColumns = Mapping[str, FloatArray]

#: What a parameter may shape.
KINDS: Final = ("signal", "exit")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a strategy was loaded from, as people read it, and the SHA-256 of the source that was loaded."""

    place: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of a strategy.

    ``signal`` parameters shape which bars are decisions, ``exit`` parameters only what becomes of them. Searches try
    the values of ``grid``; a single backtest takes any value in ``[minimum, maximum]``.

    A parameter with a ``default`` is an optional filter: a set that leaves it out has the default.
    """

    name: str
    unit: str
    meaning: str
    kind: Literal["signal", "exit"]
    grid: tuple[float, ...]
    minimum: float
    maximum: float
    is_integer: bool = False
    default: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidInputError(f"Parameter {self.name!r}: 'kind' is {self.kind!r}, expected 'signal' or 'exit'.")
        if not self.grid or list(self.grid) != sorted(set(self.grid)):
            raise InvalidInputError(f"Parameter {self.name!r}: 'grid' must be ascending and not empty: {self.grid}.")
        for value in self.grid if self.default is None else (*self.grid, self.default):
            self.check(value)

    def check(self, value: object) -> float:
        """Return ``value`` as a float.

        Raises
        ------
        InvalidInputError
            If it is not a finite number within the range, or not whole where the parameter is.
        """
        expected = (
            f"expected {'a whole number' if self.is_integer else 'a number'} from {self.minimum} to {self.maximum}"
        )
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InvalidInputError(f"Parameter {self.name!r}: found {value!r}, {expected}.")
        number = float(value)
        if not self.minimum <= number <= self.maximum or (self.is_integer and not number.is_integer()):
            raise InvalidInputError(f"Parameter {self.name!r}: found {value!r}, {expected}.")
        return number


class Strategy(ABC):
    """A strategy: a name, parameters, the indicators that it reads, and a causal signal function.

    Only the long side is written. For the short side the same code sees the market in a mirror (prices negated, lows
    and highs swapped), and its decisions are mirrored back. Moves and depths must therefore be taken relative to the
    absolute price: see ``IndicatorFrame``.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    description: ClassVar[str]
    #: Rises with every change of what the strategy decides; part of a configuration's lineage.
    version: ClassVar[str] = "1"
    parameters: ClassVar[tuple[Parameter, ...]]
    indicators: ClassVar[tuple[Indicator, ...]]
    #: Where a user's own strategy was loaded from; None for those that are part of TradePulse.
    origin: Origin | None = None

    def prepare(self, frame: IndicatorFrame) -> Any:
        """Return what the signal function needs and no parameter shapes; done once for all parameter sets."""
        return frame

    @abstractmethod
    def signals(self, prepared: Any, parameters: Parameters) -> Decisions:
        """Return the long decisions for one set of signal parameters. Decisions at bar t may read bars <= t only."""

    def signals_of_sets(self, prepared: Any, columns: ParameterColumns) -> DecisionSets:
        """Return the long decisions of many sets of signal parameters, given as columns of shape (n_sets,).

        A strategy may override this where it knows a faster way than one set after the other.
        """
        sets = zip(*(column.tolist() for column in columns.values()), strict=True)
        found = [self.signals(prepared, dict(zip(columns, values, strict=True))) for values in sets]
        for decisions in found:
            if not isinstance(decisions, Decisions):
                raise StrategyError(f"{self.name}: signals returned {decisions!r}, expected Decisions.")
        return DecisionSets.of(found)

    @abstractmethod
    def exits(self, parameters: Parameters) -> Exits:
        """Return how positions end for one set of exit parameters."""

    def parameter(self, name: str) -> Parameter:
        """Return a parameter by name."""
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise one_of("parameter", name, [p.name for p in self.parameters], where=self.name)

    @property
    def defaults(self) -> dict[str, float]:
        """The optional filters by name, and what a set has that leaves them out."""
        return {p.name: p.default for p in self.parameters if p.default is not None}

    def with_grids(self, grids: Mapping[str, tuple[float, ...]]) -> Self:
        """Return the strategy with other grids of some parameters.

        Raises
        ------
        InvalidInputError
            If there is no such parameter, or a grid is not ascending or leaves the parameter's range.
        """
        for name in grids:
            self.parameter(name)
        changed = copy(self)
        changed.parameters = tuple(replace(p, grid=grids.get(p.name, p.grid)) for p in self.parameters)  # type: ignore[misc]
        return changed

    def with_filters(self, filters: Mapping[str, float]) -> Self:
        """Return the strategy with optional filters switched on: a search tries the given value of each alone.

        Raises
        ------
        InvalidInputError
            If the strategy has no such filter (the message lists those that it has), or a value is out of range.
        """
        for name in filters:
            if name not in self.defaults:
                raise one_of("filter", name, self.defaults, where=f"the filters of {self.name}")
        try:
            return self.with_grids({name: (value,) for name, value in filters.items()})
        except InvalidInputError as error:
            raise InvalidInputError(f"filters: {error}") from None

    def check(self, parameters: Mapping[str, object]) -> dict[str, float]:
        """Return a full, checked parameter set in declared order; optional filters that are left out are filled in.

        Raises
        ------
        InvalidInputError
            If a parameter is unknown, missing or out of its range; the message lists the valid ones.
        """
        for name in parameters:
            self.parameter(name)
        given = {**self.defaults, **parameters}
        missing = [p.name for p in self.parameters if p.name not in given]
        if missing:
            needed = len(self.parameters) - len(self.defaults)
            raise InvalidInputError(
                f"{self.name}: {len(missing)} of {needed} parameters are missing: {', '.join(missing)}."
            )
        return {p.name: p.check(given[p.name]) for p in self.parameters}


class SignalSource:
    """The decisions of one strategy on one series: prepares once, then answers for any signal parameters."""

    def __init__(self, strategy: Strategy, frame: IndicatorFrame, side: Side = "long") -> None:
        if side not in SIDES:
            raise one_of("side", side, SIDES)
        self._strategy: Final = strategy
        self._open_time_ms: Final = frame.open_time_ms
        with blamed_on(f"{strategy.name}: prepare"):
            self._long: Final = strategy.prepare(frame) if side in ("long", "both") else None
            self._short: Final = strategy.prepare(frame.mirrored()) if side in ("short", "both") else None

    def decisions(self, parameters: Parameters) -> Decisions:
        """Return the decisions for one set of signal parameters, on the side or sides asked for."""
        return self.decision_sets({name: np.array([value]) for name, value in parameters.items()})[0]

    def decision_sets(self, columns: ParameterColumns) -> DecisionSets:
        """Return the decisions for each of many sets of signal parameters, given as columns of shape (n_sets,).

        Raises
        ------
        StrategyError
            If the strategy fails, or what it decides cannot be: see ``Decisions``.
        """
        long = None if self._long is None else self._found(self._long, columns)
        short = None if self._short is None else self._found(self._short, columns).mirrored()
        if long is not None and short is not None:
            return DecisionSets.merged(long, short)
        found = short if long is None else long
        assert found is not None
        return found

    def _found(self, prepared: Any, columns: ParameterColumns) -> DecisionSets:
        """Return what the strategy decides, checked: a search looks at no decision again."""
        with blamed_on(f"{self._strategy.name}: signals, given {', '.join(columns)}"):
            sets = self._strategy.signals_of_sets(prepared, columns)
        n_sets = len(next(iter(columns.values())))
        if not isinstance(sets, DecisionSets) or len(sets) != n_sets:
            found_sets = f"{len(sets)} sets" if isinstance(sets, DecisionSets) else repr(sets)
            raise StrategyError(
                f"{self._strategy.name}: signals_of_sets returned {found_sets}, expected {n_sets} sets."
            )
        found = sets.decisions
        if len(found) and not _are_sound(found, len(self._open_time_ms)):
            raise StrategyError(f"{self._strategy.name}: {_what_is_wrong(found, self._open_time_ms)}")
        return sets


def _are_sound(found: Decisions, n_bars: int) -> bool:
    """Return whether all decisions are long ones within the series with a finite stop; quick, for there are many.

    A minimum or maximum is NaN where a value is.
    """
    return bool(
        found.bar.min() >= 0
        and found.bar.max() < n_bars
        and found.side.min() == found.side.max() == LONG
        and found.stop_anchor.min() > -np.inf
        and found.stop_anchor.max() < np.inf
        and found.stop_unit.min() >= 0.0
        and found.stop_unit.max() < np.inf
    )


def _what_is_wrong(found: Decisions, open_time_ms: IntArray) -> str:
    """Say of the first unsound decision what is wrong with it."""
    n_bars = len(open_time_ms)
    outside = (found.bar < 0) | (found.bar >= n_bars)
    wrong_side = found.side != LONG
    no_stop = ~np.isfinite(found.stop_anchor)
    no_unit = ~(np.isfinite(found.stop_unit) & (found.stop_unit >= 0.0))
    i = int(np.argmax(outside | wrong_side | no_stop | no_unit))
    if outside[i]:
        return f"a decision at bar {found.bar[i]}, expected one from 0 to {n_bars - 1}: the series has no other bars."
    at = f"in the decision at {iso_utc(int(open_time_ms[found.bar[i]]))}"
    if wrong_side[i]:
        return (
            f"side is {found.side[i]} {at}, expected LONG: only the long side is written, the short side is found by "
            "the same code in the mirror. 'side' says which sides are traded."
        )
    name, value = ("stop_anchor", found.stop_anchor[i]) if no_stop[i] else ("stop_unit", found.stop_unit[i])
    return (
        f"{name} is {value} {at}, expected a finite price{'' if no_stop[i] else ', 0 or more'}. Indicators are NaN "
        "while they are undefined: make no decision there."
    )
