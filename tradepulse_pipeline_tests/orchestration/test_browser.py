"""What a person sees and does in the web UI, in a real browser: launch, watch, read."""

from __future__ import annotations

import pytest

from tradepulse_pipeline_tests.orchestration.browser import Browser, missing, open_browser
from tradepulse_pipeline_tests.orchestration.web_server import JOB, web_server

pytest.importorskip("selenium", reason="selenium is not installed: pip install -e '.[test]'")
pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

SERIES = "simulated:EYES-USDT:5m"
BRANCH = "liquidity_sweep_v3"

#: A market with an edge, and a search that takes long enough to be watched: Bayesian, in four windows.
SETTINGS = """resources:
  settings:
    config:
      start: '2024-01-01'
      end: '2024-01-29'
      simulated_edge: 8.0
      train_days: 10
      test_days: 6
      gap_days: 1
      method: bayesian
      budget: 40
      minimum_trades: 3
      workers: 1
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with web_server(tmp_path_factory.mktemp("browsed")) as server:
        yield server


@pytest.fixture
def browser(server, tmp_path):
    with open_browser(server.url, tmp_path) as browser:
        yield browser


def configure(browser: Browser, text: str) -> None:
    """Write run configuration into the large editor on the page."""
    browser.see("All defaults expanded")
    browser.script(
        "const editors = [...document.querySelectorAll('.CodeMirror')];"
        "editors.sort((one, other) => other.clientHeight - one.clientHeight)[0].CodeMirror.setValue(arguments[0]);",
        text,
    )


def image_of(browser: Browser, label: str) -> tuple[int, int]:
    """Open the plot of a metadata entry and return the size in which it is drawn."""
    browser.click_at(f"//tr[td[1][normalize-space(.)='{label}']]//*[contains(text(), 'Show Markdown')]", label)
    drawn = browser.wait_for(
        f"the plot {label}",
        lambda: browser.script(
            "const one = document.querySelector('[role=dialog] img, .bp5-dialog img, .bp5-portal img');"
            "return one && one.complete && one.naturalWidth ? [one.clientWidth, one.clientHeight] : null;"
        ),
    )
    browser.click_at("//button[normalize-space(.)='Close' or normalize-space(.)='Done']", "the button that closes it")
    return tuple(drawn)


def test_a_training_is_launched_watched_and_read(browser, server):
    browser.open("/asset-groups/")
    for group in ("market", BRANCH):
        browser.see(group)

    browser.open(f"/locations/tradepulse/jobs/{JOB}")
    browser.click("Materialize all…")
    browser.click("Add a partition")
    browser.type("//input[@placeholder='name']", SERIES)
    browser.click("Save")
    browser.see("1 partition")
    browser.click("Config")
    browser.click("Add config")
    configure(browser, SETTINGS)
    browser.click("Save config")
    browser.click("Launch 1 run")

    run_id = browser.wait_for("the run", lambda: next(iter(server.run_ids()), None))
    browser.open(f"/runs/{run_id}")
    line = browser.see("trials (").text
    assert server.run(run_id)["status"] == "STARTED"
    assert line.startswith(f"Search of {SERIES}: ")
    assert "train window" in line
    assert line.endswith(" left.")
    browser.see("RUN_SUCCESS")

    browser.open_partition(f"{BRANCH}/walk_forward_validation", SERIES)
    browser.see("Out-of-sample:")
    assert min(image_of(browser, "equity")) > 200
    browser.open_partition(f"{BRANCH}/trained_configurations", SERIES)
    browser.see("PAPER: out-of-sample (SIMULATED)")
    assert min(image_of(browser, "from_training_to_training")) > 100
    browser.click("the candles")
    browser.see("Fit to train on: 8,064 of 8,064 candles")


def test_a_wrong_setting_is_refused_in_the_launchpad_with_its_reason(browser):
    browser.open(f"/locations/tradepulse/jobs/{JOB}/playground/setup")
    configure(browser, SETTINGS.replace("bayesian", "annealing"))
    refused = browser.see("got annealing").text
    assert "config:method not in enum type" in refused
    assert "'grid', 'random', 'bayesian'" in refused
    assert not browser.find("//button[normalize-space(.)='Launch Run']").is_enabled()
