"""Which candles a training stands on: where they may come from, and which span of time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from tradepulse_pipeline.errors import InvalidInputError, one_of
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import MS_PER_DAY

CandleOrigin = Literal["auto", "exchange", "stored"]
CANDLE_ORIGINS: Final[tuple[CandleOrigin, ...]] = ("auto", "exchange", "stored")


@dataclass(frozen=True, slots=True, kw_only=True)
class HistorySettings:
    """Where candles may come from and how far back they reach.

    ``auto`` fetches what is missing and goes on with the stored candles where the exchange cannot be reached;
    ``exchange`` fails then; ``stored`` asks no exchange. Without ``start_ms`` and ``end_ms`` the training stands on
    the last ``history_days`` of the candles that there are.
    """

    source: CandleOrigin = "auto"
    history_days: int = 365
    start_ms: int | None = None
    end_ms: int | None = None

    def __post_init__(self) -> None:
        if self.source not in CANDLE_ORIGINS:
            raise one_of("source", self.source, CANDLE_ORIGINS)
        if not 1 <= self.history_days <= 36_500:
            raise InvalidInputError(f"history_days: found {self.history_days}, expected 1 to 36500 days.")

    def select(self, candles: Candles) -> Candles:
        """Return the candles of the span: the exact one if it is given, else the last ``history_days``."""
        if self.start_ms is not None or self.end_ms is not None or not len(candles):
            return candles.between(self.start_ms, self.end_ms)
        return candles.between(candles.end_ms - self.history_days * MS_PER_DAY, None)
