from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tradepulse_pipeline.cli.database import open_database
from tradepulse_pipeline.database.candles import load_candles, store_candles
from tradepulse_pipeline.database.quarantine import RefusedRow, confirmed_times, quarantine
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tradepulse_pipeline.database.connection import Database
    from tradepulse_pipeline_tests.cli.conftest import Run

MARCH = 1_740_787_200_000
STEP = 300_000
COMMANDS = ("list", "add", "release", "dismiss", "keep")


@pytest.fixture
def database(in_project: object) -> Iterator[Database]:
    with open_database(load_settings()) as database:
        yield database


@pytest.fixture
def series(database: Database, request: pytest.FixtureRequest) -> SeriesKey:
    """A series of the test's own, with three candles."""
    series = SeriesKey.of("binance", f"Q{abs(hash(request.node.name)) % 10**9}/USDT", "5m")
    level = np.array([100.0, 10.0, 100.0])
    times = MARCH + STEP * np.arange(3)
    candles = Candles.from_arrays(series.timeframe, times, level, level, level, level, level)
    store_candles(database, series, candles, "binance")
    return series


@pytest.fixture
def refuse(database: Database, series: SeriesKey) -> Callable[..., int]:
    """Put a row into quarantine and return its number."""

    def add(**changes: object) -> int:
        raw = {"open_time_ms": MARCH + 5 * STEP, "open": 2.0, "high": 3.0, "low": 1.0, "close": 2.0, "volume": 7.0}
        quarantine(database, series, [RefusedRow(row_number=0, raw={**raw, **changes}, reason="[odd]")], "file a.csv")
        rows = database.run(lambda c: c.execute("SELECT max(id) FROM market_data_quarantine").fetchall())
        return int(rows[0][0])

    return add


def listed(run: Run, *arguments: str) -> list[dict[str, object]]:
    return json.loads(run("quarantine", "list", *arguments, "--json").stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_to_give_and_shows_an_example(run: Run, command: str) -> None:
    done = run("quarantine", command, "--help")
    assert done.exit_code == 0
    assert f"$ tradepulse quarantine {command}" in done.stdout


def test_an_empty_quarantine_is_told(run: Run, series: SeriesKey) -> None:
    done = run("quarantine", "list", str(series))
    assert (done.exit_code, done.stdout) == (0, "")
    assert "Nothing is in quarantine." in done.stderr


def test_a_wrong_candle_is_set_aside_listed_and_released(run: Run, database: Database, series: SeriesKey) -> None:
    done = run("quarantine", "add", str(series), "2025-03-01T00:05", "--reason", "a tenth of [the] price")
    assert (done.exit_code, done.stdout) == (0, "2025-03-01T00:05:00+00:00: set aside\n")
    assert load_candles(database, series).open.tolist() == [100.0, 100.0]
    page = " ".join(run("quarantine", "list", str(series)).stdout.split())
    assert "2025-03-01 00:05" in page
    assert "[the]" in page
    (row,) = listed(run, str(series))
    assert (row["open_time"], row["reason"]) == ("2025-03-01T00:05:00+00:00", "a tenth of [the] price")
    assert (row["is_set_aside"], row["source"], row["decision"]) == (True, "binance", None)
    assert row in listed(run)
    done = run("quarantine", "release", str(row["id"]))
    assert (done.exit_code, done.stdout) == (0, f"{row['id']}: released\n")
    assert load_candles(database, series).open.tolist() == [100.0, 10.0, 100.0]
    assert confirmed_times(database, series).tolist() == [MARCH + STEP]
    assert listed(run, str(series)) == []
    assert [one["decision"] for one in listed(run, str(series), "--all")] == ["released"]
    assert "released" in run("quarantine", "list", str(series), "--all").stdout


def test_each_decision_is_reported_and_a_refused_one_does_not_stop_the_others(
    run: Run, series: SeriesKey, refuse: Callable[..., int]
) -> None:
    broken, sound = refuse(high=0.5), refuse()
    done = run("quarantine", "release", str(broken), "999999999", str(sound))
    assert done.exit_code == 1
    assert done.stdout == f"{sound}: released\n"
    assert f"Row {broken} of {series} cannot be a candle: it is one with the high below" in done.stderr
    assert "There is no row 999999999" in done.stderr
    done = run("quarantine", "dismiss", str(broken), str(sound))
    assert (done.exit_code, done.stdout) == (1, f"{broken}: dismissed\n")
    assert f"Row {sound} was released" in done.stderr


def test_a_row_without_a_time_or_numbers_is_shown_all_the_same(
    run: Run, series: SeriesKey, refuse: Callable[..., int]
) -> None:
    refuse(open_time_ms=float("nan"), open=float("inf"), high=None)
    page = run("quarantine", "list", str(series))
    assert page.exit_code == 0
    assert "–" in page.stdout
    (row,) = listed(run, str(series))
    assert (row["open_time"], row["raw"]["open"]) == (None, "inf")  # type: ignore[index]


def test_an_extreme_candle_is_kept_as_true(run: Run, database: Database, series: SeriesKey) -> None:
    done = run("quarantine", "keep", str(series), "2025-03-01T00:05", "2025-03-01T00:06", "2025-03-01")
    assert done.exit_code == 1
    assert done.stdout == "2025-03-01T00:05:00+00:00: kept as true\n2025-03-01T00:00:00+00:00: kept as true\n"
    assert "No candle of" in done.stderr
    assert confirmed_times(database, series).tolist() == [MARCH, MARCH + STEP]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("add", "binance:BTC-USDT:5m", "yesterday"), "TIME: found 'yesterday', expected an ISO 8601"),
        (("add", "BTC-USDT", "2025-03-01"), "expected 'exchange:BASE-QUOTE:timeframe'"),
        (("keep", "binance:BTC-USDT:5m'; DROP TABLE trials; --", "2025-03-01"), "Unknown timeframe"),
        (("list", "binance:X'--Y:5m"), "is not valid"),
        (("release", "1; DROP TABLE trials"), "Usage: tradepulse quarantine release"),
    ],
)
def test_wrong_input_is_told_before_anything_starts(run: Run, arguments: tuple[str, ...], message: str) -> None:
    done = run("quarantine", *arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())


def test_metacharacters_in_a_reason_are_inert(run: Run, series: SeriesKey) -> None:
    text = "'); DROP TABLE trials; -- %s {} [bold]"
    assert run("quarantine", "add", str(series), "2025-03-01", "--reason", text).exit_code == 0
    assert [row["reason"] for row in listed(run, str(series))] == [text]
