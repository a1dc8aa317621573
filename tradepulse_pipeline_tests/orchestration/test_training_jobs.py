"""Every run that trains has its training job, and it ends as the run did, however that was launched and ended."""

from __future__ import annotations

from uuid import UUID, uuid4

import dagster as dg
import pytest

from tradepulse_pipeline.database import training_jobs
from tradepulse_pipeline.database.configurations import list_configurations
from tradepulse_pipeline.definitions import build_definitions
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.orchestration.names import PARTITION_TAG, TRAINING_JOB_TAG
from tradepulse_pipeline.orchestration.resources import DatabaseResource, SettingsResource
from tradepulse_pipeline.orchestration.sensors.training_runs import (
    cancelled_trainings,
    failed_trainings,
    finished_trainings,
)
from tradepulse_pipeline.orchestration.training_jobs import end_jobs
from tradepulse_pipeline.strategies.registry import get_strategy

FIRST, SECOND = get_strategy("LIQUIDITY_SWEEP_V3"), get_strategy("SUPPLY_SHOCK_V3")
defs = build_definitions([FIRST, SECOND])
JOB = "train_liquidity_sweep_v3"
CANDLES, SEARCH = dg.AssetKey("market_data"), dg.AssetKey(["liquidity_sweep_v3", "optimization_results"])
SMALL = SettingsResource(
    start="2024-01-01",
    end="2024-01-29",
    simulated_edge=8.0,
    train_days=10,
    test_days=6,
    gap_days=1,
    budget=40,
    minimum_trades=3,
    workers=1,
)


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def launch(instance, database):
    """Run some or all assets for one series in this process."""

    def run(key, job=JOB, *, assets=None, tags=None, **settings) -> dg.ExecuteInProcessResult:
        instance.add_dynamic_partitions("series", [key])
        asked = SMALL.model_copy(update=settings)
        return defs.resolve_job_def(job).execute_in_process(
            instance=instance,
            partition_key=key,
            tags=tags or {},
            run_config={"resources": {"settings": {"config": asked.to_run_config()}}},
            asset_selection=assets,
            raise_on_error=False,
        )

    return run


@pytest.fixture
def queued(instance):
    """Create runs as the queue holds them: nothing of them has been executed."""

    def run(key, job=JOB, **tags) -> dg.DagsterRun:
        instance.add_dynamic_partitions("series", [key])
        return instance.create_run_for_job(
            defs.resolve_job_def(job),
            run_config={"resources": {"settings": {"config": {"budget": 7}}}},
            tags={PARTITION_TAG: key, **tags},
        )

    return run


def tell(sensor, run, event, instance):
    """Let a sensor learn how a run has ended."""
    context = dg.build_run_status_sensor_context(
        sensor_name=sensor.name, dagster_event=event, dagster_instance=instance, dagster_run=run
    )
    sensor(context.for_run_failure() if sensor is failed_trainings else context, database=DatabaseResource())


def ended(kind: dg.DagsterEventType, message: str) -> dg.DagsterEvent:
    return dg.DagsterEvent(kind.value, job_name=JOB, message=message)


def job_of(database, run_id):
    return training_jobs.get(database, UUID(run_id))


def test_a_run_is_a_training_job_from_its_first_step(launch, database):
    result = launch("simulated:EARLY-USDT:5m", assets=[CANDLES, dg.AssetKey("indicators"), SEARCH], budget=41)
    assert result.success
    job = job_of(database, result.run_id)
    assert (job.status, job.strategy_name, job.user_id) == ("running", FIRST.name, "web UI")
    assert job.config["training"]["search"]["budget"] == 41
    assert job.started_at is not None


def test_a_run_of_the_search_alone_is_completed_by_the_sensor(launch, database, instance):
    result = launch("simulated:ALONE-USDT:5m", assets=[CANDLES, dg.AssetKey("indicators"), SEARCH])
    for _ in range(2):
        tell(finished_trainings, result.dagster_run, result.get_run_success_event(), instance)
        job = job_of(database, result.run_id)
        assert (job.status, job.configurations_created) == ("completed", 0)


def test_a_whole_training_is_left_as_it_ended(launch, database, instance):
    result = launch("simulated:WELL-USDT:5m")
    before = job_of(database, result.run_id)
    tell(finished_trainings, result.dagster_run, result.get_run_success_event(), instance)
    assert job_of(database, result.run_id) == before
    assert (before.status, before.configurations_created) == ("completed", 1)


def test_a_run_that_fails_before_it_trains_has_a_failed_job(launch, database, instance):
    key = "nowhere:GONE-USDT:5m"
    result = launch(key)
    tell(failed_trainings, result.dagster_run, result.get_run_failure_event(), instance)
    job = job_of(database, result.run_id)
    assert (job.status, job.strategy_name) == ("failed", FIRST.name)
    assert [str(one.series) for one in job.series] == [key]
    assert "nowhere" in job.error_message


def test_a_run_that_is_cancelled_in_the_queue_has_a_cancelled_job(queued, database, instance):
    run = queued("simulated:QUEUED-USDT:5m")
    tell(cancelled_trainings, run, ended(dg.DagsterEventType.RUN_CANCELED, "Canceled"), instance)
    job = job_of(database, run.run_id)
    assert (job.status, job.config["run_config"], job.error_message) == ("cancelled", run.run_config, None)
    assert job.series[0].started_at is None


def test_a_run_that_never_started_has_a_job_that_says_why(queued, database, instance):
    run = queued("simulated:NOSTART-USDT:5m", **{"dagster/schedule_name": "weekly"})
    tell(failed_trainings, run, ended(dg.DagsterEventType.RUN_FAILURE, "Run timed out in the queue."), instance)
    job = job_of(database, run.run_id)
    assert (job.status, job.user_id) == ("failed", "schedule weekly")
    assert job.error_message == "simulated:NOSTART-USDT:5m: Run timed out in the queue."


def test_a_run_of_a_job_that_was_there_before_ends_its_own_series_alone(queued, database, instance):
    mine, other = (SeriesKey.parse(f"simulated:{name}-USDT:5m") for name in ("MINE", "OTHER"))
    job_id = training_jobs.create(
        database,
        strategy_name=FIRST.name,
        config={},
        series=[mine, other],
        seed=0,
        code_version="0",
        user_id="test",
    )
    run = queued(str(mine), **{TRAINING_JOB_TAG: str(job_id)})
    tell(cancelled_trainings, run, ended(dg.DagsterEventType.RUN_CANCELED, "Canceled"), instance)
    assert {str(one.series): one.status for one in training_jobs.get(database, job_id).series} == {
        str(mine): "cancelled",
        str(other): "pending",
    }


def test_a_run_over_a_range_of_series_covers_them_all(instance, database):
    keys = [f"simulated:RANGE{n}-USDT:5m" for n in range(4)]
    instance.add_dynamic_partitions("series", [*keys, "not a series"])
    run = instance.create_run_for_job(
        defs.resolve_job_def(JOB),
        tags={"dagster/asset_partition_range_start": keys[1], "dagster/asset_partition_range_end": "not a series"},
    )
    end_jobs(database, run, instance, "cancelled", None)
    assert [str(one.series) for one in job_of(database, run.run_id).series] == keys[1:]


def test_several_strategies_in_one_run_are_a_job_each(instance, database):
    key = "simulated:BOTH-USDT:5m"
    instance.add_dynamic_partitions("series", [key])
    everything = dg.Definitions(
        assets=[asset for asset in defs.assets if asset.key.path != ["recordings"]],
        jobs=[dg.define_asset_job("everything", selection="*")],
        resources=defs.resources,
        executor=defs.executor,
    )
    result = everything.resolve_job_def("everything").execute_in_process(
        instance=instance,
        partition_key=key,
        run_config={"resources": {"settings": {"config": SMALL.to_run_config()}}},
    )
    assert result.success
    jobs = [job for job in training_jobs.list_jobs(database) if job.run_ids == (result.run_id,)]
    assert {job.strategy_name: (job.status, job.completed_combinations) for job in jobs} == {
        strategy.name: ("completed", 4 * 40) for strategy in (FIRST, SECOND)
    }
    for row in list_configurations(database, pair="BOTH/USDT"):
        assert training_jobs.get(database, row.training_job_id).strategy_name == row.strategy_name


@pytest.mark.parametrize("job", ["update_market_data", JOB])
def test_what_trains_no_series_is_no_training_job(queued, database, instance, job):
    run = queued("simulated:NONE-USDT:5m" if job != JOB else "no series", job)
    end_jobs(database, run, instance, "failed", "broken")
    with pytest.raises(InvalidInputError, match="There is no training job"):
        job_of(database, run.run_id)


def test_a_job_of_another_database_is_left_alone(queued, database, instance):
    run = queued("simulated:ELSEWHERE-USDT:5m", **{TRAINING_JOB_TAG: str(uuid4())})
    end_jobs(database, run, instance, "failed", None)
    for job_id in (run.run_id, run.tags[TRAINING_JOB_TAG]):
        with pytest.raises(InvalidInputError, match="There is no training job"):
            job_of(database, job_id)
