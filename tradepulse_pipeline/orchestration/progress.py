"""Who is told how far a run in this process is, besides the database, and in which words its page says it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from tradepulse_pipeline.progress import Progress, ProgressListener, duration, ignore_progress

_LISTENER: Final[ContextVar[ProgressListener]] = ContextVar("progress_listener", default=ignore_progress)

#: Seconds from line to line, and the share of the time so far that they grow to: an hour has about 60 lines, a day 90.
LINE_SECONDS: Final = 2.0
LINE_SHARE: Final = 0.1

_TITLES: Final = {"candles": "Candles", "search": "Search", "walk_forward": "Walk-forward"}


@contextmanager
def listening(listener: ProgressListener) -> Iterator[None]:
    """Tell ``listener`` about the progress of every run that this thread executes inside the block."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def listener() -> ProgressListener:
    """Return who is listening in this thread."""
    return _LISTENER.get()


class Narrator:
    """Says in lines how far a phase is: soon enough to be watched, seldom enough that a run's events stay few.

    There is a line whenever ``LINE_SECONDS`` and ``LINE_SHARE`` of the time so far have passed, and one at the end.
    What is left is judged by the pace since the line before: what was recalled, not made, misleads one line at most.
    """

    def __init__(
        self, subject: str, say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._subject: Final = subject
        self._say: Final = say
        self._clock: Final = clock
        self._began = self._said = clock()
        self._done, self._has_ended = 0, False

    def __call__(self, progress: Progress) -> None:
        """Say how far it is, if it is time to."""
        now, had_ended = self._clock(), self._has_ended
        self._has_ended = progress.done >= progress.total
        if self._has_ended and not had_ended:
            self._say(f"{self._sentence(progress)}; it took {duration(now - self._began)}.")
        elif not self._has_ended and now - self._said >= max(LINE_SECONDS, LINE_SHARE * (now - self._began)):
            made, spent = progress.done - self._done, now - self._said
            left = f"; about {duration(spent * (progress.total - progress.done) / made)} left" if made > 0 else ""
            self._done, self._said = progress.done, now
            self._say(f"{self._sentence(progress)}{left}.")

    def _sentence(self, progress: Progress) -> str:
        words = [
            f"{_TITLES[progress.phase]} of {self._subject}: {progress.done:,} of {progress.total:,} {progress.unit}"
        ]
        if progress.total:
            words.append(f" ({progress.done / progress.total:.0%})")
        if progress.detail:
            words.append(f", {progress.detail}")
        if progress.best is not None:
            words.append(f", best {progress.measure} so far {progress.best:,.2f} in-sample")
        return "".join(words)
