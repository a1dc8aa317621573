"""Many trainings, many chances: p-values corrected over a training job, and the stages that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from tradepulse_pipeline.database.connection import jsonb
from tradepulse_pipeline.validation.lifecycle import Evidence, classify
from tradepulse_pipeline.validation.multiple_testing import corrected_p_values

if TYPE_CHECKING:
    from tradepulse_pipeline.database.connection import Connection

_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
_TRAINED: Final = """
    SELECT id, tested_p_value, lifecycle_stage, figures, EXISTS (
        SELECT FROM lifecycle_transitions AS moved
        WHERE configuration_id = trained_configurations.id AND moved.figures ? 'through'
    )
    FROM trained_configurations
    JOIN LATERAL (
        SELECT figures FROM lifecycle_transitions AS judged
        WHERE configuration_id = trained_configurations.id AND NOT judged.figures ? 'through'
        ORDER BY judged.id DESC LIMIT 1
    ) AS latest ON true
    WHERE training_job_id = %s ORDER BY id
"""
_N_SERIES: Final = "SELECT count(*) FROM training_job_series WHERE training_job_id = %s"
_CORRECT: Final = """
    UPDATE trained_configurations
    SET corrected_p_value = %(corrected)s, bonferroni_p_value = %(bonferroni)s, lifecycle_stage = %(stage)s
    WHERE id = %(id)s
"""
_TRANSITION: Final = """
    INSERT INTO lifecycle_transitions (configuration_id, from_stage, to_stage, reason, figures)
    VALUES (%(id)s, %(former)s, %(stage)s, %(reason)s, %(figures)s)
"""


def correct_job(connection: Connection, job_id: UUID) -> int:
    """Correct the p-values of a job's configurations for all its trainings, in the caller's transaction.

    A training that has not ended, or came to no configuration, counts as one that failed: what is corrected before the
    last one has ended errs on the cautious side. A stage that the corrected p-value changes is a transition with the
    figures that decided it; a stage that monitoring has led to stays.

    Returns
    -------
    int
        How many stages changed.
    """
    connection.execute(_LOCK, (f"job {job_id}",))
    trained = connection.execute(_TRAINED, (job_id,)).fetchall()
    row = connection.execute(_N_SERIES, (job_id,)).fetchone()
    assert row is not None
    tested = [p_value for _, p_value, *_ in trained]
    corrected = corrected_p_values([*tested, *[None] * (row[0] - len(trained))])
    n_changed = 0
    for (configuration_id, _, former, figures, is_monitored), own, bonferroni in zip(
        trained, corrected.benjamini_hochberg, corrected.bonferroni, strict=False
    ):
        decision = classify(_evidence(figures, own))
        stage = former if is_monitored or former == "DECAY" else decision.stage
        values = {"id": configuration_id, "corrected": own, "bonferroni": bonferroni, "stage": stage, "former": former}
        connection.execute(_CORRECT, values)
        if stage != former:
            n_changed += 1
            documents = {"reason": decision.reason, "figures": jsonb(decision.figures, "The figures behind a stage")}
            connection.execute(_TRANSITION, values | documents)
    return n_changed


def _evidence(figures: Mapping[str, Any], corrected_p_value: float | None) -> Evidence:
    known = {field.name for field in fields(Evidence)}
    kept = {name: value for name, value in figures.items() if name in known}
    return Evidence(**{**kept, "corrected_p_value": corrected_p_value})
