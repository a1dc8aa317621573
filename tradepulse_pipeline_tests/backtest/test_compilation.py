"""Kernels are compiled once: whatever way candles come, arrays reach a kernel with one dtype and layout."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import json
import numpy as np
from tradepulse_pipeline.backtest import book, kernel, metrics, outcomes, tables
from tradepulse_pipeline.backtest.api import backtest_strategy
from tradepulse_pipeline.backtest.evaluators import TabledEvaluator
from tradepulse_pipeline.backtest.settings import BarRange
from tradepulse_pipeline.indicators.catalogue import ALL_INDICATORS
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate
from tradepulse_pipeline.strategies import liquidity_sweep_v3 as sweep
from tradepulse_pipeline.strategies.registry import get_strategy

series, start = SeriesKey.parse("simulated:BTC-USDT:5m"), 1_700_006_400_000
candles = simulate(series.market, series.timeframe, start, start + 20 * 86_400_000, SimulatedMarketSettings())
strategy = get_strategy("LIQUIDITY_SWEEP_V3")
for part in (candles, candles.slice(100, 4_000), candles.filled_forward()):
    frame = IndicatorFrame.compute(part, ALL_INDICATORS)
    for side in ("long", "both"):
        evaluator = TabledEvaluator(frame, strategy, side=side, workers=2)
        evaluator.evaluate(np.arange(3_000), BarRange(10, len(frame)))
        backtest_strategy(frame, strategy, evaluator.space.values(7), side=side)
        evaluator.run(8, BarRange(0, 2_000), initial_capital=5_000)
kernels = (kernel.simulate, metrics.measure, outcomes.find_outcomes, tables.hop_all)
kernels += (book._enter, book._skip_before, sweep._decision_bars)
print(json.dumps({one.__name__: len(one.signatures) for one in kernels}))
"""


def test_each_kernel_has_one_signature() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    counts = json.loads(done.stdout)
    assert len(counts) == 7
    assert set(counts.values()) == {1}, counts
