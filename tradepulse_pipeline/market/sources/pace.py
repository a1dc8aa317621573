"""Not asking a venue more often than it allows, however many ask at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Protocol


class Pace(Protocol):
    """The turns of all who ask one venue."""

    def wait(self, seconds: float) -> None:
        """Wait for the turn of a request that uses up ``seconds`` of the venue's allowance."""
        ...

    def hold(self, seconds: float) -> None:
        """Let nobody's turn come for ``seconds``: the venue has asked for silence."""
        ...


class LocalPace:
    """The turns of the threads of this process, spaced evenly.

    Parameters
    ----------
    clock, sleep : callables
        What time it is, in seconds, and how to wait.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._turn = threading.Lock()
        self._next = 0.0
        self._n_holds = 0

    def wait(self, seconds: float) -> None:
        """See :class:`Pace`."""
        while True:
            with self._turn:
                now, n_holds = self._clock(), self._n_holds
                mine = max(now, self._next)
                self._next = mine + seconds
            if mine > now:
                self._sleep(mine - now)
            with self._turn:
                if n_holds == self._n_holds:
                    return
            # Held while asleep: the turn is lost, and another one is taken after the silence.

    def hold(self, seconds: float) -> None:
        """See :class:`Pace`."""
        with self._turn:
            self._next = max(self._next, self._clock() + seconds)
            self._n_holds += 1


@cache
def local_pace(venue: str) -> LocalPace:
    """Return the one pace of all who ask a venue from this process."""
    return LocalPace()
