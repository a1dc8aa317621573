"""The lifecycle of a configuration as a person looks at it: verdict, signals, paper trades, equity against its band."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import dagster as dg

from tradepulse_pipeline.backtest.result import EXIT_REASONS
from tradepulse_pipeline.database.configurations import ConfigurationRow
from tradepulse_pipeline.market.series import MS_PER_DAY
from tradepulse_pipeline.market.sources.times import iso_utc
from tradepulse_pipeline.monitoring.breakers import DEFINITIONS, LIMITS
from tradepulse_pipeline.monitoring.evaluation import Evaluation
from tradepulse_pipeline.orchestration.presentation.plots import band_chart
from tradepulse_pipeline.orchestration.presentation.texts import DECIMALS, moment, table
from tradepulse_pipeline.strategies.decisions import LONG

#: What is plotted from look to look.
_PLOTTED: Final = (
    "paper_days",
    "paper_trades",
    "net_profit",
    "paper_sharpe_ratio",
    "rolling_30d_sharpe",
    "lifetime_sharpe_ratio",
    "drift_statistic",
    "adverse_selection_score",
    "fill_rate",
    "resurrection_score",
)

#: Paper trades that are shown, the last ones.
TRADES_SHOWN: Final = 30

_STATES: Final = {True: "ON", False: "off", None: "not measured"}


def monitoring_metadata(row: ConfigurationRow, found: Evaluation, *, is_news: bool) -> dict[str, Any]:
    """Return what one look found; ``is_news`` is whether it was recorded, as the first through its last candle."""
    before, after = found.standing.stage, found.verdict.stage
    change = f"{before} → {after}" if found.moved else after
    again = "" if is_news else " Nothing new since the last look: no candle has closed."
    figures = {name: found.figures()[name] for name in _PLOTTED}
    stale = {"stale": row.stale_reason} if row.stale_reason else {}
    return {
        "verdict": f"{change}: {found.verdict.reason}{again}",
        "death_signals": _signals(found),
        "what_the_signals_are": _list({signal.name: signal.definition for signal in found.signals}),
        "death_signal_count": len(found.death_signals),
        "paper_record": _equity(found),
        "paper_trades_table": _trades(found),
        "circuit_breakers": _breakers(found),
        "what_the_breakers_look_at": _list(DEFINITIONS),
        **({"challenger": found.challenger.sentence} if found.challenger else {}),
        **stale,
        "lifecycle_stage": after,
        "size_multiplier": found.verdict.size_multiplier,
        "through": moment(found.through_ms),
        **{name: round(value, DECIMALS) for name, value in figures.items() if value is not None},
        "configuration_id": str(row.id),
        "on_the_command_line": f"tradepulse show {row.id}",
    }


def _signals(found: Evaluation) -> dg.MetadataValue:
    rows = [
        {
            "signal": signal.name,
            "state": _STATES[signal.is_on],
            "figure": None if signal.figure is None else round(signal.figure, DECIMALS),
            "threshold": None if signal.threshold is None else round(signal.threshold, DECIMALS),
        }
        for signal in found.signals
    ]
    return table(rows, ("signal", "state", "figure", "threshold"))


def _list(definitions: Mapping[str, str]) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md("\n".join(f"- **{name}**: {definition}" for name, definition in definitions.items()))


def _breakers(found: Evaluation) -> dg.MetadataValue:
    """Return what each circuit breaker would have done to the paper record: trades it had stopped, and their cost."""
    rows = []
    for name, limit in LIMITS.items():
        outcome = found.breakers.alone.get(name)
        rows.append(
            {
                "breaker": name,
                "limit": limit,
                "tripped": None if outcome is None else outcome.n_tripped,
                "stopped": None if outcome is None else len(outcome.stopped),
                "saved (R)": None if outcome is None else round(outcome.saved_r, DECIMALS),
            }
        )
    return table(rows, tuple(rows[0]))


def _trades(found: Evaluation) -> dg.MetadataValue:
    trades, opens = found.paper.trades, found.frame.open_time_ms
    rows = [
        {
            "entry": iso_utc(int(opens[trades.entry_bar[k]])),
            "side": "long" if trades.side[k] == LONG else "short",
            "result (R)": round(float(trades.r_multiple[k]), DECIMALS),
            "pnl": round(float(trades.pnl[k]), DECIMALS),
            "why it ended": EXIT_REASONS[trades.exit_reason[k]],
        }
        for k in range(max(0, len(trades) - TRADES_SHOWN), len(trades))
    ]
    return table(rows, ("entry", "side", "result (R)", "pnl", "why it ended"))


def _equity(found: Evaluation) -> dg.MarkdownMetadataValue:
    """Return the paper equity against the band, both as multiples of the equity at the start."""
    paper, band = found.paper, found.band
    return band_chart(
        f"{len(paper.trades)} paper trades in {len(paper.day)} days",
        paper.day * MS_PER_DAY,
        paper.equity,
        band=None if band is None else (band.low, band.high),
        promise=f"predicted; hardly ever left within {0 if band is None else band.horizon_days} days",
    )
