"""Trials in files: written as they are made, recalled after a kill, and never mixed up."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tradepulse_pipeline.backtest.evaluators import TabledEvaluator
from tradepulse_pipeline.backtest.result import METRIC_NAMES
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.series import MS_PER_DAY, SeriesKey, Timeframe
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate
from tradepulse_pipeline.optimizers.search import Trials
from tradepulse_pipeline.optimizers.settings import SearchSettings
from tradepulse_pipeline.orchestration import artifacts, trial_files
from tradepulse_pipeline.orchestration.artifacts import ArtifactError, ArtifactStore
from tradepulse_pipeline.orchestration.trial_files import KEPT_FOR, TrialFiles, read_blocks, trials_of_window
from tradepulse_pipeline.strategies.registry import get_strategy
from tradepulse_pipeline.strategies.space import ParameterSpace
from tradepulse_pipeline.validation.overfitting import backtest_overfitting
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline.validation.trial_luck import luck_of_trials
from tradepulse_pipeline.validation.trials import N_BLOCKS
from tradepulse_pipeline.validation.walk_forward import LATEST, search_windows
from tradepulse_pipeline.validation.windows import WindowSettings

SPACE = ParameterSpace(get_strategy("LIQUIDITY_SWEEP_V3").parameters)
START = 1_704_067_200_000
IDENTITY = {"series": "binance:BTC-USDT:5m", "training": "a"}


def trials_of(first, last):
    rng = np.random.default_rng(first)
    metrics = rng.normal(size=(last - first, len(METRIC_NAMES)))
    metrics[rng.random(len(metrics)) < 0.5, METRIC_NAMES.index("profit_factor")] = np.nan
    objective = np.where(rng.random(len(metrics)) < 0.5, np.nan, metrics[:, 0])
    return Trials(combination=np.arange(first, last), metrics=metrics, objective=objective)


def assert_same(found, expected):
    for name in Trials.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.fixture
def folder(tmp_path):
    return ArtifactStore(str(tmp_path)).folder(("branch", "results"), SeriesKey.parse("binance:BTC-USDT:5m"))


@pytest.fixture
def files_of(folder):
    """Makes keepers of the folder; what they warn of is in ``warned``."""

    def make(identity=IDENTITY, finished=None):
        return TrialFiles(folder, identity, SPACE, finished=finished, on_warning=make.warned.append)

    make.warned = []
    return make


class Killed(BaseException):
    pass


def searched(files, *parts, error=None):
    """Keep trials of windows as a search would that ends with an error, or is finished."""
    with files:
        for window, trials in parts:
            files.recall(window)
            files.keep(window, trials)
        if error is not None:
            raise error
        return files.finish()


def interrupted(files, *parts):
    with pytest.raises(Killed):
        searched(files, *parts, error=Killed())


def test_an_interrupted_search_leaves_all_its_trials(files_of):
    interrupted(files_of(), (LATEST, trials_of(0, 50)), (8, trials_of(50, 60)))
    with files_of() as files:
        assert_same(files.recall(LATEST), trials_of(0, 50))
        assert_same(files.recall(8), trials_of(50, 60))
        assert files.recall(7) is None


def test_trials_go_on_where_they_were_in_files_of_a_bounded_size(files_of, monkeypatch, folder):
    monkeypatch.setattr(trial_files, "MOST_HELD", 20)
    parts = [trials_of(0, 15), trials_of(15, 30), trials_of(30, 45), trials_of(45, 47)]
    interrupted(files_of(), (3, parts[0]))
    with files_of() as files:
        assert_same(files.recall(3), parts[0])
        for part in parts[1:]:
            files.keep(3, part)
        found = files.finish()
    names = folder.folder(found.name).folder("trials").names()
    assert names == [f"window-003-{k:04d}.parquet" for k in range(3)]
    paths = [Path(found.url, "trials", name) for name in names]
    assert [pl.read_parquet(path).height for path in paths] == [15, 30, 2]
    table = pl.read_parquet(f"{found.url}/trials/*.parquet")
    assert table["trial"].to_list() == list(range(47))
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in paths]
    assert found.sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()
    with files_of() as files:
        assert_same(files.recall(3), Trials.joined(parts))


def test_trials_are_written_when_they_were_held_for_long(files_of, monkeypatch, folder):
    monkeypatch.setattr(trial_files, "LONGEST_HELD_S", 0.0)
    with pytest.raises(ArithmeticError):  # no interrupt: what is held by then is not written
        searched(files_of(), (0, trials_of(0, 5)), error=ArithmeticError())
    with files_of() as files:
        assert_same(files.recall(0), trials_of(0, 5))


def test_another_training_recalls_nothing(files_of):
    interrupted(files_of(), (LATEST, trials_of(0, 50)))
    with files_of({**IDENTITY, "training": "b"}) as files:
        assert files.recall(LATEST) is None


def test_a_finished_training_made_again_leaves_the_first_in_place_until_it_is_done(files_of, folder):
    first = searched(files_of(), (LATEST, trials_of(0, 5)))
    interrupted(files_of(finished=first.name), (LATEST, trials_of(0, 3)))
    assert folder.names() == [first.name, f"{first.name}-again"]
    with files_of(finished=first.name) as files:
        assert_same(files.recall(LATEST), trials_of(0, 3))
        second = files.finish()
        files.remove_finished()
    assert folder.names() == [second.name]
    with files_of(finished=second.name) as files:
        assert files.recall(LATEST) is None


def test_a_damaged_file_is_made_again_with_those_that_follow(files_of, monkeypatch, folder):
    monkeypatch.setattr(trial_files, "MOST_HELD", 1)
    with files_of() as files:
        files.recall(0)
        for k in range(4):
            files.keep(0, trials_of(10 * k, 10 * k + 10))
        whole = files.finish()
    damaged = Path(whole.url, "trials", "window-000-0002.parquet")
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with files_of() as files:
        assert_same(files.recall(0), Trials.joined([trials_of(0, 10), trials_of(10, 20)]))
        assert "window-000-0002.parquet is damaged" in files_of.warned[0]
        assert "are made again" in files_of.warned[0]
        for k in (2, 3):
            files.keep(0, trials_of(10 * k, 10 * k + 10))
        assert files.finish() == whole


def test_what_old_unfinished_searches_left_is_removed_and_nothing_else(files_of, folder):
    for training in ("old", "young", "finished"):
        interrupted(files_of({"training": training}), (LATEST, trials_of(0, 5)))
    names = {training: files_of({"training": training})._name for training in ("old", "young", "finished")}
    long_ago = time.time() - KEPT_FOR.total_seconds() - 60
    for training in ("old", "finished"):
        for file in Path(folder.url, names[training]).rglob("*.parquet"):
            os.utime(file, (long_ago, long_ago))
    with files_of({"training": "new"}, finished=names["finished"]):
        assert set(folder.names()) == {names["young"], names["finished"]}


def test_a_disk_that_is_full_ends_the_search_with_a_reason(files_of, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artifacts.os, "fsync", fail)
    with pytest.raises(ArtifactError, match=r"Could not write .*latest-0000\.parquet .*No space left"):
        searched(files_of(), (LATEST, trials_of(0, 5)))


@pytest.fixture
def kept_blocks(files_of, folder):
    """Combinations, sums and squares, and the folder where they were kept in two files."""
    rng = np.random.default_rng(0)
    blocks = rng.permutation(6), rng.normal(size=(6, N_BLOCKS)), rng.random(size=(6, N_BLOCKS))
    with files_of() as files:
        for rows in (slice(0, 4), slice(4, 6)):
            files.keep_blocks(*(part[rows] for part in blocks))
        found = files.finish()
    return blocks, folder.folder(found.name)


def test_sums_and_squares_by_block_are_rows_by_combination(kept_blocks):
    (combination, sums, squares), folder = kept_blocks
    table = pl.read_parquet(f"{folder.url}/blocks/*.parquet")
    assert table.columns == ["combination", *(f"{kind}_{k}" for kind in ("block", "square") for k in range(16))]
    np.testing.assert_array_equal(table.to_numpy(), np.column_stack([combination, sums, squares]))


def test_sums_and_squares_by_block_come_back_as_they_were_kept(kept_blocks):
    blocks, folder = kept_blocks
    for found, kept in zip(read_blocks(folder), blocks, strict=True):
        np.testing.assert_array_equal(found, kept)
        assert (found.dtype, found.flags.c_contiguous) == (kept.dtype, True)


def test_what_a_search_kept_tells_how_likely_it_overfits(files_of, folder):
    series, timeframe = SeriesKey.parse("simulated:BTC-USDT:5m"), Timeframe("5m")
    candles = simulate(series.market, timeframe, START, START + 28 * MS_PER_DAY, SimulatedMarketSettings(edge=8.0))
    strategy = get_strategy("LIQUIDITY_SWEEP_V3")
    frame = IndicatorFrame.compute(candles, strategy.indicators)
    search = SearchSettings(budget=40, minimum_trades=3)
    settings = TrainingSettings(search=search, windows=WindowSettings(train_days=10, test_days=6, gap_days=1))
    with files_of() as files:
        search_windows(frame, strategy, settings, keeper=files)
        found = files.finish()
    combination, sums, squares = read_blocks(folder.folder(found.name))
    assert len(set(combination.tolist())) == 40
    expected = TabledEvaluator(frame, strategy).block_moments(combination, N_BLOCKS)
    np.testing.assert_array_equal((sums, squares), expected)
    n_traded = np.count_nonzero(squares.any(axis=1))
    overfitting = backtest_overfitting(sums, squares)
    assert 2 <= overfitting.n_trials == n_traded
    assert 0 <= overfitting.probability <= 1
    assert 1 <= luck_of_trials(sums, squares).effective_trials <= n_traded


def test_a_damaged_file_of_blocks_is_refused(kept_blocks):
    _, folder = kept_blocks
    damaged = Path(folder.url, "blocks", "0001.parquet")
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match=r"0001\.parquet is damaged"):
        read_blocks(folder)


def test_a_search_that_ran_out_of_time_kept_no_blocks(files_of, folder):
    found = searched(files_of(), (LATEST, trials_of(0, 5)))
    combination, sums, squares = read_blocks(folder.folder(found.name))
    assert (combination.shape, sums.shape, squares.shape) == ((0,), (0, N_BLOCKS), (0, N_BLOCKS))
    assert backtest_overfitting(sums, squares) is None


@pytest.mark.parametrize("base", ["file", "memory"])
def test_columns_of_one_window_are_read_from_wherever_they_are(base, tmp_path, monkeypatch):
    monkeypatch.setattr(trial_files, "MOST_HELD", 20)
    url = str(tmp_path) if base == "file" else f"memory://{tmp_path.name}"
    folder = ArtifactStore(url).folder(("branch", "results"), SeriesKey.parse("binance:BTC-USDT:5m"))
    files = TrialFiles(folder, IDENTITY, SPACE, finished=None, on_warning=pytest.fail)
    latest = [trials_of(0, 30), trials_of(30, 60)]
    with files:
        files.recall(LATEST)
        for trials in latest:
            files.keep(LATEST, trials)
        files.recall(0)
        files.keep(0, trials_of(60, 70))
        found = files.finish()
    training, columns = folder.folder(found.name), ["sharpe_ratio", "objective"]
    table = trials_of_window(training, LATEST, columns)
    assert table.columns == columns
    expected = Trials.joined(latest)
    np.testing.assert_array_equal(table["objective"].fill_null(np.nan), expected.objective)
    np.testing.assert_array_equal(table["sharpe_ratio"], expected.metrics[:, METRIC_NAMES.index("sharpe_ratio")])
    assert trials_of_window(training, 0, columns).height == 10
    assert trials_of_window(training, 1, columns).height == 0
