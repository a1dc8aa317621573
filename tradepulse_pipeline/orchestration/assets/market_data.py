"""The first asset of the flow: candles in PostgreSQL, and whether they are fit to train on."""

from functools import partial
from typing import Any, Final

import dagster as dg

from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.corporate_actions import candles_for_training
from tradepulse_pipeline.database.ingestion import Ingestion, refresh
from tradepulse_pipeline.database.pace import DatabasePace
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.quality import QualityReport, assess
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.market.sources.base import CandleSource
from tradepulse_pipeline.market.sources.registry import sources_for
from tradepulse_pipeline.market.sources.times import iso_utc
from tradepulse_pipeline.orchestration.failures import told_plainly
from tradepulse_pipeline.orchestration.partitions import SERIES, joint_version, series_of
from tradepulse_pipeline.orchestration.presentation import (
    DECIMALS,
    line_chart,
    moment,
    simulated_metadata,
    table,
)
from tradepulse_pipeline.orchestration.resources import DatabaseResource, SettingsResource
from tradepulse_pipeline.orchestration.training_jobs import claim_tagged_job, reporter
from tradepulse_pipeline.settings import load_settings

CHECK: Final = "candles_are_fit"

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
    check_specs=[
        dg.AssetCheckSpec(
            CHECK,
            asset="market_data",
            blocking=True,
            description="Enough candles without too many holes. What is merely notable (gaps, frozen prices, wild "
            "moves) is said and does not block. The latest result is that of the series that it names.",
        )
    ],
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
        settings.training()  # refuses what contradicts itself before hours are spent on candles
        history = settings.history()
        db = database.open()
        reports: dict[str, QualityReport] = {}
        fingerprints: list[str] = []
        all_series = series_of(context)
        job_id = claim_tagged_job(context, db, all_series)
        for series in all_series:
            make_sources = partial(_sources, db, series, settings.simulated_edge)
            ingestion = refresh(db, series, history, make_sources, reporter(context, db, job_id, series))
            for warning in ingestion.warnings:
                context.log.warning(warning)
            candles = history.select(candles_for_training(db, series, history.start_ms, history.end_ms))
            report = reports[str(series)] = assess(candles)
            fingerprints.append(candles.fingerprint())
            context.add_asset_metadata(
                {**simulated_metadata(series), **_metadata(candles, report, ingestion)}, partition_key=str(series)
            )
            if not report.is_fit_for_training:
                context.log.error(f"{series}: {_verdict(report)}")  # Dagster names the failed check, not its reason
    return dg.MaterializeResult(data_version=joint_version(fingerprints), check_results=[_check(reports)])


def _sources(database: Database, series: SeriesKey, simulated_edge: float) -> list[CandleSource]:
    settings = load_settings(simulated_edge=simulated_edge)
    return sources_for(series.market, settings.sources(lambda venue: DatabasePace(database, venue)))


def _metadata(candles: Candles, report: QualityReport, ingestion: Ingestion) -> dict[str, Any]:
    longest_gaps = sorted(report.gaps, key=lambda gap: gap.n_missing, reverse=True)
    gaps = [{"from": iso_utc(gap.start_ms), "missing candles": gap.n_missing} for gap in longest_gaps]
    return {
        "verdict": _verdict(report),
        **({"warnings": "\n".join(ingestion.warnings)} if ingestion.warnings else {}),
        "dagster/row_count": report.n_candles,
        "first_candle": moment(report.first_ms),
        "last_candle": moment(report.last_ms),
        "close": line_chart("Close", candles.open_time_ms, candles.close),
        "coverage": round(report.coverage, DECIMALS),
        "missing_candles": report.n_missing,
        **({"longest_gaps": table(gaps, ("from", "missing candles"))} if gaps else {}),
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
    return " ".join((fit, *(problem.sentence for problem in report.problems)))


def _check(reports: dict[str, QualityReport]) -> dg.AssetCheckResult:
    is_fit = all(report.is_fit_for_training for report in reports.values())
    return dg.AssetCheckResult(
        check_name=CHECK,
        passed=is_fit,
        severity=dg.AssetCheckSeverity.WARN if is_fit else dg.AssetCheckSeverity.ERROR,
        description="\n".join(f"{series}: {_verdict(report)}" for series, report in reports.items()),
    )
