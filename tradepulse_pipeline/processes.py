"""Which process does a piece of work, and whether it is still there."""

from __future__ import annotations

import os
import socket
from typing import Final

import psutil

#: Seconds by which a process's start time may seem to move when the clock is set.
_CLOCK_SLACK: Final = 60.0


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
