"""The search of a strategy: every trial that was made, in every train window."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from tradepulse_pipeline.backtest.compilation import engine_is_compiled
from tradepulse_pipeline.backtest.result import METRIC_NAMES
from tradepulse_pipeline.database import training_jobs
from tradepulse_pipeline.database.configurations import list_configurations
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.optimizers.genetic import initial_combinations
from tradepulse_pipeline.optimizers.objective import OBJECTIVE_METRICS
from tradepulse_pipeline.orchestration.artifacts import ArtifactError, ArtifactStore
from tradepulse_pipeline.orchestration.assets.indicators import indicators
from tradepulse_pipeline.orchestration.failures import told_plainly
from tradepulse_pipeline.orchestration.names import BATCH_TAG, SEARCH_POOL, branch_name, code_version
from tradepulse_pipeline.orchestration.partitions import SERIES, joint_version, series_of
from tradepulse_pipeline.orchestration.presentation import (
    METRICS_SHOWN,
    candles_metadata,
    document,
    links,
    parameter_grid,
    parameter_heat_map,
    place,
    simulated_metadata,
    table,
    trials_histogram,
    warnings_metadata,
    wide_table,
    written,
)
from tradepulse_pipeline.orchestration.resources import ArtifactsResource, DatabaseResource, SettingsResource
from tradepulse_pipeline.orchestration.tables import (
    OPTIMIZATION_RESULTS,
    WALK_FORWARD_VALIDATION,
    StoredTrials,
    branch_key,
    read_frame,
    read_search,
    search_version,
    trial_files,
    write_search,
)
from tradepulse_pipeline.orchestration.training_jobs import claim_job, guard, reporter
from tradepulse_pipeline.orchestration.trial_files import TrialFolder, trials_of_window
from tradepulse_pipeline.strategies.base import Strategy
from tradepulse_pipeline.strategies.causality import check_causality
from tradepulse_pipeline.strategies.space import ParameterSpace
from tradepulse_pipeline.validation.estimate import TradeForecast, forecast_trades, settled
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline.validation.trials import SearchResult
from tradepulse_pipeline.validation.walk_forward import LATEST, search_windows

if TYPE_CHECKING:
    import polars as pl

#: How many of the latest window's best trials the page shows, and of their metrics which, as what, how written.
_BEST: Final = 4
_SHOWN: Final = (
    ("objective", "Objective", ",.2f"),
    ("net_profit", "Net profit", ",.2f"),
    ("sharpe_ratio", "Sharpe ratio", ".2f"),
    ("max_drawdown", "Maximum drawdown", ".1%"),
    ("sample_size", "Trades", ",.0f"),
)
#: How many trials of the latest window's Pareto front the page shows.
_OF_FRONT: Final = 20


def build_optimization_results(strategy: Strategy) -> dg.AssetsDefinition:
    """Return the asset that searches parameters for ``strategy``."""

    @dg.asset(
        key=list(branch_key(strategy, OPTIMIZATION_RESULTS)),
        deps=[indicators],
        partitions_def=SERIES,
        group_name=branch_name(strategy),
        owners=["team:research"],
        kinds={"python", "numba", "parquet"},
        tags={"domain": "training", "strategy": branch_name(strategy)},
        code_version=code_version(strategy),
        description=_description(strategy),
        metadata={"dagster/column_schema": _columns(strategy)},
        pool=SEARCH_POOL,
    )
    def optimization_results(
        context: dg.AssetExecutionContext,
        settings: SettingsResource,
        database: DatabaseResource,
        artifacts: ArtifactsResource,
    ) -> dg.MaterializeResult[None]:
        with told_plainly():
            asked, db, store = settings.training(), database.open(), artifacts.open()
            searched = strategy.with_filters(asked.filters)
            all_series = series_of(context)
            job_id = claim_job(context, db, strategy, all_series, asked, settings.history())
            versions: list[str] = []
            for series in all_series:
                stored = read_frame(store, series)
                frame = stored.frame(strategy)
                if not engine_is_compiled():
                    context.log.info("The engine is compiled: once per machine and version, for about a minute.")
                causality = check_causality(searched, stored.candles, asked.side)
                (context.log.info if causality.n_decisions else context.log.warning)(f"{series}: {causality.verdict}")
                training = settled(frame, searched, _with_earlier(asked, db, searched, series, stored.candles))
                if asked.search.method == "auto":
                    context.log.info(
                        f"{series}: {training.search.method} search, by the time that the whole grid takes."
                    )
                forecast = forecast_trades(frame, searched, training)
                if not forecast.can_be_proved:
                    context.log.warning(f"{series}: {forecast.verdict}")
                kept = _kept_by_batch(context.run, store, series, strategy, training, stored.fingerprint)
                if kept is not None:
                    context.log.info(f"{series}: the batch that failed had finished this very search; it is kept.")
                    found, folder = kept.found, kept.folder
                else:
                    mine = store.guarded(guard(context, db, job_id, series))
                    with trial_files(
                        mine, series, searched, training, stored.fingerprint, on_warning=context.log.warning
                    ) as files:
                        found = search_windows(frame, searched, training, reporter(context, db, job_id, series), files)
                        folder = files.finish()
                        if files.n_recalled:
                            context.log.info(
                                f"{series}: went on from {files.n_recalled:,} trials of an unfinished search."
                            )
                        write_search(mine, series, strategy, found, folder, training, stored.fingerprint)
                        files.remove_finished()
                versions += search_version(strategy, stored.fingerprint, training, found)
                training_jobs.report_progress(
                    db,
                    job_id,
                    series,
                    run_id=context.run.run_id,
                    completed_combinations=found.total_trials,
                    failed_combinations=found.invalid_trials,
                    best_net_profit=found.best_net_profit,
                    data_fingerprint=stored.fingerprint,
                )
                context.add_asset_metadata(
                    {
                        **simulated_metadata(series),
                        "verdict": _verdict(found),
                        **warnings_metadata(stored.warnings),
                        "see": links(
                            series,
                            {
                                "the candles": ("market_data",),
                                "the out-of-sample record": branch_key(strategy, WALK_FORWARD_VALIDATION),
                            },
                            strategy,
                        ),
                        **_metadata(strategy, training, found, forecast),
                        **_plots(strategy, training, found, _latest_trials(store, series, strategy, folder)),
                        "look_ahead": causality.verdict,
                        **candles_metadata(stored.candles, stored.fingerprint),
                        "files": place(folder.url),
                        "sha256": folder.sha256,
                        "settings": document(training.to_json_dict()),
                    },
                    partition_key=str(series),
                )
        return dg.MaterializeResult(data_version=joint_version(versions))

    return optimization_results


def _kept_by_batch(
    run: dg.DagsterRun,
    store: ArtifactStore,
    series: SeriesKey,
    strategy: Strategy,
    training: TrainingSettings,
    fingerprint: str,
) -> StoredTrials | None:
    """Return the search that a failed batch has finished, for the run that repeats it for one series.

    None if it was made on other candles, with other settings or by other code, or had run out of time.
    """
    if BATCH_TAG not in run.tags:
        return None
    try:
        stored = read_search(store, series, strategy, fingerprint)
    except ArtifactError:
        return None
    return stored if stored.training == training and stored.found.is_complete else None


def _with_earlier(
    training: TrainingSettings, database: Database, strategy: Strategy, series: SeriesKey, candles: Candles
) -> TrainingSettings:
    """Return the settings with what earlier trainings found: a genetic search starts from it."""
    if training.search.method != "genetic":
        return training
    rows = list_configurations(
        database,
        strategy_name=strategy.name,
        exchange=series.exchange,
        pair=series.pair,
        timeframe=series.timeframe.name,
        active_only=False,
    )
    # What was found on later candles would tell a training on a past span its future.
    known = [row.parameters for row in rows if row.data_end.timestamp() * 1000 <= candles.end_ms]
    return replace(training, initial=initial_combinations(ParameterSpace(strategy.parameters), known))


def _metadata(
    strategy: Strategy,
    training: TrainingSettings,
    found: SearchResult,
    forecast: TradeForecast,
) -> dict[str, Any]:
    best = found.best.filter((found.best["window"] == LATEST) & (found.best["rank"] <= _BEST))
    return {
        "expected_trades": forecast.verdict,
        "dagster/row_count": found.total_trials,
        "valid_trials": found.total_trials - found.invalid_trials,
        "train_windows": len(found.searches) - len(found.not_searched),
        "method": training.search.method,
        "objective": training.search.objective,
        "selection": training.search.selection,
        "seed": training.search.seed,
        "best_of_latest_window": _side_by_side(strategy, list(best.iter_rows(named=True))),
        **(_front(strategy, training, found) if training.search.further_objectives else {}),
    }


def _side_by_side(strategy: Strategy, trials: Sequence[Mapping[str, Any]]) -> dg.MetadataValue:
    """Return trials as the columns of a table: this way it fits the page, however many parameters there are."""
    ranks = [f"#{rank}" for rank in range(1, len(trials) + 1)]
    rows = [
        {"in-sample": title, **{rank: written(trial[name], form) for rank, trial in zip(ranks, trials, strict=True)}}
        for name, title, form in (*_SHOWN, *((p.name, p.name, "g") for p in strategy.parameters))
    ]
    return table(rows, ("in-sample", *ranks))


def _front(strategy: Strategy, training: TrainingSettings, found: SearchResult) -> dict[str, Any]:
    """Return the size of the Pareto front of the latest window's trials, and the best of it by the objective."""
    front = found.best.filter((found.best["window"] == LATEST) & found.best["on_pareto_front"])
    metrics = [OBJECTIVE_METRICS[objective] for objective in training.search.objectives]
    shown = [(name, *METRICS_SHOWN[name]) for name in metrics]
    shown += [(p.name, p.name.replace("_", " "), "g") for p in strategy.parameters]  # a title breaks at spaces alone
    rows = [
        {title: written(trial[name], form) for name, title, form in shown}
        for trial in front.head(_OF_FRONT).iter_rows(named=True)
    ]
    return {
        "further_objectives": ", ".join(training.search.further_objectives),
        "on_pareto_front": front.height,
        "front_of_latest_window": wide_table(rows, [title for _, title, _ in shown]),
    }


def _latest_trials(store: ArtifactStore, series: SeriesKey, strategy: Strategy, folder: TrialFolder) -> "pl.DataFrame":
    """Return what the plots show of all trials of the latest train window, whose parameters get stored."""
    columns = [*(p.name for p in strategy.parameters), "sharpe_ratio", "objective"]
    key = branch_key(strategy, OPTIMIZATION_RESULTS)
    return trials_of_window(store.folder(key, series, folder.name), LATEST, columns)


def _plots(
    strategy: Strategy, training: TrainingSettings, found: SearchResult, trials: "pl.DataFrame"
) -> dict[str, dg.MetadataValue]:
    """Return how the latest window's valid trials are distributed, and what the two parameters that matter do."""
    first = found.best.filter((found.best["window"] == LATEST) & (found.best["rank"] == 1))
    chosen = next(first.iter_rows(named=True), None)
    valid = trials.filter(trials["objective"].is_not_null())
    return {
        "trials_of_latest_window": trials_histogram(
            valid["sharpe_ratio"].to_numpy(),
            name="Sharpe ratio",
            chosen=None if chosen is None else chosen["sharpe_ratio"],
            n_trials=trials.height,
        ),
        "parameters_of_latest_window": parameter_heat_map(
            parameter_grid(valid, [p.name for p in strategy.parameters]),
            name=f"objective ({training.search.objective.replace('_', ' ')})",
            chosen=chosen,
        ),
    }


def _verdict(found: SearchResult) -> str:
    valid = found.total_trials - found.invalid_trials
    n_windows = len(found.searches) - len(found.not_searched)
    words = [
        f"{found.total_trials:,} trials in {n_windows} train windows, the latest one among them; {valid:,} made enough "
        "trades to count. The best of many looks good by luck alone: its figures are in-sample."
    ]
    if not found.is_complete:
        words.append(f"The time was over before all were made; windows without a trial: {len(found.not_searched)}.")
    return " ".join(words)


def _description(strategy: Strategy) -> str:
    lines = [
        f"**{strategy.title}**: every trial of the parameter search, in every train window.",
        "",
        strategy.description,
        "",
        "| parameter | unit | tried | meaning |",
        "| --- | --- | --- | --- |",
        *(
            f"| `{p.name}` | {p.unit} | {', '.join(f'{value:g}' for value in p.grid)} | {p.meaning} |"
            for p in strategy.parameters
        ),
        "",
        "Method, number of trials, objective and windows are run configuration. Each window is searched on its train "
        "candles alone; the last search, on the most recent train window, gives the parameters that get stored.",
    ]
    return "\n".join(lines)


def _columns(strategy: Strategy) -> dg.TableSchema:
    return dg.TableSchema(
        columns=[
            dg.TableColumn("window", "int64", "Train window, from 0; -1 is the latest one"),
            dg.TableColumn("trial", "int64", "Number of the trial within its window"),
            dg.TableColumn("combination", "int64", "Number of the parameter set in the strategy's grid"),
            *(dg.TableColumn(p.name, "float64", f"{p.meaning} ({p.unit})") for p in strategy.parameters),
            *(dg.TableColumn(name, "float64", "In-sample") for name in METRIC_NAMES),
            dg.TableColumn("objective", "float64", "What is maximised; null for an invalid trial"),
        ]
    )
