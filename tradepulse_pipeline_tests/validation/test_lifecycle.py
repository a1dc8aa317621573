from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradepulse_pipeline.validation.lifecycle import STAGE_MULTIPLIERS, STAGES, Evidence, classify

MATURE = Evidence(
    net_profit=5_000.0,
    currency="USDT",
    sharpe_ratio=2.0,
    fill_rate=1.0,
    sample_size=150,
    adverse_selection_score=0.2,
    is_overfit=False,
    is_out_of_sample=True,
    is_simulated=False,
    corrected_p_value=0.01,
    deflated_sharpe_ratio=0.99,
    probability_of_backtest_overfitting=0.1,
)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "MATURE: out-of-sample it earned 5,000.00 USDT over 150 trades with a Sharpe ratio of 2.00, and the"),
        ({"sample_size": 100}, "MATURE"),
        # PAPER, in the order of the rules
        ({"net_profit": -212.4, "sample_size": 41}, "PAPER: out-of-sample it lost 212.40 USDT over 41 trades."),
        ({"net_profit": -0.001, "sample_size": 1}, "PAPER: out-of-sample it lost 0.001 USDT over 1 trade."),
        ({"net_profit": 0.0}, "MATURE"),
        ({"sharpe_ratio": 0.4}, "PAPER: out-of-sample it earned 5,000.00 USDT over 150 trades, but its Sharpe ratio of "
         "0.40 is below 0.5."),
        ({"sharpe_ratio": 0.49999}, "PAPER: .* 0.49999 is below 0.5."),
        ({"sharpe_ratio": 0.5}, "VALIDATION"),
        ({"fill_rate": 0.69}, "PAPER: .* its fill rate of 0.69 is below 0.7."),
        ({"fill_rate": 0.7}, "MATURE"),
        ({"net_profit": 0.0, "sharpe_ratio": 0.0, "sample_size": 0}, "PAPER: out-of-sample it made no trade."),
        ({"is_simulated": True}, r"PAPER: out-of-sample \(SIMULATED\) it earned .*, which shows nothing about a real"),
        ({"is_simulated": True, "net_profit": -1.0}, r"PAPER: out-of-sample \(SIMULATED\) it lost 1.00 USDT"),
        ({"is_out_of_sample": False}, "PAPER: on candles that its parameters were chosen on it earned .* is not an"),
        # DISCOVERY and VALIDATION
        ({"sample_size": 29}, "DISCOVERY: .* over 29 trades; fewer than 30 trades show little."),
        ({"sample_size": 30}, "VALIDATION: .* over 30 trades; it takes 100 trades to trust it."),
        ({"sample_size": 99}, "VALIDATION: .* over 99 trades"),
        # What luck reaches
        ({"sample_size": 64, "sharpe_ratio": 1.8, "n_trials": 201_600, "luck_ceiling": 2.1}, "VALIDATION: .* over 64 "
         "trades; .* Sharpe 1.80, but after 201,600 trials luck alone reaches 2.10."),
        ({"sample_size": 64, "n_trials": 9, "luck_ceiling": 1.2, "months_to_go": 5.4}, "VALIDATION: .* Sharpe 2.00, "
         "where luck alone reaches 1.20 after 9 trials; 5 more months of it would prove it."),
        ({"sample_size": 20, "n_trials": 9, "luck_ceiling": 1.2}, "DISCOVERY: .* luck alone reaches 1.20 after 9 tri"),
        # MATURE needs every condition
        ({"sharpe_ratio": 1.5}, "VALIDATION: .*, but its Sharpe ratio of 1.50 is not above 1.5."),
        ({"sharpe_ratio": 1.5001}, "MATURE: .* Sharpe ratio of 1.5001"),
        ({"adverse_selection_score": 0.3}, "VALIDATION: .*, but its adverse selection score of 0.30 is not below 0.3."),
        ({"corrected_p_value": 0.05}, "VALIDATION: .* false-discovery correction of 0.05 is not below 0.05."),
        ({"deflated_sharpe_ratio": 0.95}, "VALIDATION: .*, but its deflated Sharpe ratio of 0.95 is not above 0.95."),
        ({"probability_of_backtest_overfitting": 0.5}, "VALIDATION: .* overfitting of 0.50 is not below 0.5."),
        ({"is_overfit": True}, "VALIDATION: .*, but it is overfit: its Sharpe ratio fell to less than half"),
        ({"corrected_p_value": None}, "VALIDATION: .* not been measured yet: p-value after the false-discovery corr"),
        ({"deflated_sharpe_ratio": None}, "VALIDATION: .* not been measured yet: deflated Sharpe ratio."),
        ({"probability_of_backtest_overfitting": None}, "VALIDATION: .* yet: probability of backtest overfitting."),
        ({"is_overfit": None}, "VALIDATION: .* not been measured yet: overfitting over the windows."),
        ({"sharpe_ratio": 1.0, "is_overfit": True, "deflated_sharpe_ratio": None},
         "VALIDATION: .* of 1.00 is not above 1.5; it is overfit: .*; this has not been measured yet: deflated"),
    ],
)  # fmt: skip
def test_each_rule_and_its_boundary(changes, sentence):
    decision = classify(replace(MATURE, **changes))
    assert str(decision) == f"{decision.stage}: {decision.reason}"
    stage, _, reason = sentence.partition(": ")
    assert decision.stage == stage
    if reason:
        pattern = sentence.replace(".", r"\.").replace(r"\.*", ".*")
        assert re.match(pattern, str(decision)), str(decision)


def test_the_figures_that_decided_are_kept():
    figures = classify(MATURE).figures
    assert figures["net_profit"] == 5_000.0
    assert figures["sample_size"] == 150
    assert figures["is_simulated"] is False
    assert figures["deflated_sharpe_ratio"] == 0.99


FIGURES = st.floats(-10, 10)
MAYBE = st.one_of(st.none(), st.floats(0, 1))


@given(
    st.builds(
        Evidence,
        net_profit=st.floats(-1e6, 1e6),
        currency=st.just("USDT"),
        sharpe_ratio=FIGURES,
        fill_rate=st.floats(0, 1),
        sample_size=st.integers(0, 300),
        adverse_selection_score=st.floats(0, 1),
        is_overfit=st.one_of(st.none(), st.booleans()),
        is_out_of_sample=st.booleans(),
        is_simulated=st.booleans(),
        corrected_p_value=MAYBE,
        deflated_sharpe_ratio=MAYBE,
        probability_of_backtest_overfitting=MAYBE,
    )
)
def test_what_was_not_measured_or_is_not_real_never_rises(evidence):
    decision = classify(evidence)
    assert decision.stage in STAGES
    assert decision.stage != "DECAY"
    if evidence.is_simulated or not evidence.is_out_of_sample or evidence.sample_size == 0:
        assert decision.stage == "PAPER"
    unmeasured = (
        evidence.corrected_p_value,
        evidence.deflated_sharpe_ratio,
        evidence.probability_of_backtest_overfitting,
        evidence.is_overfit,
    )
    if None in unmeasured:
        assert decision.stage != "MATURE"
    assert decision.reason.endswith(".")
    assert ("SIMULATED" in decision.reason) == evidence.is_simulated


def test_only_tested_stages_are_sized():
    assert STAGE_MULTIPLIERS == {"PAPER": 0.0, "DISCOVERY": 0.25, "VALIDATION": 0.5, "MATURE": 1.0, "DECAY": 0.0}
