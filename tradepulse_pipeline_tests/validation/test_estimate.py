"""What a search would take, measured, and the method that follows from it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tradepulse_pipeline.backtest.settings import AccountSettings
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.series import MS_PER_DAY, Market, Timeframe
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate
from tradepulse_pipeline.optimizers.settings import SearchSettings
from tradepulse_pipeline.strategies.base import Parameter
from tradepulse_pipeline.strategies.registry import get_strategy
from tradepulse_pipeline.strategies.space import ParameterSpace
from tradepulse_pipeline.validation import estimate
from tradepulse_pipeline.validation.estimate import grid_seconds, settled
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline.validation.windows import WindowSettings

STRATEGY = get_strategy("LIQUIDITY_SWEEP_V3")
START = 1_704_067_200_000
AUTO = TrainingSettings(
    account=AccountSettings(fee_rate=0.0004),
    search=SearchSettings(seed=3, workers=1),
    windows=WindowSettings(train_days=8, test_days=3, gap_days=1),
)


@pytest.fixture(scope="module")
def frame():
    settings = SimulatedMarketSettings(outages_per_year=0)
    candles = simulate(Market("simulated", "BTC", "USDT"), Timeframe("15m"), START, START + 16 * MS_PER_DAY, settings)
    return IndicatorFrame.compute(candles, STRATEGY.indicators)


@pytest.mark.parametrize(("longest", "method"), [(np.inf, "grid"), (-1.0, "random")])
def test_auto_is_a_grid_search_where_that_is_quick_enough(frame, monkeypatch, longest, method):
    monkeypatch.setattr(estimate, "LONGEST_GRID_SECONDS", longest)
    monkeypatch.setattr(estimate, "BENCHMARK_SECONDS", 0.05)
    assert settled(frame, STRATEGY, AUTO) == replace(AUTO, search=replace(AUTO.search, method=method))


def test_auto_is_no_grid_search_beyond_the_limit_of_combinations(frame):
    limited = replace(AUTO, search=replace(AUTO.search, max_combinations=201_599))
    assert settled(frame, STRATEGY, limited).search.method == "random"


def test_auto_takes_a_plateau_where_it_is_a_grid_search_alone(frame, monkeypatch):
    plateau = replace(AUTO, search=replace(AUTO.search, selection="plateau"))
    monkeypatch.setattr(estimate, "BENCHMARK_SECONDS", 0.05)
    monkeypatch.setattr(estimate, "LONGEST_GRID_SECONDS", np.inf)
    assert settled(frame, STRATEGY, plateau).search == replace(plateau.search, method="grid")
    monkeypatch.setattr(estimate, "LONGEST_GRID_SECONDS", -1.0)
    with pytest.raises(InvalidInputError, match=r"'plateau' with the method 'random'.*Take the method 'grid'"):
        settled(frame, STRATEGY, plateau)


def test_a_method_that_was_given_stays(frame):
    given = replace(AUTO, search=SearchSettings(method="tpe"))
    assert settled(frame, STRATEGY, given) is given


def test_more_windows_take_longer(frame, monkeypatch):
    monkeypatch.setattr(estimate, "_seconds", lambda evaluator, combinations, window: 1e-3 * len(combinations))
    monkeypatch.setattr(estimate, "BENCHMARK_SECONDS", 0.01)
    # Three train windows, the latest one among them, or that one alone, at a millisecond per combination.
    assert grid_seconds(frame, STRATEGY, AUTO) == pytest.approx(3 * 201.6)
    fixed = replace(AUTO, windows=replace(AUTO.windows, reoptimise=False))
    assert grid_seconds(frame, STRATEGY, fixed) == pytest.approx(201.6)


def parameter(name, kind, n):
    return Parameter(
        name=name, unit="", meaning="", kind=kind, grid=tuple(map(float, range(n))), minimum=0.0, maximum=float(n)
    )


def test_drawn_sets_of_signal_parameters_come_with_all_exits_and_grow_until_they_are_as_many_as_there_are():
    space = ParameterSpace(
        (parameter("a", "signal", 5), parameter("x", "exit", 3), parameter("b", "signal", 4), parameter("y", "exit", 2))
    )
    parts = list(estimate._growing_parts(space, seed=0))
    assert [len(part) for part in parts] == [4 * 6, 8 * 6, 16 * 6, 32 * 6]
    for part in parts:
        indices = space.indices(part)
        sets = Counter(map(tuple, indices[:, [0, 2]].tolist()))
        assert all(count % 6 == 0 for count in sets.values())
        assert {tuple(pair) for pair in indices[:6, [1, 3]].tolist()} == {(x, y) for x in range(3) for y in range(2)}
