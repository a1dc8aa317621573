"""A clock that stands until it is set, for this process and for those that it starts."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

_NS_PER_MS = 1_000_000


class StandingClock:
    """What time it is on the market, in a file.

    TradePulse asks ``time.time_ns`` what candles there can be, and nothing else does. Dagster, which asks
    ``time.time``, the database and whatever waits go on by the real clock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def set(self, now_ms: int) -> None:
        self.path.write_text(str(now_ms))

    def now_ms(self) -> int:
        return int(self.path.read_text())

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.now_ms() / 1000, UTC)

    def install(self) -> None:
        """Let this process live by it."""
        time.time_ns = lambda: self.now_ms() * _NS_PER_MS
