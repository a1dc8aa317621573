"""The order book, built from a snapshot and the changes after it."""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Iterable
from typing import Final

from tradepulse_pipeline.errors import CandleError
from tradepulse_pipeline.market.live.events import DepthChanged, Level
from tradepulse_pipeline.market.sources.times import iso_utc

#: Levels of each side that Kraken's checksum covers.
_CHECKED_LEVELS: Final = 10


class Book:
    """Bids and asks of one market, once a snapshot has come and as long as no numbered change is missing.

    Changes that come before the snapshot that they build upon, as Binance's first ones do, are kept for it.
    """

    def __init__(self) -> None:
        self.is_whole = False
        self._last_id: int | None = None
        self._waiting: list[DepthChanged] = []
        self._bids: dict[float, float] = {}
        self._asks: dict[float, float] = {}

    def apply(self, change: DepthChanged) -> None:
        """Take in changed levels; a snapshot takes the place of the whole book."""
        if change.is_snapshot:
            self._bids, self._asks = {}, {}
            self._store(change)
            self.is_whole = True
            waiting, self._waiting = self._waiting, []
            for later in waiting:
                self.apply(later)
        elif not self.is_whole or self._lacks_some_before(change):
            self.is_whole = False
            self._waiting.append(change)
        elif change.last_id is None or self._last_id is None or change.last_id > self._last_id:
            self._store(change)

    def bids(self, n: int | None = None) -> list[Level]:
        """Return the ``n`` best bids, the highest first; all without ``n``."""
        return [Level(price, self._bids[price]) for price in heapq.nlargest(n or len(self._bids), self._bids)]

    def asks(self, n: int | None = None) -> list[Level]:
        """Return the ``n`` best asks, the lowest first; all without ``n``."""
        return [Level(price, self._asks[price]) for price in heapq.nsmallest(n or len(self._asks), self._asks)]

    def checksum(self, price_decimals: int, amount_decimals: int) -> int:
        """Return the CRC-32 of the ten best asks and bids as Kraken makes it.

        Prices and amounts are written with their decimals, without the point and leading zeros:
        https://docs.kraken.com/api/docs/guides/spot-ws-book-v2.
        """
        digits = (
            f"{value:.{decimals}f}".replace(".", "").lstrip("0")
            for level in self.asks(_CHECKED_LEVELS) + self.bids(_CHECKED_LEVELS)
            for value, decimals in ((level.price, price_decimals), (level.amount, amount_decimals))
        )
        return zlib.crc32("".join(digits).encode())

    def _lacks_some_before(self, change: DepthChanged) -> bool:
        if change.first_id is None or self._last_id is None:
            return False
        previous = change.first_id - 1 if change.previous_id is None else change.previous_id
        return previous > self._last_id

    def _store(self, change: DepthChanged) -> None:
        self._last_id = change.last_id
        for side, levels, best in ((self._bids, change.bids, self.bids), (self._asks, change.asks, self.asks)):
            for level in levels:
                if level.amount:
                    side[level.price] = level.amount
                else:
                    side.pop(level.price, None)
            if change.depth and len(side) > change.depth:
                for price in side.keys() - {level.price for level in best(change.depth)}:
                    del side[price]


def book_at(changes: Iterable[DepthChanged], time_ms: int) -> Book:
    """Return the order book as it was at ``time_ms``, the changes being in the order of their arrival.

    Raises
    ------
    CandleError
        If no snapshot comes before, or changes are missing between it and ``time_ms``.
    """
    book, n_changes = Book(), 0
    for change in changes:
        if change.time_ms > time_ms:
            break
        book.apply(change)
        n_changes += 1
    if not book.is_whole:
        raise CandleError(
            f"No order book at {iso_utc(time_ms)}: the {n_changes} changes before it build upon a snapshot that is not "
            "among them, or upon changes that are missing. Read them together with the recording of the time before."
        )
    return book
