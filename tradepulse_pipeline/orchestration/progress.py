"""Who is told how far a run in this process is, besides the database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from tradepulse_pipeline.progress import ProgressListener, ignore_progress

_LISTENER: Final[ContextVar[ProgressListener]] = ContextVar("progress_listener", default=ignore_progress)


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
