"""The whole way from candles to a stage, against its steps taken one by one."""

from __future__ import annotations

import numpy as np
import pytest

from tradepulse_pipeline.backtest.evaluators import TabledEvaluator
from tradepulse_pipeline.backtest.settings import AccountSettings
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.series import MS_PER_DAY, SIMULATED_EXCHANGE, Market, Timeframe
from tradepulse_pipeline.market.sources.simulated import ORIGIN_MS, SimulatedMarketSettings, simulate
from tradepulse_pipeline.optimizers.settings import SearchSettings
from tradepulse_pipeline.strategies.registry import get_strategy
from tradepulse_pipeline.validation.evidence import TrialBlocks, gather_evidence
from tradepulse_pipeline.validation.pipeline import train_in_memory
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline.validation.trials import N_BLOCKS
from tradepulse_pipeline.validation.walk_forward import judge_windows, search_windows
from tradepulse_pipeline.validation.windows import WindowSettings

N_DAYS = 64
MARKET = Market("somewhere", "BTC", "USDT")
#: Of a strong planted pattern, on a grid of eight.
GRIDS = {
    "pierce_depth": (0.005,),
    "rejection_candles": (2.0, 3.0),
    "volume_spike_threshold": (2.0,),
    "reversal_candle_size": (0.5,),
    "key_level_lookback": (100.0, 200.0),
    "stop_distance": (2.0,),
    "target_multiple": (1.5, 2.5),
}


@pytest.fixture(scope="module")
def frame():
    candles = simulate(
        Market(SIMULATED_EXCHANGE, "BTC", "USDT"),
        Timeframe("15m"),
        ORIGIN_MS,
        ORIGIN_MS + N_DAYS * MS_PER_DAY,
        SimulatedMarketSettings(edge=6, outages_per_year=0),
    )
    return IndicatorFrame.compute(candles, strategy().indicators)


def strategy():
    return get_strategy("LIQUIDITY_SWEEP_V3").with_grids(GRIDS)


def settings(**search):
    return TrainingSettings(
        account=AccountSettings(fee_rate=0.0, slippage=0.0),
        search=SearchSettings(**{"method": "grid", "minimum_trades": 2, "workers": 1, **search}),
        windows=WindowSettings(train_days=20, test_days=10, gap_days=1),
    )


def test_pipeline_equals_its_steps(frame):
    trained = train_in_memory(frame, strategy(), settings(), MARKET)
    found = search_windows(frame, strategy(), settings())
    record = judge_windows(frame, strategy(), settings(), found)
    moments = TabledEvaluator(frame, strategy(), account=settings().account).block_moments(np.arange(8), N_BLOCKS)
    blocks = TrialBlocks(sums=moments[0], squares=moments[1], n_days=N_DAYS)
    assert trained.blocks is not None
    assert trained.blocks.n_days == N_DAYS
    np.testing.assert_array_equal(trained.blocks.sums, blocks.sums)
    np.testing.assert_array_equal(trained.blocks.squares, blocks.squares)
    assert trained.record.to_json_dict() == record.to_json_dict()
    expected = gather_evidence(frame, strategy(), settings(), found, record, blocks)
    assert trained.report == expected
    figures = trained.decision.figures
    # One market alone: nothing to correct the p-value for.
    assert figures["corrected_p_value"] == max(record.p_value, expected.statistics.bootstrap_p_value)
    assert figures["deflated_sharpe_ratio"] == expected.statistics.deflated_sharpe_ratio
    assert figures["n_trials"] == 8
    assert record.metrics.net_profit > 0
    assert trained.decision.stage in ("DISCOVERY", "VALIDATION")


def test_simulated_candles_stay_on_paper(frame):
    simulated = train_in_memory(frame, strategy(), settings(), Market(SIMULATED_EXCHANGE, "BTC", "USDT"))
    assert simulated.record.metrics.net_profit > 0
    assert simulated.decision.stage == "PAPER"


def test_a_search_that_was_cut_off_has_no_blocks(frame):
    trained = train_in_memory(frame, strategy(), settings(max_runtime_seconds=1e-9), MARKET)
    assert not trained.record.is_complete
    assert trained.blocks is None
    assert trained.decision.figures["deflated_sharpe_ratio"] is None
