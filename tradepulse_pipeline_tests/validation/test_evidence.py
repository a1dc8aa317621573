"""The evidence of a training: put together from what was tried and what came of it, and nothing made up."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.series import MS_PER_DAY, Market, Timeframe
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate
from tradepulse_pipeline.optimizers.settings import SearchSettings
from tradepulse_pipeline.strategies.registry import get_strategy
from tradepulse_pipeline.validation.evidence import (
    DAYS_PER_YEAR,
    EvidenceReport,
    TrialBlocks,
    gather_evidence,
    procedure_returns,
)
from tradepulse_pipeline.validation.sharpe import ReturnMoments, deflated_sharpe_ratio
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline.validation.walk_forward import judge_windows, search_windows
from tradepulse_pipeline.validation.windows import WindowSettings

START = 1_704_067_200_000
STRATEGY = get_strategy("LIQUIDITY_SWEEP_V3")


class Kept:
    """Takes the blocks of a search."""

    def __init__(self):
        self.sums, self.squares = [], []

    def recall(self, window):
        return None

    def keep(self, window, trials):
        pass

    def keep_blocks(self, combination, sums, squares):
        self.sums.append(sums)
        self.squares.append(squares)


def trained(*, edge=8.0, days=60, budget=60, minimum_trades=1):
    market = Market.parse("simulated", "BTC/USDT")
    candles = simulate(
        market, Timeframe("5m"), START, START + days * MS_PER_DAY, SimulatedMarketSettings(edge=edge)
    ).filled_forward()
    frame = IndicatorFrame.compute(candles, STRATEGY.indicators)
    settings = TrainingSettings(
        search=SearchSettings(method="random", budget=budget, minimum_trades=minimum_trades),
        windows=WindowSettings(train_days=15, test_days=9, gap_days=1),
    )
    kept = Kept()
    found = search_windows(frame, STRATEGY, settings, keeper=kept)
    blocks = TrialBlocks(
        sums=np.concatenate(kept.sums),
        squares=np.concatenate(kept.squares),
        n_days=len(np.unique(frame.open_time_ms // MS_PER_DAY)),
    )
    return frame, settings, found, judge_windows(frame, STRATEGY, settings, found), blocks


@pytest.fixture(scope="module")
def training():
    return trained()


@pytest.fixture(scope="module")
def report(training):
    frame, settings, found, record, blocks = training
    return gather_evidence(frame, STRATEGY, settings, found, record, blocks)


def test_figures_are_those_of_the_record_and_the_trials(training, report):
    _, _, _, record, blocks = training
    figures = report.statistics
    daily = record.daily["daily_return"].to_numpy()
    assert (figures.n_days, figures.n_trials) == (len(daily), 60)
    variance = figures.luck_deviation**2 / DAYS_PER_YEAR
    expected = deflated_sharpe_ratio(ReturnMoments.of(daily), n_trials=60, trials_variance=variance)
    assert figures.deflated_sharpe_ratio == pytest.approx(expected)
    assert 0 <= figures.probability_of_backtest_overfitting <= 1
    assert figures.sharpe_low < record.metrics.sharpe_ratio < figures.sharpe_high
    assert figures.net_profit_low < record.metrics.net_profit < figures.net_profit_high
    assert 1 <= figures.effective_trials <= 60
    assert figures.trials_sharpe_deviation == pytest.approx(np.std(blocks.sharpe_ratios()) * math.sqrt(365))
    assert sum(report.sharpe_histogram["counts"]) == len(blocks.sharpe_ratios())


def test_clusters_are_counted_beside_what_decides(training):
    frame, settings, found, record, blocks = training
    daily = record.daily["daily_return"].to_numpy()
    rng = np.random.default_rng(9)
    own, common = rng.standard_normal((60, 16)), np.repeat(rng.standard_normal((3, 16)), 20, axis=0)
    for sums, n_clusters in ((own, None), (0.2 * own + common, 3)):
        tried = replace(blocks, sums=sums, squares=sums**2)
        figures = gather_evidence(frame, STRATEGY, settings, found, record, tried).statistics
        assert figures.clustered_trials == n_clusters
        assert (figures.clusters_silhouette > 0.25) == (n_clusters is not None)
        assert (figures.clustered_deflated_sharpe_ratio is None) == (n_clusters is None)
    variance = figures.luck_deviation**2 / DAYS_PER_YEAR
    expected = deflated_sharpe_ratio(ReturnMoments.of(daily), n_trials=3, trials_variance=variance)
    assert figures.clustered_deflated_sharpe_ratio == pytest.approx(expected)


def test_both_monte_carlos_have_their_figures_and_fans(training, report):
    _, settings, _, record, _ = training
    figures, capital = report.statistics, settings.account.initial_capital
    assert figures.resampled_net_profit_low < record.metrics.net_profit < figures.resampled_net_profit_high
    assert 0 < figures.resampled_trades_under_water_95 <= record.metrics.sample_size
    assert figures.bootstrapped_net_profit_low < figures.bootstrapped_net_profit_high
    assert 0 < figures.bootstrapped_days_under_water_95 <= 60
    assert 0 <= figures.bootstrapped_ruin_probability <= 1
    days, equity, own = (np.array(report.candle_fan[name]) for name in ("days", "equity", "own"))
    assert days.tolist() == list(range(61))
    assert (equity[:, 0] == capital).all()
    assert own[0] == capital
    last = capital + np.array([figures.bootstrapped_net_profit_low, figures.bootstrapped_net_profit_high])
    np.testing.assert_allclose(equity[[0, -1], -1], last)


def test_a_short_record_tells_no_value_at_risk(report):
    figures = report.statistics
    assert figures.n_days < 60
    assert figures.var_95 is figures.cvar_95 is figures.kupiec_p_value is None


def test_reports_from_before_something_was_measured_are_read(report):
    values = report.to_json_dict()
    stored = {name: value for name, value in values.items() if name != "candle_fan"}
    earlier = ("n_days", "n_trials", "effective_trials", "luck_ceiling", "deflated_sharpe_ratio", "ruin_probability")
    stored["statistics"] = {name: values["statistics"][name] for name in earlier}
    read = EvidenceReport.from_json_dict(stored)
    assert read.candle_fan == {}
    assert read.statistics.effective_trials == report.statistics.effective_trials
    assert read.statistics.clustered_trials is read.statistics.var_95 is None


def test_the_trials_sharpe_ratios_are_those_of_their_daily_returns():
    returns = np.random.default_rng(3).normal(0.001, 0.01, (4, 160))
    returns[3] = 0.0  # a trial that never traded has none
    parts = returns.reshape(4, 16, 10)
    blocks = TrialBlocks(sums=parts.sum(axis=2), squares=(parts**2).sum(axis=2), n_days=160)
    expected = returns[:3].mean(axis=1) / returns[:3].std(axis=1, ddof=1)
    np.testing.assert_allclose(blocks.sharpe_ratios(), expected)


def test_the_first_procedure_is_the_record_itself(training):
    frame, settings, found, record, _ = training
    returns = procedure_returns(frame, STRATEGY, settings, found)
    assert returns.shape == (record.daily.height, 20)
    # Each window starts from the same capital, and sizes its trades by its share: returns do not depend on it.
    np.testing.assert_allclose(returns[:, 0], record.daily["daily_return"].to_numpy(), atol=1e-9)


def test_the_report_is_json_and_comes_back(report):
    text = json.dumps(report.to_json_dict(), allow_nan=False)
    assert len(text) < 100_000
    assert EvidenceReport.from_json_dict(json.loads(text)) == report


def test_the_same_training_gives_the_same_evidence(training, report):
    frame, settings, found, record, blocks = training
    assert gather_evidence(frame, STRATEGY, settings, found, record, blocks) == report


def test_without_trades_nothing_is_claimed():
    frame, settings, found, record, blocks = trained(edge=0.0, days=40, budget=5, minimum_trades=500)
    report = gather_evidence(frame, STRATEGY, settings, found, record, blocks)
    figures = report.statistics
    assert record.metrics.sample_size == 0
    assert figures.deflated_sharpe_ratio is None
    assert figures.bootstrap_p_value is None
    assert figures.ruin_probability is None
    assert report.fan == {}
    assert report.candle_fan == {}
    assert figures.var_95 is None
    assert report.costs_verdict.startswith("No trades")


def test_a_search_that_was_cut_off_has_no_figures_of_its_trials(training):
    frame, settings, found, record, _ = training
    figures = gather_evidence(frame, STRATEGY, settings, found, record, None).statistics
    assert figures.n_trials == found.planned
    assert figures.luck_ceiling is None
    assert figures.probability_of_backtest_overfitting is None
    assert figures.probabilistic_sharpe_ratio is not None
