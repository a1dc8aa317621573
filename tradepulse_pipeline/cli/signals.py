"""Ctrl-C and SIGTERM: one way to end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM end what runs inside as Ctrl-C does, also where the shell has made the process deaf to Ctrl-C."""

    def as_interrupt(number: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGINT)

    former = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, as_interrupt),
    }
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
