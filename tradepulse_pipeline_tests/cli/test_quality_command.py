"""``tradepulse quality`` says what is wrong with stored candles, where, and what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tradepulse_pipeline.cli.database import open_database
from tradepulse_pipeline.database.candles import store_candles
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import MS_PER_DAY, Market, SeriesKey, Timeframe
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate
from tradepulse_pipeline.settings import load_settings

if TYPE_CHECKING:
    from tradepulse_pipeline_tests.cli.conftest import Run

START_MS = 1_735_689_600_000  # 2025-01-01
GAP = range(3_000, 3_012)
MISTAKE = 5_000


def made_up() -> Candles:
    settings = SimulatedMarketSettings(seed=1, outages_per_year=0)
    end = START_MS + 30 * MS_PER_DAY
    return simulate(Market.parse("simulated", "BTC/USDT"), Timeframe("5m"), START_MS, end, settings)


def broken() -> Candles:
    """Candles with a gap and a decimal point that slipped."""
    candles = made_up()
    kept = ~np.isin(np.arange(len(candles)), GAP)
    low, volume = candles.low.copy(), candles.volume.copy()
    low[MISTAKE] /= 10
    volume[MISTAKE] = np.median(volume[MISTAKE - 50 : MISTAKE + 51])
    columns = (candles.open, candles.high, low, candles.close, volume)
    return Candles.from_arrays(candles.timeframe, candles.open_time_ms[kept], *(column[kept] for column in columns))


@pytest.fixture(scope="module")
def stored(shared_project: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shared_project)
        with open_database(load_settings()) as database:
            for key, candles in (("bitstamp:BTC-USD:5m", broken()), ("bitstamp:ETH-USD:5m", made_up())):
                store_candles(database, SeriesKey.parse(key), candles, "file")


def test_without_a_series_there_is_a_line_for_each(
    run: Run, in_project: Path, stored: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # other tests may have stored series with longer names
    done = run("quality")
    assert done.exit_code == 1, done.stderr
    lines = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if ":5m" in line}
    assert "bitstamp:BTC-USD:5m" in lines, done.output
    assert lines["bitstamp:BTC-USD:5m"] == ["not", "fit", "8,628", "99.9", "%", "1", "0", "1", "1", "2"]
    assert lines["bitstamp:ETH-USD:5m"] == ["fit", "8,640", "100.0", "%", "0", "0", "0", "0", "1"]


def test_the_whole_report_of_a_series_says_what_to_do(run: Run, in_project: Path, stored: None) -> None:
    done = run("quality", "bitstamp:BTC-USD:5m")
    page = " ".join(done.stdout.split())
    assert done.exit_code == 1
    assert page.startswith("bitstamp:BTC-USD:5m: not fit to train on Candles 8,628 of 8,640 (99.9 %)")
    assert "Error: The candle of 2025-01-18T08:40Z is likely a mistake" in page
    assert "'tradepulse quarantine add bitstamp:BTC-USD:5m 2025-01-18T08:40Z' sets it aside" in page
    assert "'tradepulse quarantine keep bitstamp:BTC-USD:5m 2025-01-18T08:40Z' says that it is true" in page
    assert "2025-01-11 10:00 unknown 12 1 h 0 of 1" in page
    assert "2025-01-18 08:40 likely error the price came back at once" in page
    assert page.index("Error:") < page.index("Warning:")


def test_a_series_without_errors_ends_with_success(run: Run, in_project: Path, stored: None) -> None:
    done = run("quality", "bitstamp:ETH-USD:5m")
    assert done.exit_code == 0
    assert "bitstamp:ETH-USD:5m: fit to train on" in done.stdout
    assert "candles should have followed by now" in " ".join(done.stdout.split())


def test_json_has_every_figure(run: Run, in_project: Path, stored: None) -> None:
    done = run("quality", "bitstamp:BTC-USD:5m", "--json")
    (report,) = json.loads(done.stdout)
    assert done.exit_code == 1
    assert (report["series"], report["is_fit_for_training"]) == ("bitstamp:BTC-USD:5m", False)
    assert report["gaps"] == [
        {
            "from": "2025-01-11T10:00:00+00:00",
            "candles": 12,
            "cause": "unknown",
            "other_pairs": 1,
            "other_pairs_missing": 0,
        }
    ]
    (outlier,) = report["outliers"]
    assert (outlier["time"], outlier["judgement"]) == ("2025-01-18T08:40:00+00:00", "likely error")
    assert [problem["severity"] for problem in report["problems"]] == ["error", "warning", "warning"]


def test_an_unknown_series_is_named_with_the_nearest(run: Run, in_project: Path, stored: None) -> None:
    done = run("quality", "bitstamp:BTC-USDT:5m")
    assert done.exit_code == 2
    assert "bitstamp:BTC-USD:5m" in done.stderr


def test_without_candles_it_says_how_to_get_some(run: Run, own_project: Path) -> None:
    done = run("quality")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "tradepulse import" in done.stderr
