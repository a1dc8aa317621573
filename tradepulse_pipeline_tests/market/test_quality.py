"""The quality report says what the candles are, no more and no less."""

from __future__ import annotations

import csv
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.quality import MINIMUM_CANDLES, Gap, assess
from tradepulse_pipeline.market.quality.outliers import Outlier
from tradepulse_pipeline.market.series import Timeframe
from tradepulse_pipeline.market.sources.files import read_candle_file

STEP = 3_600_000
START = 1_735_689_600_000


def candles(*, at=None, n=400, close=None, volume=None, flat=0):
    at = np.arange(n) if at is None else np.asarray(at)
    close = np.full(len(at), 100.0) if close is None else np.asarray(close, dtype=float)
    spread = np.where(np.arange(len(at)) < flat, 0.0, 1.0)
    volume = np.ones(len(at)) if volume is None else volume
    return Candles.from_arrays(
        Timeframe("1h"),
        START + STEP * at,
        close,
        close + spread,
        close - spread,
        close,
        np.asarray(volume, dtype=float),
    )


def test_good_candles_have_no_problems():
    report = assess(candles())
    assert report.problems == ()
    assert report.is_fit_for_training
    assert (report.n_candles, report.n_expected, report.coverage, report.gaps) == (400, 400, 1.0, ())
    assert (report.first_ms, report.last_ms) == (START, START + 399 * STEP)


def test_no_candles_are_reported_as_such():
    report = assess(candles(n=0))
    assert (report.n_candles, report.coverage, report.first_ms, report.largest_move_ms) == (0, 0.0, None, None)
    assert [problem.sentence for problem in report.problems] == ["There are 0 candles; at least 300 are needed."]
    assert not report.is_fit_for_training


@pytest.mark.parametrize(("n", "is_fit"), [(MINIMUM_CANDLES - 1, False), (MINIMUM_CANDLES, True)])
def test_too_few_candles_forbid_a_training(n, is_fit):
    assert assess(candles(n=n)).is_fit_for_training is is_fit


def test_candles_that_are_mostly_missing_forbid_a_training():
    report = assess(candles(at=np.append(np.arange(400), 1000)))
    assert not report.is_fit_for_training
    assert report.problems[0].sentence == "Only 401 of 1001 candles (40.1%) are there; at least 50% are needed."


def test_gaps_are_found_and_filled_candles_are_still_missing():
    holey = candles(at=np.delete(np.arange(400), [5, 50, 51, 52, 53]))
    gaps = (Gap(START + 5 * STEP, 1, cause="unknown"), Gap(START + 50 * STEP, 4, cause="unknown"))
    raw, filled = assess(holey), assess(holey.filled_forward())
    assert raw.gaps == filled.gaps == gaps
    assert (raw.n_missing, raw.n_filled, filled.n_filled) == (5, 0, 1)
    assert (raw.coverage, filled.coverage) == (395 / 400, 395 / 400)
    (problem,) = raw.problems
    assert problem.severity == "warning"
    assert problem.sentence.startswith(
        "5 candles are missing in 2 gaps, 4 of them in the longest, from 2025-01-03T02:00Z"
    )


def test_frozen_candles_and_large_moves_are_warned_of_and_kept():
    close = np.full(400, 100.0)
    close[200:] = 130.0
    report = assess(candles(close=close, volume=np.arange(400) >= 40, flat=30))
    assert report.is_fit_for_training
    assert (report.n_zero_volume, report.n_flat, report.n_large_moves) == (40, 30, 1)
    assert report.largest_move == pytest.approx(0.3)
    assert report.largest_move_ms == START + 200 * STEP
    sentences = [problem.sentence for problem in report.problems]
    assert [sentence.split(" (")[0] for sentence in sentences[:2]] == ["40 of 400 candles", "30 of 400 candles"]
    assert "the largest 30.0% at 2025-01-09T08:00Z" in sentences[2]


def documented_files(folder):
    """The rows of the tables in the folder's README, by file."""
    for line in (folder / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 15 and cells[0].startswith("`"):
            yield cells[0].strip("`"), cells


def utc(text):
    return int(datetime.fromisoformat(text.replace("Z", "")).replace(tzinfo=UTC).timestamp() * 1000)


def test_real_candles_are_what_their_description_says(market_data_dir):
    described = dict(documented_files(market_data_dir))
    assert len(described) == 47
    # This file's description counts 43 rows off the grid, which are no valid candles.
    del described["vintage-2020-02/binance_BTC-USDT_1h.parquet"]
    for name, cells in described.items():
        timeframe, first, last, *counts, largest_move = cells[3:13]
        report = assess(read_candle_file(market_data_dir / name, Timeframe(timeframe)).candles)
        found = (
            report.n_candles,
            len(report.gaps),
            report.n_missing,
            max((gap.n_missing for gap in report.gaps), default=0),
            report.n_zero_volume,
            report.n_flat,
        )
        assert found == tuple(int(count.replace(",", "")) for count in counts), name
        assert (report.first_ms, report.last_ms) == (utc(first), utc(last)), name
        assert report.largest_move * 100 == pytest.approx(float(largest_move.rstrip("%").replace(",", "")), abs=0.06), (
            name
        )


def test_every_listed_gap_of_real_candles_is_found(market_data_dir):
    listed: dict[str, list[tuple[int, int]]] = {}
    with (market_data_dir / "gaps.csv").open() as file:
        for row in csv.DictReader(file):
            gap = (utc(row["first_missing_utc"]), int(row["missing_candles"]))
            listed.setdefault(row["file"], []).append(gap)
    assert sum(map(len, listed.values())) == 273
    # The 43 rows of this file off the grid are no candles: what the list counts as there, is missing.
    off_grid = listed.pop("vintage-2020-02/binance_BTC-USDT_1h.parquet")
    for name, gaps in listed.items():
        assert found_gaps(market_data_dir / name) == gaps, name
    found = found_gaps(market_data_dir / "vintage-2020-02/binance_BTC-USDT_1h.parquet")
    outage, restart = utc("2018-02-08T01:00"), utc("2018-02-11T04:00")
    assert [gap for gap in found if not outage <= gap[0] < restart] == [
        gap for gap in off_grid if not outage <= gap[0] < restart
    ]


def found_gaps(path):
    timeframe = Timeframe(path.stem.split("_")[-1])
    return [(gap.start_ms, gap.n_missing) for gap in assess(read_candle_file(path, timeframe).candles).gaps]


def test_a_market_that_rarely_trades_is_not_trained_on(market_data_dir):
    report = assess(read_candle_file(market_data_dir / "kraken_BTC-USDC_1m.parquet", Timeframe("1m")).candles)
    assert not report.is_fit_for_training
    assert "Only 56717 of 129600 candles (43.8%)" in report.problems[0].sentence


def test_a_fall_to_almost_nothing_can_be_reported():
    """1 + move rounds to 0: the price fell by more than sixteen orders of magnitude."""
    n = 400
    times, flat = START + np.arange(n) * 3_600_000, np.full(n, 100.0)
    report = assess(Candles.from_arrays(Timeframe("1h"), times, flat, flat, flat, flat, np.ones(n)))
    fallen = Outlier(
        kind="spike", open_time_ms=START, open=1e20, high=1e20, low=1.0, close=1.0, volume=1.0, move=-1.0,
        volume_ratio=1.0, judgement="undecided", reason="it is the last one", is_confirmed=False,
    )  # fmt: skip
    (warning,) = [one for one in replace(report, outliers=(fallen,)).warnings if "extreme" in one]
    assert "(-100.0%)" in warning
