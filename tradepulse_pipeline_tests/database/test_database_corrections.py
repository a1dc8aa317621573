"""P-values are corrected over a job, and stages follow with the figures that decided them."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from tradepulse_pipeline.database.configurations import ConfigurationRow, get, insert_configuration, transitions
from tradepulse_pipeline.database.corrections import correct_job
from tradepulse_pipeline.database.training_jobs import create
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.validation.lifecycle import Evidence, classify

PAIRS = ("BTC", "ETH", "SOL", "XRP")
#: All that MATURE takes but the corrected p-value.
GOOD = Evidence(
    net_profit=5_000.0,
    currency="USDT",
    sharpe_ratio=2.5,
    fill_rate=1.0,
    sample_size=150,
    adverse_selection_score=0.1,
    is_overfit=False,
    is_out_of_sample=True,
    is_simulated=False,
    deflated_sharpe_ratio=0.99,
    probability_of_backtest_overfitting=0.1,
    n_trials=201_600,
    luck_ceiling=1.9,
)
EMPTY = dict.fromkeys(
    (
        *("sortino_ratio", "calmar_ratio", "max_drawdown", "win_rate", "gross_win_rate", "average_win"),
        *("average_loss", "profit_factor", "z_score", "p_value", "fill_rate", "adverse_selection_score"),
    )
)


@pytest.fixture
def job_id(database):
    series = [SeriesKey.of("binance", f"{base}/USDT", "5m") for base in PAIRS]
    return create(database, strategy_name="S", config={}, series=series, seed=0, code_version="1", user_id="ada")


def store(database, job_id, base, p_value, evidence=GOOD):
    decision = classify(evidence)
    row = ConfigurationRow(
        id=uuid4(),
        training_job_id=job_id,
        strategy_name="S",
        exchange="binance",
        pair=f"{base}/USDT",
        timeframe="5m",
        lifecycle_stage=decision.stage,
        is_simulated=False,
        net_profit=evidence.net_profit,
        sharpe_ratio=evidence.sharpe_ratio,
        sample_size=evidence.sample_size,
        deflated_sharpe_ratio=0.99,
        probability_of_backtest_overfitting=0.1,
        tested_p_value=p_value,
        parameters={},
        in_sample_metrics={},
        out_of_sample_metrics={},
        windows=[],
        template={},
        evidence={"statistics": {"n_trials": 201_600}},
        data_warnings=[],
        data_fingerprint="f00",
        data_start=datetime(2024, 1, 1, tzinfo=UTC),
        data_end=datetime(2025, 1, 1, tzinfo=UTC),
        code_version="1",
        engine_hash="e",
        dependency_versions={},
        seed=0,
        optimizer="grid",
        settings={},
        n_trials=1,
        run_id="r",
        **EMPTY,
    )

    def insert(connection):
        stored = insert_configuration(connection, row, reason=decision.reason, figures=asdict(evidence))
        correct_job(connection, job_id)
        return stored.id

    return database.run(insert)


def test_trainings_that_have_not_ended_count_as_failures(database, job_id):
    first = store(database, job_id, "BTC", 0.011)
    row = get(database, first)
    assert row.corrected_p_value == pytest.approx(4 * 0.011)
    assert row.bonferroni_p_value == pytest.approx(4 * 0.011)
    assert row.lifecycle_stage == "MATURE"


def test_a_later_training_makes_an_earlier_one_believable_and_the_reason_is_kept(database, job_id):
    first = store(database, job_id, "BTC", 0.02)
    assert get(database, first).corrected_p_value == pytest.approx(0.08)
    assert get(database, first).lifecycle_stage == "VALIDATION"
    store(database, job_id, "ETH", 0.02)
    row = get(database, first)
    assert (row.corrected_p_value, row.bonferroni_p_value) == (pytest.approx(0.04), pytest.approx(0.08))
    stored, grown = transitions(database, first)
    assert (stored.from_stage, stored.to_stage) == (None, "VALIDATION")
    assert (grown.from_stage, grown.to_stage) == ("VALIDATION", "MATURE")
    assert grown.figures["corrected_p_value"] == pytest.approx(0.04)
    assert row.lifecycle_stage == "MATURE"


def test_correcting_again_changes_nothing(database, job_id):
    first = store(database, job_id, "BTC", 0.2)
    assert database.run(lambda connection: correct_job(connection, job_id)) == 0
    assert len(transitions(database, first)) == 1


@pytest.mark.parametrize(
    ("evidence", "stage"),
    [
        (replace(GOOD, net_profit=-1.0), "PAPER"),
        (replace(GOOD, sample_size=20), "DISCOVERY"),
        (replace(GOOD, deflated_sharpe_ratio=0.5), "VALIDATION"),
    ],
)
def test_a_small_p_value_alone_lifts_nobody(database, job_id, evidence, stage):
    assert get(database, store(database, job_id, "BTC", 1e-9, evidence)).lifecycle_stage == stage


def test_an_unknown_p_value_proves_nothing(database, job_id):
    row = get(database, store(database, job_id, "BTC", None))
    assert (row.corrected_p_value, row.lifecycle_stage) == (None, "VALIDATION")


def test_what_monitoring_led_to_stays(database, job_id):
    first = store(database, job_id, "BTC", 0.001)
    decay = "UPDATE trained_configurations SET lifecycle_stage = 'DECAY' WHERE id = %s"
    database.run(lambda connection: connection.execute(decay, (first,)))
    store(database, job_id, "ETH", 0.5)
    assert get(database, first).lifecycle_stage == "DECAY"
