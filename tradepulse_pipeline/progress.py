"""How long-running work tells how far it is: a value that says it, and a function that takes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a phase of a training is: ``done`` of ``total`` in ``unit``, with the best ``measure`` so far."""

    phase: str
    done: int
    total: int
    unit: str
    best: float | None = None
    measure: str = "objective"
    detail: str = ""


ProgressListener = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """Take progress and do nothing with it."""


def duration(seconds: float) -> str:
    """Return a span of time in its two largest units.

    Examples
    --------
    >>> duration(0.4), duration(75), duration(7_300), duration(200_000)
    ('0 s', '1 min 15 s', '2 h 1 min', '2 d 7 h')
    """
    rest = round(seconds)
    counts = []
    for name, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        counts.append((rest // size, name))
        rest %= size
    first = next((position for position, (count, _) in enumerate(counts) if count), len(counts) - 1)
    largest, *others = counts[first : first + 2]
    return " ".join(f"{count} {name}" for count, name in (largest, *(other for other in others if other[0])))
