"""The report on a series of candles: its figures, what a person should know of them, and whether to train on them."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from tradepulse_pipeline.market.candles import MAX_FILL, Candles
from tradepulse_pipeline.market.quality.feed import Unfinished, find_unfinished
from tradepulse_pipeline.market.quality.gaps import (
    Gap,
    NoTrade,
    Standstill,
    explain_gaps,
    find_gaps,
    find_standstills,
    no_trade_convention,
)
from tradepulse_pipeline.market.quality.outliers import Outlier, find_outliers
from tradepulse_pipeline.market.quality.slips import Slip, find_clock_slip, find_unit_slips
from tradepulse_pipeline.market.quality.surroundings import Surroundings
from tradepulse_pipeline.market.series import Timeframe
from tradepulse_pipeline.market.sources.times import iso_utc

#: An error forbids to train, a warning travels with what was trained, a note is good to know.
Severity = Literal["error", "warning", "note"]

#: Below this no strategy has seen its longest lookback (200 candles) and still has something to decide on.
MINIMUM_CANDLES: Final = 300
MINIMUM_COVERAGE: Final = 0.5

#: Shares of frozen candles, and the close-to-close move, above which a warning is given.
NOTABLE_SHARE: Final = 0.05
LARGE_MOVE: Final = 0.20

#: The timeframe of which an open time off the grid is one of another time zone.
DAILY: Final = "1d"

#: Candles that are late: so many are on their way at any time.
STALE_CANDLES: Final = 3


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about the candles that a person should know; an error forbids to train on them."""

    severity: Severity
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityReport:
    """What a series of candles is like.

    ``n_expected`` counts the candles of a series without gaps from the first to the last one. Candles that were filled
    forward count as missing. ``largest_move`` is the largest absolute simple return from the close of one candle to
    that of the next one that is there, at ``largest_move_ms``; ``n_large_moves`` counts those above ``LARGE_MOVE``.
    ``n_late`` counts the candles that should have followed by now, None where the time is not known. What a series is
    too short to have is 0, a time None.
    """

    name: str
    timeframe: Timeframe
    n_candles: int
    first_ms: int | None
    last_ms: int | None
    n_expected: int
    gaps: tuple[Gap, ...]
    no_trade: NoTrade | None
    standstills: tuple[Standstill, ...]
    n_filled: int
    n_zero_volume: int
    n_flat: int
    n_large_moves: int
    largest_move: float
    largest_move_ms: int | None
    outliers: tuple[Outlier, ...]
    slips: tuple[Slip, ...]
    unfinished: Unfinished | None
    n_late: int | None
    set_aside: tuple[tuple[str, int], ...]
    sentences: tuple[str, ...]

    @property
    def coverage(self) -> float:
        """Share of the expected candles that is there."""
        return self.n_candles / max(self.n_expected, 1)

    @property
    def n_missing(self) -> int:
        """Number of missing candles in all gaps."""
        return sum(gap.n_missing for gap in self.gaps)

    @property
    def outages(self) -> tuple[Gap, ...]:
        """The gaps in which the exchange was away, not merely nobody traded."""
        return tuple(gap for gap in self.gaps if gap.cause == "outage")

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
        """What a person should know, errors first, notes last."""
        found = (
            *self._amount(),
            *self._completeness(),
            *self._liquidity(),
            *self._plausibility(),
            *self._freshness(),
            *self._sources(),
        )
        order: tuple[Severity, ...] = ("error", "warning", "note")
        return tuple(sorted(found, key=lambda problem: order.index(problem.severity)))

    @property
    def is_fit_for_training(self) -> bool:
        """Whether there is no error among the problems."""
        return not self.errors

    @property
    def errors(self) -> tuple[str, ...]:
        """What forbids to train."""
        return self._sentences("error")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What should be known wherever a result of these candles is shown."""
        return self._sentences("warning")

    @property
    def notes(self) -> tuple[str, ...]:
        """What is good to know and changes nothing."""
        return self._sentences("note")

    def problems_of(self, aspect: Aspect) -> tuple[Problem, ...]:
        """Return the problems of one aspect of the candles."""
        return tuple(getattr(self, f"_{aspect}")())

    def _sentences(self, severity: Severity) -> tuple[str, ...]:
        return tuple(problem.sentence for problem in self.problems if problem.severity == severity)

    def _amount(self) -> Iterator[Problem]:
        if self.n_candles < MINIMUM_CANDLES:
            yield Problem("error", f"There are {self.n_candles} candles; at least {MINIMUM_CANDLES} are needed.")
        if self.n_candles and self.coverage < MINIMUM_COVERAGE:
            yield Problem(
                "error",
                f"Only {self.n_candles} of {self.n_expected} candles ({self.coverage:.1%}) are there; "
                f"at least {MINIMUM_COVERAGE:.0%} are needed.",
            )

    def _plausibility(self) -> Iterator[Problem]:
        for outlier in self.outliers:
            if outlier.is_error:
                yield Problem("error", self._mistake(outlier))
        undecided = [one for one in self.outliers if one.judgement == "undecided" and not one.is_confirmed]
        if undecided:
            widest = max(undecided, key=lambda one: abs(math.log(max(1 + one.move, sys.float_info.min))))
            yield Problem(
                "warning",
                f"{_counted(len(undecided), 'extreme candle')} could be true or mistaken, the widest at "
                f"{iso_utc(widest.open_time_ms)} ({_signed(widest.move)}): {widest.reason}.",
            )
        for slip in self.slips:
            yield Problem("error", _slipped(slip))
        if self.n_large_moves and self.largest_move_ms is not None:
            yield Problem(
                "warning",
                f"{_counted(self.n_large_moves, 'move')} of more than {LARGE_MOVE:.0%} from close to close, the "
                f"largest {self.largest_move:.1%} at {iso_utc(self.largest_move_ms)}. Kept: true moves can be extreme.",
            )
        extreme = [one for one in self.outliers if one.judgement == "likely true"]
        if extreme:
            yield Problem("note", f"{_counted(len(extreme), 'extreme candle')} likely true, and kept.")
        confirmed = [one for one in self.outliers if one.is_confirmed]
        if confirmed:
            yield Problem("note", f"{_counted(len(confirmed), 'extreme candle')} called true by a person.")

    def _completeness(self) -> Iterator[Problem]:
        if self.gaps:
            longest = max(self.gaps, key=lambda gap: gap.n_missing)
            yield Problem(
                "warning",
                f"{self.n_missing} candles are missing in {_counted(len(self.gaps), 'gap')}, {longest.n_missing} of "
                f"them in the longest, from {iso_utc(longest.start_ms)}. {self._cause_of_gaps()} Gaps of up to "
                f"{MAX_FILL} candles are filled forward; no trade is entered across a gap.",
            )
        beside = [one for one in self.standstills if one.is_at_gap]
        if beside:
            yield Problem(
                "warning",
                f"Around {_counted(len(beside), 'gap')} the feed stood still, without volume and at one price: "
                f"{max(one.n_candles for one in beside)} candles at most, first from {iso_utc(beside[0].start_ms)}.",
            )
        if self.unfinished is not None:
            yield Problem("warning", self.unfinished.sentence)

    def _liquidity(self) -> Iterator[Problem]:
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
        alone = [one for one in self.standstills if not one.is_at_gap]
        if alone:
            longest = max(alone, key=lambda one: one.n_candles)
            yield Problem(
                "note",
                f"{_counted(len(alone), 'run')} of candles without volume and at one price, longer than chance makes "
                f"them: {longest.n_candles} candles at most, from {iso_utc(longest.start_ms)}. The feed or the market "
                "stood still.",
            )

    def _freshness(self) -> Iterator[Problem]:
        if self.n_late is not None and self.n_late > STALE_CANDLES and self.last_ms is not None:
            yield Problem(
                "warning",
                f"The last candle is of {iso_utc(self.last_ms)}: {_counted(self.n_late, 'candle')} should have "
                "followed by now.",
            )

    def _sources(self) -> Iterator[Problem]:
        if self.set_aside:
            n = sum(count for _, count in self.set_aside)
            reasons = "; ".join(f"{count} {reason}" for reason, count in self.set_aside)
            yield Problem("note", f"{_counted(n, 'row')} in quarantine: {reasons}.")
            if any(f"off the {DAILY} grid" in reason for reason, _ in self.set_aside):
                yield Problem("warning", "Daily candles that do not open at 00:00 UTC are days of another time zone.")
        for sentence in self.sentences:
            yield Problem("warning", sentence)

    def _cause_of_gaps(self) -> str:
        n_shared = sum(gap.is_shared is True for gap in self.gaps)
        n_judged = sum(gap.is_shared is not None for gap in self.gaps)
        others = f" {n_shared} of {n_judged} are in most other pairs of the exchange, too." if n_judged else ""
        if self.no_trade == "zero-volume candle":
            return f"Candles without volume stand where nobody traded, so a gap is an outage.{others}"
        if self.no_trade == "no candle":
            n = len(self.outages)
            outages = f"{_counted(n, 'gap')} too long for that: likely outages" if n else "none is too long for that"
            return f"Where nobody traded this series has no candle, so most gaps mean no trade; {outages}.{others}"
        return f"Whether the exchange was away or nobody traded, the candles do not tell.{others}"

    def _mistake(self, one: Outlier) -> str:
        at = iso_utc(one.open_time_ms)
        series = self.name or "SERIES"
        return (
            f"The candle of {at} is likely a mistake (open {one.open:g}, high {one.high:g}, low {one.low:g}, close "
            f"{one.close:g}, volume {one.volume:g}; {_signed(one.move)} off its neighbours): {one.reason}. "
            f"'tradepulse quarantine add {series} {at}' sets it aside; 'tradepulse quarantine keep {series} {at}' "
            "says that it is true."
        )


#: What the problems are about.
Aspect = Literal["amount", "plausibility", "completeness", "liquidity", "freshness", "sources"]


def assess(candles: Candles, surroundings: Surroundings | None = None, *, name: str = "") -> QualityReport:
    """Examine candles; they are changed in nothing, and a true extreme is not taken for an error.

    What ``surroundings`` does not hold is not claimed. ``name`` is how sentences call the series.
    """
    known = surroundings or Surroundings()
    real = candles.traded()
    times, close, n = real.open_time_ms, real.close, len(real)
    moves = np.abs(close[1:] / close[:-1] - 1)
    largest = int(np.argmax(moves)) if len(moves) else None
    gaps = find_gaps(real)
    no_trade = no_trade_convention(real, gaps)
    clock = find_clock_slip(real, {**known.venues, **known.pairs})
    slips = (*find_unit_slips(real), *((clock,) if clock else ()))
    slipped_ms = {slip.open_time_ms for slip in slips if slip.what == "price"}
    outliers = find_outliers(real, known.pairs, known.venues, known.confirmed_ms)
    return QualityReport(
        name=name,
        timeframe=real.timeframe,
        n_candles=n,
        first_ms=int(times[0]) if n else None,
        last_ms=int(times[-1]) if n else None,
        n_expected=n + sum(gap.n_missing for gap in gaps),
        gaps=explain_gaps(real, gaps, no_trade, known.pairs),
        no_trade=no_trade,
        standstills=find_standstills(real, gaps),
        n_filled=int(candles.is_filled.sum()),
        n_zero_volume=int((real.volume == 0).sum()),
        n_flat=int((real.high == real.low).sum()),
        n_large_moves=int((moves > LARGE_MOVE).sum()),
        largest_move=0.0 if largest is None else float(moves[largest]),
        largest_move_ms=None if largest is None else int(times[largest + 1]),
        outliers=tuple(one for one in outliers if one.open_time_ms not in slipped_ms),
        slips=slips,
        unfinished=find_unfinished(real, known.timeframes),
        n_late=_n_late(real, known.now_ms) if n and known.now_ms is not None else None,
        set_aside=tuple(known.set_aside.items()),
        sentences=known.sentences,
    )


def _n_late(candles: Candles, now_ms: int) -> int:
    """Return how many candles have opened and closed since the last one."""
    timeframe = candles.timeframe
    return len(candles.calendar.expected(timeframe, candles.end_ms, now_ms - timeframe.milliseconds + 1))


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _signed(move: float) -> str:
    return f"{move:+.1%}" if move < 1 else f"x{1 + move:.4g}"


def _slipped(slip: Slip) -> str:
    at = iso_utc(slip.open_time_ms)
    if slip.what == "clock":
        return (
            f"From about {at} the candles are {abs(slip.lag_hours)} h {'behind' if slip.lag_hours > 0 else 'ahead of'} "
            f"{slip.other}, whose returns they match at no other time: open times in another time zone. Import them "
            "again with open times in UTC."
        )
    scale = f"{slip.factor:.4g}" if slip.factor > 1 else f"1/{1 / slip.factor:.4g}"
    causes = {
        "price": "another unit, or a redenomination",
        "volume": "another unit, or the other currency of the pair",
    }
    about = "about " if slip.what == "volume" else ""
    return (
        f"From {about}{at} on the {slip.what} is {scale} times what it was: {causes[slip.what]}. Import the candles "
        "again in one unit, or train on one side of that time only (settings start and end)."
    )
