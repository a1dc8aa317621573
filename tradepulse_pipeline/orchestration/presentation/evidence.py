"""The evidence of a record as a person looks at it: figures, sentences and plots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import dagster as dg
import numpy as np

from tradepulse_pipeline.market.candles import FloatArray
from tradepulse_pipeline.orchestration.presentation.plots import (
    bars_with_intervals,
    decay_curve,
    fan_chart,
    joined,
    ladder,
    overfitting_histogram,
    trials_histogram,
)
from tradepulse_pipeline.orchestration.presentation.texts import DECIMALS, table
from tradepulse_pipeline.validation.attribution import FEW_TRADES
from tradepulse_pipeline.validation.evidence import RUIN_SHARE, EvidenceReport
from tradepulse_pipeline.validation.record import OutOfSampleRecord

#: What is plotted from training to training.
_PLOTTED: Final = ("deflated_sharpe_ratio", "probability_of_backtest_overfitting", "luck_ceiling", "months_to_go")

#: Groups of fewer trades are drawn without their interval.
HANDFUL: Final = 5

#: How attributes are called on screen.
_ATTRIBUTES: Final = {
    "exit_reason": "exit reason",
    "hour": "hour of the entry (UTC)",
    "weekday": "weekday of the entry",
    "volatility": "volatility",
    "trend": "trend",
    "side": "side",
    "volume": "volume of the decision",
}


def evidence_metadata(record: OutOfSampleRecord, report: EvidenceReport, initial_capital: float) -> dict[str, Any]:
    """Return what tells the record from luck: plots, verdicts in words, figures; nothing that was not measured."""
    statistics = report.statistics
    figures = {name: getattr(statistics, name) for name in _PLOTTED}
    attribution = [
        _bars(f"Mean result by {title}", groups)
        for attribute, title in _ATTRIBUTES.items()
        if len(groups := [row for row in report.attribution if row["attribute"] == attribute]) > 1
    ]
    return {
        "plots": joined(_plots(record, report, initial_capital)),
        **({"attribution": joined(attribution)} if attribution else {}),
        "costs_verdict": report.costs_verdict,
        "accuracy": report.accuracy_verdict,
        "evidence": _table(report),
        **{name: round(value, DECIMALS) for name, value in figures.items() if value is not None},
    }


def _plots(
    record: OutOfSampleRecord, report: EvidenceReport, initial_capital: float
) -> Iterator[dg.MarkdownMetadataValue]:
    statistics = report.statistics
    if report.sharpe_histogram:
        yield trials_histogram(
            _spread(report.sharpe_histogram),
            name="Sharpe ratio",
            chosen=record.metrics.sharpe_ratio,
            chosen_is="this record, out-of-sample",
            luck_ceiling=statistics.luck_ceiling,
            n_trials=statistics.n_trials,
            over="over the whole history",
        )
    yield ladder(
        "Net result under rising costs", [rung["name"] for rung in report.costs], _column(report.costs, "net_profit")
    )
    if report.fan and statistics.ruin_probability is not None:
        own = np.append(initial_capital, initial_capital + record.trades["pnl"].cum_sum().to_numpy())
        yield fan_chart(
            "Monte Carlo over trades",
            np.array(report.fan["trades"], dtype=np.int64),
            np.array(report.fan["equity"]),
            (np.arange(len(own)), own),
            unit="trades",
            own_is="this record",
            ruin_level=RUIN_SHARE * initial_capital,
            probability_of_ruin=statistics.ruin_probability,
        )
    if report.candle_fan and statistics.bootstrapped_ruin_probability is not None:
        days = np.array(report.candle_fan["days"], dtype=np.int64)
        yield fan_chart(
            "Monte Carlo over candles, in-sample",
            days,
            np.array(report.candle_fan["equity"]),
            (days, np.array(report.candle_fan["own"])),
            unit="days",
            own_is="the candles as they came",
            ruin_level=RUIN_SHARE * initial_capital,
            probability_of_ruin=statistics.bootstrapped_ruin_probability,
        )
    if report.logits and statistics.probability_of_backtest_overfitting is not None:
        yield overfitting_histogram(
            np.array(report.logits["edges"]),
            np.array(report.logits["counts"], dtype=np.int64),
            probability=statistics.probability_of_backtest_overfitting,
        )
    if report.decay:
        yield _decay(report.decay)


def _table(report: EvidenceReport) -> dg.MetadataValue:
    statistics = report.statistics
    names = [name for name in type(statistics).__dataclass_fields__ if getattr(statistics, name) is not None]
    rows = [{"figure": name.replace("_", " "), "value": _written(getattr(statistics, name))} for name in names]
    return table(rows, ("figure", "value"))


def _written(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _decay(rows: Sequence[Mapping[str, Any]]) -> dg.MarkdownMetadataValue:
    mean, error = _column(rows, "mean"), _column(rows, "standard_error")
    horizons = np.array([row["horizon"] for row in rows], dtype=np.int64)
    return decay_curve("Mean return after the decisions", horizons, mean, mean - 1.96 * error, mean + 1.96 * error)


def _bars(title: str, rows: Sequence[Mapping[str, Any]]) -> dg.MarkdownMetadataValue:
    """Return the groups of an attribute; the interval of a handful of trades would hide all others."""
    n_trades = np.array([row["n_trades"] for row in rows], dtype=np.int64)
    low, high = (np.where(n_trades < HANDFUL, np.nan, _column(rows, name)) for name in ("mean_r_low", "mean_r_high"))
    return bars_with_intervals(
        title, [row["group"] for row in rows], _column(rows, "mean_r"), low, high, n_trades, few=FEW_TRADES
    )


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> FloatArray:
    return np.array([np.nan if row[name] is None else row[name] for row in rows], dtype=np.float64)


def _spread(histogram: Mapping[str, Sequence[float]]) -> FloatArray:
    """Return the middle of each bin as often as something was counted in it."""
    edges = np.array(histogram["edges"])
    return np.repeat((edges[1:] + edges[:-1]) / 2, np.array(histogram["counts"], dtype=np.int64))
