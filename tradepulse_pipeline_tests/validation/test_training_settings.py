from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradepulse_pipeline.backtest.settings import AccountSettings
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.optimizers.settings import METHODS, OBJECTIVES, SearchSettings
from tradepulse_pipeline.strategies.decisions import SIDES
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline.validation.windows import SCHEMES, WindowSettings


def rates(low, high):
    return st.floats(low, high, exclude_min=True)


SETTINGS = st.builds(
    TrainingSettings,
    side=st.sampled_from(SIDES),
    account=st.builds(
        AccountSettings,
        initial_capital=rates(0.0, 1e12),
        risk_fraction=rates(0.0, 1.0),
        fee_rate=st.floats(0.0, 0.1),
        slippage=st.floats(0.0, 0.1),
        max_holding_bars=st.integers(0, 1_000),
    ),
    search=st.builds(
        SearchSettings,
        method=st.sampled_from(METHODS),
        objective=st.sampled_from(OBJECTIVES),
        budget=st.one_of(st.none(), st.integers(1, 10**6)),
        seed=st.integers(0, 2**32 - 1),
        max_runtime_seconds=st.floats(0.0, 1e6),
    ),
    windows=st.builds(
        WindowSettings,
        scheme=st.sampled_from(SCHEMES),
        train_days=st.integers(1, 500),
        test_days=st.integers(8, 90),
        step_days=st.one_of(st.none(), st.integers(90, 200)),
        train_ratio=st.floats(0.01, 0.99),
        reoptimise=st.booleans(),
    ),
)


GENETIC = SearchSettings(method="genetic")


@given(SETTINGS)
def test_settings_come_back_from_json_equal(settings):
    text = json.dumps(settings.to_json_dict(), allow_nan=False)
    assert TrainingSettings.from_json_dict(json.loads(text)) == settings


def test_what_a_genetic_search_starts_from_comes_back_too_and_is_part_of_the_digest():
    settings = TrainingSettings(search=GENETIC, initial=(7, 3))
    assert TrainingSettings.from_json_dict(json.loads(json.dumps(settings.to_json_dict()))) == settings
    assert settings.digest() != TrainingSettings(search=GENETIC).digest()


def test_further_objectives_come_back_too_and_are_part_of_the_digest():
    settings = TrainingSettings(search=replace(GENETIC, further_objectives=("drawdown", "sharpe")))
    assert TrainingSettings.from_json_dict(json.loads(json.dumps(settings.to_json_dict()))) == settings
    assert settings.digest() != TrainingSettings(search=GENETIC).digest()


def test_settings_that_were_stored_before_there_were_further_objectives_are_read_without():
    stored = TrainingSettings(search=GENETIC).to_json_dict()
    del stored["search"]["further_objectives"]
    assert TrainingSettings.from_json_dict(stored) == TrainingSettings(search=GENETIC)


def test_only_a_genetic_search_starts_from_something():
    with pytest.raises(InvalidInputError, match=r"initial: found \(7,\) with the method 'tpe'"):
        TrainingSettings(search=SearchSettings(method="tpe"), initial=(7,))


def test_what_is_left_out_has_its_default():
    read = TrainingSettings.from_json_dict({"account": {"fee_rate": 0.0004}, "search": {"seed": 7}})
    assert read == TrainingSettings(account=AccountSettings(fee_rate=0.0004), search=SearchSettings(seed=7))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sides": "long"}, r"Unknown field 'sides' in settings\. Did you mean 'side'"),
        ({"account": {"fee": 0.1}}, r"Unknown field 'fee' in account\..*fee_rate"),
        ({"side": "up"}, "side: found 'up'.*'long', 'short' or 'both'"),
        (
            {"search": {"method": "annealing"}},
            "search.method: found 'annealing'.*'auto', 'grid', 'random', 'bayes",
        ),
        ({"search": {"budget": "many"}}, "search.budget: found 'many'.*valid integer"),
        (
            {"search": {"method": "genetic", "further_objectives": ["profit"]}},
            "search.further_objectives.0: found 'profit'.*'net_profit', 'sharpe'",
        ),
        (
            {"search": {"further_objectives": ["drawdown"]}},
            "search: further_objectives: found drawdown with the method",
        ),
        ({"search": {"seed": True}}, "search.seed: found True.*valid integer"),
        ({"windows": {"gap_days": 45}}, r"windows: gap_days: found 45, expected less than test_days \(30\)"),
        (
            {"account": {"fee_rate": 0.5}},
            "account: fee_rate: found 0.5, expected a number at least 0.0 and at m",
        ),
        ({"account": None}, "account: found None"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(values, message):
    with pytest.raises(InvalidInputError, match=message):
        TrainingSettings.from_json_dict(values)


def test_every_wrong_value_is_named():
    with pytest.raises(InvalidInputError) as raised:
        TrainingSettings.from_json_dict({"side": "up", "search": {"budget": 1.5}})
    assert len(str(raised.value).splitlines()) == 2


def test_a_wrong_side_is_refused_in_code_too():
    with pytest.raises(InvalidInputError, match="Unknown side 'up'"):
        TrainingSettings(side="up")


def test_the_digest_follows_the_settings_but_not_the_workers():
    digest = TrainingSettings().digest()
    assert digest == TrainingSettings().digest()
    assert digest == TrainingSettings(search=SearchSettings(workers=8)).digest()
    assert digest != TrainingSettings(search=SearchSettings(seed=1)).digest()
    assert digest != TrainingSettings(account=AccountSettings(fee_rate=0.0009)).digest()
