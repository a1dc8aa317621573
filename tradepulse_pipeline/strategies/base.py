"""What a strategy declares: its parameters, the indicators it reads, its decisions and its exits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import numpy as np

from tradepulse_pipeline.errors import InvalidInputError, one_of
from tradepulse_pipeline.indicators.frame import Indicator, IndicatorFrame
from tradepulse_pipeline.market.candles import FloatArray
from tradepulse_pipeline.strategies.decisions import SIDES, Decisions, DecisionSets, Exits, Side

#: One parameter set: every parameter of the strategy by name.
Parameters = Mapping[str, float]

#: Many parameter sets: a column of shape (n_sets,) for each parameter.
ParameterColumns = Mapping[str, FloatArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of a strategy.

    ``signal`` parameters shape which bars are decisions, ``exit`` parameters only what becomes of them. Searches try
    the values of ``grid``; a single backtest takes any value in ``[minimum, maximum]``.
    """

    name: str
    unit: str
    meaning: str
    kind: Literal["signal", "exit"]
    grid: tuple[float, ...]
    minimum: float
    maximum: float
    is_integer: bool = False

    def __post_init__(self) -> None:
        if not self.grid or list(self.grid) != sorted(set(self.grid)):
            raise InvalidInputError(f"Parameter {self.name!r}: 'grid' must be ascending and not empty: {self.grid}.")
        for value in self.grid:
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
        return DecisionSets.of([self.signals(prepared, dict(zip(columns, values, strict=True))) for values in sets])

    @abstractmethod
    def exits(self, parameters: Parameters) -> Exits:
        """Return how positions end for one set of exit parameters."""

    def parameter(self, name: str) -> Parameter:
        """Return a parameter by name."""
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise one_of("parameter", name, [p.name for p in self.parameters], where=self.name)

    def check(self, parameters: Mapping[str, object]) -> dict[str, float]:
        """Return a full, checked parameter set in declared order.

        Raises
        ------
        InvalidInputError
            If a parameter is unknown, missing or out of its range; the message lists the valid ones.
        """
        for name in parameters:
            self.parameter(name)
        missing = [p.name for p in self.parameters if p.name not in parameters]
        if missing:
            raise InvalidInputError(
                f"{self.name}: {len(missing)} of {len(self.parameters)} parameters are missing: {', '.join(missing)}."
            )
        return {p.name: p.check(parameters[p.name]) for p in self.parameters}


class SignalSource:
    """The decisions of one strategy on one series: prepares once, then answers for any signal parameters."""

    def __init__(self, strategy: Strategy, frame: IndicatorFrame, side: Side = "long") -> None:
        if side not in SIDES:
            raise one_of("side", side, SIDES)
        self._strategy: Final = strategy
        self._long: Final = strategy.prepare(frame) if side in ("long", "both") else None
        self._short: Final = strategy.prepare(frame.mirrored()) if side in ("short", "both") else None

    def decisions(self, parameters: Parameters) -> Decisions:
        """Return the decisions for one set of signal parameters, on the side or sides asked for."""
        return self.decision_sets({name: np.array([value]) for name, value in parameters.items()})[0]

    def decision_sets(self, columns: ParameterColumns) -> DecisionSets:
        """Return the decisions for each of many sets of signal parameters, given as columns of shape (n_sets,)."""
        long = None if self._long is None else self._strategy.signals_of_sets(self._long, columns)
        short = None if self._short is None else self._strategy.signals_of_sets(self._short, columns).mirrored()
        if long is not None and short is not None:
            return DecisionSets.merged(long, short)
        found = short if long is None else long
        assert found is not None
        return found
