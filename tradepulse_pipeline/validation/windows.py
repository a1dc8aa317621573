"""Train and test windows: half-open spans of days over a series, and the bars in them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np

from tradepulse_pipeline.backtest.settings import BarRange
from tradepulse_pipeline.errors import InsufficientHistoryError, InvalidInputError, one_of
from tradepulse_pipeline.market.candles import IntArray
from tradepulse_pipeline.market.series import MS_PER_DAY, Timeframe

Scheme = Literal["walk_forward", "train_test_split"]
SCHEMES: Final[tuple[Scheme, ...]] = get_args(Scheme)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSettings:
    """How history is cut into train and test.

    The gap is taken from the head of the test period, so that no position of the train window and no indicator's
    memory of it reaches into what is judged.
    """

    scheme: Scheme = "walk_forward"
    train_days: int = 90
    #: The gap counts as part of it.
    test_days: int = 30
    gap_days: int = 7
    #: Days from one window's start to the next one's; None for ``test_days``.
    step_days: int | None = None
    #: Share of the history that ``train_test_split`` trains on.
    train_ratio: float = 0.7
    #: Whether each train window is searched anew. If not, one parameter set, the one found on the latest train window,
    #: runs over all test windows: those figures are not out-of-sample.
    reoptimise: bool = True

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise one_of("scheme", self.scheme, SCHEMES)
        for name, least in (("train_days", 1), ("test_days", 1), ("gap_days", 0)):
            if getattr(self, name) < least:
                raise InvalidInputError(
                    f"{name}: found {getattr(self, name)}, expected a whole number of days, at least {least}."
                )
        if self.gap_days >= self.test_days:
            raise InvalidInputError(
                f"gap_days: found {self.gap_days}, expected less than test_days ({self.test_days}), whose head it is."
            )
        if self.step < self.test_days - self.gap_days:
            raise InvalidInputError(
                f"step_days: found {self.step}, expected at least test_days - gap_days = "
                f"{self.test_days - self.gap_days}: test windows must not overlap."
            )
        if not 0 < self.train_ratio < 1:
            raise InvalidInputError(f"train_ratio: found {self.train_ratio}, expected a fraction between 0 and 1.")

    @property
    def step(self) -> int:
        """Days from one window's start to the next one's."""
        return self.test_days if self.step_days is None else self.step_days


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One train window and the test window that follows it: half-open spans of time, and the bars within."""

    index: int
    train: BarRange
    test: BarRange
    train_start_ms: int
    train_end_ms: int
    test_start_ms: int
    test_end_ms: int


def make_windows(open_time_ms: IntArray, timeframe: Timeframe, settings: WindowSettings) -> list[Window]:
    """Return the windows of a series in time order.

    Walk-forward: window w starts at ``s = data start + w * step``, trains on ``[s, s + train)``, leaves out the gap
    ``[s + train, s + train + gap)`` and tests on ``[s + train + gap, s + train + test)``; it exists while
    ``s + train + test`` does not lie beyond the data's end. A window is left out when its train or its test span holds
    no candle at all.

    Train/test split: one window; the first ``train_ratio`` of the time span, rounded to a whole candle, is train, the
    rest is test, with the same gap at its head.

    Parameters
    ----------
    open_time_ms : int64 array of shape (n_candles,)
        Ascending open times, UTC milliseconds.

    Raises
    ------
    InsufficientHistoryError
        If there are too few days for one window; the message says how many there are and how many are needed.
    """
    start, end = _checked_span(open_time_ms, timeframe, settings)
    gap = settings.gap_days * MS_PER_DAY
    if settings.scheme == "train_test_split":
        train_end = start + _train_span(start, end, timeframe, settings)
        spans = [(start, train_end, train_end + gap, end)]
    else:
        train, test, step = (days * MS_PER_DAY for days in (settings.train_days, settings.test_days, settings.step))
        starts = range(start, end - train - test + 1, step)
        spans = [(s, s + train, s + train + gap, s + train + test) for s in starts]
    windows = [
        Window(
            index=index,
            train=_bars(open_time_ms, train_start, train_end),
            test=_bars(open_time_ms, test_start, test_end),
            train_start_ms=train_start,
            train_end_ms=train_end,
            test_start_ms=test_start,
            test_end_ms=test_end,
        )
        for index, (train_start, train_end, test_start, test_end) in enumerate(spans)
    ]
    with_candles = [w for w in windows if w.train.start < w.train.stop and w.test.start < w.test.stop]
    if not with_candles:
        raise InsufficientHistoryError(
            f"None of the {len(windows)} windows has candles in both its train and its test span: the history of "
            f"{(end - start) / MS_PER_DAY:.1f} days has gaps too long for it. Fetch or import the missing candles."
        )
    return with_candles


def latest_train(open_time_ms: IntArray, timeframe: Timeframe, settings: WindowSettings) -> BarRange:
    """Return the bars of the train window that ends with the data: the one whose best parameters are stored.

    It is as long as a train window of ``make_windows``.

    Raises
    ------
    InsufficientHistoryError
        As ``make_windows``.
    """
    start, end = _checked_span(open_time_ms, timeframe, settings)
    return _bars(open_time_ms, end - _train_span(start, end, timeframe, settings), end)


def days_needed(settings: WindowSettings) -> int:
    """Return how many days of history the first window needs; a split needs a day of train and a day of test.

    Examples
    --------
    >>> days_needed(WindowSettings()), days_needed(WindowSettings(scheme="train_test_split"))
    (120, 27)
    """
    if settings.scheme == "walk_forward":
        return settings.train_days + settings.test_days
    days = max(1 / settings.train_ratio, (settings.gap_days + 1) / (1 - settings.train_ratio))
    return math.ceil(round(days, 6))  # 8 / (1 - 0.9) is 80 and a rounding error


def _checked_span(open_time_ms: IntArray, timeframe: Timeframe, settings: WindowSettings) -> tuple[int, int]:
    """Return start and end of the data, which are far enough apart for one window."""
    start, end = (int(open_time_ms[0]), int(open_time_ms[-1]) + timeframe.milliseconds) if len(open_time_ms) else (0, 0)
    needed = days_needed(settings)
    if end - start < needed * MS_PER_DAY:
        parts = (
            f"{settings.train_days} train + {settings.test_days} test"
            if settings.scheme == "walk_forward"
            else f"train_ratio {settings.train_ratio} with a gap of {settings.gap_days}"
        )
        # Cut, not rounded: 119.99 days must not read as the 120 that are needed.
        there = math.floor((end - start) / MS_PER_DAY * 10) / 10
        raise InsufficientHistoryError(
            f"The history is {there:g} days long; one {settings.scheme} window needs {needed} days ({parts}). "
            "Take a longer history or shorter windows."
        )
    return start, end


def _train_span(start: int, end: int, timeframe: Timeframe, settings: WindowSettings) -> int:
    if settings.scheme == "walk_forward":
        return settings.train_days * MS_PER_DAY
    step = timeframe.milliseconds
    return round((end - start) // step * settings.train_ratio) * step


def _bars(open_time_ms: IntArray, start_ms: int, end_ms: int) -> BarRange:
    start, stop = np.searchsorted(open_time_ms, (start_ms, end_ms))
    return BarRange(int(start), int(stop))
