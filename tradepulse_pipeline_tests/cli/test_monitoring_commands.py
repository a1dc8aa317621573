from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tradepulse_pipeline.market.series import MS_PER_DAY, SeriesKey

SERIES = SeriesKey.parse("simulated:WATCH-USDT:5m")
TRAINING = (
    "--exchange", "simulated", "--pair", "WATCH/USDT", "--timeframe", "5m", "--history", "28", "--simulated-edge", "3",
    "--train-days", "10", "--test-days", "6", "--gap-days", "1", "--method", "random", "--budget", "30",
    "--minimum-trades", "3", "--workers", "1",
)  # fmt: skip


@pytest.fixture
def trained(own_project: Path, run):
    """A project with a configuration; its first 8 characters."""
    found = run("train", *TRAINING)
    assert found.exit_code == 0, found.output
    (row,) = json.loads(run("results", "--json").stdout)
    return row["id"][:8]


def add_candles(n_days: int) -> None:
    """Store the simulated candles of the days after the training."""
    from tradepulse_pipeline.cli.database import open_database
    from tradepulse_pipeline.database.candles import coverage, store_candles
    from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate
    from tradepulse_pipeline.settings import load_settings

    with open_database(load_settings()) as database:
        (stored,) = coverage(database)
        start = stored.last_ms + 300_000
        candles = simulate(
            SERIES.market, SERIES.timeframe, start, start + n_days * MS_PER_DAY, SimulatedMarketSettings(edge=3.0)
        )
        store_candles(database, SERIES, candles, "simulated")


def test_nothing_to_watch(own_project: Path, run):
    for command in ("monitor", "breakers"):
        found = run(command)
        assert found.exit_code == 0
        assert "No configurations yet" in found.stderr


def test_watching_a_configuration_and_replaying_its_breakers(trained, run):
    found = run("monitor")
    assert found.exit_code == 0, found.output
    assert "no candle has come since its training" in found.stdout
    assert json.loads(run("monitor", "--json").stdout)[0]["figures"] is None

    add_candles(10)
    found = run("monitor")
    assert found.exit_code == 0, found.output
    assert all(word in found.stdout for word in ("SIMULATED", "PAPER", trained, "Paper", "Death"))
    (look,) = json.loads(run("monitor", trained, "--json").stdout)
    assert look["series"] == str(SERIES)
    assert (look["stage_before"], look["stage_after"], look["is_simulated"]) == ("PAPER", "PAPER", True)
    assert look["figures"]["paper_trades"] > 0
    through = datetime.fromisoformat(look["through"])
    assert abs(datetime.now(UTC) + timedelta(days=10) - through) < timedelta(hours=2)

    (entry,) = json.loads(run("show", trained, "--json").stdout)["configurations"]
    health, figures = entry["pattern_health"], look["figures"]
    assert health["death_signals"] == {name: one["is_on"] for name, one in figures["death_signals"].items()}
    assert health["death_signal_count"] == list(health["death_signals"].values()).count(True)
    assert health["months_since_discovery"] == 0
    assert health["performance_degradation"] is None  # it takes 30 paper days

    found = run("breakers", "ffffffff")
    assert found.exit_code == 2
    assert "There is no configuration ffffffff" in found.stderr
    found = run("breakers", trained)
    assert found.exit_code == 0, found.output
    assert all(name in found.stdout for name in ("max_daily_loss", "all together", "not measured", "SIMULATED"))
    (replay,) = json.loads(run("breakers", "--json").stdout)
    assert replay["alone"]["latency_threshold_ms"] is None
    assert replay["trades"] >= look["figures"]["paper_trades"]
    assert replay["together"]["stopped_trades"] <= replay["trades"]
