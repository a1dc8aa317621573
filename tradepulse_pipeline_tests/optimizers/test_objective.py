from __future__ import annotations

import math

import numpy as np
import pytest

from tradepulse_pipeline.backtest.result import Metrics
from tradepulse_pipeline.optimizers.objective import best_trial, objective_values
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
    ],
)
def test_each_objective_is_its_metric(objective, metric):
    assert objective_values(rows(NUMBERED), objective=objective, minimum_trades=1).tolist() == [metric]
    assert objective in OBJECTIVES


def test_too_few_trades_make_a_trial_invalid():
    metrics = rows(*(NUMBERED._replace(sample_size=n) for n in (9.0, 10.0, 11.0)))
    values = objective_values(metrics, objective="net_profit", minimum_trades=10)
    assert np.isnan(values).tolist() == [True, False, False]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_makes_a_trial_invalid(value):
    metrics = rows(NUMBERED._replace(profit_factor=value), NUMBERED)
    values = objective_values(metrics, objective="profit_factor", minimum_trades=1)
    assert math.isnan(values[0])
    assert best_trial(values) == 1


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
