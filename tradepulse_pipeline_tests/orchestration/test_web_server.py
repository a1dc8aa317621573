"""What a person does in the web UI, through its GraphQL: add a market, launch a training, read the result."""

from __future__ import annotations

from uuid import UUID

import pytest
import yaml

from tradepulse_pipeline.database import training_jobs
from tradepulse_pipeline.database.configurations import list_configurations
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.migrations import migrate
from tradepulse_pipeline.database.server import database_url
from tradepulse_pipeline.orchestration.resources import SettingsResource
from tradepulse_pipeline_tests.orchestration.web_server import ADD_PARTITION, JOB, REPOSITORY, TERMINATE, web_server

SETTINGS = {
    "start": "2024-01-01",
    "end": "2024-01-29",
    "simulated_edge": 8.0,
    "train_days": 10,
    "test_days": 6,
    "gap_days": 1,
    "budget": 40,
    "minimum_trades": 3,
    "workers": 1,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with web_server(tmp_path_factory.mktemp("web")) as server:
        yield server


@pytest.fixture(scope="module")
def stored(server):
    with Database(database_url(server.project / ".tradepulse", None)) as database:
        migrate(database)
        yield database


def test_a_market_is_added_and_trained_and_its_configuration_is_in_the_database(server, stored):
    (repository,) = server.location()["repositories"]
    assert repository["name"] == "__repository__"
    assert {JOB, "update_market_data"} <= {job["name"] for job in repository["jobs"]}

    series = "simulated:WEB-USDT:5m"
    added = server.ask(ADD_PARTITION, repository=REPOSITORY, key=series)
    assert added["addDynamicPartition"]["__typename"] == "AddDynamicPartitionSuccess"
    run_id = server.launch(series, SETTINGS)
    ended = ("SUCCESS", "FAILURE", "CANCELED")
    server.wait_for("the end of the run", lambda: server.run(run_id)["status"] in ended)

    run = server.run(run_id)
    assert run["status"] == "SUCCESS"
    assert {"key": "tradepulse/simulated", "value": "true"} in run["tags"]
    assert {made["partition"] for made in run["assetMaterializations"]} == {series}
    shown = {
        "/".join(made["assetKey"]["path"]): {entry["label"]: entry.get("text") for entry in made["metadataEntries"]}
        for made in run["assetMaterializations"]
    }
    assert len(shown) == 5
    assert all(metadata["SIMULATED"].startswith("SIMULATED") for metadata in shown.values())

    (configuration,) = list_configurations(stored, pair="WEB/USDT")
    assert configuration.run_id == run_id
    assert shown["liquidity_sweep_v3/trained_configurations"]["configuration_id"] == str(configuration.id)
    job = training_jobs.get(stored, configuration.training_job_id)
    assert (job.id, job.status) == (UUID(run_id), "completed")


def test_a_training_that_is_terminated_in_the_web_ui_is_cancelled_in_the_database(server, stored):
    series = "simulated:END-USDT:5m"
    server.ask(ADD_PARTITION, repository=REPOSITORY, key=series)
    run_id = server.launch(series, {**SETTINGS, "method": "grid", "minimum_trades": 1})

    def progress():
        found = [job for job in training_jobs.list_jobs(stored) if str(job.id) == run_id]
        return found and found[0].progress

    server.wait_for("the search", progress)
    assert server.ask(TERMINATE, run=run_id)["terminateRun"]["__typename"] == "TerminateRunSuccess"
    server.wait_for("the cancelled run", lambda: server.run(run_id)["status"] == "CANCELED")
    server.wait_for("the cancelled job", lambda: training_jobs.get(stored, UUID(run_id)).status == "cancelled")
    assert list_configurations(stored, pair="END/USDT") == []


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"method": "annealing"}, "annealing"),
        ({"workers": "many"}, "many"),
        ({"workers": -1}, "workers: found -1, expected a whole number of at least 0."),
        ({"train_days": 0}, "train_days: found 0, expected a whole number of days, at least 1."),
        ({"gap_days": 30}, "gap_days: found 30, expected less than test_days (30), whose head it is."),
        ({"fee_rate": 0.5}, "fee_rate: found 0.5, expected a number at least 0.0 and at most 0.1."),
        ({"further_objectives": ["profit"], "method": "genetic"}, "Unknown objective 'profit' in further_objectives."),
        ({"end": "soon"}, "end: found 'soon', expected a date or time in UTC"),
        ({"simulated_edge": 99.0}, "simulated_edge: simulated market: edge is 99.0, expected a number from -20 to 20."),
        ({"filters": {"max_spread": 20.0}}, "Did you mean 'max_spread_tolerance'?"),
    ],
)
@pytest.mark.parametrize("job", [JOB, "quick_look_liquidity_sweep_v3"])
def test_a_wrong_value_is_refused_at_the_launch_with_its_reason(server, job, settings, sentence):
    parameters = {
        "selector": {**REPOSITORY, "jobName": job},
        "runConfigData": {"resources": {"settings": {"config": settings}}},
        "mode": "default",
        "executionMetadata": {"tags": [{"key": "refused", "value": "true"}]},
    }
    query = """mutation ($parameters: ExecutionParams!) { launchRun(executionParams: $parameters) { __typename
        ... on RunConfigValidationInvalid { errors { message } } ... on PythonError { message } } }"""
    refused = server.ask(query, parameters=parameters)["launchRun"]
    if refused["__typename"] == "RunConfigValidationInvalid":  # of the wrong kind: the form itself says so
        assert sentence in refused["errors"][0]["message"]
    else:
        assert refused["__typename"] == "PythonError"
        assert sentence in refused["message"].splitlines()[0]
    runs = """{ runsOrError(filter: {tags: [{key: "refused", value: "true"}]}) { ... on Runs { results { id } } } }"""
    assert server.ask(runs)["runsOrError"]["results"] == []


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("train", {"method": "auto", "budget": 0}),
        ("quick_look", {"method": "random", "budget": 1_000}),
        ("thorough", {"method": "grid", "budget": 0}),
        ("fine_tune", {"method": "bayesian", "budget": 0}),
    ],
)
def test_the_launchpad_of_a_preset_shows_its_values_and_the_defaults_of_all_others(server, kind, values):
    query = """query ($selector: PipelineSelector!) { runConfigSchemaOrError(selector: $selector) {
        ... on RunConfigSchema { rootDefaultYaml } } }"""
    selector = {**REPOSITORY, "pipelineName": f"{kind}_liquidity_sweep_v3"}
    shown = yaml.safe_load(server.ask(query, selector=selector)["runConfigSchemaOrError"]["rootDefaultYaml"])
    assert shown == {"resources": {"settings": {"config": {**SettingsResource().to_run_config(), **values}}}}
