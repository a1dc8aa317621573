from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from tradepulse_pipeline.cli import console, progress
from tradepulse_pipeline.cli.progress import LineDisplay, LiveDisplay, display
from tradepulse_pipeline.progress import Progress


def candles(done: int) -> Progress:
    return Progress(phase="candles", done=done, total=1_200, unit="candles")


def search(done: int) -> Progress:
    return Progress(phase="search", done=done, total=4_000, unit="trials", best=12.5, detail="train window 1 of 2")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Console:
    """A terminal 100 characters wide that keeps what is written to it."""
    made = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    monkeypatch.setattr(console, "stderr", lambda: made)
    return made


def written(terminal: Console) -> str:
    assert isinstance(terminal.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.file.getvalue())


def test_a_terminal_gets_bars_with_counts_time_and_the_best_so_far(terminal: Console) -> None:
    with display("binance:BTC-USDT:5m", is_first_run=True) as listener:
        assert isinstance(listener, LiveDisplay)
        for done in (600, 1_200):
            listener(candles(done))
        for done in (1_000, 4_000):
            listener(search(done))
        listener(Progress(phase="walk_forward", done=2, total=2, unit="windows"))
    shown = written(terminal)
    assert "binance:BTC-USDT:5m" in shown
    assert "compiling the engine" in shown
    assert "1,200 of 1,200 in" in shown
    assert "4,000 of 4,000 in" in shown
    assert "train window 1 of 2, best in-sample 12.50" in shown
    assert "2 of 2 in" in shown


@pytest.mark.parametrize("width", [80, 100, 140])
def test_no_figure_is_cut_where_the_terminal_is_narrow(terminal: Console, width: int) -> None:
    terminal.width = width
    with display("binance:BTC-USDT:5m", is_first_run=False) as listener:
        assert isinstance(listener, LiveDisplay)
        searched = Progress(
            phase="search", done=10_000, total=10_000, unit="trials", best=11_180.7, detail="train window 10 of 10"
        )
        listener(searched)
    shown = written(terminal)
    assert "Search" in shown
    assert "10,000 of 10,000 in 0 s" in shown
    assert "11,180.70" in shown
    assert "…" not in shown
    assert ("━" in shown) == (width > 80)


def test_a_file_gets_a_line_at_the_start_and_the_end_of_a_phase_and_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with display("binance:BTC-USDT:5m", is_first_run=True) as listener:
        assert isinstance(listener, LineDisplay)
        listener(candles(100))
        listener(candles(200))
        now += progress.LINE_SECONDS
        listener(candles(300))
        listener(candles(1_200))
        listener(search(4_000))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "binance:BTC-USDT:5m",
        "  Candles: 100 of 1,200 candles",
        "  Candles: 300 of 1,200 candles",
        "  Candles: 1,200 of 1,200 candles",
        "  Search: compiling the engine, this once …",
        "  Search: 4,000 of 4,000 trials, train window 1 of 2, best in-sample 12.50",
    ]


def test_a_compiled_engine_is_not_announced(capsys: pytest.CaptureFixture[str]) -> None:
    with display("title", is_first_run=False) as listener:
        listener(candles(1_200))
    assert "compiling" not in capsys.readouterr().err
