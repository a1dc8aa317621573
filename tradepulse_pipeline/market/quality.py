"""Whether candles can be trusted: what is missing, frozen or wild, and whether it forbids a training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from tradepulse_pipeline.market.candles import MAX_FILL, Candles
from tradepulse_pipeline.market.sources.times import iso_utc

Severity = Literal["error", "warning"]

#: Below this no strategy has seen its longest lookback (200 candles) and still has something to decide on.
MINIMUM_CANDLES: Final = 300
MINIMUM_COVERAGE: Final = 0.5

#: Shares of frozen candles, and the close-to-close move, above which a warning is given.
NOTABLE_SHARE: Final = 0.05
LARGE_MOVE: Final = 0.20


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of missing candles: the open time of the first of them, and how many there are."""

    start_ms: int
    n_missing: int


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about the candles that a person should know; an error forbids to train on them."""

    severity: Severity
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityReport:
    """What a series of candles is like.

    ``n_expected`` counts the candles of a series without gaps from the first to the last one, those of a closed market
    left out. Candles that were filled
    forward count as missing. ``largest_move`` is the largest absolute simple return from the close of one candle to
    that of the next one that is there, at ``largest_move_ms``; ``n_large_moves`` counts those above ``LARGE_MOVE``.
    What a series is too short to have is 0, a time None.
    """

    n_candles: int
    first_ms: int | None
    last_ms: int | None
    n_expected: int
    gaps: tuple[Gap, ...]
    n_filled: int
    n_zero_volume: int
    n_flat: int
    n_large_moves: int
    largest_move: float
    largest_move_ms: int | None

    @property
    def coverage(self) -> float:
        """Share of the expected candles that is there."""
        return self.n_candles / max(self.n_expected, 1)

    @property
    def n_missing(self) -> int:
        """Number of missing candles in all gaps."""
        return sum(gap.n_missing for gap in self.gaps)

    @property
    def zero_volume_share(self) -> float:
        """Share of the candles without volume."""
        return self.n_zero_volume / max(self.n_candles, 1)

    @property
    def flat_share(self) -> float:
        """Share of the candles with one price only (high = low)."""
        return self.n_flat / max(self.n_candles, 1)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What a person should know, errors first."""
        return (*self._errors(), *self._warnings())

    @property
    def is_fit_for_training(self) -> bool:
        """Whether there is no error among the problems."""
        return not any(self._errors())

    def _errors(self) -> Iterator[Problem]:
        if self.n_candles < MINIMUM_CANDLES:
            yield Problem("error", f"There are {self.n_candles} candles; at least {MINIMUM_CANDLES} are needed.")
        if self.n_candles and self.coverage < MINIMUM_COVERAGE:
            yield Problem(
                "error",
                f"Only {self.n_candles} of {self.n_expected} candles ({self.coverage:.1%}) are there; "
                f"at least {MINIMUM_COVERAGE:.0%} are needed.",
            )

    def _warnings(self) -> Iterator[Problem]:
        if self.gaps:
            longest = max(self.gaps, key=lambda gap: gap.n_missing)
            yield Problem(
                "warning",
                f"{self.n_missing} candles are missing in {len(self.gaps)} gaps, {longest.n_missing} of them in the "
                f"longest, from {iso_utc(longest.start_ms)}. Gaps of up to {MAX_FILL} candles are filled forward; "
                "no trade is entered across a gap.",
            )
        if self.zero_volume_share > NOTABLE_SHARE:
            yield Problem(
                "warning",
                f"{self.n_zero_volume} of {self.n_candles} candles ({self.zero_volume_share:.1%}) have no volume: "
                "the market is thin.",
            )
        if self.flat_share > NOTABLE_SHARE:
            yield Problem(
                "warning",
                f"{self.n_flat} of {self.n_candles} candles ({self.flat_share:.1%}) have high = low: "
                "the price hardly moves.",
            )
        if self.n_large_moves and self.largest_move_ms is not None:
            moves = "move" if self.n_large_moves == 1 else "moves"
            yield Problem(
                "warning",
                f"{self.n_large_moves} {moves} of more than {LARGE_MOVE:.0%} from close to close, the largest "
                f"{self.largest_move:.1%} at {iso_utc(self.largest_move_ms)}. Kept: true moves can be extreme.",
            )


def assess(candles: Candles) -> QualityReport:
    """Examine candles; they are changed in nothing, and a true extreme is not taken for an error."""
    is_real = ~candles.is_filled
    times, close = candles.open_time_ms[is_real], candles.close[is_real]
    n, timeframe = len(times), candles.timeframe
    missing = candles.calendar.missing_between(times, timeframe)
    before_gaps = np.flatnonzero(missing)
    n_missing = missing[before_gaps]
    gap_starts = candles.calendar.shifted(times[before_gaps], np.ones_like(before_gaps), timeframe)
    moves = np.abs(close[1:] / close[:-1] - 1)
    largest = int(np.argmax(moves)) if len(moves) else None
    return QualityReport(
        n_candles=n,
        first_ms=int(times[0]) if n else None,
        last_ms=int(times[-1]) if n else None,
        n_expected=n + int(n_missing.sum()),
        gaps=tuple(map(Gap, gap_starts.tolist(), n_missing.tolist())),
        n_filled=int(candles.is_filled.sum()),
        n_zero_volume=int((candles.volume[is_real] == 0).sum()),
        n_flat=int((candles.high[is_real] == candles.low[is_real]).sum()),
        n_large_moves=int((moves > LARGE_MOVE).sum()),
        largest_move=0.0 if largest is None else float(moves[largest]),
        largest_move_ms=None if largest is None else int(times[largest + 1]),
    )
