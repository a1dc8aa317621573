"""What the best parameters of each train window did on the candles after it."""

from datetime import UTC, datetime
from typing import Any, Final

import dagster as dg
import numpy as np

from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.series import MS_PER_DAY, SeriesKey
from tradepulse_pipeline.orchestration.failures import told_plainly
from tradepulse_pipeline.orchestration.names import branch_name, code_version
from tradepulse_pipeline.orchestration.partitions import SERIES, joint_version, series_of
from tradepulse_pipeline.orchestration.presentation import (
    candles_metadata,
    equity_curve,
    evidence_metadata,
    links,
    metrics_table,
    place,
    record_figures,
    simulated_metadata,
    table,
    warnings_metadata,
    written,
)
from tradepulse_pipeline.orchestration.resources import ArtifactsResource, DatabaseResource
from tradepulse_pipeline.orchestration.tables import (
    OPTIMIZATION_RESULTS,
    TRAINED_CONFIGURATIONS,
    WALK_FORWARD_VALIDATION,
    branch_key,
    read_frame,
    read_search,
    read_trial_blocks,
    search_version,
    write_record,
)
from tradepulse_pipeline.orchestration.training_jobs import claim_job, guard, reporter
from tradepulse_pipeline.strategies.base import Strategy
from tradepulse_pipeline.validation.bootstrap import equity_band
from tradepulse_pipeline.validation.chosen import in_sample_equity
from tradepulse_pipeline.validation.evidence import EvidenceReport, gather_evidence
from tradepulse_pipeline.validation.record import OutOfSampleRecord
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline.validation.walk_forward import judge_windows

#: Below it, a probability is not written out.
_SMALLEST_P_VALUE: Final = 0.001

_COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("window", "int64", "Test window, from 0"),
        dg.TableColumn("decision_time", "timestamp", "Open time of the candle whose close decided, UTC"),
        dg.TableColumn("entry_time", "timestamp", "Open time of the entry candle, UTC"),
        dg.TableColumn("exit_time", "timestamp", "Open time of the exit candle, UTC"),
        dg.TableColumn("side", "string", "long or short"),
        dg.TableColumn("entry_price", "float64", "Quote currency, slippage included"),
        dg.TableColumn("exit_price", "float64", "Quote currency, slippage included"),
        dg.TableColumn("stop_price", "float64", "Quote currency"),
        dg.TableColumn("target_price", "float64", "Quote currency; null where there is none"),
        dg.TableColumn("quantity", "float64", "Base currency"),
        dg.TableColumn("pnl", "float64", "Quote currency, after fees and slippage"),
        dg.TableColumn("r_multiple", "float64", "pnl over what was risked"),
        dg.TableColumn("trade_return", "float64", "pnl over the equity before the trade"),
        dg.TableColumn("exit_reason", "string"),
    ]
)


def build_walk_forward_validation(strategy: Strategy) -> dg.AssetsDefinition:
    """Return the asset that judges what was found for ``strategy`` out-of-sample."""

    @dg.asset(
        key=list(branch_key(strategy, WALK_FORWARD_VALIDATION)),
        deps=[list(branch_key(strategy, OPTIMIZATION_RESULTS))],
        partitions_def=SERIES,
        group_name=branch_name(strategy),
        owners=["team:research"],
        kinds={"python", "numba", "parquet"},
        tags={"domain": "training", "strategy": branch_name(strategy)},
        code_version=code_version(strategy),
        description=f"""**{strategy.title}**: the out-of-sample record.

In every window the best parameters of the **train** part run on the **test** part, which they have not seen; a gap
lies between the two. The test windows' trades and daily returns, put together in time order, are the only figures that
decide anything. The in-sample figures stand beside them: the distance between the two is what the search made up.

The settings are those that the search was made with. Trials that were made on other candles, or by other code, are
refused.""",
        metadata={"dagster/column_schema": _COLUMNS},
    )
    def walk_forward_validation(
        context: dg.AssetExecutionContext, database: DatabaseResource, artifacts: ArtifactsResource
    ) -> dg.MaterializeResult[None]:
        with told_plainly():
            db, store = database.open(), artifacts.open()
            versions: list[str] = []
            for series in series_of(context):
                stored = read_frame(store, series)
                trials = read_search(store, series, strategy, stored.fingerprint)
                job_id = claim_job(context, db, strategy, [series], trials.training)
                record = judge_windows(
                    stored.frame(strategy),
                    strategy.with_filters(trials.training.filters),
                    trials.training,
                    trials.found,
                    reporter(context, db, job_id, series),
                )
                frame = stored.frame(strategy)
                context.log.info(
                    f"Evidence of {series}: what luck could have done, from {trials.found.total_trials:,} trials."
                )
                evidence = gather_evidence(
                    frame,
                    strategy.with_filters(trials.training.filters),
                    trials.training,
                    trials.found,
                    record,
                    read_trial_blocks(store, series, strategy, trials, frame),
                )
                mine = store.guarded(guard(context, db, job_id, series))
                trades, daily = write_record(mine, series, strategy, record, evidence, trials, stored.fingerprint)
                versions += search_version(strategy, stored.fingerprint, trials.training, trials.found)
                context.add_asset_metadata(
                    {
                        **simulated_metadata(series),
                        "verdict": verdict(series, record),
                        **warnings_metadata(stored.warnings),
                        "see": links(
                            series,
                            {
                                "the candles": ("market_data",),
                                "the search": branch_key(strategy, OPTIMIZATION_RESULTS),
                                "the configuration": branch_key(strategy, TRAINED_CONFIGURATIONS),
                            },
                            strategy,
                        ),
                        **_metadata(record, evidence, frame, strategy, trials.training),
                        "trades": place(trades.url),
                        "days": place(daily.url),
                        **candles_metadata(stored.candles, stored.fingerprint),
                    },
                    partition_key=str(series),
                )
        return dg.MaterializeResult(data_version=joint_version(versions))

    return walk_forward_validation


def _metadata(
    record: OutOfSampleRecord,
    evidence: EvidenceReport,
    frame: IndicatorFrame,
    strategy: Strategy,
    training: TrainingSettings,
) -> dict[str, Any]:
    capital = training.account.initial_capital
    days = record.daily["date"].cast(int).to_numpy().astype(np.int64) * MS_PER_DAY
    windows = [
        {
            "window": result.window,
            "test from": _day(result.test_start_ms),
            "test to": _day(result.test_end_ms),
            "trades": written(result.out_of_sample and result.out_of_sample.sample_size, ".0f"),
            "net profit": written(result.out_of_sample and result.out_of_sample.net_profit, ",.2f"),
            "Sharpe": written(result.out_of_sample and result.out_of_sample.sharpe_ratio, ".2f"),
            "in-sample": written(result.chosen.in_sample.sharpe_ratio if result.chosen else None, ".2f"),
            "status": result.status,
        }
        for result in record.windows
    ]
    is_routine = all(result.status == "judged" for result in record.windows)
    columns = [name for name in windows[0] if name != "status" or not is_routine]
    return {
        "metrics": metrics_table(record),
        "equity": equity_curve(
            f"Equity over the test windows, {'' if record.is_out_of_sample else 'not '}out-of-sample",
            days,
            record.daily["equity"].to_numpy(),
            initial_capital=capital,
            band=equity_band(
                record.daily["daily_return"].to_numpy(), initial_capital=capital, seed=training.search.seed
            ),
            in_sample=in_sample_equity(record, frame, strategy.with_filters(training.filters), training),
            windows=[(r.test_start_ms, r.test_end_ms) for r in record.windows if r.status != "not searched"],
        ),
        **evidence_metadata(record, evidence, capital),
        "windows": table(windows, columns),
        "dagster/row_count": record.trades.height,
        **record_figures(record),
    }


def _day(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).date().isoformat()


def verdict(series: SeriesKey, record: OutOfSampleRecord) -> str:
    """Say in a few words what the record shows, and what it does not."""
    metrics = record.metrics
    place = "Out-of-sample" if record.is_out_of_sample else "On candles that its parameters were chosen on"
    words = [
        f"{place}: {metrics.net_profit:+,.2f} {series.market.quote} over {int(metrics.sample_size)} trades, Sharpe "
        f"ratio {metrics.sharpe_ratio:.2f}"
    ]
    if record.in_sample is not None:
        words.append(f" (in-sample {record.in_sample.sharpe_ratio:.2f})")
    words.append(f"; costs take {record.cost_per_trade_r:.2f} R per trade.")
    if record.p_value is not None:
        probability = "below 0.1%" if record.p_value < _SMALLEST_P_VALUE else f"of {record.p_value:.1%}"
        words.append(f" Luck alone would do at least as well with a probability {probability}.")
    if record.is_overfit:
        words.append(" Overfit: the out-of-sample Sharpe ratio is less than half of the in-sample one.")
    if not record.is_complete:
        words.append(" The search ran out of time.")
    return "".join(words)
