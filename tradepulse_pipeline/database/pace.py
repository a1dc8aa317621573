"""The turns of all processes and machines that ask one venue: the database gives them out, one at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from tradepulse_pipeline.database.connection import Database

if TYPE_CHECKING:
    from tradepulse_pipeline.database.connection import Connection

# The server's clock alone counts, read when the turn is given: now() is when the transaction began.
_TAKE_TURN: Final = """
    INSERT INTO request_turns AS turn (venue, next_at)
    VALUES (%(venue)s, clock_timestamp() + make_interval(secs => %(seconds)s))
    ON CONFLICT (venue) DO UPDATE SET
        next_at = greatest(clock_timestamp(), turn.next_at) + make_interval(secs => %(seconds)s)
    RETURNING extract(epoch FROM next_at - make_interval(secs => %(seconds)s) - clock_timestamp())::float8
"""
_HOLD: Final = """
    INSERT INTO request_turns AS turn (venue, next_at)
    VALUES (%(venue)s, clock_timestamp() + make_interval(secs => %(seconds)s))
    ON CONFLICT (venue) DO UPDATE SET next_at = greatest(turn.next_at, excluded.next_at)
"""


class DatabasePace:
    """The turns of all who ask ``venue`` and use this database, spaced evenly.

    A turn is one statement: nobody holds a lock while waiting, and a process that dies leaves at most its own turn
    unused. After a crash of the server the turns begin anew.

    Parameters
    ----------
    database : Database
        Where the turns are given out; while it is away, a turn is waited for as long as the database is patient.
    venue : str
        Who is asked, such as ``binance``.
    sleep : callable
        How to wait, in seconds.
    """

    def __init__(self, database: Database, venue: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._database = database
        self._venue = venue
        self._sleep = sleep

    def wait(self, seconds: float) -> None:
        """Wait for the turn of a request that uses up ``seconds`` of the venue's allowance.

        Raises
        ------
        DatabaseError
            If the database stays away: without it nobody knows whose turn it is.
        """
        values = {"venue": self._venue, "seconds": seconds}

        def take_turn(connection: Connection) -> float:
            row = connection.execute(_TAKE_TURN, values).fetchone()
            assert row is not None
            return float(row[0])

        ahead = self._database.run(take_turn)
        if ahead > 0:
            self._sleep(ahead)

    def hold(self, seconds: float) -> None:
        """Let nobody's turn come for ``seconds``: the venue has asked for silence.

        Raises
        ------
        DatabaseError
            If the database stays away.
        """
        values = {"venue": self._venue, "seconds": seconds}
        self._database.run(lambda connection: connection.execute(_HOLD, values))
