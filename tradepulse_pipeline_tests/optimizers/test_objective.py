from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradepulse_pipeline.backtest.result import Metrics
from tradepulse_pipeline.optimizers.objective import best_trial, objective_values, pareto_front
from tradepulse_pipeline.optimizers.settings import OBJECTIVES

NUMBERED = Metrics(*(float(i) for i in range(100, 100 + len(Metrics._fields))))


def rows(*metrics):
    return np.array(metrics, dtype=np.float64)


@pytest.mark.parametrize(
    ("objective", "metric"),
    [
        ("net_profit", NUMBERED.net_profit),
        ("sharpe", NUMBERED.sharpe_ratio),
        ("sortino", NUMBERED.sortino_ratio),
        ("calmar", NUMBERED.calmar_ratio),
        ("profit_factor", NUMBERED.profit_factor),
        ("expectancy", NUMBERED.expectancy_r),
        ("drawdown", -NUMBERED.max_drawdown),
    ],
)
def test_each_objective_is_its_metric(objective, metric):
    assert objective_values(rows(NUMBERED), objectives=[objective], minimum_trades=1).tolist() == [[metric]]
    assert objective in OBJECTIVES


def test_too_few_trades_make_a_trial_invalid():
    metrics = rows(*(NUMBERED._replace(sample_size=n) for n in (9.0, 10.0, 11.0)))
    values = objective_values(metrics, objectives=["net_profit"], minimum_trades=10)
    assert np.isnan(values).tolist() == [[True], [False], [False]]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_makes_a_trial_invalid(value):
    metrics = rows(NUMBERED._replace(profit_factor=value), NUMBERED)
    values = objective_values(metrics, objectives=["profit_factor"], minimum_trades=1)[:, 0]
    assert math.isnan(values[0])
    assert best_trial(values) == 1


def test_several_objectives_are_columns_and_an_invalid_one_makes_the_trial_invalid():
    metrics = rows(NUMBERED, NUMBERED._replace(profit_factor=math.nan), NUMBERED._replace(sample_size=3.0))
    values = objective_values(metrics, objectives=["drawdown", "profit_factor"], minimum_trades=10)
    assert values[0].tolist() == [-NUMBERED.max_drawdown, NUMBERED.profit_factor]
    assert np.isnan(values[1:]).all()


def test_no_drawdown_at_all_scores_a_plain_zero():
    (value,) = objective_values(rows(NUMBERED._replace(max_drawdown=0.0)), objectives=["drawdown"], minimum_trades=1)
    assert math.copysign(1.0, value[0]) == 1.0


@pytest.mark.parametrize(
    ("objective", "best"),
    [
        ([], None),
        ([math.nan, math.nan], None),
        ([math.nan, -5.0, -7.0], 1),
        ([1.0, 3.0, 2.0, 3.0], 1),
    ],
)
def test_best_trial_is_the_first_of_the_highest_valid_ones(objective, best):
    assert best_trial(np.array(objective, dtype=np.float64)) == best


def dominates(one, other):
    return all(a >= b for a, b in zip(one, other, strict=True)) and any(a > b for a, b in zip(one, other, strict=True))


SCORES = st.one_of(st.just(math.nan), st.integers(-3, 3), st.floats(-1e6, 1e6))


@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.tuples(*[SCORES] * n), min_size=1, max_size=30)))
def test_the_front_is_what_no_other_valid_trial_dominates(scores):
    valid = [one for one in scores if not any(map(math.isnan, one))]
    expected = [one in valid and not any(dominates(other, one) for other in valid) for one in scores]
    assert pareto_front(np.array(scores, dtype=np.float64)).tolist() == expected


def test_without_trials_the_front_is_empty():
    assert pareto_front(np.empty((0, 2))).tolist() == []
