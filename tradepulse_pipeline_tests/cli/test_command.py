from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tradepulse_pipeline.cli import config as config_module
from tradepulse_pipeline.cli.main import app
from tradepulse_pipeline.cli.options import normalized
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from tradepulse_pipeline_tests.cli.conftest import Run

COMMANDS = [*(command.name for command in app.registered_commands), "markets"]


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from tradepulse_pipeline.cli.main import app\n"
        "print(CliRunner().invoke(app, ['--help']).stdout)\n"
        "heavy = {'dagster', 'ccxt', 'psycopg', 'numba', 'polars', 'pandas', 'scipy', 'skopt', 'optuna'}\n"
        "heavy |= {'matplotlib'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout
    assert set(COMMANDS) == {
        "train", "up", "import", "backtest", "check", "estimate", "results", "show", "jobs", "markets", "replay",
        "config", "quality", "record", "fetch", "sources", "monitor", "breakers",
    }  # fmt: skip
    for name in COMMANDS:
        assert f" {name} " in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_says_what_its_options_take(run: Run, command: str) -> None:
    done = run(command, "--help")
    assert done.exit_code == 0
    assert not [line for line in done.stdout.splitlines() if "--" in line and "<str>" in line]
    if command not in ("markets", "config"):
        assert f"$ tradepulse {command}" in done.stdout


def test_help_of_train_shows_defaults_and_allowed_values(run: Run) -> None:
    text = " ".join(run("train", "--help").stdout.replace("│", "").split())
    assert "One of auto, grid, random, bayesian, tpe, genetic. Default: auto." in text
    assert "Days of a train window. Default: 90." in text
    assert "Default: 1000 (random), 60 (bayesian), 300 (tpe), 600 (genetic)." in text


def test_every_setting_of_a_training_is_an_option_by_its_own_name_too(run: Run) -> None:
    shown = run("train", "--help").stdout
    infrastructure = {
        "data_dir", "database_url", "artifacts_url", "exchange_url", "web_host", "web_port", "own_strategies",
        "source_order", "markets", "listings", "partitions_per_run", "retraining_schedule", "max_age_days",
        "keep_runs_days", "web_url", *(name for name in Settings.model_fields if name.startswith("alerts_")),
    }  # fmt: skip
    for name in Settings.model_fields.keys() - infrastructure:
        assert f"--{normalized(name)}" in shown
    assert "fee_rate: found 9.0" in run("train", "--fee-rate", "9").stderr
    assert "fee_rate: found 9.0" in run("train", "--fee_rate", "9").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--strategy", "LIQUIDITY_SWEEP"), "Did you mean 'LIQUIDITY_SWEEP_V3'? Allowed: LIQUIDITY_SWEEP_V3"),
        (("train", "--exchange", "binanc"), "Unknown exchange 'binanc'. Did you mean 'binance'"),
        (("train", "--exchange", "X"), "kraken"),
        (("train", "--timeframe", "5min"), "Unknown timeframe '5min'. Did you mean '5m'? Allowed: 1m, 3m, 5m"),
        (("train", "--pair", "BTCUSDT"), "Pair 'BTCUSDT' is not valid: expected base and quote"),
        (
            ("train", "--method", "gird"),
            "Unknown method 'gird'. Did you mean 'grid'? Allowed: auto, grid, random, bayesian",
        ),
        (("train", "--objective", "profit"), "Unknown objective 'profit'. Did you mean 'net_profit'"),
        (("train", "--further-objective", "drawdown"), "further_objectives: found drawdown with the method"),
        (("estimate", "--further-objectives", "profit"), "Unknown objective 'profit' in further_objectives"),
        (("train", "--source", "web"), "Unknown source 'web'. Allowed: auto, exchange, stored, simulated"),
        (("train", "--side", "up"), "side: found 'up' from option. Input should be 'long', 'short' or 'both'"),
        (("train", "--fee", "1%"), "fee_rate: found '1%' from option. Input should be a valid number"),
        (("train", "--budget", "0"), "budget: found 0, expected at least 1 trial"),
        (("train", "--history", "119"), "history_days: found 119 (from option), but one walk_forward window needs 120"),
        (("train", "--gap-days", "30"), "gap_days: found 30, expected less than test_days (30)"),
        (("train", "--pair", ","), "pairs: found [','] from option. Expected at least one name"),
        (("estimate", "--strategy", "X"), "Unknown strategy 'X'"),
        (("results", "--stage", "GOOD"), "Unknown stage 'GOOD'. Allowed: PAPER, DISCOVERY, VALIDATION, MATURE, DECAY"),
        (("results", "--strategy", "X"), "Unknown strategy 'X'"),
        (("results", "--timeframe", "7m"), "Unknown timeframe '7m'"),
    ],
)
def test_wrong_input_is_told_before_anything_starts(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / ".tradepulse").exists()


def test_wrong_usage_names_the_nearest(run: Run) -> None:
    done = run("train", "--pear", "BTC/USDT")
    assert done.exit_code == 2
    assert "--pair" in done.stderr
    assert "Did you mean 'train'?" in run("trian").stderr


def test_debug_shows_where_an_error_came_from(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(run("--debug", "train", "--method", "x").exception, InvalidInputError)
    monkeypatch.setenv("TRADEPULSE_DEBUG", "1")
    assert isinstance(run("train", "--method", "x").exception, InvalidInputError)


def test_a_fault_of_the_program_is_one_line_and_not_a_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError("deep inside")

    monkeypatch.setattr(config_module, "load_settings", fail)
    done = run("config")
    assert done.exit_code == 1
    assert "fault of TradePulse itself: ZeroDivisionError: deep inside" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unreachable_database_is_named_without_its_password(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADEPULSE_DATABASE_URL", "postgres://me:hunter2@127.0.0.1:1/trade?connect_timeout=1")
    done = run("results")
    assert done.exit_code == 1
    assert "postgresql://me:***@127.0.0.1:1/trade" in done.stderr
    assert "TRADEPULSE_DATABASE_URL" in done.stderr
    assert "hunter2" not in done.stderr


def test_config_shows_where_each_value_came_from_and_hides_secrets(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADEPULSE_FEE_RATE", "0.00075")
    monkeypatch.setenv("TRADEPULSE_DATABASE_URL", "postgresql://me:hunter2@db/x")
    monkeypatch.setenv("TRADEPULSE_FEERATE", "0.1")
    done = run("config", "--json")
    values = json.loads(done.stdout)
    assert set(values) == set(Settings.model_fields)
    assert values["fee_rate"] == {"value": 0.00075, "origin": "environment TRADEPULSE_FEE_RATE"}
    assert values["slippage"] == {"value": 0.0005, "origin": "default"}
    assert values["database_url"]["value"] == "postgresql://me:***@db/x"
    assert "Unknown variable 'TRADEPULSE_FEERATE'" in done.stderr
    assert "Did you mean 'TRADEPULSE_FEE_RATE'" in done.stderr
    page = run("config")
    assert "environment TRADEPULSE_FEE_RATE" in " ".join(page.stdout.split())
    assert "hunter2" not in page.output


def test_config_shows_settings_that_are_given_by_name(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADEPULSE_RETRAINING_SCHEDULE", "S=0 3 * * 6")
    monkeypatch.setenv("TRADEPULSE_SOURCE_ORDER", "kraken=yahoo+kraken")
    monkeypatch.setenv("TRADEPULSE_FILTERS", "x=0.6")
    shown = " ".join(run("config").stdout.split())
    for text in ("S=0 3 * * 6", "kraken=yahoo+kraken", "x=0.6"):
        assert text in shown


def test_config_refuses_a_value_that_is_not_allowed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADEPULSE_FEE_RATE", "2")
    done = run("config")
    assert done.exit_code == 2
    assert "fee_rate: found 2.0, expected a number at least 0.0 and at most 0.1" in done.stderr
    assert "from environment TRADEPULSE_FEE_RATE" in done.stderr
