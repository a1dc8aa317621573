"""Parameters, the space of their combinations, and the registry of strategies."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.strategies.base import Parameter
from tradepulse_pipeline.strategies.registry import get_strategy, strategy_names
from tradepulse_pipeline.strategies.space import ParameterSpace


def parameter(name: str, *grid: float) -> Parameter:
    return Parameter(name=name, unit="", meaning="", kind="signal", grid=grid, minimum=0.0, maximum=100.0)


SPACE = ParameterSpace((parameter("a", 1.0, 2.0), parameter("b", 0.5), parameter("c", 3.0, 5.0, 7.0)))


def test_combinations_count_up_with_the_last_parameter_fastest() -> None:
    assert (SPACE.shape, SPACE.size) == ((2, 1, 3), 6)
    expected = [
        dict(zip("abc", values, strict=True)) for values in itertools.product((1.0, 2.0), (0.5,), (3.0, 5.0, 7.0))
    ]
    assert [SPACE.values(combination) for combination in range(6)] == expected


def test_indices_values_and_combinations_belong_together() -> None:
    combinations = np.array([5, 0, 3, 3])
    indices = SPACE.indices(combinations)
    assert indices.tolist() == [[1, 0, 2], [0, 0, 0], [1, 0, 0], [1, 0, 0]]
    assert SPACE.combinations(indices).tolist() == combinations.tolist()
    assert {name: column.tolist() for name, column in SPACE.columns(combinations).items()} == {
        "a": [2.0, 1.0, 2.0, 2.0],
        "b": [0.5] * 4,
        "c": [7.0, 3.0, 3.0, 3.0],
    }


def test_a_parameter_set_has_its_number_when_it_is_on_the_grid() -> None:
    assert [SPACE.combination_of(SPACE.values(combination)) for combination in range(6)] == list(range(6))
    assert SPACE.combination_of({"c": 5, "a": 2, "b": 0.5}) == 4
    for strange in ({"a": 2.0, "b": 0.5, "c": 6.0}, {"a": 2.0, "b": 0.5}, {"a": 1.0, "b": 0.5, "c": 3.0, "d": 1.0}):
        assert SPACE.combination_of(strange) is None


def test_a_grid_must_be_ascending() -> None:
    for grid in [(), (2.0, 1.0), (1.0, 1.0)]:
        with pytest.raises(InvalidInputError, match="'a': 'grid' must be ascending and not empty"):
            parameter("a", *grid)


def test_parameters_take_numbers_within_their_range_alone() -> None:
    assert parameter("a", 1.0).check(3) == 3.0
    for value in (True, "1", None, -0.1, 100.1, float("nan"), float("inf")):
        with pytest.raises(InvalidInputError, match="'a': found"):
            parameter("a", 1.0).check(value)


def test_the_sweep_has_the_combinations_of_its_definition() -> None:
    strategy = get_strategy("LIQUIDITY_SWEEP_V3")
    assert ParameterSpace(strategy.parameters).size == 201_600
    assert {p.name: p.grid for p in strategy.parameters} == {
        "pierce_depth": (0.0005, 0.001, 0.002, 0.003, 0.004, 0.005),
        "rejection_candles": (1, 2, 3, 4, 5),
        "volume_spike_threshold": (1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0),
        "reversal_candle_size": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0),
        "key_level_lookback": (20, 50, 100, 150, 200),
        "min_stop_density_score": (0.0,),
        "max_spread_tolerance": (0.0,),
        "stop_distance": (0.5, 1.0, 1.5, 2.0),
        "target_multiple": (1.5, 2.0, 2.5, 3.0, 3.5, 4.0),
    }


@pytest.mark.parametrize("name", strategy_names())
def test_every_strategy_checks_its_own_grid(name: str) -> None:
    strategy = get_strategy(name)
    assert strategy.name == name
    space = ParameterSpace(strategy.parameters)
    for combination in (0, space.size - 1):
        assert strategy.check(space.values(combination)) == space.values(combination)


def test_an_unknown_strategy_lists_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match=r"Did you mean 'LIQUIDITY_SWEEP_V3'.*Allowed: "):
        get_strategy("LIQUIDITY_SWEEP")
