"""Following markets from the command line: the list in tradepulse.toml, and the partitions of the web UI."""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tradepulse_pipeline.market.series import MS_PER_DAY, SeriesKey
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate
from tradepulse_pipeline.orchestration.followed import declared_among
from tradepulse_pipeline.orchestration.launch import add_partitions, open_instance
from tradepulse_pipeline_tests.cli.conftest import Run, Start
from tradepulse_pipeline_tests.loopback import LoopbackExchange

BTC, ETH = "binance:BTC-USDT:1h", "binance:ETH-USDT:1h"


@pytest.fixture
def exchange(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackExchange]:
    end = time.time_ns() // 1_000_000 // MS_PER_DAY * MS_PER_DAY
    series = {
        key: simulate(key.market, key.timeframe, end - 2 * MS_PER_DAY, end, SimulatedMarketSettings())
        for key in map(SeriesKey.parse, (BTC, ETH))
    }
    with LoopbackExchange(series) as exchange:
        monkeypatch.setenv("TRADEPULSE_EXCHANGE_URL", exchange.base_url)
        yield exchange


@pytest.fixture
def project(in_project: Path) -> Iterator[Path]:
    """A project whose settings and partitions no other test sees, and which has none of theirs."""
    forget(in_project)
    yield in_project
    forget(in_project)


def forget(project: Path) -> None:
    (project / "tradepulse.toml").unlink(missing_ok=True)
    with open_instance(project) as instance:
        for key in instance.get_dynamic_partitions("series"):
            instance.delete_dynamic_partition("series", key)


def declared(project: Path) -> list[str]:
    return tomllib.loads((project / "tradepulse.toml").read_text()).get("markets", [])


def followed(project: Path) -> list[str]:
    with open_instance(project) as instance:
        return list(instance.get_dynamic_partitions("series"))


def test_markets_alone_lists_candles_as_before(run: Run, project: Path) -> None:
    done = run("markets", "--json")
    assert (done.exit_code, type(json.loads(done.stdout))) == (0, list)


@pytest.mark.parametrize("command", ["add", "remove", "list"])
def test_help_shows_an_example(run: Run, command: str) -> None:
    done = run("markets", command, "--help")
    assert done.exit_code == 0
    assert f"$ tradepulse markets {command}" in done.stdout


def test_added_series_are_declared_and_followed_and_what_comes_next_is_said(
    run: Run, project: Path, exchange: LoopbackExchange
) -> None:
    (project / "tradepulse.toml").write_text("seed = 3  # luck\n\n[filters]\n")
    done = run("markets", "add", "binance:btc/usdt:1h", ETH)
    assert (done.exit_code, done.stdout) == (0, f"{BTC}: is followed\n{ETH}: is followed\n")
    assert "'tradepulse up' starts the web UI, whose sensor declared_markets fetches" in done.stderr
    assert (project / "tradepulse.toml").read_text().startswith("seed = 3  # luck\n")
    assert (declared(project), followed(project)) == ([BTC, ETH], [BTC, ETH])
    with open_instance(project) as instance:
        assert declared_among(instance, {BTC, ETH}) == {BTC, ETH}

    before = (project / "tradepulse.toml").read_bytes()
    done = run("markets", "add", ETH, BTC)
    assert (done.exit_code, done.stdout) == (0, f"{ETH}: was followed already\n{BTC}: was followed already\n")
    assert done.stderr == ""
    assert (project / "tradepulse.toml").read_bytes() == before

    listed = json.loads(run("markets", "list", "--json").stdout)
    assert listed == [{"series": key, "is_declared": True, "is_followed": True} for key in (BTC, ETH)]
    assert "tradepulse.toml" in run("markets", "list").stdout


def test_a_command_that_was_killed_half_way_is_completed_by_the_next(
    run: Run, project: Path, exchange: LoopbackExchange
) -> None:
    (project / "tradepulse.toml").write_text(f'markets = ["{BTC}"]\n')  # as if the partition had not been added yet
    assert json.loads(run("markets", "list", "--json").stdout)[0]["is_followed"] is False
    assert run("markets", "add", BTC).stdout == f"{BTC}: is followed\n"
    assert followed(project) == [BTC]
    (project / "tradepulse.toml").write_text("")  # and here as if it had not been removed yet
    assert run("markets", "remove", BTC).exit_code == 0
    assert followed(project) == []


def test_removed_series_leave_list_and_web_ui(run: Run, project: Path, exchange: LoopbackExchange) -> None:
    run("markets", "add", BTC, ETH)
    add_partitions(project, ["simulated:OWN-USDT:1h"])
    done = run("markets", "remove", "binance:BTC/USDT:1h", "simulated:OWN-USDT:1h")
    kept = "is not followed any more. Its candles and configurations are kept."
    assert (done.exit_code, done.stdout) == (0, f"{BTC}: {kept}\nsimulated:OWN-USDT:1h: {kept}\n")
    assert (declared(project), followed(project)) == ([ETH], [ETH])
    done = run("markets", "remove", BTC)
    assert (done.exit_code, done.stdout) == (0, "")
    assert f"Unknown series '{BTC}' in what is followed. Did you mean '{ETH}'" in done.stderr


def test_a_pair_that_the_exchange_does_not_have_changes_nothing(
    run: Run, project: Path, exchange: LoopbackExchange
) -> None:
    done = run("markets", "add", BTC, "binance:ETHH/USDT:1h", "binnance:BTC/USDT:1h")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Unknown pair 'ETHH/USDT' in binance. Did you mean 'ETH/USDT'" in done.stderr
    assert "Unknown exchange 'binnance'. Did you mean 'binance'" in done.stderr
    assert "Nothing was changed." in done.stderr
    assert (project / "tradepulse.toml").exists() is False
    assert followed(project) == []


def test_an_exchange_that_cannot_be_reached_does_not_stop_anybody(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRADEPULSE_EXCHANGE_URL", "http://127.0.0.1:9")
    done = run("markets", "add", BTC)
    assert (done.exit_code, done.stdout) == (0, f"{BTC}: is followed\n")
    assert f"Whether it has {BTC} could not be looked up." in done.stderr
    assert followed(project) == [BTC]


@pytest.mark.parametrize("command", ["add", "remove"])
@pytest.mark.parametrize(
    ("series", "said"),
    [
        ("BTC/USDT", "expected 'exchange:BASE-QUOTE:timeframe'"),
        ("binance:BTC/USDT:5min", "Unknown timeframe '5min'. Did you mean '5m'"),
        ("binance:B'); DROP TABLE trials;--/USDT:5m", "is not valid"),
    ],
)
def test_wrong_input_is_told_before_anything_starts(run: Run, command: str, series: str, said: str) -> None:
    done = run("markets", command, series)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in " ".join(done.stderr.split())


def test_a_list_in_the_environment_is_not_changed_behind_its_back(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADEPULSE_MARKETS", BTC)
    done = run("markets", "add", ETH)
    assert done.exit_code == 2
    assert "TRADEPULSE_MARKETS in the environment says which series are followed" in done.stderr


def test_the_settings_are_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADEPULSE_MARKETS", f"{BTC}, {ETH}")
    monkeypatch.setenv("TRADEPULSE_LISTINGS", "exchanges=binance+kraken,quote=USD")
    shown = json.loads(run("config", "--json").stdout)
    assert shown["markets"] == {"value": [BTC, ETH], "origin": "environment TRADEPULSE_MARKETS"}
    assert shown["listings"]["value"]["exchanges"] == ["binance", "kraken"]
    assert "quote=USD" in run("config").stdout


def test_a_kill_at_any_moment_leaves_a_file_that_can_be_read(
    start: Start, own_project: Path, exchange: LoopbackExchange
) -> None:
    (own_project / "tradepulse.toml").write_text("# mine\n")
    for wait in (0.5, 1.0, 1.5, 2.0):
        process = start("markets", "add", BTC)
        time.sleep(wait)
        process.kill()
        process.communicate()
        assert (own_project / "tradepulse.toml").read_text().startswith("# mine\n")
        assert declared(own_project) in ([], [BTC])
    process = start("markets", "add", BTC)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert (declared(own_project), followed(own_project)) == ([BTC], [BTC])
