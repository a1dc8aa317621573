from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.migrations import migrate
from tradepulse_pipeline.database.pace import DatabasePace
from tradepulse_pipeline.database.server import database_url, stop_embedded
from tradepulse_pipeline.errors import DatabaseError
from tradepulse_pipeline.market.sources.pace import Pace

#: So long that the time between two statements is nothing beside it.
SPACING = 1000.0


class Waits:
    """Remembers what it was told to wait for, and does not."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)

    def in_spacings(self) -> list[int]:
        return sorted(round(seconds / SPACING) for seconds in self.seconds)


def test_turns_are_spaced_and_the_first_comes_at_once(database: Database) -> None:
    waits = Waits()
    pace: Pace = DatabasePace(database, "binance", sleep=waits)
    for _ in range(4):
        pace.wait(SPACING)
    assert waits.in_spacings() == [1, 2, 3]
    DatabasePace(database, "kraken", sleep=waits).wait(SPACING)
    assert len(waits.seconds) == 3


def test_a_dearer_request_takes_more_of_the_allowance(database: Database) -> None:
    waits = Waits()
    pace = DatabasePace(database, "binance", sleep=waits)
    for cost in (3 * SPACING, SPACING, SPACING):
        pace.wait(cost)
    assert waits.in_spacings() == [3, 4]


def test_threads_never_share_a_turn(database: Database) -> None:
    waits = Waits()
    with ThreadPoolExecutor(12) as pool:
        for job in [pool.submit(DatabasePace(database, "binance", sleep=waits).wait, SPACING) for _ in range(12)]:
            job.result(30)
    assert waits.in_spacings() == list(range(1, 12))


def test_processes_never_share_a_turn(database: Database) -> None:
    script = """
import sys
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.pace import DatabasePace
pace = DatabasePace(Database(sys.argv[1]), "binance", sleep=print)
for _ in range(5):
    pace.wait(1000.0)
"""
    command = [sys.executable, "-c", script, database.url]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    waited = [float(line) for process in processes for line in process.communicate(timeout=60)[0].split()]
    assert sorted(round(seconds / SPACING) for seconds in waited) == list(range(1, 15))


def test_silence_that_the_venue_asked_for_holds_for_all(database: Database) -> None:
    first, second = Waits(), Waits()
    DatabasePace(database, "binance", sleep=first).hold(10 * SPACING)
    DatabasePace(database, "binance", sleep=first).hold(2 * SPACING)  # never shorter than it was
    pace = DatabasePace(database, "binance", sleep=second)
    pace.wait(SPACING)
    pace.wait(SPACING)
    assert second.in_spacings() == [10, 11]
    assert first.seconds == []


def test_an_unused_turn_is_not_saved_up(database: Database) -> None:
    waits = Waits()
    pace = DatabasePace(database, "binance", sleep=waits)
    pace.wait(0.001)
    time.sleep(0.01)
    pace.wait(SPACING)
    pace.wait(SPACING)
    assert waits.in_spacings() == [1]


def test_turns_begin_anew_when_the_table_was_emptied(database: Database) -> None:
    waits = Waits()
    pace = DatabasePace(database, "binance", sleep=waits)
    pace.wait(SPACING)
    with database.connection() as connection:
        connection.execute("TRUNCATE request_turns")
    pace.wait(SPACING)
    assert waits.seconds == []
    pace.wait(SPACING)
    assert waits.in_spacings() == [1]


def test_a_venue_with_metacharacters_is_a_name_like_any_other(database: Database) -> None:
    waits = Waits()
    pace = DatabasePace(database, "'); DROP TABLE trials; -- %s", sleep=waits)
    pace.wait(SPACING)
    pace.wait(SPACING)
    assert waits.in_spacings() == [1]


def test_without_the_database_nobody_asks(rough_server_dir: Path) -> None:
    waits = Waits()
    with Database(database_url(rough_server_dir, None), patience_seconds=0.5) as away:
        migrate(away)
        pace = DatabasePace(away, "binance", sleep=waits)
        pace.wait(SPACING)
        stop_embedded(rough_server_dir)
        for ask in (pace.wait, pace.hold):
            with pytest.raises(DatabaseError, match="Cannot use the database"):
                ask(SPACING)
    assert waits.seconds == []
