"""Dagster's own storage, in the places that TradePulse's settings name: what ``dagster.yaml`` refers to."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from dagster._config import Field
from dagster._config.config_schema import UserConfigSchema
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.root import LocalArtifactStorage
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage

from tradepulse_pipeline.database.connection import DAGSTER_SCHEMA, Database
from tradepulse_pipeline.database.migrations import ensure_schemas
from tradepulse_pipeline.database.server import database_url, sqlalchemy_url
from tradepulse_pipeline.settings import load_settings

if TYPE_CHECKING:
    from tradepulse_pipeline.database.connection import Connection


class TradePulseStorage(DagsterPostgresStorage):
    """Runs, events and schedules in the schema ``dagster`` of TradePulse's database.

    The embedded server is started when needed, so that every tool of Dagster works with nothing prepared. The URL
    comes from TradePulse's settings: no password is in a file or on a page of Dagster's.
    """

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """``dagster.yaml`` says how many runs each pool lets in; Dagster's own section knows one limit for all."""
        return {"pool_limits": Field({str: int}, is_required=False, default_value={})}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """Connect, with the schema made where it is missing, and set the limits of pools."""
        settings = load_settings()
        url = database_url(
            settings.data_dir, settings.database_url.get_secret_value() if settings.database_url else None
        )
        with Database(url) as database:
            ensure_schemas(database)
            storage = cls(sqlalchemy_url(url, DAGSTER_SCHEMA), inst_data=inst_data)
            if limits := config_value.get("pool_limits"):
                database.run(partial(storage._limit_pools, limits=limits))
        return storage

    def _limit_pools(self, connection: Connection, limits: Mapping[str, int]) -> None:
        """Set the limits that differ: what was changed on the page *Concurrency* holds until the next start.

        Web server, daemon and code server start together, and Dagster adds a pool without a look at the others: so
        one of them at a time.
        """
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('pool limits', 0))")
        events = self.event_log_storage
        held = {pool.name: pool.limit for pool in events.get_pool_limits() if not pool.from_default}
        for name, limit in limits.items():
            if held.get(name) != limit:
                events.set_concurrency_slots(name, limit)


class TradePulseArtifactStorage(LocalArtifactStorage):
    """Dagster's own small files, under the data folder."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Nothing is configured in ``dagster.yaml``."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """Take the folder from TradePulse's settings."""
        return cls(str(load_settings().data_dir / "dagster"), inst_data)


class TradePulseComputeLogs(LocalComputeLogManager):
    """What runs print, under the data folder."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Nothing is configured in ``dagster.yaml``."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """Take the folder from TradePulse's settings."""
        return cls(str(load_settings().data_dir / "logs" / "runs"), inst_data=inst_data)
