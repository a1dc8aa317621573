"""Take the pictures of ``docs/cockpit.md`` and the README anew, from trainings on simulated candles.

A server of its own is started in a temporary folder, with two trainings and a backfill. That takes minutes, and
Chromium with its driver (Debian: ``apt install chromium chromium-driver``, ``pip install -e '.[test]'``)::

    python docs/take_screenshots.py [asset-graph] [launchpad] [run] ...
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tradepulse_pipeline_tests.orchestration.browser import Browser, missing, open_browser
from tradepulse_pipeline_tests.orchestration.web_server import ADD_PARTITION, JOB, REPOSITORY, WebServer, web_server

FOLDER: Final = Path(__file__).parent
#: Larger pictures load slowly, and a repository keeps every version of them.
MOST_BYTES: Final = 250_000

SERIES: Final = "simulated:BTC-USDT:5m"
OTHERS: Final = ("simulated:ETH-USDT:5m", "simulated:SOL-USDT:5m", "simulated:BTC-USDT:1h")
BRANCH: Final = "liquidity_sweep_v3"

#: The same market half a year apart: what a retraining comes to.
FIRST: Final[Mapping[str, object]] = {
    "simulated_edge": 1.5,
    "method": "grid",
    "start": "2024-01-01",
    "end": "2024-12-31",
}
SECOND: Final[Mapping[str, object]] = {**FIRST, "start": "2024-07-01", "end": "2025-06-30"}
#: What comes after the first, to be traded on paper.
FOLLOWING: Final[Mapping[str, object]] = {"simulated_edge": 1.5, "start": "2024-01-01", "end": "2025-03-31"}


def main(wanted: list[str]) -> None:
    """Take the pictures that are named, or all of them."""
    if missing():
        raise SystemExit(missing())
    unknown = set(wanted) - PICTURES.keys()
    if unknown:
        raise SystemExit(f"No such pictures: {', '.join(sorted(unknown))}. There are {', '.join(PICTURES)}.")
    with tempfile.TemporaryDirectory(prefix="tradepulse-docs-") as folder:
        project = Path(folder) / "project"
        project.mkdir()
        with web_server(project) as server, open_browser(server.url, Path(folder), height=900) as browser:
            for series in (SERIES, *OTHERS):
                server.ask(ADD_PARTITION, repository=REPOSITORY, key=series)
            server.wait_for_end(server.launch(SERIES, FIRST), seconds=1_800)
            for name in wanted or PICTURES:
                PICTURES[name](browser, server)
                browser.settle()
                file = FOLDER / f"{name}.png"
                browser.picture(file)
                size = file.stat().st_size
                print(f"{file.name}: {size / 1000:.0f} kB", flush=True)
                if size > MOST_BYTES:
                    raise SystemExit(f"{file} is larger than {MOST_BYTES / 1000:.0f} kB.")


def graph(browser: Browser, _: WebServer) -> None:
    """The asset graph: candles, and a group of assets per strategy."""
    browser.open("/asset-groups/")
    browser.see(BRANCH)
    browser.wait_for("the states of all assets", lambda: "fetching" not in str(browser.driver.page_source))


def dialog(browser: Browser, _: WebServer) -> None:
    """What 'Materialize all…' asks."""
    browser.open(f"/locations/tradepulse/jobs/{JOB}")
    browser.click("Materialize all…")
    browser.see("Add a partition")
    browser.click("All")


def launchpad(browser: Browser, _: WebServer) -> None:
    """All settings of a training, with what they mean beside them."""
    browser.open(f"/locations/tradepulse/jobs/{JOB}/playground/setup")
    browser.see("All defaults expanded")
    browser.click_at("//*[contains(@class, 'CodeMirror-code')]//*[contains(text(), 'objective')]")
    browser.see("Trials per train window")


def automation(browser: Browser, _: WebServer) -> None:
    """Schedules and sensors, each with its switch."""
    browser.open("/automation")
    browser.see("monitor_liquidity_sweep_v3_daily")
    browser.wait_for("all switches", lambda: "bp5-spinner" not in str(browser.driver.page_source))


def monitoring(browser: Browser, server: WebServer) -> None:
    """What became of a configuration on the candles after its training."""
    server.wait_for_end(server.launch(SERIES, FOLLOWING, job="update_market_data"))
    server.wait_for_end(server.launch(SERIES, {}, job=f"monitor_{BRANCH}"))
    browser.open_partition(f"{BRANCH}/lifecycle_monitoring", SERIES)
    browser.see("verdict")


def run(browser: Browser, server: WebServer) -> None:
    """The page of a run whose search goes on; it is waited for afterwards."""
    run_id = server.launch(SERIES, SECOND)
    browser.open(f"/runs/{run_id}")
    browser.see("trials (")
    browser.settle(5.0)


def asset_page(browser: Browser, server: WebServer) -> None:
    """What a training came to, beside the one before it."""
    server.wait_for_end(server.run_ids()[0], seconds=1_800)
    browser.open_partition(f"{BRANCH}/trained_configurations", SERIES)
    browser.see("the out-of-sample record")


def plot(browser: Browser, _: WebServer) -> None:
    """Equity over the test windows."""
    browser.open_partition(f"{BRANCH}/walk_forward_validation", SERIES)
    browser.click_at("//tr[td[1][normalize-space(.)='equity']]//*[contains(text(), 'Show Markdown')]")
    browser.wait_for("the plot", lambda: browser.script("return document.querySelector('.bp5-portal img')"))


def backfill(browser: Browser, server: WebServer) -> None:
    """A backfill of the other series, a run each."""
    query = """mutation ($parameters: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $parameters) {
        ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
    parameters = {
        "selector": {"partitionSetName": f"{JOB}_partition_set", "repositorySelector": REPOSITORY},
        "partitionNames": list(OTHERS),
        "runConfigData": {"resources": {"settings": {"config": {**FIRST, "method": "random"}}}},
    }
    backfill_id = server.ask(query, parameters=parameters)["launchPartitionBackfill"]["backfillId"]
    browser.open(f"/runs/b/{backfill_id}")
    browser.wait_for("a run that has ended", lambda: _has_ended(server, backfill_id), seconds=1_800)
    browser.settle(5.0)


def _has_ended(server: WebServer, backfill_id: str) -> bool:
    query = """query ($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill {
        runs { status } } } }"""
    runs = server.ask(query, id=backfill_id)["partitionBackfillOrError"]["runs"]
    return any(run["status"] == "SUCCESS" for run in runs)


#: What there is to see, in the order in which it is done: a picture, and how the page gets there.
PICTURES: Final[Mapping[str, Callable[[Browser, WebServer], None]]] = {
    "asset-graph": graph,
    "dialog": dialog,
    "launchpad": launchpad,
    "automation": automation,
    "monitoring": monitoring,
    "run": run,
    "asset-page": asset_page,
    "plot": plot,
    "backfill": backfill,
}

if __name__ == "__main__":
    main(sys.argv[1:])
