"""The first asset of the flow: candles in PostgreSQL, and whether they are fit to train on."""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import dagster as dg

from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.corporate_actions import candles_for_training
from tradepulse_pipeline.database.ingestion import Ingestion, refresh
from tradepulse_pipeline.database.pace import DatabasePace
from tradepulse_pipeline.database.surroundings import surroundings_of
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.quality import Aspect, Problem, QualityReport, assess
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.market.sources.base import CandleSource
from tradepulse_pipeline.market.sources.registry import sources_for
from tradepulse_pipeline.market.sources.times import iso_utc
from tradepulse_pipeline.orchestration.failures import told_plainly
from tradepulse_pipeline.orchestration.names import EXCHANGE_POOL
from tradepulse_pipeline.orchestration.partitions import SERIES, joint_version, series_of
from tradepulse_pipeline.orchestration.presentation import (
    DECIMALS,
    line_chart,
    moment,
    simulated_metadata,
    table,
)
from tradepulse_pipeline.orchestration.resources import DatabaseResource, SettingsResource
from tradepulse_pipeline.orchestration.training_jobs import claim_jobs, reporter_to_all
from tradepulse_pipeline.settings import load_settings

#: Sentences of a verdict: a broken series has thousands.
MAX_SENTENCES: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A check on the candles: what of them it looks at. Blocking ones stop a training at an error."""

    aspect: Aspect
    name: str
    description: str
    is_blocking: bool = False


CHECKS: Final = (
    Check(
        aspect="amount",
        name="enough_candles",
        description="There are enough candles for a training, and at least half of those in their span.",
        is_blocking=True,
    ),
    Check(
        aspect="plausibility",
        name="prices_are_plausible",
        description="No candle is likely a mistake, and prices, volumes and times keep their unit. Large moves and "
        "extreme candles that may be true are warnings.",
        is_blocking=True,
    ),
    Check(
        aspect="completeness",
        name="no_outages",
        description="No gaps, no feed that stands still around one, and a finished last candle.",
    ),
    Check(
        aspect="liquidity",
        name="market_is_liquid",
        description="Nearly all candles have volume and more than one price.",
    ),
    Check(
        aspect="freshness",
        name="candles_are_fresh",
        description="The last candle is the latest that could be there.",
    ),
    Check(
        aspect="sources",
        name="sources_agree",
        description="What the sources gave could be used as it was. Rows in quarantine are counted.",
    ),
)


def _specs() -> list[dg.AssetCheckSpec]:
    """Return the checks, each with a result for every series."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Specifying a partitions_def on an AssetCheckSpec", dg.PreviewWarning)
        return [
            dg.AssetCheckSpec(
                check.name,
                asset="market_data",
                blocking=check.is_blocking,
                description=check.description,
                partitions_def=SERIES,
            )
            for check in CHECKS
        ]


_COLUMNS: Final = dg.TableSchema(
    columns=[
        dg.TableColumn("exchange", "text", "Such as binance"),
        dg.TableColumn("pair", "text", "BASE/QUOTE, such as BTC/USDT"),
        dg.TableColumn("timeframe", "text", "Span of one candle: 1m to 1d"),
        dg.TableColumn("timestamp", "timestamptz", "Open time, UTC"),
        dg.TableColumn("open", "double precision", "Quote currency"),
        dg.TableColumn("high", "double precision", "Quote currency"),
        dg.TableColumn("low", "double precision", "Quote currency"),
        dg.TableColumn("close", "double precision", "Quote currency"),
        dg.TableColumn("volume", "double precision", "Base currency"),
        dg.TableColumn("is_filled", "boolean", "Filled forward, not traded"),
        dg.TableColumn("source", "text", "Where the candle came from"),
        dg.TableColumn("ingested_at", "timestamptz", "When it was stored"),
    ]
)


@dg.asset(
    partitions_def=SERIES,
    group_name="market",
    owners=["team:market-data"],
    kinds={"python", "postgres"},
    tags={"domain": "market"},
    code_version="1",
    metadata={"dagster/column_schema": _COLUMNS, "dagster/table_name": "tradepulse.market_data"},
    check_specs=_specs(),
    pool=EXCHANGE_POOL,
)
def market_data(
    context: dg.AssetExecutionContext, settings: SettingsResource, database: DatabaseResource
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # with checks, Dagster takes the bare name alone
    """Closed candles of one series, in PostgreSQL.

    Fetches what is **missing** (after the last stored candle, before the first, and long gaps between) from the
    exchange in the series' name, page by page; each page is stored as it comes, so that a broken download goes on
    where it stopped. A candle that the exchange **restates** keeps its former values as a revision; rows that break
    the data contract go to **quarantine** with the reason.

    Add a market as a new partition `exchange:BASE-QUOTE:timeframe`, such as `kraken:ETH-USD:1h`. The exchange
    `simulated` makes candles up: they prove that the machinery works, and nothing about any market.
    """
    with told_plainly():
        training, history = settings.training(), settings.history()
        db = database.open()
        reports: dict[str, QualityReport] = {}
        fingerprints: list[str] = []
        all_series = series_of(context)
        job_ids = claim_jobs(context, db, all_series, training, history)
        for series in all_series:
            make_sources = partial(_sources_of, db, series, settings.simulated_edge)
            ingestion = refresh(db, series, history, make_sources, reporter_to_all(context, db, job_ids, series))
            for warning in ingestion.warnings:
                context.log.warning(warning)
            candles = history.select(candles_for_training(db, series, history.start_ms, history.end_ms))
            now_ms = history.end_ms if history.end_ms is not None else time.time_ns() // 1_000_000
            known = surroundings_of(db, series, candles, now_ms=now_ms, sentences=ingestion.warnings)
            report = reports[str(series)] = assess(candles, known, name=str(series))
            fingerprints.append(candles.fingerprint())
            context.add_asset_metadata(
                {**simulated_metadata(series), **_metadata(candles, report, ingestion)}, partition_key=str(series)
            )
            if not report.is_fit_for_training:
                context.log.error(f"{series}: {_verdict(report)}")  # Dagster names the failed check, not its reason
    checks = [_result(check, reports) for check in CHECKS]
    return dg.MaterializeResult(data_version=joint_version(fingerprints), check_results=checks)


def _sources_of(database: Database, series: SeriesKey, simulated_edge: float) -> list[CandleSource]:
    settings = load_settings(simulated_edge=simulated_edge)
    return sources_for(series.market, settings.sources(partial(DatabasePace, database)))


def _metadata(candles: Candles, report: QualityReport, ingestion: Ingestion) -> dict[str, Any]:
    return {
        "verdict": _verdict(report),
        **({"warnings": "\n".join(ingestion.warnings)} if ingestion.warnings else {}),
        "dagster/row_count": report.n_candles,
        "first_candle": moment(report.first_ms),
        "last_candle": moment(report.last_ms),
        "close": line_chart("Close", candles.open_time_ms, candles.close),
        "coverage": round(report.coverage, DECIMALS),
        "missing_candles": report.n_missing,
        "zero_volume_share": round(report.zero_volume_share, DECIMALS),
        "largest_move": round(report.largest_move, DECIMALS),
        "new_candles": ingestion.inserted,
        "unchanged_candles": ingestion.unchanged,
        "restated_candles": ingestion.restated,
        "quarantined_rows": ingestion.rejected,
        "candles_left_out_as_set_aside": ingestion.set_aside,
        "configurations_made_stale": ingestion.made_stale,
        "fingerprint": candles.fingerprint(),
    }


def _verdict(report: QualityReport) -> str:
    there = f"{report.n_candles:,} of {report.n_expected:,} candles are there."
    fit = f"Fit to train on: {there}" if report.is_fit_for_training else "Not fit to train on."
    return f"{fit} {_said(report.problems)}" if report.problems else fit


def _result(check: Check, reports: dict[str, QualityReport]) -> dg.AssetCheckResult:
    """Return a check's result over the series of a step, which is one unless a run covers a range of partitions."""
    problems = {key: report.problems_of(check.aspect) for key, report in reports.items()}
    severities = {problem.severity for found in problems.values() for problem in found}
    figures = {key: _FIGURES[check.aspect](report) for key, report in reports.items()}
    return dg.AssetCheckResult(
        check_name=check.name,
        passed=severities <= {"note"},
        severity=dg.AssetCheckSeverity.ERROR if "error" in severities else dg.AssetCheckSeverity.WARN,
        description="\n".join(f"{key}: {_said(found)}" for key, found in problems.items()),
        metadata=next(iter(figures.values())) if len(figures) == 1 else {},
    )


def _said(problems: tuple[Problem, ...]) -> str:
    shown = [problem.sentence for problem in problems[:MAX_SENTENCES]]
    rest = len(problems) - len(shown)
    return " ".join((*shown, *([f"And {rest} more."] if rest else []))) or "Nothing to remark."


def _amount(report: QualityReport) -> dict[str, Any]:
    return {
        "candles": report.n_candles,
        "expected_candles": report.n_expected,
        "coverage": round(report.coverage, DECIMALS),
    }


def _plausibility(report: QualityReport) -> dict[str, Any]:
    order = ("likely error", "undecided", "likely true")
    outliers = sorted(report.outliers, key=lambda one: (order.index(one.judgement), one.open_time_ms))
    rows = [
        {
            "time": iso_utc(one.open_time_ms),
            "judgement": one.judgement,
            "move": round(one.move, DECIMALS),
            "volume / usual": None if one.volume_ratio is None else round(one.volume_ratio, DECIMALS),
            "reason": one.reason,
        }
        for one in outliers
    ]
    return {
        "outliers": len(outliers),
        "likely_errors": sum(one.is_error for one in outliers),
        "unit_or_clock_slips": len(report.slips),
        "largest_move": round(report.largest_move, DECIMALS),
        **({"doubtful_first": table(rows, tuple(rows[0]))} if rows else {}),
    }


def _completeness(report: QualityReport) -> dict[str, Any]:
    longest = sorted(report.gaps, key=lambda gap: (-gap.n_missing, gap.start_ms))
    rows = [
        {
            "from": iso_utc(gap.start_ms),
            "missing candles": gap.n_missing,
            "cause": gap.cause,
            "other pairs": f"{gap.n_others_missing} of {gap.n_others}" if gap.n_others else "unknown",
        }
        for gap in longest
    ]
    return {
        "gaps": len(report.gaps),
        "outages": len(report.outages),
        "missing_candles": report.n_missing,
        "where_nobody_trades": report.no_trade or "unknown",
        "standstills": len(report.standstills),
        **({"longest_gaps": table(rows, tuple(rows[0]))} if rows else {}),
    }


def _liquidity(report: QualityReport) -> dict[str, Any]:
    return {
        "zero_volume_share": round(report.zero_volume_share, DECIMALS),
        "flat_share": round(report.flat_share, DECIMALS),
    }


def _freshness(report: QualityReport) -> dict[str, Any]:
    return {
        "last_candle": moment(report.last_ms),
        "late_candles": report.n_late if report.n_late is not None else 0,
    }


def _sources(report: QualityReport) -> dict[str, Any]:
    rows = [{"reason": reason, "rows": count} for reason, count in report.set_aside]
    return {
        "rows_in_quarantine": sum(count for _, count in report.set_aside),
        **({"reasons": table(rows, tuple(rows[0]))} if rows else {}),
    }


_FIGURES: Final[dict[Aspect, Callable[[QualityReport], dict[str, Any]]]] = {
    "amount": _amount,
    "plausibility": _plausibility,
    "completeness": _completeness,
    "liquidity": _liquidity,
    "freshness": _freshness,
    "sources": _sources,
}
