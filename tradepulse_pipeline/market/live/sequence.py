"""Whether anything is missing or comes twice, told by the exchange's own numbers."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tradepulse_pipeline.market.live.book import Book
from tradepulse_pipeline.market.live.events import Channel, DepthChanged
from tradepulse_pipeline.market.series import Market


class Run(NamedTuple):
    """Numbers from ``first`` to ``last`` without a hole."""

    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """What is missing from a channel: the numbers (open times for candles) from ``first`` to ``last``, inclusive.

    A book whose checksum does not match breaks at a point in time: ``first`` and ``last`` are its milliseconds.
    """

    market: Market
    channel: Channel
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1


class Runs:
    """Which numbers are there, as runs without holes.

    Examples
    --------
    >>> runs = Runs([(10, 19)])
    >>> runs.add(20), runs.add(15), runs.add(23)
    (True, False, True)
    >>> runs.hole_before(23)
    Run(first=21, last=22)
    >>> runs.missing(8, 21)
    [Run(first=8, last=9), Run(first=21, last=21)]
    >>> list(runs)
    [Run(first=10, last=20), Run(first=23, last=23)]
    """

    def __init__(self, known: Iterable[tuple[int, int]] = ()) -> None:
        self._runs: list[Run] = []
        for first, last in sorted(known):
            self._insert(Run(first, last))

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def add(self, number: int) -> bool:
        """Note a number; False if it was there already."""
        if self._runs and number == self._runs[-1].last + 1:
            self._runs[-1] = Run(self._runs[-1].first, number)
            return True
        if number in self:
            return False
        self._insert(Run(number, number))
        return True

    def __contains__(self, number: int) -> bool:
        at = self._at(number)
        return at >= 0 and number <= self._runs[at].last

    def missing(self, first: int, last: int) -> list[Run]:
        """Return which numbers from ``first`` to ``last`` are not there."""
        holes = []
        for run in self._runs[max(self._at(first), 0) :]:
            if run.first > last:
                break
            if run.first > first:
                holes.append(Run(first, run.first - 1))
            first = max(first, run.last + 1)
        return [*holes, Run(first, last)] if first <= last else holes

    def hole_before(self, number: int) -> Run | None:
        """Return what is missing between the run that ``number`` is in and the run before it; None without one."""
        at = self._at(number)
        return Run(self._runs[at - 1].last + 1, self._runs[at].first - 1) if at > 0 else None

    def _at(self, number: int) -> int:
        return bisect_right(self._runs, number, key=lambda run: run.first) - 1

    def _insert(self, run: Run) -> None:
        insort(self._runs, run)
        at = self._runs.index(run)
        while at > 0 and self._runs[at - 1].last + 1 >= self._runs[at].first:
            self._join(at - 1)
            at -= 1
        while at + 1 < len(self._runs) and self._runs[at].last + 1 >= self._runs[at + 1].first:
            self._join(at)

    def _join(self, at: int) -> None:
        left, right = self._runs[at : at + 2]
        self._runs[at : at + 2] = [Run(left.first, max(left.last, right.last))]


class DepthSequence:
    """Whether the changes of one market's order book follow each other without a loss."""

    def __init__(self, market: Market) -> None:
        self._market = market
        self._last_id: int | None = None
        self._book: Book | None = None
        self.has_snapshot = False

    def check(self, change: DepthChanged) -> Break | None:
        """Return what is missing before ``change``, or None; see :class:`Break` for a checksum that does not match.

        Numbered changes follow each other if each begins with the number after the one before it (Binance spot), or
        names the one before it (Binance USD-M). After a checksum that does not match, none is compared until a whole
        book comes.
        """
        if change.is_snapshot:
            self.has_snapshot = True
            self._book = Book()
        broken = self._lost(change) or self._mismatch(change)
        if broken:
            self._book = None
        return broken

    def is_repeated(self, change: DepthChanged) -> bool:
        """Whether all of a change is known."""
        known = self._last_id is not None and change.last_id is not None and change.last_id <= self._last_id
        return known and not change.is_snapshot

    def restart(self) -> None:
        """Forget what came before a new connection: a snapshot makes up for what was missed."""
        self._last_id, self._book = None, None

    def _lost(self, change: DepthChanged) -> Break | None:
        if change.is_snapshot or change.first_id is None or change.last_id is None:
            return None
        known, self._last_id = self._last_id, change.last_id
        previous = change.first_id - 1 if change.previous_id is None else change.previous_id
        return self._break(known + 1, previous) if known is not None and previous > known else None

    def _mismatch(self, change: DepthChanged) -> Break | None:
        if (change.checksum is None and not (change.is_snapshot and change.depth)) or self._book is None:
            return None
        self._book.apply(change)
        if change.checksum is None or self._book.checksum(*change.decimals) == change.checksum:
            return None
        return self._break(change.time_ms, change.time_ms)

    def _break(self, first: int, last: int) -> Break:
        return Break(market=self._market, channel="depth", first=first, last=last)
