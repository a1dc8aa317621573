"""The whole way on real candles against the slow reference: decisions, trades, equity and metrics, windows too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from tradepulse_pipeline.backtest.api import backtest_strategy
from tradepulse_pipeline.backtest.settings import AccountSettings, BarRange
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.strategies.base import SignalSource
from tradepulse_pipeline.strategies.decisions import SIDES, Side
from tradepulse_pipeline.strategies.registry import get_strategy
from tradepulse_pipeline.strategies.space import ParameterSpace
from tradepulse_pipeline_tests.reference import backtest as reference
from tradepulse_pipeline_tests.reference.backtest import Order
from tradepulse_pipeline_tests.reference.candles import Candle
from tradepulse_pipeline_tests.reference.comparison import (
    assert_same_equity,
    assert_same_metrics,
    assert_same_signals,
    assert_same_trades,
    plain_candles,
)
from tradepulse_pipeline_tests.reference.liquidity_sweep_v3 import Signal, Sweeps
from tradepulse_pipeline_tests.reference.markets import cases, frame_of, real_candles
from tradepulse_pipeline_tests.reference.metrics import all_metrics, days_of

STRATEGY = get_strategy("LIQUIDITY_SWEEP_V3")
SPACE = ParameterSpace(STRATEGY.parameters)

#: File, first row, number of rows. The Kraken and the hourly slices hold gaps of all lengths.
SLICES = [
    ("binance_BTC-USDT_5m", 80_000, 6_000),
    ("kraken_BTC-USDT_15m", 22_000, 6_000),
    ("binance_BTC-USDT_1h", 0, 6_000),
    ("kraken_BTC-USDC_1m", 20_000, 4_000),
]


def parameter_sets(rng: np.random.Generator, n: int) -> Iterator[dict[str, float]]:
    """Yield sets of the search's grid; in every other one, what rules out most sweeps is at its most lenient."""
    lenient = {"pierce_depth": 0.005, "volume_spike_threshold": 1.5, "reversal_candle_size": 0.5}
    for i in range(n):
        yield SPACE.values(int(rng.integers(SPACE.size))) | (lenient if i % 2 else {})


def random_account(rng: np.random.Generator) -> AccountSettings:
    return AccountSettings(
        risk_fraction=float(rng.choice([0.01, 0.05])),
        max_leverage=float(rng.choice([1.0, 5.0])),
        fee_rate=float(rng.choice([0.0, 0.001])),
        slippage=float(rng.choice([0.0, 0.0005])),
        max_holding_bars=int(rng.choice([0, 0, 12])),
    )


def assert_same_run(
    frame: IndicatorFrame,
    candles: list[Candle],
    signals: list[Signal],
    parameters: Mapping[str, float],
    side: Side,
    account: AccountSettings,
    window: BarRange,
) -> int:
    """Compare one run and return its number of trades."""
    result = backtest_strategy(frame, STRATEGY, parameters, side=side, account=account, window=window)
    multiple = parameters["target_multiple"]
    orders = [Order(bar=s.bar, side=s.side, stop_price=s.stop_price, target_multiple=multiple) for s in signals]
    step_ms = frame.timeframe.milliseconds
    trades, equity = reference.run(candles, step_ms, orders, account, *window)
    times = [candle.open_time_ms for candle in candles[slice(*window)]]
    metrics = all_metrics(trades, equity, times, days_of(times, step_ms), account.initial_capital)
    assert_same_trades(result.trades, trades)
    assert_same_equity(result.equity, equity, trades)
    assert_same_metrics(result.metrics, metrics, equity=equity, trades=trades, initial_capital=account.initial_capital)
    return len(trades)


@pytest.mark.parametrize(("name", "first", "n_candles"), SLICES, ids=[name for name, _, _ in SLICES])
def test_engine_equals_reference_on_real_candles(market_data_dir: Path, name: str, first: int, n_candles: int) -> None:
    frame = frame_of(real_candles(market_data_dir, name, first, n_candles))
    candles = plain_candles(frame)
    sweeps = Sweeps(candles)
    sources = {side: SignalSource(STRATEGY, frame, side) for side in SIDES}
    rng = np.random.default_rng(11)
    n_trades = 0
    for i, parameters in enumerate(parameter_sets(rng, cases(80))):
        side = SIDES[i % 3]
        signals = sweeps.signals(parameters, side)
        assert_same_signals(sources[side].decisions(parameters), STRATEGY.exits(parameters), signals)
        start, stop = sorted(rng.choice(len(frame) + 1, 2, replace=False).tolist())
        account = random_account(rng)
        for window in (BarRange(0, len(frame)), BarRange(start, stop)):
            n_trades += assert_same_run(frame, candles, signals, parameters, side, account, window)
    assert n_trades > 300
