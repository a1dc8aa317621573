"""How long-running work tells how far it is: a value that says it, and a function that takes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a phase of a training is: ``done`` of ``total`` in ``unit``, with the best objective so far."""

    phase: str
    done: int
    total: int
    unit: str
    best: float | None = None
    detail: str = ""


ProgressListener = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """Take progress and do nothing with it."""
