"""A running web server with its daemon, in a project of its own, for tests and for the pictures in the docs."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tradepulse_pipeline_tests.orchestration.conftest import ROOT, remove_data

JOB = "train_liquidity_sweep_v3"
REPOSITORY = {"repositoryLocationName": "tradepulse", "repositoryName": "__repository__"}

LOCATIONS = """{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError { __typename
    ... on RepositoryLocation { repositories { name jobs { name } } } ... on PythonError { message } } } } } }"""
ADD_PARTITION = """mutation ($repository: RepositorySelector!, $key: String!) {
    addDynamicPartition(repositorySelector: $repository, partitionsDefName: "series", partitionKey: $key) {
        __typename } }"""
LAUNCH = """mutation ($parameters: ExecutionParams!) { launchRun(executionParams: $parameters) { __typename
    ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
TERMINATE = """mutation ($run: String!) { terminateRun(runId: $run) { __typename } }"""
RUN = """query ($run: ID!) { runOrError(runId: $run) { ... on Run { status tags { key value }
    assetMaterializations { assetKey { path } partition metadataEntries { label ... on TextMetadataEntry { text } } }
    } } }"""

RUNS = """{ runsOrError { ... on Runs { results { runId } } } }"""


class WebServer:
    """A running web server with its daemon, in a project of its own."""

    def __init__(self, project: Path, url: str, process: subprocess.Popen[bytes]) -> None:
        self.project, self.url, self.process = project, url, process

    def ask(self, query: str, **variables: object) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as reply:
                answer = json.load(reply)
        except urllib.error.HTTPError as reply:  # with an error of the code location, whose answer is there as well
            answer = json.load(reply)
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def wait_for(self, what: str, done: Callable[[], object], seconds: float = 300.0) -> object:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            if result := done():
                return result
            time.sleep(0.2)
        raise AssertionError(f"{what}: not within {seconds} s.\n{(self.project / 'server.log').read_text()[-4000:]}")

    def location(self) -> dict[str, Any] | None:
        """Return what was loaded, None while nothing is there."""
        try:
            (entry,) = self.ask(LOCATIONS)["workspaceOrError"]["locationEntries"] or (None,)
        except OSError:
            return None
        return entry and entry["locationOrLoadError"]

    def launch(self, series: str, settings: Mapping[str, object], job: str = JOB) -> str:
        parameters = {
            "selector": {**REPOSITORY, "jobName": job},
            "runConfigData": {"resources": {"settings": {"config": dict(settings)}}} if settings else {},
            "mode": "default",
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": series}]},
        }
        launched = self.ask(LAUNCH, parameters=parameters)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return launched["run"]["runId"]

    def wait_for_end(self, run_id: str, seconds: float = 300.0) -> str:
        """Wait until a run has ended and return how."""
        ended = ("SUCCESS", "FAILURE", "CANCELED")
        self.wait_for(f"the end of run {run_id}", lambda: self.run(run_id)["status"] in ended, seconds)
        return str(self.run(run_id)["status"])

    def run_ids(self) -> list[str]:
        """Return all runs, the latest first."""
        return [run["runId"] for run in self.ask(RUNS)["runsOrError"]["results"]]

    def run(self, run_id: str) -> dict[str, Any]:
        return self.ask(RUN, run=run_id)["runOrError"]


@contextmanager
def web_server(project: Path) -> Iterator[WebServer]:
    """Serve a project in the empty folder ``project``; its data is removed at the end."""
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(ROOT / name, project)
    try:
        with serving(project) as server:
            yield server
    finally:
        remove_data(project / ".tradepulse")


@contextmanager
def serving(project: Path) -> Iterator[WebServer]:
    """Serve the project that is in ``project`` until all of its processes are killed at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TRADEPULSE_", "DAGSTER_"))}
    arguments = ["-m", "dagster", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)]
    with (project / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=project,
            env={**inherited, "DAGSTER_HOME": str(project)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        server = WebServer(project, f"http://127.0.0.1:{port}", process)
        server.wait_for("the web server", server.location)
        yield server
    finally:
        if process.poll() is None:
            kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started, at once: nothing of it is needed any more."""
    parent = psutil.Process(process.pid)
    family = [parent, *parent.children(recursive=True)]
    for member in family:
        if member.is_running():
            member.kill()
    process.wait(timeout=15)
