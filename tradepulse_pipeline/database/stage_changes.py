"""Changes of what may be traded, in the order in which they came to be: what alerts are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.validation.lifecycle import Stage

if TYPE_CHECKING:
    from tradepulse_pipeline.database.connection import Connection

#: Numbers are drawn before a transaction commits. With the lock, no transition with a lower number can follow later.
_LOCK: Final = "LOCK TABLE lifecycle_transitions IN SHARE MODE"
_AFTER: Final = """
    SELECT transition.id, configuration.id, strategy_name, exchange, pair, timeframe, version, is_simulated, is_active,
        coalesce(from_stage, (
            SELECT before.to_stage FROM lifecycle_transitions AS before
            JOIN trained_configurations AS former ON former.id = before.configuration_id
            WHERE former.strategy_name = configuration.strategy_name AND former.exchange = configuration.exchange
                AND former.pair = configuration.pair AND former.timeframe = configuration.timeframe
                AND former.version = configuration.version - 1 AND before.id < transition.id
            ORDER BY before.id DESC LIMIT 1
        )), to_stage, reason, at
    FROM lifecycle_transitions AS transition
    JOIN trained_configurations AS configuration ON configuration.id = transition.configuration_id
    WHERE transition.id > %s ORDER BY transition.id LIMIT %s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageChange:
    """A stage that a configuration took. ``from_stage`` of a new one is that of the version before, None without."""

    id: int
    configuration_id: UUID
    strategy_name: str
    series: SeriesKey
    version: int
    is_simulated: bool
    is_active: bool
    from_stage: Stage | None
    to_stage: Stage
    reason: str
    at: datetime

    @property
    def is_news(self) -> bool:
        """Whether it changes what may be traded: not for a superseded version, nor the first one to stay on paper."""
        return self.is_active and self.to_stage != (self.from_stage or "PAPER")


def stage_changes(database: Database, after_id: int, limit: int) -> Sequence[StageChange]:
    """Return the transitions with a number above ``after_id``, in order; none can turn up between them later."""

    def read(connection: Connection) -> Sequence[StageChange]:
        connection.execute(_LOCK)
        return [
            StageChange(
                id=number,
                configuration_id=configuration_id,
                strategy_name=strategy,
                series=SeriesKey.of(exchange, pair, timeframe),
                version=version,
                is_simulated=is_simulated,
                is_active=is_active,
                from_stage=former,
                to_stage=stage,
                reason=reason,
                at=at,
            )
            for number, configuration_id, strategy, exchange, pair, timeframe, version, is_simulated, is_active, former,
            stage, reason, at in connection.execute(_AFTER, (after_id, limit))
        ]  # fmt: skip

    return database.run(read)


def newest_stage_change(database: Database) -> int:
    """Return the number of the newest transition, 0 without any."""
    with database.connection() as connection:
        row = connection.execute("SELECT coalesce(max(id), 0) FROM lifecycle_transitions").fetchone()
    assert row is not None
    return int(row[0])
