"""What a person sees: tables that stay small and leave nothing important out."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from tradepulse_pipeline.backtest.result import METRIC_NAMES, Metrics
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.optimizers.objective import OBJECTIVE_METRICS
from tradepulse_pipeline.optimizers.settings import OBJECTIVES
from tradepulse_pipeline.orchestration.presentation import (
    IN_SAMPLE,
    MAX_ROWS,
    METRICS_SHOWN,
    links,
    metrics_table,
    moment,
    record_figures,
    simulated_metadata,
    table,
    warnings_metadata,
    wide_table,
)
from tradepulse_pipeline.strategies.registry import get_strategy


def test_a_table_without_rows_still_has_its_columns():
    empty = table([], ("from", "missing candles"))
    assert [column.name for column in empty.schema.columns] == ["from", "missing candles"]
    assert empty.records == []


def test_a_table_has_types_and_an_end():
    rows = [{"n": k, "share": k / 2, "name": str(k)} for k in range(1_000)]
    found = table(rows, ("n", "share", "name"))
    assert [column.type for column in found.schema.columns] == ["int", "float", "string"]
    assert [record.data["n"] for record in found.records] == list(range(MAX_ROWS))


def test_a_wide_table_has_a_line_per_row_and_an_end():
    rows = [{"n": str(k), "stop distance": f"{k / 2}"} for k in range(1_000)]
    lines = wide_table(rows, ("stop distance", "n")).value.splitlines()
    assert lines[:4] == ["| stop distance | n |", "| --- | --- |", "| 0.0 | 0 |", "| 0.5 | 1 |"]
    assert len(lines) == 2 + MAX_ROWS


@pytest.mark.parametrize("is_out_of_sample", [True, False])
def test_metrics_stand_side_by_side_as_people_write_them(is_out_of_sample):
    numbers = dict.fromkeys(METRIC_NAMES, 0.0)
    metrics = Metrics(**{**numbers, "net_profit": -1_234.5, "max_drawdown": 0.1234, "profit_factor": math.nan})
    record = SimpleNamespace(metrics=metrics, in_sample=None, is_out_of_sample=is_out_of_sample)
    judged = "out-of-sample" if is_out_of_sample else "test windows, not out-of-sample"
    rows = {row.data["metric"]: row.data for row in metrics_table(record).records}
    assert rows["Net profit (quote currency)"][judged] == "-1,234.50"
    assert rows["Maximum drawdown"] == {"metric": "Maximum drawdown", judged: "12.3%", IN_SAMPLE: "–"}
    assert rows["Profit factor"][judged] == "no losses"


def test_every_objective_can_be_shown():
    assert set(OBJECTIVE_METRICS) == set(OBJECTIVES)
    assert set(OBJECTIVE_METRICS.values()) <= set(METRICS_SHOWN)


def test_only_simulated_series_are_called_so():
    assert simulated_metadata(SeriesKey.parse("binance:BTC-USDT:5m")) == {}
    assert list(simulated_metadata(SeriesKey.parse("simulated:BTC-USDT:5m"))) == ["SIMULATED"]


def test_times_are_utc():
    assert moment(1_704_067_200_000).value == 1_704_067_200.0
    assert moment(None).value == "none"


def test_pages_lead_to_each_other_in_a_line_that_dagster_writes_out():
    see = links(
        SeriesKey.parse("binance:BTC-USDT:5m"),
        {"the candles": ("market_data",), "the search": ("supply_shock_v3", "optimization_results")},
        get_strategy("SUPPLY_SHOCK_V3"),
    )
    partition = "view=partitions&partition=binance%3ABTC-USDT%3A5m"
    assert see.value.split(" · ") == [
        f"[the candles](/assets/market_data?{partition})",
        f"[the search](/assets/supply_shock_v3/optimization_results?{partition})",
        "[train again](/locations/tradepulse/jobs/train_supply_shock_v3)",
    ]
    assert len(see.value) < 1_000


@pytest.mark.parametrize("prefix", ["oos", "test"])
def test_figures_that_are_plotted_are_called_what_they_are_and_undefined_ones_left_out(prefix):
    metrics = Metrics(**{**dict.fromkeys(METRIC_NAMES, 0.5), "profit_factor": math.nan, "sample_size": 12.0})
    record = SimpleNamespace(
        metrics=metrics,
        in_sample=None,
        is_out_of_sample=prefix == "oos",
        cost_per_trade_r=0.25,
        p_value=None,
        total_trials=100,
    )
    figures = record_figures(record)
    assert figures[f"{prefix}_sharpe_ratio"] == 0.5
    assert (figures[f"{prefix}_trades"], figures["cost_per_trade_r"], figures["total_trials"]) == (12, 0.25, 100)
    assert not {f"{prefix}_profit_factor", "in_sample_sharpe_ratio", "p_value"} & figures.keys()
    assert all(name.startswith(prefix) for name in figures if name not in ("cost_per_trade_r", "total_trials"))


def test_warnings_are_there_only_where_something_is_notable():
    assert warnings_metadata(()) == {}
    assert warnings_metadata(("A gap.", "A spike.")) == {"data_warnings": "A gap.\nA spike."}
