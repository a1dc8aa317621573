"""The evaluators: rows are the metrics of single runs, whatever the company, the workers and the memory."""

from __future__ import annotations

import numpy as np
import pytest

from tradepulse_pipeline.backtest.api import backtest_strategy
from tradepulse_pipeline.backtest.evaluators import PlainEvaluator, TabledEvaluator
from tradepulse_pipeline.backtest.result import METRIC_NAMES
from tradepulse_pipeline.backtest.settings import AccountSettings, BarRange
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.strategies.base import Strategy
from tradepulse_pipeline.strategies.decisions import SIDES, Side
from tradepulse_pipeline.strategies.registry import get_strategy
from tradepulse_pipeline_tests.reference.markets import frame_of
from tradepulse_pipeline_tests.reference.patterns import STOP_HUNTS, seeded_market

STRATEGY = get_strategy("LIQUIDITY_SWEEP_V3")
ACCOUNT = AccountSettings(fee_rate=0.0002)


@pytest.fixture(scope="module")
def frame() -> IndicatorFrame:
    return frame_of(seeded_market(STOP_HUNTS, np.random.default_rng(8)))


def some_combinations(evaluator: PlainEvaluator, n: int) -> np.ndarray:
    """Return combinations from all of the grid, unordered and with repetitions, and the first and the last one."""
    drawn = np.random.default_rng(2).integers(evaluator.space.size, size=n)
    return np.concatenate([drawn, drawn[:3], [0, evaluator.space.size - 1]])


@pytest.mark.parametrize("side", SIDES)
def test_workers_change_nothing(frame: IndicatorFrame, side: Side) -> None:
    windows = [BarRange(0, len(frame)), BarRange(30, len(frame) - 10)]
    one, two, many = (
        TabledEvaluator(frame, STRATEGY, side=side, account=ACCOUNT, workers=workers) for workers in (1, 2, 5)
    )
    combinations = some_combinations(one, 300)
    for window in windows:
        expected = one.evaluate(combinations, window)
        assert expected.shape == (len(combinations), len(METRIC_NAMES))
        np.testing.assert_array_equal(two.evaluate(combinations, window), expected)
        np.testing.assert_array_equal(many.evaluate(combinations, window), expected)
        assert (expected[:, METRIC_NAMES.index("sample_size")] > 0).any()


def test_rows_do_not_depend_on_their_company(frame: IndicatorFrame) -> None:
    evaluator = TabledEvaluator(frame, STRATEGY, side="both", account=ACCOUNT)
    combinations, window = some_combinations(evaluator, 60), BarRange(0, len(frame))
    together = evaluator.evaluate(combinations, window)
    fresh = TabledEvaluator(frame, STRATEGY, side="both", account=ACCOUNT, memory_limit=0)
    np.testing.assert_array_equal(fresh.evaluate(combinations[::-1], window), together[::-1])
    np.testing.assert_array_equal(fresh.evaluate(combinations[7:8], window), together[7:8])
    combinations[:] = combinations[::-1].copy()
    np.testing.assert_array_equal(evaluator.evaluate(combinations, window), together[::-1])


def test_parameters_may_be_declared_in_any_order(frame: IndicatorFrame) -> None:
    shuffled = tuple(STRATEGY.parameters[k] for k in (0, 5, 8, 3, 6, 2, 1, 7, 4))
    strategy: Strategy = type("Shuffled", (type(STRATEGY),), {"parameters": shuffled})()
    tabled, plain = (one(frame, strategy, account=ACCOUNT) for one in (TabledEvaluator, PlainEvaluator))
    combinations, window = some_combinations(tabled, 200), BarRange(0, len(frame))
    rows = tabled.evaluate(combinations, window)
    np.testing.assert_allclose(rows, plain.evaluate(combinations, window), rtol=1e-9, atol=1e-9)
    assert (rows[:, METRIC_NAMES.index("sample_size")] > 0).sum() > 10


@pytest.mark.parametrize("side", SIDES)
def test_rows_are_the_metrics_of_single_runs(frame: IndicatorFrame, side: Side) -> None:
    evaluator = PlainEvaluator(frame, STRATEGY, side=side, account=ACCOUNT)
    combinations, window = some_combinations(evaluator, 40), BarRange(20, len(frame))
    for combination, row in zip(combinations.tolist(), evaluator.evaluate(combinations, window), strict=True):
        single = evaluator.run(combination, window)
        parameters = evaluator.space.values(combination)
        by_name = backtest_strategy(frame, STRATEGY, parameters, side=side, account=ACCOUNT, window=window)
        np.testing.assert_array_equal(np.array(single.metrics), row)
        np.testing.assert_array_equal(np.array(by_name.metrics), row)
        np.testing.assert_array_equal(by_name.equity, single.equity)


def test_a_run_may_start_from_another_capital(frame: IndicatorFrame) -> None:
    evaluator = PlainEvaluator(frame, STRATEGY, side="both", account=ACCOUNT)
    window = BarRange(0, len(frame))
    table = evaluator.evaluate(some_combinations(evaluator, 300), window)
    best = int(some_combinations(evaluator, 300)[table[:, METRIC_NAMES.index("sample_size")].argmax()])
    usual, doubled = evaluator.run(best, window), evaluator.run(best, window, initial_capital=20_000.0)
    assert len(usual.trades) > 0
    np.testing.assert_array_equal(doubled.equity, 2 * usual.equity)
    assert doubled.metrics.total_return == usual.metrics.total_return


def test_no_combinations_give_no_rows(frame: IndicatorFrame) -> None:
    evaluator = PlainEvaluator(frame, STRATEGY, side="long", account=ACCOUNT)
    tabled = TabledEvaluator(frame, STRATEGY, side="long", account=ACCOUNT)
    for one in (evaluator, tabled):
        empty = one.evaluate(np.array([], dtype=np.int64), BarRange(0, len(frame)))
        assert empty.shape == (0, len(METRIC_NAMES))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pierce_depth": 0.5}, r"'pierce_depth': found 0\.5, expected a number from"),
        ({"rejection_candles": 1.5}, r"'rejection_candles': found 1\.5, expected a whole number from"),
        ({"stop_distance": float("nan")}, r"'stop_distance': found nan"),
        ({"stop_distence": 1.0}, r"Unknown parameter 'stop_distence'.*Did you mean 'stop_distance'"),
    ],
)
def test_wrong_parameters_are_refused(frame: IndicatorFrame, changes: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        backtest_strategy(frame, STRATEGY, STOP_HUNTS.lenient | changes)


def test_missing_parameters_are_named(frame: IndicatorFrame) -> None:
    with pytest.raises(InvalidInputError, match=r"1 of 7 parameters are missing: target_multiple"):
        backtest_strategy(frame, STRATEGY, {k: v for k, v in STOP_HUNTS.lenient.items() if k != "target_multiple"})


def test_an_unknown_side_is_refused(frame: IndicatorFrame) -> None:
    with pytest.raises(InvalidInputError, match=r"Unknown side 'up'.*long, short, both"):
        backtest_strategy(frame, STRATEGY, STOP_HUNTS.lenient, side="up")  # type: ignore[arg-type]
