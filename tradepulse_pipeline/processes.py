"""Which process does a piece of work, and whether it is still there."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psutil

#: Seconds by which a process's start time may seem to move when the clock is set.
_CLOCK_SLACK: Final = 60.0

#: Seconds after which an interrupt that got lost is repeated.
_AGAIN_S: Final = 0.02


def this_process() -> str:
    """Return host, id and start time of this process, which tell it from a later one with the same id."""
    return f"{socket.gethostname()}/{os.getpid()}/{psutil.Process().create_time():.2f}"


def is_gone(process: str) -> bool:
    """Return whether a process of this host, named by ``this_process``, has ended; of others nothing can be said."""
    host, _, rest = process.partition("/")
    if host != socket.gethostname():
        return False
    pid, _, started = rest.partition("/")
    try:
        found = psutil.Process(int(pid))
        is_zombie, since = found.status() == psutil.STATUS_ZOMBIE, float(found.create_time())
    except psutil.NoSuchProcess:
        return True
    return is_zombie or abs(since - float(started)) >= _CLOCK_SLACK


@contextmanager
def interrupts_arrive(*kinds: type[BaseException]) -> Iterator[None]:
    """Repeat interrupts that get lost meanwhile, until one is raised where it ends something.

    Python raises what a signal handler raises wherever the main thread happens to be. In a finaliser (numba's
    compiled code has many) or a callback it can only be reported as ignored: whoever pressed Ctrl-C or *Terminate*
    would wait for the end of the work.

    Parameters
    ----------
    *kinds
        What the handler of SIGINT raises, beside ``KeyboardInterrupt``.
    """
    report, is_over = sys.unraisablehook, threading.Event()

    def interrupt() -> None:
        if not is_over.wait(_AGAIN_S):
            os.kill(os.getpid(), signal.SIGINT)

    def repeat(ignored: sys.UnraisableHookArgs) -> None:
        if issubclass(ignored.exc_type, (KeyboardInterrupt, *kinds)):
            threading.Thread(target=interrupt, daemon=True).start()
        else:
            report(ignored)

    sys.unraisablehook = repeat
    try:
        yield
    finally:
        is_over.set()
        sys.unraisablehook = report
