"""The way of a user: import, estimate, train, look at it, repeat it."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from tradepulse_pipeline.cli.database import open_database
from tradepulse_pipeline.database.candles import load_candles, store_candles
from tradepulse_pipeline.market.candles import PRICE_COLUMNS, Candles
from tradepulse_pipeline.market.series import MS_PER_DAY, SeriesKey
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate
from tradepulse_pipeline.settings import load_settings

if TYPE_CHECKING:
    import subprocess

    from tradepulse_pipeline_tests.cli.conftest import Run, Start

#: What Dagster does with its own dependencies is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")

#: A history of one window, a small search, and an edge that makes trades: seconds, not minutes.
QUICK = ("--history", "125", "--budget", "30", "--minimum-trades", "1", "--simulated-edge", "5")
#: Minutes of work: there is time to interrupt it.
LONG = ("--source", "simulated", "--pair", "BTC/USDT,ETH/USDT", "--history", "200", "--method", "grid")
NOWHERE = "http://127.0.0.1:9"
START_MS = 1_735_689_600_000  # 2025-01-01


def write_candles(folder: Path, name: str, candles: Candles, n: int | None = None) -> Path:
    columns = {"timestamp": candles.open_time_ms, **{name: getattr(candles, name) for name in PRICE_COLUMNS}}
    path = folder / name
    pl.DataFrame(columns).head(n or len(candles)).write_csv(path)
    return path


def made_up(pair: str, days: int) -> Candles:
    series = SeriesKey.of("simulated", pair, "5m")
    settings = SimulatedMarketSettings(outages_per_year=0)
    return simulate(series.market, series.timeframe, START_MS, START_MS + days * MS_PER_DAY, settings)


def jobs_of(run: Run) -> list[dict[str, Any]]:
    return json.loads(run("jobs", "--json").stdout)


@pytest.fixture(scope="module")
def trained(shared_project: Path) -> dict[str, Any]:
    """One training on the simulated market, as the command prints it for programs."""
    from typer.testing import CliRunner

    from tradepulse_pipeline.cli.main import app

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shared_project)
        done = CliRunner().invoke(app, ["train", "--source", "simulated", "--pair", "SOL/USDT", *QUICK, "--json"])
    assert done.exit_code == 0, done.stderr
    (result,) = json.loads(done.stdout)
    return {**result, "stderr": done.stderr}


def test_training_ends_with_a_stored_configuration_and_says_simulated(
    run: Run, in_project: Path, trained: dict[str, Any]
) -> None:
    configuration = trained["configuration"]
    assert trained["error"] is None
    assert configuration["series"] == "simulated:SOL-USDT:5m"
    assert configuration["is_simulated"] is True
    assert configuration["stage"] == "PAPER"
    assert "SIMULATED" in trained["stderr"]
    assert "SIMULATED" in trained["reason"]
    listed = json.loads(run("results", "--pair", "sol/usdt", "--all", "--json").stdout)
    assert configuration["id"] in [one["id"] for one in listed]
    assert len([one for one in listed if one["is_active"]]) == 1
    assert run("results", "--stage", "mature").stdout == ""


def test_training_reports_progress_in_plain_lines_where_nobody_watches(trained: dict[str, Any]) -> None:
    lines = trained["stderr"].splitlines()
    assert any("Candles: 36,000 of 36,000 candles" in line for line in lines)
    assert any("Search: 60 of 60 trials" in line for line in lines)
    assert any("Windows: 1 of 1 windows" in line for line in lines)
    assert not any("\x1b[" in line for line in lines)


def test_training_leaves_a_run_and_a_completed_job(run: Run, in_project: Path, trained: dict[str, Any]) -> None:
    from tradepulse_pipeline.orchestration.launch import open_instance

    (job,) = [job for job in jobs_of(run) if job["id"] == trained["configuration"]["training_job_id"]]
    assert job["status"] == "completed"
    assert job["run_ids"] == [trained["run_id"]]
    assert job["configurations_created"] == 1
    assert job["config"]["training"]["search"]["budget"] == 30
    with open_instance(in_project) as instance:
        dagster_run = instance.get_run_by_id(trained["run_id"])
    assert dagster_run is not None
    assert dagster_run.is_success
    assert dagster_run.job_name == "train_liquidity_sweep_v3"
    assert dagster_run.tags["dagster/partition"] == "simulated:SOL-USDT:5m"
    assert "completed" in run("jobs").stdout


def test_show_prints_the_verdict_and_the_v3_document(run: Run, in_project: Path, trained: dict[str, Any]) -> None:
    configuration = trained["configuration"]
    page = run("show", configuration["id"][:8]).stdout
    assert f"PAPER: {trained['reason']}" in " ".join(page.split())
    assert "SIMULATED candles" in page
    for words in ("Out-of-sample", "In-sample", "Costs take", "Parameters", "Windows", "Fingerprint", "Lifecycle"):
        assert words in page
    document = json.loads(run("show", configuration["id"], "--json").stdout)
    assert list(document) == ["pair", "strategy", "configurations"]
    (entry,) = document["configurations"]
    assert list(entry)[:6] == ["id", "status", "metadata", "context", "parameters", "performance"]
    assert list(entry)[-2:] == ["circuit_breakers", "meta_learning_outputs"]
    assert entry["parameters"] == configuration["parameters"]
    assert entry["performance"]["NET_PROFIT"] == configuration["net_profit"]
    assert entry["performance"]["actual_slippage"] is None


def test_a_configuration_whose_candles_were_restated_is_called_stale(run: Run, in_project: Path) -> None:
    arguments = ("--source", "simulated", "--pair", "STALE/USDT", "--timeframe", "1h", *QUICK, "--json")
    (trained,) = json.loads(run("train", *arguments).stdout)
    identity, series = trained["configuration"]["id"], SeriesKey.of("simulated", "STALE/USDT", "1h")
    assert trained["configuration"]["is_stale"] is False
    assert "stale" not in run("show", identity).stdout.lower().replace("stale-usdt", "")
    with open_database(load_settings()) as database:
        last = load_candles(database, series).open_time_ms[-1]
        level = [np.array([7.0])] * 5
        restated = Candles.from_arrays(series.timeframe, np.array([last]), *level)
        assert store_candles(database, series, restated, "a test").made_stale == 1
    (listed,) = json.loads(run("results", "--pair", "STALE/USDT", "--json").stdout)
    assert listed["is_stale"] is True
    assert listed["stale_reason"].endswith("was restated by a test")
    assert "STALE" in run("results", "--pair", "STALE/USDT").stdout.replace("STALE-USDT", "")
    (market,) = [one for one in json.loads(run("markets", "--json").stdout) if one["series"] == str(series)]
    assert [one["is_stale"] for one in market["trained"]] == [True]
    page = " ".join(run("show", identity).stdout.split())
    assert f"{listed['stale_reason']}. Candles changed in all: 1. Train again." in page
    (entry,) = json.loads(run("show", identity, "--json").stdout)["configurations"]
    assert entry["metadata"]["is_stale"] is True
    assert entry["metadata"]["stale_reason"] == listed["stale_reason"]


def test_no_figure_of_a_configuration_is_cut_at_80_columns(
    run: Run, in_project: Path, trained: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = run("show", trained["configuration"]["id"]).stdout.split()
    monkeypatch.setenv("COLUMNS", "80")
    narrow = run("show", trained["configuration"]["id"]).stdout
    assert max(map(len, narrow.splitlines())) <= 80
    assert [word for word in narrow.split() if "─" not in word] == [word for word in wide if "─" not in word]


def test_markets_lists_what_is_stored_and_what_it_was_trained_to(
    run: Run, in_project: Path, trained: dict[str, Any]
) -> None:
    (market,) = [one for one in json.loads(run("markets", "--json").stdout) if one["series"] == "simulated:SOL-USDT:5m"]
    assert market["is_simulated"] is True
    assert market["candles"] > 35_000
    assert 0.9 < market["coverage"] <= 1
    (configuration,) = market["trained"]
    assert (configuration["strategy"], configuration["stage"]) == ("LIQUIDITY_SWEEP_V3", "PAPER")
    assert "SIMULATED" in run("markets").stdout


def test_the_same_seed_gives_the_same_figures_and_another_one_others(
    run: Run, in_project: Path, trained: dict[str, Any]
) -> None:
    options = ("train", "--exchange", "simulated", "--pair", "SOL/USDT", "--source", "stored", *QUICK, "--json")
    again = json.loads(run(*options, "--workers", "1").stdout)[0]["configuration"]
    other = json.loads(run(*options, "--seed", "5").stdout)[0]["configuration"]
    figures = ("parameters", "net_profit", "sharpe_ratio", "sample_size", "p_value")
    assert [again[name] for name in figures] == [trained["configuration"][name] for name in figures]
    assert again["version"] > trained["configuration"]["version"]
    assert other["parameters"] != again["parameters"]


def test_replay_confirms_to_the_bit_and_tells_when_candles_have_changed(
    run: Run, in_project: Path, trained: dict[str, Any]
) -> None:
    identity = trained["configuration"]["id"]
    done = run("replay", identity)
    assert done.exit_code == 0, done.stderr
    assert "Identical to the bit" in done.stdout
    assert "Changed since" not in done.stdout

    series = SeriesKey.parse("simulated:SOL-USDT:5m")
    with open_database(load_settings()) as database:
        stored = load_candles(database, series)
        part = stored.slice(len(stored) - 20_000, len(stored) - 10_000)
        columns = [getattr(part, name).copy() for name in ("open_time_ms", *PRICE_COLUMNS)]
        columns[-1][::2] *= 3
        store_candles(database, series, Candles.from_arrays(series.timeframe, *columns), "a test")
        try:
            changed = run("replay", identity, "--json")
        finally:
            store_candles(database, series, part, "a test")
    assert changed.exit_code == 1
    report = json.loads(changed.stdout)
    assert report["identical"] is False
    assert report["differences"]
    assert "candles" in report["changed_since"][0]


def test_no_exchange_and_nothing_stored_means_simulated_loudly(
    run: Run, in_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRADEPULSE_EXCHANGE_URL", NOWHERE)
    done = run("train", "--pair", "ADA/USDT", *QUICK)
    assert done.exit_code == 0, done.stderr
    assert "binance cannot be reached" in done.stderr
    assert "simulated:ADA-USDT:5m is trained instead" in done.stderr
    assert "LIQUIDITY_SWEEP_V3 on simulated:ADA-USDT:5m SIMULATED" in done.stdout
    assert "'tradepulse up'" in done.stdout


def test_a_market_that_fails_fails_alone(run: Run, in_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADEPULSE_EXCHANGE_URL", NOWHERE)
    options = ("train", "--source", "exchange", "--exchange", "binance,simulated", "--pair", "DOGE/USDT", *QUICK)
    done = run(*options, "--json")
    assert done.exit_code == 1
    failed, trained = json.loads(done.stdout)
    assert failed["series"] == "binance:DOGE-USDT:5m"
    assert "cannot be reached" in failed["error"]
    assert trained["configuration"]["series"] == "simulated:DOGE-USDT:5m"
    assert "1 of 2 trainings failed" in done.stderr


def test_stored_candles_are_taken_where_no_exchange_is_and_too_few_are_told(
    run: Run, in_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRADEPULSE_EXCHANGE_URL", NOWHERE)
    file = write_candles(tmp_path, "binance_DOT-USDT_5m.csv", made_up("DOT/USDT", 30))
    assert run("import", file).exit_code == 0
    done = run("train", "--pair", "DOT/USDT", *QUICK)
    assert done.exit_code == 1
    assert "Going on with the stored candles of binance:DOT-USDT:5m" in done.stderr
    assert "The history is 30 days long; one walk_forward window needs 120 days" in done.stderr
    assert jobs_of(run)[0]["status"] == "failed"


def test_import_stores_once_and_goes_on_after_a_bad_file(run: Run, in_project: Path, tmp_path: Path) -> None:
    from tradepulse_pipeline.orchestration.launch import open_instance
    from tradepulse_pipeline.orchestration.partitions import SERIES_DIMENSION

    candles = made_up("XRP/USDT", 2)
    good = write_candles(tmp_path, "binance_XRP-USDT_5m.csv", candles)
    lines = good.read_text().splitlines()
    lines[11] = lines[11].rsplit(",", 1)[0] + ",-1"
    good.write_text("\n".join(lines))
    bad = tmp_path / "binance_JUNK-USDT_5m.parquet"
    bad.write_bytes(b"no parquet")
    first = run("import", bad, good, "--json")
    assert first.exit_code == 1
    assert "binance_JUNK-USDT_5m.parquet" in first.stderr
    (report,) = json.loads(first.stdout)
    assert (report["rows"], report["stored"], report["rejected"], report["gaps"]) == (576, 575, 1, 1)
    assert report["rejected_reasons"] == "1 with a negative volume (row 11)"
    assert report["first"] == "2025-01-01T00:00:00+00:00"
    again = run("import", good)
    assert again.exit_code == 0
    assert "576 rows: 575 unchanged, 1 rejected" in again.stdout
    with open_instance(in_project) as instance:
        partitions = instance.get_dynamic_partitions(SERIES_DIMENSION)
    assert "binance:XRP-USDT:5m" in partitions
    assert "binance:JUNK-USDT:5m" not in partitions


def test_import_needs_names_from_options_or_from_the_files_name(run: Run, in_project: Path, tmp_path: Path) -> None:
    file = write_candles(tmp_path, "candles.csv", made_up("LTC/USDT", 1))
    nameless = run("import", file, "--pair", "LTC/USDT")
    assert nameless.exit_code == 1
    assert "candles.csv: --exchange and --timeframe are missing" in nameless.stderr
    assert (
        "'simulated' is the market"
        in run("import", file, "--exchange", "simulated", "--pair", "LTC/USDT", "--timeframe", "5m").stderr
    )
    named = run("import", file, "--exchange", "kraken", "--pair", "ltc/usdt", "--timeframe", "5m")
    assert named.exit_code == 0
    assert "kraken:LTC-USDT:5m" in named.stdout


def test_import_builds_candles_from_all_trade_files_together(run: Run, in_project: Path, tmp_path: Path) -> None:
    second = START_MS // 1000
    late, early = tmp_path / "q2.csv", tmp_path / "q1.csv"
    early.write_text(f"{second},90.5,1\n{second},90.25,2\n{second + 301},91,1\n")
    late.write_text(f"{second + 400},92,0.5\n{second + 1300},93,4\n")
    names = ("--from-trades", "--exchange", "kraken", "--pair", "BCH/EUR", "--timeframe", "5m")
    (report,) = json.loads(run("import", late, early, *names, "--json").stdout)
    assert (report["file"], report["rows"], report["stored"]) == ("q2.csv, q1.csv", 5, 2)
    assert (report["first"], report["last"]) == ("2025-01-01T00:00:00+00:00", "2025-01-01T00:05:00+00:00")
    with open_database(load_settings()) as database:
        candles = load_candles(database, SeriesKey.of("kraken", "BCH/EUR", "5m"))
    assert candles.open.tolist() == [90.5, 91]
    assert candles.low.tolist() == [90.25, 91]
    assert candles.close.tolist() == [90.25, 92]
    assert candles.volume.tolist() == [3, 1.5]
    early.write_text(f"{second},90.5,1\n{second + 500},91,1\n")
    refused = run("import", late, early, *names)
    assert refused.exit_code == 1
    assert "they overlap" in refused.stderr
    assert "2 of 2 files were not imported" in refused.stderr


def test_import_says_which_trades_the_files_lack(run: Run, in_project: Path, tmp_path: Path) -> None:
    file = tmp_path / "kraken_BCH-USD_1m.csv"
    file.write_text("time,price,amount,id\n" + "".join(f"{START_MS + at * 9_000},9,1,{at}\n" for at in (0, 1, 5, 8, 9)))
    done = run("import", file, "--from-trades")
    assert done.exit_code == 0
    assert "5 trades are missing among the 5 in the files" in done.stderr


def test_backtest_runs_on_stored_candles_as_on_their_file(run: Run, in_project: Path, tmp_path: Path) -> None:
    from tradepulse_pipeline_tests.cli.test_backtest_command import PARAMS

    file = write_candles(tmp_path, "kraken_ATOM-USDT_5m.csv", made_up("ATOM/USDT", 20))
    run("import", file)
    from_file = run("backtest", "--candles", file, "--params", PARAMS, "--json")
    stored = run("backtest", "--exchange", "kraken", "--pair", "ATOM/USDT", "--params", PARAMS, "--json")
    assert stored.exit_code == 0
    assert json.loads(stored.stdout) == json.loads(from_file.stdout)
    unknown = run("backtest", "--exchange", "kraken", "--pair", "ATOM/USD", "--params", PARAMS)
    assert unknown.exit_code == 2
    assert "Did you mean 'kraken:ATOM-USDT:5m'" in unknown.stderr


def test_estimate_counts_trials_and_says_whether_enough_trades_can_be_reached(run: Run, in_project: Path) -> None:
    done = run(
        "estimate", "--pair", "AVAX/USDT", "--timeframe", "15m", "--history", "200", "--method", "random", "--json"
    )
    assert done.exit_code == 0, done.stderr
    assert "No candles of binance:AVAX-USDT:15m are stored: these are estimates on the SIMULATED market" in done.stderr
    (found,) = json.loads(done.stdout)
    assert found["series"] == "simulated:AVAX-USDT:15m"
    assert found["combinations"] == 201_600
    assert (found["windows"], found["searches"]) == (3, 4)
    assert found["trials"] == 4_000
    assert found["out_of_sample_days"] == 69
    assert found["seconds"] > 0
    assert found["can_be_proved"] is (found["busiest_out_of_sample_trades"] >= 100)
    assert found["busiest_months_for_proof"] > 200 / 30.5
    page = run("estimate", "--pair", "AVAX/USDT", "--timeframe", "15m", "--history", "200")
    assert "100 out-of-sample trades cannot be reached in these windows" in " ".join(page.stdout.split())
    assert "SIMULATED" in page.stdout


def wait_for(process: subprocess.Popen[str], words: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    pytest.fail(f"the command ended before it said {words!r}")


def test_ctrl_c_cancels_the_job_and_leaves_nothing_running(run: Run, in_project: Path, start: Start) -> None:
    from tradepulse_pipeline.orchestration.launch import open_instance

    process = start("train", *LONG)
    wait_for(process, "Search: ")
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "is cancelled" in rest
    assert "Traceback" not in rest
    job = jobs_of(run)[0]
    assert job["status"] == "cancelled"
    assert {one["status"] for one in job["series"]} == {"cancelled"}
    with open_instance(in_project) as instance:
        dagster_run = instance.get_run_by_id(job["run_ids"][0])
    assert dagster_run is not None
    assert dagster_run.status.value == "CANCELED"


def test_a_killed_training_is_marked_by_the_next_command(run: Run, in_project: Path, start: Start) -> None:
    from tradepulse_pipeline.orchestration.launch import open_instance

    process = start("train", *LONG)
    wait_for(process, "Search: ")
    process.kill()
    process.wait(timeout=30)
    done = run("jobs", "--json")
    job = json.loads(done.stdout)[0]
    assert job["status"] == "failed"
    assert {one["status"] for one in job["series"]} == {"failed"}
    assert "was left open by a process that is gone: marked as failed" in done.stderr
    with open_instance(in_project) as instance:
        dagster_run = instance.get_run_by_id(job["run_ids"][0])
    assert dagster_run is not None
    assert dagster_run.status.value == "FAILURE"
    assert run("jobs").stderr == ""
