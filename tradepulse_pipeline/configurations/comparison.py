"""Whether a repeated training came to the same result, to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

#: What a training computes. All else (times, ids, the run) may differ between repetitions.
OUTCOME_PARTS: Final = ("parameters", "in_sample_metrics", "out_of_sample_metrics", "windows")


class Outcome(Protocol):
    """What a training computed: a configuration as built, or as stored."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The parameters."""
        ...

    @property
    def in_sample_metrics(self) -> Mapping[str, Any]:
        """Figures on train windows."""
        ...

    @property
    def out_of_sample_metrics(self) -> Mapping[str, Any]:
        """Figures on test windows."""
        ...

    @property
    def windows(self) -> list[dict[str, Any]]:
        """Results of the single windows."""
        ...


@dataclass(frozen=True, slots=True)
class Difference:
    """A value that is not the same; None also stands for one that is not there."""

    place: str
    stored: Any
    repeated: Any

    def __str__(self) -> str:
        return f"{self.place}: {self.stored!r}, repeated {self.repeated!r}"


def compare_outcomes(stored: Outcome, repeated: Outcome) -> tuple[Difference, ...]:
    """Return every value in which a repetition differs from what is stored; empty when they are the same to the bit."""
    return tuple(
        difference
        for part in OUTCOME_PARTS
        for difference in differences(getattr(stored, part), getattr(repeated, part), place=part)
    )


def differences(stored: Any, repeated: Any, *, place: str = "") -> tuple[Difference, ...]:
    """Return the differences between two values of JSON, with where they are; floats are compared exactly.

    Examples
    --------
    >>> [str(d) for d in differences({"a": 1.0, "b": [1, 2]}, {"a": 1.0, "b": [1, 3]})]
    ['b.1: 2, repeated 3']
    """
    if isinstance(stored, Mapping) and isinstance(repeated, Mapping):
        keys = [*stored, *(key for key in repeated if key not in stored)]
        pairs = [(key, stored.get(key), repeated.get(key)) for key in keys]
    elif isinstance(stored, (list, tuple)) and isinstance(repeated, (list, tuple)) and len(stored) == len(repeated):
        pairs = [(index, stored[index], repeated[index]) for index in range(len(stored))]
    else:
        return () if stored == repeated else (Difference(place, stored, repeated),)
    return tuple(
        difference
        for key, first, second in pairs
        for difference in differences(first, second, place=f"{place}.{key}" if place else str(key))
    )
