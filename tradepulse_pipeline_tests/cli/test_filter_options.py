"""A filter that is switched on for a training: found in what is stored, and in the repetition."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tradepulse_pipeline.cli.database import open_database
from tradepulse_pipeline.database.configurations import get, insert_configuration
from tradepulse_pipeline.settings import load_settings

if TYPE_CHECKING:
    from tradepulse_pipeline_tests.cli.conftest import Run

#: What Dagster does with its own dependencies is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")

QUICK = ("--history", "125", "--budget", "30", "--minimum-trades", "1", "--simulated-edge", "5")


def test_a_training_with_a_filter_stores_its_value_and_is_repeated_with_it(run: Run, in_project: Path) -> None:
    done = run(
        "train",
        "--source",
        "simulated",
        "--pair",
        "LTC/USDT",
        *QUICK,
        "--filter",
        "min_stop_density_score=0.6",
        "--json",
    )
    assert done.exit_code == 0, done.stderr
    (result,) = json.loads(done.stdout)
    configuration = result["configuration"]
    assert configuration["parameters"]["min_stop_density_score"] == 0.6
    assert configuration["parameters"]["max_spread_tolerance"] == 0.0
    (document,) = json.loads(run("show", configuration["id"], "--json").stdout)["configurations"]
    assert document["parameters"] == configuration["parameters"]
    with open_database(load_settings()) as database:
        row = get(database, configuration["id"])
        assert row.settings["filters"] == {"min_stop_density_score": 0.6}
        assert {w["chosen"]["parameters"]["min_stop_density_score"] for w in row.windows if w["chosen"]} == {0.6}
        # As a version would have stored it that did not know the other filter.
        windows = [
            {**w, "chosen": w["chosen"] and {**w["chosen"], "parameters": without_spread(w["chosen"]["parameters"])}}
            for w in row.windows
        ]
        older = replace(row, id=uuid4(), parameters=without_spread(row.parameters), windows=windows)
        database.run(lambda connection: insert_configuration(connection, older, reason="a test", figures={}))
    assert "max_spread_tolerance" not in run("show", str(older.id), "--json").stdout
    for identity in (configuration["id"], str(older.id)):
        repeated = run("replay", identity, "--json")
        assert json.loads(repeated.stdout) == {"identical": True, "differences": [], "changed_since": []}
        assert repeated.exit_code == 0


def without_spread(parameters: object) -> dict[str, float]:
    assert isinstance(parameters, dict)
    return {name: value for name, value in parameters.items() if name != "max_spread_tolerance"}


@pytest.mark.parametrize("command", ["train", "estimate"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--filter", "max_spread=5"),
            "Unknown filter 'max_spread' in the filters of LIQUIDITY_SWEEP_V3. Did you mean",
        ),
        (
            ("--filter", "max_spread_tolerance=-1"),
            "found -1.0, expected a number from 0.0 to 10000.0. (filters: from opt",
        ),
        (
            ("--filter", "max_spread_tolerance"),
            "filters: found ['max_spread_tolerance'] from option. Expected NAME=VALUE",
        ),
        (("--filter", "max_spread_tolerance=small"), "filters.max_spread_tolerance: found 'small' from option."),
        (("--filter", "max_spread_tolerance=5", "--strategy", "SUPPLY_SHOCK_V3"), "Allowed: none."),
    ],
)
def test_a_wrong_filter_is_refused_before_anything_starts(
    run: Run, command: str, arguments: tuple[str, ...], message: str
) -> None:
    done = run(command, *arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert not Path(".tradepulse").exists()


def test_filters_come_from_options_the_environment_or_a_table_of_the_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tradepulse.toml").write_text("[filters]\nmax_spread_tolerance = 20\n")
    assert load_settings().training().filters == {"max_spread_tolerance": 20.0}
    assert json.loads(run("config", "--json").stdout)["filters"] == {
        "value": {"max_spread_tolerance": 20.0},
        "origin": "tradepulse.toml",
    }
    assert "max_spread_tolerance=20" in run("config").stdout
    monkeypatch.setenv("TRADEPULSE_FILTERS", "max_spread_tolerance=30, min_stop_density_score=0.6")
    expected = {"max_spread_tolerance": 30.0, "min_stop_density_score": 0.6}
    assert load_settings().filters == expected
    assert load_settings(filters=["max_spread_tolerance=40", "min_stop_density_score=0.5"]).filters == {
        "max_spread_tolerance": 40.0,
        "min_stop_density_score": 0.5,
    }
    assert load_settings(filters=[""]).filters == {}
