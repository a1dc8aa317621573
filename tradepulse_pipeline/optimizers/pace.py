"""How much is done between two looks at the clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from tradepulse_pipeline.market.candles import IntArray

_FIRST: Final = 8_192
_LEAST: Final = 16

#: A part that took less time is followed by one of twice its size, one that took more by one of half of it.
SHORTEST_S: Final = 0.15
LONGEST_S: Final = 0.6


class Pace:
    """Cuts batches into parts that take a fraction of a second each, so that a search can be followed and stopped.

    Parts are large where evaluations are fast, because each costs something by itself.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock: Final = clock
        self._size = _FIRST

    def parts(self, batch: IntArray) -> Iterator[IntArray]:
        """Yield the parts of a batch, in order; what is done with a part before the next one counts as its time."""
        first = 0
        while first < len(batch):
            size, begin = self._size, self._clock()
            yield batch[first : first + size]
            first += size
            seconds = self._clock() - begin
            if seconds > LONGEST_S:
                self._size = max(_LEAST, size // 2)
            elif seconds < SHORTEST_S and first <= len(batch):
                self._size = 2 * size
