"""A strategy of a user's own is searched and judged like any other: the documentation's example."""

from __future__ import annotations

import numpy as np
import pytest

from tradepulse_pipeline.backtest.evaluators import PlainEvaluator, TabledEvaluator
from tradepulse_pipeline.backtest.result import METRIC_NAMES
from tradepulse_pipeline.backtest.settings import BarRange
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.series import MS_PER_DAY, Market, Timeframe
from tradepulse_pipeline.market.sources.simulated import ORIGIN_MS, SimulatedMarketSettings, simulate
from tradepulse_pipeline.optimizers.settings import METHODS, Method, SearchSettings
from tradepulse_pipeline.strategies.base import Strategy
from tradepulse_pipeline.strategies.decisions import Side
from tradepulse_pipeline.strategies.own import RESERVED_NAMES, strategies_of_file
from tradepulse_pipeline.strategies.space import ParameterSpace
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline.validation.walk_forward import judge_windows, search_windows
from tradepulse_pipeline.validation.windows import WindowSettings
from tradepulse_pipeline_tests.reference.own_strategy import EXAMPLE
from tradepulse_pipeline_tests.reference.trials import TrialsInMemory

WINDOWS = WindowSettings(train_days=20, test_days=10, gap_days=1)


@pytest.fixture(scope="module")
def strategy(tmp_path_factory: pytest.TempPathFactory) -> Strategy:
    path = tmp_path_factory.mktemp("strategies") / "ma_cross.py"
    path.write_text(EXAMPLE)
    return strategies_of_file(path)[0]


@pytest.fixture(scope="module")
def frame(strategy: Strategy) -> IndicatorFrame:
    market, settings = Market("simulated", "BTC", "USDT"), SimulatedMarketSettings(outages_per_year=100.0)
    candles = simulate(market, Timeframe("15m"), ORIGIN_MS, ORIGIN_MS + 45 * MS_PER_DAY, settings)
    return IndicatorFrame.compute(candles.filled_forward(), strategy.indicators)


@pytest.mark.parametrize("side", ["long", "short", "both"])
def test_a_grid_training_by_tables_has_the_figures_of_the_plain_kernel(
    strategy: Strategy, frame: IndicatorFrame, side: Side
) -> None:
    training = TrainingSettings(side=side, search=SearchSettings(method="grid", minimum_trades=1), windows=WINDOWS)
    plain = PlainEvaluator(frame, strategy, side=side)
    found = search_windows(frame, strategy, training)
    assert found.is_complete
    assert found.total_trials == 3 * plain.space.size == 3 * 81
    everything = np.arange(plain.space.size)
    for window in (BarRange(0, len(frame)), BarRange(700, 2_500)):
        tabled = TabledEvaluator(frame, strategy, side=side, workers=2).evaluate(everything, window)
        expected = plain.evaluate(everything, window)
        np.testing.assert_allclose(tabled, expected, rtol=1e-9, atol=1e-9)
        assert (expected[:, 0] != 0.0).all()
    record = judge_windows(frame, strategy, training, found)
    assert record.metrics.sample_size > 0


@pytest.mark.parametrize("method", [method for method in METHODS if method not in ("auto", "grid")])
def test_every_method_searches_it(strategy: Strategy, frame: IndicatorFrame, method: Method) -> None:
    search = SearchSettings(method=method, budget=12, minimum_trades=1)
    found = search_windows(frame, strategy, TrainingSettings(search=search, windows=WINDOWS))
    assert found.total_trials == 3 * 12
    assert found.best.height > 0


def test_no_parameter_can_take_the_place_of_a_column_of_the_trials(strategy: Strategy, frame: IndicatorFrame) -> None:
    search = SearchSettings(method="random", budget=3, minimum_trades=1)
    keeper = TrialsInMemory(ParameterSpace(strategy.parameters))
    found = search_windows(frame, strategy, TrainingSettings(search=search, windows=WINDOWS), keeper=keeper)
    columns = {*found.best.columns, *keeper.table().columns} - {p.name for p in strategy.parameters}
    assert set(METRIC_NAMES) < columns <= RESERVED_NAMES
