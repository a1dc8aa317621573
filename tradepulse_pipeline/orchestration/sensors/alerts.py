"""Telling people of runs that failed and of stages that changed."""

import time
from collections.abc import Sequence
from typing import Final

import dagster as dg

from tradepulse_pipeline.database.stage_changes import newest_stage_change, stage_changes
from tradepulse_pipeline.orchestration.alerts import (
    BATCH,
    Alert,
    Deliveries,
    DeliveryCursors,
    channels_of,
    deliver_new,
    run_failure_alert,
    stage_change_alert,
)
from tradepulse_pipeline.orchestration.failures import why_run_failed
from tradepulse_pipeline.orchestration.resources import DatabaseResource
from tradepulse_pipeline.settings import load_settings

#: Events are numbered before they are committed; after this time, none with a lower number can turn up.
_SETTLED_S: Final = 2.0

_WHERE: Final = (
    "To the file that `alerts_log` names, and by `TRADEPULSE_ALERTS_WEBHOOK` and `alerts_email` to a webhook and by "
    "e-mail. What could not be delivered is tried again at every tick; what was delivered is not repeated."
)


@dg.sensor(
    name="alert_failed_runs",
    description=f"Tells of each run that failed: of which series, why, and what to do. {_WHERE}",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=15,
)
def alert_failed_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Deliver alerts of runs that failed."""
    instance, settings = context.instance, load_settings()

    def newest() -> int:
        latest = instance.fetch_run_status_changes(dg.DagsterEventType.RUN_FAILURE, limit=1).records
        return latest[0].storage_id if latest else 0

    def alerts_after(number: int) -> Sequence[tuple[int, Alert | None]]:
        failed = dg.RunStatusChangeRecordsFilter(dg.DagsterEventType.RUN_FAILURE, after_storage_id=number)
        found: list[tuple[int, Alert | None]] = []
        for record in instance.fetch_run_status_changes(failed, limit=BATCH, ascending=True).records:
            if record.timestamp > time.time() - _SETTLED_S:
                break
            run = instance.get_run_by_id(record.run_id)
            reason = why_run_failed(instance, record.run_id)
            alert = None if run is None else run_failure_alert(run, reason, record.timestamp, settings.web_url)
            found.append((record.storage_id, alert))
        return found

    return _told(context, deliver_new(channels_of(settings), DeliveryCursors(instance, "runs"), newest, alerts_after))


@dg.sensor(
    name="alert_stage_changes",
    description="Tells of each active configuration whose lifecycle stage changed, or whose new version took another "
    f"stage than the one before: why, and what it means for positions. {_WHERE}",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=15,
)
def alert_stage_changes(context: dg.SensorEvaluationContext, database: DatabaseResource) -> dg.SkipReason:
    """Deliver alerts of stages that changed."""
    db, settings = database.open(), load_settings()

    def alerts_after(number: int) -> Sequence[tuple[int, Alert | None]]:
        return [
            (change.id, stage_change_alert(change, settings.web_url) if change.is_news else None)
            for change in stage_changes(db, number, BATCH)
        ]

    cursors = DeliveryCursors(context.instance, "stages")
    return _told(context, deliver_new(channels_of(settings), cursors, lambda: newest_stage_change(db), alerts_after))


def _told(context: dg.SensorEvaluationContext, deliveries: Deliveries) -> dg.SkipReason:
    for line in deliveries.delivered:
        context.log.info(line)
    for line in deliveries.failures:
        context.log.warning(line)
    return dg.SkipReason(deliveries.sentence)
