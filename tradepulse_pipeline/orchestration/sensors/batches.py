"""Taking failed batches apart, so that a series that fails keeps no other from being trained."""

from collections.abc import Collection, Sequence
from contextlib import suppress

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from tradepulse_pipeline.database import training_jobs
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.orchestration.jobs import UPDATE_MARKET_DATA
from tradepulse_pipeline.orchestration.names import BATCH_TAG, TRAINING_JOB_TAG, WILL_RETRY_TAG, branch_name
from tradepulse_pipeline.orchestration.partitions import SERIES
from tradepulse_pipeline.orchestration.resources import DatabaseResource
from tradepulse_pipeline.orchestration.training_jobs import job_id_of, strategies_of
from tradepulse_pipeline.strategies.base import Strategy


def build_failed_batches(
    trainings: Sequence[UnresolvedAssetJobDefinition], usual: Sequence[UnresolvedAssetJobDefinition]
) -> dg.SensorDefinition:
    """Return the sensor that repeats a failed batch series by series.

    ``trainings`` are the jobs that it runs, ``usual`` those of them for what was launched from an asset's page.
    """
    without_a_preset = {UPDATE_MARKET_DATA.name, *(job.name for job in usual)}

    @dg.run_failure_sensor(
        name="failed_batches",
        description="Repeats a run over several series that failed (`partitions_per_run` above 1) as a run per series. "
        "A step fails for all series of a batch; taken apart, only the one that fails stays failed. What the others "
        "had finished is kept: their candles are stored, and a finished search is not made again.",
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=5,
        request_jobs=[UPDATE_MARKET_DATA, *trainings],
    )
    def failed_batches(
        context: dg.RunFailureSensorContext, database: DatabaseResource
    ) -> list[dg.RunRequest] | dg.SkipReason:
        run = context.dagster_run
        keys = series_of_batch(context.instance, run)
        if len(keys) < 2:
            return dg.SkipReason(f"Run {run.run_id} was over one series: there is nothing to take apart.")
        if run.tags.get(WILL_RETRY_TAG) == "true":
            return dg.SkipReason(f"Run {run.run_id} is tried again as a whole: its process died.")
        jobs = _jobs_of(run, context.repository_def, without_a_preset)
        context.log.info(
            f"The batch {run.run_id} failed: {len(keys)} series are repeated one by one, by {', '.join(jobs)}."
        )
        strategies = strategies_of(run, context.instance)
        tags = {job_name: _training_job_tag(database.open(), run, strategies, job_name) for job_name in jobs}
        return [
            dg.RunRequest(
                job_name=job_name,
                asset_selection=assets,
                partition_key=key,
                run_key=f"{run.run_id} {job_name} {key}",
                run_config=run.run_config,
                tags={**tags[job_name], BATCH_TAG: run.run_id},
            )
            for job_name, assets in jobs.items()
            for key in keys
        ]

    return failed_batches


def series_of_batch(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[str]:
    """Return the partitions of a run over a range of them that are still there, none for any other run."""
    first, last = (run.tags.get(tag) for tag in (ASSET_PARTITION_RANGE_START_TAG, ASSET_PARTITION_RANGE_END_TAG))
    there = list(SERIES.get_partition_keys(dynamic_partitions_store=instance))
    if first not in there or last not in there:
        return []
    return there[there.index(first) : there.index(last) + 1]


def _training_job_tag(
    database: Database, run: dg.DagsterRun, strategies: Collection[Strategy], job_name: str
) -> dict[str, str]:
    """Return the tag with the batch's training job of the strategy that a job trains; none where there is none."""
    for strategy in strategies:
        if job_name.endswith(branch_name(strategy)):
            job_id = job_id_of(run, strategy, strategies)
            with suppress(InvalidInputError):  # it failed before it was a training job
                return {TRAINING_JOB_TAG: str(training_jobs.get(database, job_id).id)}
    return {}


def _jobs_of(
    run: dg.DagsterRun, repository: dg.RepositoryDefinition | None, without_a_preset: Collection[str]
) -> dict[str, list[dg.AssetKey]]:
    """Return the jobs that make what a run was to make, each with its share of the assets.

    A backfill from an asset's page is of no job, and may be over the branches of several strategies.
    """
    assert repository is not None
    names = [job.name for job in repository.get_all_jobs() if not job.name.startswith("__")]
    made = {name: set(repository.get_job(name).asset_layer.executable_asset_keys) for name in names}
    wanted = set(run.asset_selection or made.get(run.job_name, set()))
    if run.job_name in made:
        return {run.job_name: sorted(wanted)}
    jobs: dict[str, list[dg.AssetKey]] = {}
    while wanted:
        # The fewest assets beside the wanted ones: of candles alone, the job that fetches them.
        best = max(without_a_preset, key=lambda name: (len(made[name] & wanted), -len(made[name]), name))
        share = made[best] & wanted
        if not share:
            break
        jobs[best] = sorted(share)
        wanted -= share
    return jobs
