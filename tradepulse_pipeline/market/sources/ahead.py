"""Doing the next few things while the last one is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

A = TypeVar("A")
T = TypeVar("T")


def ahead(work: Callable[[A], T], tasks: Sequence[A], *, n_threads: int) -> Generator[T]:
    """Yield ``work(task)`` for each task in order, worked out by several threads.

    At most twice as many tasks as there are threads are begun before their result is asked for. What a task raises is
    raised in its place, after the results of those before it. When the iterator is closed no further task begins; the
    threads are not waited for, and do not keep the process alive.
    """
    given: SimpleQueue[tuple[Future[T], A] | None] = SimpleQueue()
    begun: deque[Future[T]] = deque()

    def run() -> None:
        while (one := given.get()) is not None:
            future, task = one
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work(task))
                except BaseException as error:
                    future.set_exception(error)

    n_threads = min(n_threads, len(tasks))
    for _ in range(n_threads):
        Thread(target=run, daemon=True).start()
    try:
        for task in tasks:
            future: Future[T] = Future()
            begun.append(future)
            given.put((future, task))
            if len(begun) == 2 * n_threads:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for future in begun:
            future.cancel()
        for _ in range(n_threads):
            given.put(None)
