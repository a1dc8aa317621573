"""A moment after which long-running work stops at its next good place."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point of a monotonic clock in seconds; infinity never comes."""

    at: float = math.inf
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def after(cls, seconds: float, clock: Callable[[], float] = time.monotonic) -> Self:
        """Return the deadline ``seconds`` from now; 0 stands for no limit."""
        return cls(clock() + seconds if seconds > 0 else math.inf, clock)

    @property
    def has_passed(self) -> bool:
        """Whether the time is over."""
        return self.clock() >= self.at
