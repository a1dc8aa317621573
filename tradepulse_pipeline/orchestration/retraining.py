"""Asking for retrainings: the runs of a schedule's or a sensor's tick, and in words what is not asked for and why.

A tick first files training jobs (in the database, each series with its cause), then asks for a run of every series
that was filed and has none. A tick that is cut short anywhere is therefore made good by the next one, and no cause is
acted upon twice: not after a restart, and not when a sensor is reset. What there is to remember is in the database,
where it outlives ticks and runs; cursors are not needed.
"""

from __future__ import annotations

import logging
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Final, Self
from uuid import UUID, uuid4

import dagster as dg
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES

import tradepulse_pipeline
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.retraining import Due, Filed, file_retraining, give_up
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.history import HistorySettings
from tradepulse_pipeline.market.series import MS_PER_DAY, SeriesKey
from tradepulse_pipeline.orchestration.names import (
    CAUSE_TAG,
    PARTITION_TAG,
    SIMULATED_TAG,
    TRAINING_JOB_TAG,
    WILL_RETRY_TAG,
    branch_name,
    monitoring_job_name,
    training_job_name,
)
from tradepulse_pipeline.orchestration.partitions import known_series
from tradepulse_pipeline.orchestration.resources import SettingsResource
from tradepulse_pipeline.orchestration.tables import TRAINED_CONFIGURATIONS, branch_key
from tradepulse_pipeline.strategies.base import Strategy
from tradepulse_pipeline.validation.training import TrainingSettings

#: Series of which a tick tells why nothing is done; of the rest it tells the number.
MAX_SENTENCES: Final = 10

#: Characters of an error that it repeats.
_MAX_ERROR: Final = 200


@dataclass(slots=True)
class Tick:
    """What a tick asks for, and sentences about what it leaves."""

    requests: list[dg.RunRequest] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def skip_reason(self, nothing: str) -> dg.SkipReason:
        """Return why nothing is asked for: ``nothing`` where there was nothing to do at all."""
        return dg.SkipReason(f"Nothing is retrained. {_together(self.left)}" if self.left else nothing)


def ask_for_retrainings(
    instance: dg.DagsterInstance,
    log: logging.Logger,
    database: Database,
    due: Sequence[Due],
    strategies: Sequence[Strategy],
    *,
    because: Callable[[Due], str],
    asked_by: str,
    most: int | None = None,
) -> Tick:
    """File trainings for what is due, and return the runs that are to be asked for, ``most`` at a time.

    Those of one strategy and the same settings are one training job: its p-values are corrected together. Everything
    that is asked for is logged with its reason, ``because``; ``asked_by`` becomes the user of the training jobs.
    """
    tick, situation = Tick(), _Situation.of(instance, database, due, strategies)
    filed: list[tuple[Due, _Plan, UUID]] = []
    new: list[tuple[Due, _Plan]] = []
    for one in due:
        plan = situation.plan(one)
        if isinstance(plan, str):
            tick.left.append(f"{_named(one)} ({because(one).rstrip('.')}): {plan}")
        elif one.filed is not None:
            filed.append((one, plan, one.filed.job_id))
        else:
            new.append((one, plan))
    if most is not None and (rest := len(filed) + len(new) - most) > 0:
        tick.left.append(f"{rest} more are asked for by the next ticks, {most} at a time.")
        filed, new = filed[:most], new[: max(0, most - len(filed))]
    for plan, together in _grouped(new).items():
        job_id = uuid4()
        ours = file_retraining(
            database,
            job_id,
            together,
            config={"training": plan.training.to_json_dict(), "history": asdict(plan.history)},
            seed=plan.training.search.seed,
            code_version=tradepulse_pipeline.__version__,
            user_id=asked_by,
        )
        filed += [(one, plan, job_id) for one in ours]
        tick.left += [f"{_named(one)}: something else has just trained it." for one in together if one not in ours]
    for one, plan, job_id in filed:
        log.info(f"{_named(one)} is trained again: {because(one)} Training job {str(job_id)[:8]}.")
        tick.requests.append(_request(one, plan, job_id, situation.strategies[one.strategy_name]))
    if tick.requests and tick.left:
        log.info(_together(tick.left))
    return tick


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a retraining is asked; equal ones share a training job."""

    strategy_name: str
    training: TrainingSettings
    history: HistorySettings

    @classmethod
    def of(cls, due: Due) -> Self:
        """Return the settings that the configuration was trained with, on the latest candles.

        A span with a fixed end moves on and keeps its length: on the same candles, a training comes to the same result.
        Of a simulated market the stored candles are taken, since others may follow from the settings of today.
        """
        history = HistorySettings(**(due.history or {}))
        if history.end_ms is not None:
            days = history.history_days
            if history.start_ms is not None:
                days = max(1, math.ceil((history.end_ms - history.start_ms) / MS_PER_DAY))
            history = replace(history, start_ms=None, end_ms=None, history_days=days)
        if due.series.market.is_simulated:
            history = replace(history, source="stored")
        # What a genetic search starts from is found anew.
        training = replace(TrainingSettings.from_json_dict(due.settings), initial=())
        return cls(due.strategy_name, training, history)

    def __hash__(self) -> int:
        return hash((self.strategy_name, self.training.digest(), self.history))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Situation:
    """What speaks against trainings: partitions that are gone, runs and training jobs that are under way."""

    instance: dg.DagsterInstance
    database: Database
    strategies: Mapping[str, Strategy]
    known: frozenset[SeriesKey]
    in_progress: Sequence[dg.DagsterRun]

    @classmethod
    def of(
        cls, instance: dg.DagsterInstance, database: Database, due: Sequence[Due], strategies: Sequence[Strategy]
    ) -> Self:
        return cls(
            instance=instance,
            database=database,
            strategies={strategy.name: strategy for strategy in strategies},
            known=frozenset(known_series(instance)),
            in_progress=_in_progress(instance, [one.series for one in due]),
        )

    def plan(self, due: Due) -> _Plan | str:
        """Return what to ask of the training that is due, or a sentence that says why there is to be none."""
        if due.strategy_name not in self.strategies:
            return "there is no such strategy any more."
        if due.series not in self.known:
            return "its partition was removed."
        reason = self._who_trains(due) if due.filed is None else self._what_became_of(due, due.filed)
        if reason is None:
            reason = self._which_run_trains(due)
        if reason is not None:
            return reason
        try:
            return _Plan.of(due)
        except (InvalidInputError, TypeError) as error:
            return f"its settings cannot be read any more, train it by hand: {_short(str(error))}"

    def _what_became_of(self, due: Due, filed: Filed) -> str | None:
        """Return how the training fares that was filed for a cause; None where it still needs a run."""
        job = f"training job {str(filed.job_id)[:8]}"
        again = "For the same cause it is not trained again by itself, but by you:"
        page = f"{again} 'Materialize all…', 'Failed and missing', on the page of its job."
        said = _short(filed.error_message or "without a word")
        run = self._run_of(filed.job_id, due.series)
        if filed.status == "failed" and run is not None and _goes_on(run):
            return f"the process of a run of {job} died, which is launched again by itself."
        match filed.status:
            case "running":
                return f"{job} is at it."
            case "failed":
                return f"{job} failed: {said} {page}"
            case "cancelled":
                return f"{job} was cancelled. {page}"
            case "completed":
                return f"{job} came to no new configuration: {said} {again} launch its job."
        if run is not None and run.is_finished:
            return f"run {run.run_id[:8]} of {job} has ended as {run.status.value} before it began. {page}"
        return None if run is None else f"{job} waits for its run {run.run_id[:8]}, which is {run.status.value}."

    def _who_trains(self, due: Due) -> str | None:
        """Return which training the series has still to come to; one that no run will ever begin is given up."""
        other = due.other
        if other is None:
            return None
        if other.is_unbegun:
            run = self._run_of(other.job_id, due.series)
            if other.is_old if run is None else run.is_finished:
                give_up(self.database, other.job_id, due.series)
                return None
        return f"training job {str(other.job_id)[:8]} trains it already."

    def _which_run_trains(self, due: Due) -> str | None:
        """Return which run trains the series, or is to, without having said so to the database."""
        strategy = self.strategies[due.strategy_name]
        for run in self.in_progress:
            if run.tags[PARTITION_TAG] == str(due.series) and _trains(run, strategy):
                return f"run {run.run_id[:8]} trains it already."
        return None

    def _run_of(self, job_id: UUID, series: SeriesKey) -> dg.DagsterRun | None:
        tags = {TRAINING_JOB_TAG: str(job_id), PARTITION_TAG: str(series)}
        return next(iter(self.instance.get_runs(filters=dg.RunsFilter(tags=tags), limit=1)), None)


def _in_progress(instance: dg.DagsterInstance, series: Sequence[SeriesKey]) -> Sequence[dg.DagsterRun]:
    if not series:
        return []
    tags = {PARTITION_TAG: sorted({str(one) for one in series})}
    statuses = [dg.DagsterRunStatus.QUEUED, *IN_PROGRESS_RUN_STATUSES]
    return instance.get_runs(filters=dg.RunsFilter(statuses=statuses, tags=tags))


def _goes_on(run: dg.DagsterRun) -> bool:
    """Whether the latest run of a training has not ended, or is to be followed by another by itself."""
    return not run.is_finished or run.tags.get(WILL_RETRY_TAG) == "true"


def _trains(run: dg.DagsterRun, strategy: Strategy) -> bool:
    """Whether a run makes configurations of a strategy: by one of its jobs, or from the asset's page."""
    asset = dg.AssetKey(branch_key(strategy, TRAINED_CONFIGURATIONS))
    if run.asset_selection is not None:
        return asset in run.asset_selection
    return run.tags.get("strategy") == branch_name(strategy) and run.job_name != monitoring_job_name(strategy)


def _grouped(plans: Iterable[tuple[Due, _Plan]]) -> dict[_Plan, list[Due]]:
    grouped: dict[_Plan, list[Due]] = {}
    for due, plan in plans:
        grouped.setdefault(plan, []).append(due)
    return grouped


def _request(due: Due, plan: _Plan, job_id: UUID, strategy: Strategy) -> dg.RunRequest:
    config = dict(SettingsResource.of(plan.training, plan.history).to_run_config())
    simulated = {SIMULATED_TAG: "true"} if due.series.market.is_simulated else {}
    return dg.RunRequest(
        run_key=due.cause,
        job_name=training_job_name(strategy),
        partition_key=str(due.series),
        run_config={"resources": {"settings": {"config": config}}},
        tags={TRAINING_JOB_TAG: str(job_id), CAUSE_TAG: due.cause, **simulated},
    )


def _named(due: Due) -> str:
    simulated = ", SIMULATED," if due.series.market.is_simulated else ""
    return f"{due.series}{simulated} {due.strategy_name} version {due.version}"


def _together(sentences: Sequence[str]) -> str:
    rest = len(sentences) - MAX_SENTENCES
    return " ".join((*sentences[:MAX_SENTENCES], *([f"And {rest} more."] if rest > 0 else [])))


def _short(error: str) -> str:
    return textwrap.shorten(error, _MAX_ERROR, placeholder="…").rstrip(".") + "."
