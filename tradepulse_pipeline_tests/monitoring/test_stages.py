from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradepulse_pipeline.monitoring.death_signals import DEATH_SIGNALS
from tradepulse_pipeline.monitoring.stages import Comeback, Health, as_figures, decide
from tradepulse_pipeline.validation.lifecycle import STAGE_MULTIPLIERS, STAGES

HEALTHY = Health(
    stage="MATURE",
    is_simulated=False,
    days_in_stage=12.0,
    n_trades=40,
    death_signals=(),
    left_band_on=None,
    drift_at=None,
    rolling_sharpe=2.0,
    sharpe_floor=-4.0,
    adverse_selection=0.2,
    fill_rate=1.0,
    comeback=None,
)
PASSING = Comeback(n_trades=30, net_profit=10.0, sharpe_ratio=0.5, fill_rate=0.7, p_value=0.05)
TWO = DEATH_SIGNALS[:2]


def stage_of(**changed):
    return decide(replace(HEALTHY, **changed)).stage


@pytest.mark.parametrize("stage", ["VALIDATION", "MATURE"])
@pytest.mark.parametrize(
    ("sign", "words"),
    [
        ({"death_signals": TWO}, "2 death signals: volume_profile_changed, new_algo_detected."),
        ({"left_band_on": "2026-03-01"}, "On 2026-03-01 its paper record fell below the band"),
        ({"drift_at": 17}, "Drift: at paper trade 17"),
        (
            {"death_signals": ("sharpe_below_50pct",), "rolling_sharpe": -4.5},
            "Its Sharpe ratio of 30 days, -4.50, is under half of its lifetime's and below -4.00",
        ),
    ],
)
def test_each_sign_of_decay_alone_leads_to_decay(stage, sign, words):
    verdict = decide(replace(HEALTHY, stage=stage, **sign))
    assert (verdict.stage, verdict.size_multiplier) == ("DECAY", 0.0)
    assert words in verdict.reason


@pytest.mark.parametrize("stage", ["PAPER", "DISCOVERY", "DECAY"])
def test_decay_is_reached_from_validation_and_mature_alone(stage):
    verdict = decide(replace(HEALTHY, stage=stage, death_signals=TWO, left_band_on="2026-03-01", drift_at=3))
    assert verdict.stage == stage
    assert stage == "DECAY" or "signs of decay move nothing. 2 death signals" in verdict.reason


def test_what_does_not_lead_to_decay():
    for sign in (
        {},
        {"death_signals": TWO[:1]},
        {"death_signals": ("sharpe_below_50pct",), "rolling_sharpe": -3.9},
        {"rolling_sharpe": -9.0},
        {"death_signals": ("sharpe_below_50pct",), "rolling_sharpe": None},
        {"death_signals": ("sharpe_below_50pct",), "rolling_sharpe": -9.0, "sharpe_floor": None},
    ):
        assert stage_of(**sign) == "MATURE"


def test_too_few_fills_lead_to_paper():
    assert stage_of(fill_rate=0.69) == "PAPER"
    assert stage_of(fill_rate=0.7) == "MATURE"
    assert stage_of(fill_rate=0.1, n_trades=9) == "MATURE"
    assert stage_of(stage="DISCOVERY", fill_rate=0.5) == "PAPER"
    assert "fill rate of 0.69" in decide(replace(HEALTHY, fill_rate=0.69)).reason


def test_adverse_selection_halves_the_size():
    for stage in STAGES:
        verdict = decide(replace(HEALTHY, stage=stage, adverse_selection=0.61))
        assert verdict.size_multiplier == 0.5 * STAGE_MULTIPLIERS[verdict.stage]
        assert "half the size" in verdict.reason
    assert decide(replace(HEALTHY, adverse_selection=0.6)).size_multiplier == 1.0
    assert decide(replace(HEALTHY, adverse_selection=0.9, n_trades=9)).size_multiplier == 1.0
    assert decide(replace(HEALTHY, adverse_selection=None)).size_multiplier == 1.0


def test_a_decayed_configuration_goes_to_paper_after_a_month():
    assert stage_of(stage="DECAY", days_in_stage=29.9) == "DECAY"
    assert stage_of(stage="DECAY", days_in_stage=30.0) == "PAPER"


def test_resurrection():
    fallen = {"stage": "PAPER", "comeback": PASSING}
    verdict = decide(replace(HEALTHY, **fallen))
    assert (verdict.stage, verdict.size_multiplier) == ("VALIDATION", 0.5)
    assert "pass the gates again" in verdict.reason
    assert stage_of(stage="PAPER") == "PAPER"  # it was never above
    assert stage_of(**fallen, is_simulated=True) == "PAPER"
    assert stage_of(**fallen, death_signals=TWO) == "PAPER"
    assert stage_of(stage="DECAY", comeback=PASSING) == "DECAY"
    for short in (
        {"n_trades": 29},
        {"net_profit": 0.0},
        {"sharpe_ratio": 0.49},
        {"sharpe_ratio": None},
        {"fill_rate": 0.69},
        {"p_value": 0.051},
        {"p_value": None},
    ):
        comeback = replace(PASSING, **short)
        assert 0 <= comeback.score < 1
        assert stage_of(stage="PAPER", comeback=comeback) == "PAPER"


def test_the_resurrection_score_is_the_least_fulfilled_gate():
    assert replace(PASSING, n_trades=15).score == 0.5
    assert replace(PASSING, n_trades=15, sharpe_ratio=0.125).score == 0.25
    assert replace(PASSING, sharpe_ratio=-1.0).score == 0.0
    assert replace(PASSING, n_trades=900, sharpe_ratio=9.0, p_value=0.0).score == 1.0


comebacks = st.builds(
    Comeback,
    n_trades=st.integers(0, 200),
    net_profit=st.floats(-1e6, 1e6),
    sharpe_ratio=st.none() | st.floats(-50, 50),
    fill_rate=st.floats(0, 1),
    p_value=st.none() | st.floats(0, 1),
)
healths = st.builds(
    Health,
    stage=st.sampled_from(STAGES),
    is_simulated=st.booleans(),
    days_in_stage=st.floats(0, 1000),
    n_trades=st.integers(0, 500),
    death_signals=st.lists(st.sampled_from(DEATH_SIGNALS), unique=True).map(tuple),
    left_band_on=st.none() | st.just("2026-01-01"),
    drift_at=st.none() | st.integers(1, 500),
    rolling_sharpe=st.none() | st.floats(-50, 50),
    sharpe_floor=st.none() | st.floats(-50, 50),
    adverse_selection=st.none() | st.floats(0, 1),
    fill_rate=st.floats(0, 1),
    comeback=st.none() | comebacks,
)


@given(healths)
def test_what_holds_of_every_verdict(health):
    verdict = decide(health)
    allowed = {
        ("MATURE", "DECAY"), ("VALIDATION", "DECAY"), ("DECAY", "PAPER"), ("PAPER", "VALIDATION"),
        ("MATURE", "PAPER"), ("VALIDATION", "PAPER"), ("DISCOVERY", "PAPER"),
    }  # fmt: skip
    assert verdict.stage == health.stage or (health.stage, verdict.stage) in allowed
    assert verdict.reason.endswith(".")
    assert 0 <= verdict.size_multiplier <= STAGE_MULTIPLIERS[verdict.stage]
    if health.is_simulated and health.stage == "PAPER":
        assert verdict.stage == "PAPER"
    json.dumps(as_figures(health), allow_nan=False)
