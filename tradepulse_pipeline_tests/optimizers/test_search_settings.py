from __future__ import annotations

import pytest

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.optimizers.settings import SearchSettings


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("method", "randm", "Did you mean 'random'? Allowed: auto, grid, random, bayesian, tpe, genetic"),
        ("objective", "sharp", "Did you mean 'sharpe'? Allowed: net_profit, sharpe, sortino, calmar, profit_factor"),
        ("selection", "plato", "Did you mean 'plateau'? Allowed: best, plateau"),
        ("budget", 0, "at least 1 trial"),
        ("minimum_trades", 0, "at least 1"),
        ("seed", -1, "from 0 to 4294967295"),
        ("seed", 2**32, "from 0 to 4294967295"),
        ("workers", -1, "at least 0"),
        ("max_runtime_seconds", -0.5, "at least 0"),
        ("max_runtime_seconds", float("nan"), "at least 0"),
        ("max_runtime_seconds", float("inf"), "at least 0"),
        ("max_combinations", 0, "at least 1"),
    ],
)
def test_a_value_that_is_not_allowed_is_named_with_what_is(field, value, allowed):
    with pytest.raises(InvalidInputError) as raised:
        SearchSettings(**{field: value})
    message = str(raised.value)
    assert field in message
    assert str(value) in message
    assert allowed in message


@pytest.mark.parametrize(
    ("method", "further", "message"),
    [
        ("genetic", ("drawdawn",), r"Unknown objective 'drawdawn' in further_objectives\. Did you mean 'drawdown'\?"),
        (
            "tpe",
            ("drawdown",),
            r"further_objectives: found drawdown with the method 'tpe'; .*Take the method 'genetic'",
        ),
        ("genetic", ("drawdown", "drawdown"), r"further_objectives: found drawdown, drawdown .*each objective once"),
        ("genetic", ("calmar", "net_profit"), r"found calmar, net_profit beside the objective 'net_profit', expected"),
    ],
)
def test_further_objectives_that_are_not_allowed_are_named_with_what_to_do(method, further, message):
    with pytest.raises(InvalidInputError, match=message):
        SearchSettings(method=method, further_objectives=further)


@pytest.mark.parametrize("method", ["random", "bayesian", "tpe", "genetic"])
def test_a_plateau_takes_a_grid_search(method):
    for allowed in ("grid", "auto"):
        assert SearchSettings(method=allowed, selection="plateau").method == allowed
    with pytest.raises(InvalidInputError, match=rf"selection: found 'plateau' .*'{method}'.* Take the method 'grid'"):
        SearchSettings(method=method, selection="plateau")
    with pytest.raises(InvalidInputError, match=r"with the method 'random'.*'auto' is 'random' with a budget"):
        SearchSettings(budget=5, selection="plateau")


def test_the_objective_that_chooses_comes_first():
    assert SearchSettings().objectives == ("net_profit",)
    settings = SearchSettings(method="genetic", objective="sharpe", further_objectives=("drawdown", "net_profit"))
    assert settings.objectives == ("sharpe", "drawdown", "net_profit")


@pytest.mark.parametrize(
    ("method", "budget", "size", "planned"),
    [
        ("random", None, 201_600, 1_000),
        ("bayesian", None, 201_600, 60),
        ("tpe", None, 201_600, 300),
        ("genetic", None, 201_600, 600),
        ("grid", None, 201_600, 201_600),
        ("grid", 10, 201_600, 201_600),
        ("random", 50, 40, 40),
        ("tpe", 50, 51, 50),
    ],
)
def test_planned_trials(method, budget, size, planned):
    assert SearchSettings(method=method, budget=budget).planned_trials(size) == planned


def test_threads_are_the_workers_asked_for_or_the_cores():
    assert SearchSettings(workers=3).threads == 3
    assert SearchSettings(workers=0).threads >= 1


def test_auto_is_settled_by_a_budget_and_plans_nothing_before():
    assert SearchSettings().method == "auto"
    assert SearchSettings(budget=50).method == "random"
    with pytest.raises(InvalidInputError, match="found 'auto'; choose a method"):
        SearchSettings().planned_trials(10)
