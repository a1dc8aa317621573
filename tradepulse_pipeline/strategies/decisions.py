"""What a strategy hands to the engine: decisions, and how their positions end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Self

import numpy as np

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.candles import FloatArray, IndexArray, IntArray

Side = Literal["long", "short", "both"]
SIDES: Final[tuple[Side, ...]] = ("long", "short", "both")
TARGETS: Final = ("r", "price", "none")
LONG: Final = 1
SHORT: Final = -1


@dataclass(frozen=True, slots=True, eq=False)
class Decisions:
    """Decisions, as arrays of shape (n_decisions,): 'at the close of ``bar``, take ``side``'.

    Prices that depend on an exit parameter are declared, not computed: a stop lies ``stop_multiple`` units of
    ``stop_unit`` beyond ``stop_anchor``. The same decisions therefore serve every exit parameter set. Where several
    patterns confirm at the same bar, each may be listed: the one whose stop is nearest to the close is taken.

    Attributes
    ----------
    bar : int64
        Index of the candle at whose close the decision is made; ascending in the decisions of one parameter set.
    side : int64
        ``LONG`` (+1) or ``SHORT`` (-1).
    stop_anchor, stop_unit : float64, price
        ``stop_price = stop_anchor - side * stop_multiple * stop_unit``.
    target_anchor, target_unit : float64, price
        ``target_price = target_anchor + side * target_multiple * target_unit``, where the strategy sets a target by
        price; NaN where the target is a multiple of R or there is none.
    trail_unit : float64, price
        The unit of the trailing stop's two distances (ATR at the decision); NaN where there is none.
    exit_level : float64, price
        A close beyond this price (below for long) is the condition that ends a young position; NaN for none.
    """

    bar: IntArray
    side: IntArray
    stop_anchor: FloatArray
    stop_unit: FloatArray
    target_anchor: FloatArray
    target_unit: FloatArray
    trail_unit: FloatArray
    exit_level: FloatArray

    @classmethod
    def of(
        cls,
        bar: IntArray,
        side: IntArray | int,
        stop_anchor: FloatArray,
        stop_unit: FloatArray,
        *,
        target_anchor: FloatArray | None = None,
        target_unit: FloatArray | None = None,
        trail_unit: FloatArray | None = None,
        exit_level: FloatArray | None = None,
    ) -> Self:
        """Build decisions; what a strategy does not use is left out and becomes NaN."""
        n = len(bar)
        if n and np.asarray(bar).dtype.kind not in "iu":
            raise InvalidInputError(
                f"Decisions: 'bar' holds {np.asarray(bar).dtype}, expected the indices of bars as integers, such as "
                "np.flatnonzero(condition)."
            )

        def price(values: FloatArray | None) -> FloatArray:
            return np.full(n, np.nan) if values is None else np.ascontiguousarray(values, dtype=np.float64)

        return cls(
            np.ascontiguousarray(bar, dtype=np.int64),
            np.array(np.broadcast_to(side, (n,)), dtype=np.int64),
            price(stop_anchor),
            price(stop_unit),
            price(target_anchor),
            price(target_unit),
            price(trail_unit),
            price(exit_level),
        )

    def __post_init__(self) -> None:
        n = len(self.bar)
        for name in self.__dataclass_fields__:
            if getattr(self, name).shape != (n,):
                raise InvalidInputError(
                    f"Decisions: column {name!r} has shape {getattr(self, name).shape}, expected ({n},) like 'bar': "
                    "one value per decision, such as frame.close[bar]."
                )
            expected = np.int64 if name in ("bar", "side") else np.float64
            if getattr(self, name).dtype != expected:
                raise InvalidInputError(
                    f"Decisions: column {name!r} holds {getattr(self, name).dtype}, expected {expected.__name__}: "
                    "Decisions.of converts."
                )

    def __len__(self) -> int:
        return len(self.bar)

    def take(self, rows: IntArray | IndexArray) -> Self:
        """Return the decisions of some rows, in that order."""
        return type(self)(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def mirrored(self) -> Self:
        """Return the decisions seen in a mirror of prices: every price negated, long and short swapped."""
        return type(self)(
            self.bar,
            -self.side,
            -self.stop_anchor,
            self.stop_unit,
            -self.target_anchor,
            self.target_unit,
            self.trail_unit,
            -self.exit_level,
        )

    @classmethod
    def concatenated(cls, parts: Sequence[Self]) -> Self:
        """Return the decisions of all ``parts``, one after the other."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


@dataclass(frozen=True, slots=True, eq=False)
class DecisionSets:
    """The decisions of several sets of signal parameters. What many sets decide need be there only once.

    Attributes
    ----------
    decisions : Decisions
        In any order.
    members : int32 array of shape (n_members,)
        The sets' lists one after the other: rows of ``decisions``, in bar order within a list.
    offsets : int64 array of shape (n_sets + 1,)
        Set i has the list ``members[offsets[i] : offsets[i + 1]]``.
    """

    decisions: Decisions
    members: IndexArray
    offsets: IntArray

    @classmethod
    def of(cls, sets: Sequence[Decisions]) -> Self:
        """Put the decisions of each set together."""
        offsets = np.cumsum([0, *(len(part) for part in sets)], dtype=np.int64)
        return cls.listed(Decisions.concatenated(sets), offsets)

    @classmethod
    def listed(cls, decisions: Decisions, offsets: IntArray) -> Self:
        """Take the decisions of all sets one after the other: set i has rows ``offsets[i]`` to ``offsets[i + 1]``."""
        return cls(decisions, np.arange(len(decisions), dtype=np.int32), offsets)

    def __post_init__(self) -> None:
        descends = np.diff(self.decisions.bar[self.members]) < 0
        descends[self.offsets[1:-1][(self.offsets[1:-1] > 0) & (self.offsets[1:-1] < len(self.members))] - 1] = False
        if descends.any():
            raise InvalidInputError("Decisions: 'bar' must be ascending within the decisions of one parameter set.")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, number: int) -> Decisions:
        """Return the decisions of one set."""
        return self.decisions.take(self.members[self.offsets[number] : self.offsets[number + 1]])

    def mirrored(self) -> Self:
        """Return the sets seen in a mirror of prices."""
        return type(self)(self.decisions.mirrored(), self.members, self.offsets)

    @classmethod
    def merged(cls, first: Self, second: Self) -> Self:
        """Return, set by set, both decisions in bar order; at the same bar the first ones come first."""
        both = Decisions.concatenated([first.decisions, second.decisions])
        members = np.concatenate([first.members, second.members + np.int32(len(first.decisions))])
        number = np.concatenate([np.repeat(np.arange(len(sets)), np.diff(sets.offsets)) for sets in (first, second)])
        # By set, then by bar: two ascending runs, which a stable sort only has to merge.
        bar = both.bar[members]
        order = np.argsort(number * (bar.max(initial=0) + 1) + bar, kind="stable")
        return cls(both, members[order], first.offsets + second.offsets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exits:
    """How the positions of one exit parameter set end. Distances are multiples of the units that decisions carry."""

    #: Units of ``stop_unit`` between anchor and stop.
    stop_multiple: float = 0.0
    #: ``r``: the target lies ``target_multiple`` R beyond the entry; ``price``: beyond the decision's own anchor.
    target: Literal["r", "price", "none"] = "none"
    target_multiple: float = 0.0
    #: Units of ``trail_unit`` that the best price must be beyond the entry; 0 for no trailing stop.
    trail_activation: float = 0.0
    #: Units of ``trail_unit`` that the trail stays behind the best price.
    trail_distance: float = 0.0
    #: The exit level holds for this many first bars of a position; 0 for none.
    exit_level_bars: int = 0
    #: Longest position in bars; 0 for no limit.
    max_holding_bars: int = 0

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise InvalidInputError(f"Exits: target is {self.target!r}, expected one of {', '.join(TARGETS)}.")
        for name in ("stop_multiple", "target_multiple", "trail_activation", "trail_distance"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise InvalidInputError(f"Exits: {name} is {getattr(self, name)}, expected a number of 0 or more.")
        for name in ("exit_level_bars", "max_holding_bars"):
            if not (getattr(self, name) >= 0 and float(getattr(self, name)).is_integer()):
                raise InvalidInputError(f"Exits: {name} is {getattr(self, name)}, expected a whole number, 0 or more.")
