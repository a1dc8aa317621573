"""How the progress of a training is shown: live bars on a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Self

from tradepulse_pipeline.cli import console
from tradepulse_pipeline.progress import Progress

if TYPE_CHECKING:
    from rich.progress import TaskID

#: What each phase is called, and in which order they come.
PHASES: Final = {"candles": "Candles", "search": "Search", "walk_forward": "Windows"}

#: Plain lines come at most this often within a phase.
LINE_SECONDS: Final = 5.0

#: Columns of a line with all its figures; a narrow terminal gets a shorter bar or none, and no figure is cut.
_WIDTH_WITHOUT_BAR: Final = 88
_SHORTEST_BAR: Final = 4


def display(title: str, *, is_first_run: bool) -> LiveDisplay | LineDisplay:
    """Return the display that fits stderr; ``is_first_run`` says that the engine is compiled before it searches."""
    note = "compiling the engine, this once …" if is_first_run else ""
    return LiveDisplay(title, note) if console.stderr().is_terminal else LineDisplay(title, note)


class LiveDisplay:
    """A bar per phase that moves while the training runs."""

    def __init__(self, title: str, note: str) -> None:
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as Bars
        from rich.table import Column

        self._note: Final = note
        terminal = console.stderr()
        bar_width = min(24, terminal.width - _WIDTH_WITHOUT_BAR)
        self._bars: Final = Bars(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description:<8}"),
            *([BarColumn(bar_width, table_column=Column(no_wrap=True))] if bar_width >= _SHORTEST_BAR else []),
            TextColumn("{task.fields[counts]}"),
            TextColumn("[dim]{task.fields[detail]}[/]", table_column=Column(overflow="fold")),
            console=terminal,
        )
        self._bars.console.print(title)
        self._tasks: Final[dict[str, TaskID]] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        self._add("start", "Starting", self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, progress: Progress) -> None:
        """Move the bar of the phase that ``progress`` is about."""
        self._bars.update(self._tasks["start"], visible=False)
        if progress.phase not in self._tasks:
            self._add(progress.phase, PHASES[progress.phase])
        task = self._tasks[progress.phase]
        self._bars.update(task, completed=progress.done, total=progress.total, detail=told(progress))
        self._bars.update(task, counts=f"{progress.done:,} of {progress.total:,}{self._time(task)}")
        if progress.phase == "candles" and progress.done >= progress.total and "search" not in self._tasks:
            self._add("search", PHASES["search"], self._note)

    def _add(self, phase: str, name: str, detail: str = "") -> None:
        self._tasks[phase] = self._bars.add_task(name, total=None, counts="", detail=detail)

    def _time(self, task: TaskID) -> str:
        bar = self._bars.tasks[task]
        if bar.finished:
            return f" in {console.duration(bar.finished_time or 0)}"
        return "" if bar.time_remaining is None else f", {console.duration(bar.time_remaining)} left"


class LineDisplay:
    """A line per phase and every few seconds within one."""

    def __init__(self, title: str, note: str) -> None:
        self._note: Final = note
        self._last: dict[str, float] = {}
        console.stderr().print(title)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def __call__(self, progress: Progress) -> None:
        """Print a line when a phase begins, ends, or has said nothing for a while."""
        now = time.monotonic()
        is_done = progress.done >= progress.total
        if not is_done and now - self._last.get(progress.phase, -LINE_SECONDS) < LINE_SECONDS:
            return
        self._last[progress.phase] = now
        counts = f"{progress.done:,} of {progress.total:,} {progress.unit}"
        detail = told(progress)
        console.say(f"  {PHASES[progress.phase]}: {counts}{f', {detail}' if detail else ''}")
        if progress.phase == "candles" and is_done and self._note:
            console.say(f"  Search: {self._note}")


def told(progress: Progress) -> str:
    """Return what a phase has to say besides its counts."""
    best = "" if progress.best is None else f"best in-sample {console.number(progress.best)}"
    return ", ".join(part for part in (progress.detail, best) if part)
