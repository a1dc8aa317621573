"""The whole flow on an ephemeral instance of Dagster and a real PostgreSQL: what is made, refused and remembered."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from uuid import UUID, uuid4

import dagster as dg
import numpy as np
import polars as pl
import pytest

from tradepulse_pipeline.database import training_jobs
from tradepulse_pipeline.database.candles import store_candles
from tradepulse_pipeline.database.configurations import list_configurations, transitions
from tradepulse_pipeline.database.trials import searches_of, trials_of
from tradepulse_pipeline.definitions import build_definitions
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.indicators.catalogue import ALL_INDICATORS
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import MS_PER_DAY, SeriesKey
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate
from tradepulse_pipeline.market.sources.times import iso_utc
from tradepulse_pipeline.orchestration.names import TRAINING_JOB_TAG
from tradepulse_pipeline.orchestration.presentation import DECIMALS, IN_SAMPLE
from tradepulse_pipeline.orchestration.progress import listening
from tradepulse_pipeline.orchestration.resources import ArtifactsResource, DatabaseResource, SettingsResource
from tradepulse_pipeline.orchestration.sensors.training_runs import cancelled_trainings, failed_trainings
from tradepulse_pipeline.orchestration.tables import read_frame, read_search, write_frame
from tradepulse_pipeline.orchestration.trial_files import read_blocks
from tradepulse_pipeline.strategies.registry import get_strategy
from tradepulse_pipeline.strategies.space import ParameterSpace
from tradepulse_pipeline.validation.overfitting import backtest_overfitting
from tradepulse_pipeline.validation.plateau import neighbourhoods
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline.validation.trials import NEIGHBOUR_COLUMNS
from tradepulse_pipeline.validation.walk_forward import LATEST, search_windows
from tradepulse_pipeline_tests.loopback import LoopbackExchange
from tradepulse_pipeline_tests.reference.trials import TrialsInMemory

STRATEGY = get_strategy("LIQUIDITY_SWEEP_V3")
defs = build_definitions([STRATEGY])
JOB = "train_liquidity_sweep_v3"
TRIALS, RECORD, CONFIGURATIONS = (
    dg.AssetKey(["liquidity_sweep_v3", name])
    for name in ("optimization_results", "walk_forward_validation", "trained_configurations")
)
CHAIN = [dg.AssetKey("market_data"), dg.AssetKey("indicators"), TRIALS, RECORD, CONFIGURATIONS]

START = 1_704_067_200_000

#: Three windows over four weeks, on a market with a strong planted edge, searched in moments.
SMALL = SettingsResource(
    start="2024-01-01",
    end="2024-01-29",
    simulated_edge=8.0,
    train_days=10,
    test_days=6,
    gap_days=1,
    budget=40,
    minimum_trades=3,
    workers=1,
)


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def train(instance, database):
    """Run the job on one series, or on several; settings and tags may be added."""

    def run(*keys: str, settings=SMALL, tags=None, assets=None) -> dg.ExecuteInProcessResult:
        instance.add_dynamic_partitions("series", list(keys))
        partition = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
        return defs.resolve_job_def(JOB).execute_in_process(
            instance=instance,
            partition_key=keys[0] if len(keys) == 1 else None,
            tags={**(tags or {}), **(partition if len(keys) > 1 else {})},
            run_config={"resources": {"settings": {"config": settings.to_run_config()}}},
            asset_selection=assets,
            raise_on_error=False,
        )

    return run


@pytest.fixture
def store(in_project):
    return ArtifactsResource().open()


def metadata_of(result, key, partition):
    (event,) = [
        event.materialization
        for event in result.get_asset_materialization_events()
        if event.asset_key == key and event.partition == partition
    ]
    return {name: getattr(value, "value", value) for name, value in event.metadata.items()}


def error_of(result):
    (event,) = result.get_step_failure_events()
    return event.step_failure_data.user_failure_data.description


def stored_candles(database, key, n_days=28, **settings):
    """Store made-up candles as those of a real exchange, so that nothing is asked of a network."""
    series = SeriesKey.parse(key)
    market = SimulatedMarketSettings(**{"edge": 8.0, **settings})
    candles = simulate(series.market, series.timeframe, START, START + n_days * MS_PER_DAY, market)
    store_candles(database, series, candles, "file")
    return candles


def all_trials(stored):
    return pl.read_parquet(f"{stored.folder.url}/trials/*.parquet").sort("window", "trial")


def test_a_training_makes_every_asset_and_stores_a_configuration(train, database, store):
    key = "simulated:BTC-USDT:5m"
    told = []
    with listening(told.append):
        result = train(key)
    assert result.success
    assert [event.asset_key for event in result.get_asset_materialization_events()] == CHAIN
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert checks["enough_candles"].passed
    assert checks["prices_are_plausible"].passed
    assert {check.partition for check in checks.values()} == {key}
    assert checks["enough_candles"].metadata["candles"].value == 8_064
    assert metadata_of(result, CHAIN[0], key)["verdict"].startswith("Fit to train on: 8,064 of 8,064 candles")

    (configuration,) = list_configurations(database, exchange="simulated", pair="BTC/USDT", timeframe="5m")
    figures = metadata_of(result, CONFIGURATIONS, key)
    assert figures["configuration_id"] == str(configuration.id)
    assert json.loads(figures["v3_document"].strip("`json\n")) == configuration.template
    assert figures["oos_sharpe_ratio"] == round(configuration.sharpe_ratio, DECIMALS)
    assert figures["oos_trades"] == configuration.sample_size > 0
    assert figures["verdict"] == f"PAPER: {transitions(database, configuration.id)[0].reason}"
    assert [row.data["version"] for row in figures["trainings"].records] == [1]
    assert {metadata_of(result, asset, key)["fingerprint"] for asset in CHAIN} == {configuration.data_fingerprint}
    for asset in CHAIN[1:]:
        assert "/assets/market_data?view=partitions" in metadata_of(result, asset, key)["see"]
    assert metadata_of(result, RECORD, key)["oos_net_profit"] == round(configuration.net_profit, DECIMALS)
    for asset, plots in (
        (CHAIN[0], ["close"]),
        (TRIALS, ["trials_of_latest_window", "parameters_of_latest_window"]),
        (RECORD, ["equity"]),
    ):
        for name in plots:
            assert "](data:image/svg+xml;base64," in metadata_of(result, asset, key)[name]
    assert "![Monte Carlo over candles, in-sample: " in metadata_of(result, RECORD, key)["plots"]

    frame = read_frame(store, SeriesKey.parse(key))
    assert configuration.data_fingerprint == frame.fingerprint == frame.candles.fingerprint()
    assert configuration.settings == SMALL.training().to_json_dict()
    assert (configuration.run_id, configuration.is_simulated) == (result.run_id, True)

    job = training_jobs.get(database, configuration.training_job_id)
    assert (job.id, job.status, job.run_ids) == (UUID(result.run_id), "completed", (result.run_id,))
    assert (job.completed_combinations, job.configurations_created) == (4 * 40, 1)
    assert job.series[0].data_fingerprint == frame.fingerprint
    assert {progress.phase for progress in told} == {"candles", "search", "walk_forward"}

    (search,) = searches_of(database, job.id)
    stored = read_search(store, SeriesKey.parse(key), STRATEGY, frame.fingerprint)
    assert (search.trials_path, search.trials_sha256) == (stored.folder.url, stored.folder.sha256)
    assert search.n_trials == stored.found.total_trials == all_trials(stored).height == 4 * 40
    combination, sums, squares = read_blocks(store.folder(TRIALS.path, SeriesKey.parse(key), stored.folder.name))
    assert len(set(combination.tolist())) == 40
    assert backtest_overfitting(sums, squares).n_trials > 1
    files = sorted(Path(stored.folder.url, "trials").iterdir())
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    assert search.trials_sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()
    (best,) = [trial for trial in trials_of(database, search.id) if (trial.window_index, trial.rank) == (-1, 1)]
    assert best.parameters == configuration.parameters


def test_whatever_comes_of_simulated_candles_says_so(train, instance):
    key = "simulated:LABEL-USDT:5m"
    result = train(key)
    assert instance.get_run_by_id(result.run_id).tags["tradepulse/simulated"] == "true"
    for asset in CHAIN:
        assert metadata_of(result, asset, key)["SIMULATED"].startswith("SIMULATED")


def test_nothing_says_simulated_about_real_candles(train, database, instance):
    key = "binance:BTC-USDT:5m"
    stored_candles(database, key)
    result = train(key, settings=SMALL.model_copy(update={"source": "stored"}))
    assert result.success
    assert "tradepulse/simulated" not in instance.get_run_by_id(result.run_id).tags
    assert not any("SIMULATED" in metadata_of(result, asset, key) for asset in CHAIN)


def test_the_same_training_again_is_the_next_version_with_the_same_figures(train, database):
    key = "simulated:AGAIN-USDT:5m"
    first, second = train(key), train(key, settings=SMALL.model_copy(update={"workers": 3}))
    new, old = list_configurations(database, pair="AGAIN/USDT", active_only=False)
    assert (old.version, old.is_active, new.version, new.is_active) == (1, False, 2, True)
    assert old.parameters == new.parameters
    assert old.out_of_sample_metrics == new.out_of_sample_metrics
    earlier, later = (metadata_of(result, CONFIGURATIONS, key) for result in (first, second))
    assert [row.data["version"] for row in later["trainings"].records] == [2, 1]
    plotted = [{name for name, value in page.items() if isinstance(value, int | float)} for page in (earlier, later)]
    assert plotted[0] == plotted[1] >= {"oos_sharpe_ratio", "oos_net_profit", "oos_trades", "version"}
    for asset in CHAIN[:3]:
        versions = [
            event.materialization.tags["dagster/data_version"]
            for result in (first, second)
            for event in result.get_asset_materialization_events()
            if event.asset_key == asset
        ]
        assert versions[0] == versions[1]


def test_a_genetic_training_starts_from_earlier_ones_and_repeats_from_what_is_stored(train, database, store):
    key = "simulated:GENES-USDT:5m"
    genetic = SMALL.model_copy(update={"method": "genetic"})
    past = genetic.model_copy(update={"start": "2023-12-25", "end": "2024-01-22"})
    for settings in (SMALL, genetic, past, genetic):
        assert train(key, settings=settings).success
    rows = list_configurations(database, pair="GENES/USDT", active_only=False)
    space = ParameterSpace(STRATEGY.parameters)
    numbers = [space.combination_of(row.parameters) for row in rows]
    last, on_past, second, random = (row.settings["initial"] for row in rows)
    assert random == []
    assert second == [numbers[3]]
    assert on_past == []  # both before it were found on later candles
    assert last == list(dict.fromkeys(numbers[1:]))
    # The judged windows start from nothing: what earlier trainings found changes the parameters alone.
    assert rows[0].out_of_sample_metrics == rows[2].out_of_sample_metrics

    frame = read_frame(store, SeriesKey.parse(key))
    stored = read_search(store, SeriesKey.parse(key), STRATEGY, frame.fingerprint)
    training = TrainingSettings.from_json_dict(rows[0].settings)
    assert training == stored.training
    keeper = TrialsInMemory(space)
    found = search_windows(frame.frame(STRATEGY), STRATEGY, training, keeper=keeper)
    assert keeper.table().equals(all_trials(stored))
    assert found.best.equals(stored.found.best)


def test_a_training_that_died_goes_on_from_the_trials_that_it_made(train, database, store, instance):
    whole, broken = "binance:WHOLE-USDT:5m", "binance:BROKEN-USDT:5m"
    store_candles(database, SeriesKey.parse(broken), stored_candles(database, whole), "file")
    settings = SMALL.model_copy(update={"source": "stored"})
    assert train(whole, settings=settings).success

    def die(progress):
        if progress.phase == "search" and progress.done > 2 * 40:
            raise RuntimeError("the machine is on fire")

    with listening(die):
        assert not train(broken, settings=settings).success
    result = train(broken, settings=settings)
    assert result.success
    assert any(
        "went on from 80 trials of an unfinished search" in entry.user_message
        for entry in instance.all_logs(result.run_id)
    )
    trials = {}
    for key in (whole, broken):
        series = SeriesKey.parse(key)
        trials[key] = all_trials(read_search(store, series, STRATEGY, read_frame(store, series).fingerprint))
    assert trials[broken].equals(trials[whole])
    new, old = (list_configurations(database, pair=pair)[0] for pair in ("BROKEN/USDT", "WHOLE/USDT"))
    assert (new.parameters, new.out_of_sample_metrics) == (old.parameters, old.out_of_sample_metrics)


def test_several_objectives_show_the_front_of_the_latest_window(train, database, store):
    key = "simulated:FRONT-USDT:5m"
    settings = SMALL.model_copy(update={"method": "genetic", "budget": 60, "further_objectives": ["drawdown"]})
    result = train(key, settings=settings)
    assert result.success
    figures = metadata_of(result, TRIALS, key)
    assert (figures["objective"], figures["further_objectives"]) == ("net_profit", "drawdown")
    stored = read_search(store, SeriesKey.parse(key), STRATEGY, read_frame(store, SeriesKey.parse(key)).fingerprint)
    front = stored.found.best.filter((pl.col("window") == LATEST) & pl.col("on_pareto_front"))
    assert figures["on_pareto_front"] == front.height > 1
    by_profit = front.sort("net_profit", descending=True).rows(named=True)
    titles, _, *rows = [line.strip("| ").split(" | ") for line in figures["front_of_latest_window"].splitlines()]
    names = [p.name for p in STRATEGY.parameters]
    assert titles == ["Net profit (quote currency)", "Maximum drawdown", *(name.replace("_", " ") for name in names)]
    assert rows == [
        [f"{trial['net_profit']:,.2f}", f"{trial['max_drawdown']:.1%}", *(f"{trial[name]:g}" for name in names)]
        for trial in by_profit[:20]
    ]
    (configuration,) = list_configurations(database, pair="FRONT/USDT")
    assert configuration.parameters == {p.name: by_profit[0][p.name] for p in STRATEGY.parameters}


def test_the_plateau_is_what_gets_stored(train, database, store):
    key = "simulated:PLATEAU-USDT:5m"
    settings = SMALL.model_copy(update={"method": "grid", "budget": 0, "selection": "plateau"})
    result = train(key, settings=settings)
    assert result.success
    assert metadata_of(result, TRIALS, key)["selection"] == "plateau"
    stored = read_search(store, SeriesKey.parse(key), STRATEGY, read_frame(store, SeriesKey.parse(key)).fingerprint)
    assert stored.training.search.selection == "plateau"
    every = all_trials(stored).filter(pl.col("window") == LATEST)
    objective = every["objective"].fill_null(np.nan).to_numpy()
    around = neighbourhoods(objective, ParameterSpace(STRATEGY.parameters).shape)
    chosen = int(np.nanargmax(around.mean))
    assert chosen != np.nanargmax(objective)
    (configuration,) = list_configurations(database, pair="PLATEAU/USDT")
    assert configuration.parameters == ParameterSpace(STRATEGY.parameters).values(chosen)
    first = stored.found.best.filter((pl.col("window") == LATEST) & (pl.col("rank") == 1))
    figures = [around.mean[chosen], around.worst[chosen], around.kept_share[chosen]]
    assert list(first.select(NEIGHBOUR_COLUMNS).row(0)) == pytest.approx(figures)
    assert first.drop("rank", *NEIGHBOUR_COLUMNS).equals(every[chosen])


def test_a_single_objective_has_no_front_to_show(train):
    key = "simulated:NOFRONT-USDT:5m"
    assert not [name for name in metadata_of(train(key, assets=CHAIN[:3]), TRIALS, key) if "front" in name]


def test_a_run_over_several_series_makes_each_of_them(train, database):
    keys = ("simulated:ONE-USDT:5m", "simulated:TWO-USDT:5m")
    result = train(*keys)
    assert result.success
    for key in keys:
        pair = SeriesKey.parse(key).pair
        (configuration,) = list_configurations(database, pair=pair)
        assert metadata_of(result, CONFIGURATIONS, key)["configuration_id"] == str(configuration.id)
    job = training_jobs.get(database, UUID(result.run_id))
    assert [(str(one.series), one.status) for one in job.series] == [(key, "completed") for key in keys]


def test_bad_candles_block_the_training(train, database, capfd):
    key = "binance:HOLES-USDT:5m"
    candles = stored_candles(database, "binance:FULL-USDT:5m")
    holes = [candles.slice(0, 200), candles.slice(len(candles) - 200, len(candles))]
    for part in holes:
        store_candles(database, SeriesKey.parse(key), part, "file")
    result = train(key, settings=SMALL.model_copy(update={"source": "stored"}))
    assert not result.success
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    check = checks["enough_candles"]
    assert (check.passed, check.severity, check.blocking) == (False, dg.AssetCheckSeverity.ERROR, True)
    assert "Only 400 of" in check.description
    outages = checks["no_outages"]
    assert (outages.passed, outages.severity, outages.blocking) == (False, dg.AssetCheckSeverity.WARN, False)
    (gap,) = outages.metadata["longest_gaps"].records
    assert gap.data["missing candles"] == len(candles) - 400
    told = f"market_data - {key}: Not fit to train on. Only 400 of"
    assert told in capfd.readouterr().err  # the run's log says why, in red
    assert [event.asset_key for event in result.get_asset_materialization_events()] == CHAIN[:1]
    assert list_configurations(database, pair="HOLES/USDT") == []


def test_a_likely_mistake_in_the_candles_blocks_the_training_and_a_large_true_move_does_not(train, database):
    candles = stored_candles(database, "binance:MOVED-USDT:5m")
    half = len(candles) // 2
    scale = np.where(np.arange(len(candles)) < half, 1.0, 1.5)
    slipped = np.where(np.arange(len(candles)) == half - 300, 10.0, 1.0)
    for pair, factor in (("MOVED", scale), ("SLIPPED", scale * slipped)):
        prices = [getattr(candles, name) * factor for name in ("open", "high", "low", "close")]
        moved = Candles.from_arrays(candles.timeframe, candles.open_time_ms, *prices, candles.volume)
        store_candles(database, SeriesKey.of("binance", f"{pair}/USDT", "5m"), moved, "file")
    stored = SMALL.model_copy(update={"source": "stored"})
    keys = ("binance:MOVED-USDT:5m", "binance:SLIPPED-USDT:5m")
    results = [train(key, settings=stored, assets=CHAIN[:1]) for key in keys]
    assert [result.success for result in results] == [True, False]
    checks = [
        next(check for check in result.get_asset_check_evaluations() if check.check_name == "prices_are_plausible")
        for result in results
    ]
    assert [(check.passed, check.severity.value) for check in checks] == [(False, "WARN"), (False, "ERROR")]
    assert checks[1].metadata["likely_errors"].value == 1
    worst = checks[1].metadata["doubtful_first"].records[0].data
    assert (worst["judgement"], worst["time"]) == ("likely error", iso_utc(int(candles.open_time_ms[half - 300])))
    assert "tradepulse quarantine keep binance:SLIPPED-USDT:5m" in checks[1].description


def test_a_training_without_a_valid_trial_ends_without_a_configuration(train, database, instance):
    key = "simulated:NONE-USDT:5m"
    result = train(key, settings=SMALL.model_copy(update={"minimum_trades": 10_000}))
    assert result.success
    assert list_configurations(database, pair="NONE/USDT") == []
    # Four weeks hold no hundred trades on unseen candles, and the run says so before it searches.
    warning = "100 out-of-sample trades cannot be reached in these windows. The busiest parameter set needs about"
    assert warning in metadata_of(result, TRIALS, key)["expected_trades"]
    messages = [entry.user_message for entry in instance.all_logs(result.run_id)]
    (warned,) = (k for k, message in enumerate(messages) if warning in message and message.startswith(key))
    (made,) = (
        k for k, message in enumerate(messages) if "Materialized value liquidity_sweep_v3 optimization" in message
    )
    assert warned < made
    searched = metadata_of(result, TRIALS, key)
    assert searched["trials_of_latest_window"] == "Sharpe ratio of the trials: nothing to draw."
    assert searched["parameters_of_latest_window"].endswith("by two parameters: nothing to draw.")
    verdict = metadata_of(result, CONFIGURATIONS, key)["verdict"]
    assert verdict.startswith("No configuration. None of the 40 parameter sets")
    job = training_jobs.get(database, UUID(result.run_id))
    assert job.status == "completed"
    assert job.series[0].error_message in verdict


@pytest.mark.parametrize(
    ("key", "settings", "message"),
    [
        ("simulated:BTCUSDT:5m", {}, "Pair 'BTCUSDT' is not valid: expected base and quote joined"),
        ("BTC-USDT", {}, "expected 'exchange:BASE-QUOTE:timeframe', such as 'binance:BTC-USDT:5m'"),
        ("simulated:BTC-USDT:5min", {}, "Unknown timeframe '5min'. Did you mean '5m'"),
        ("simulated:LONG-USDT:5m", {"train_days": 90}, "The history is 28 days long; one walk_forward window needs 96"),
        ("binance:NOTHERE-USDT:5m", {"source": "stored"}, "No candles of binance:NOTHERE-USDT:5m are stored"),
    ],
)
def test_what_cannot_be_trained_says_why_in_a_sentence(train, key, settings, message):
    assert message in error_of(train(key, settings=SMALL.model_copy(update=settings)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_days": -3}, "train_days: found -3, expected a whole number of days, at least 1"),
        ({"history_days": 0}, "history_days: found 0, expected 1 to 36500 days"),
        ({"fee_rate": 1.5}, "fee_rate: found 1.5, expected a number at least 0"),
        ({"budget": -1}, "budget: found -1, expected at least 1 trial"),
        ({"further_objectives": ["drawdown"]}, "further_objectives: found drawdown with the method"),
        ({"method": "genetic", "further_objectives": ["profit"]}, "Unknown objective 'profit' in further_objectives"),
        ({"simulated_edge": 99.0}, "edge is 99.0, expected a number from -20 to 20"),
        ({"gap_days": 6}, "gap_days: found 6, expected less than test_days"),
    ],
)
def test_wrong_settings_are_refused_before_there_is_a_run(train, settings, message):
    with pytest.raises(InvalidInputError, match=re.escape(message)):
        train("simulated:WRONG-USDT:5m", settings=SMALL.model_copy(update=settings))


def test_what_is_known_about_the_candles_goes_with_the_configuration(train, database):
    key = "binance:NOTABLE-USDT:5m"
    series = SeriesKey.parse(key)
    candles = stored_candles(database, "binance:WHOLE-USDT:5m")
    for part in (candles.slice(0, 4000), candles.slice(4010, len(candles))):
        store_candles(database, series, part, "file")
    stored_only = SMALL.model_copy(update={"source": "stored"})
    figures = metadata_of(train(key, settings=stored_only), CONFIGURATIONS, key)
    (first,) = list_configurations(database, pair="NOTABLE/USDT")
    assert first.data_warnings[0].startswith("10 candles are missing in 1 gap")
    assert first.template["configurations"][0]["metadata"]["data_warnings"] == first.data_warnings
    assert figures["data_warnings"] == "\n".join(first.data_warnings)
    assert "stale" not in figures
    assert first.stale_at is None

    late = candles.slice(4000, 4002)
    assert store_candles(database, series, late, "archive").made_stale == 1
    assert list_configurations(database, pair="NOTABLE/USDT")[0].stale_reason.endswith("were added by archive")
    # The trials' candles are still the old ones.
    again = train(key, settings=stored_only, assets=[CONFIGURATIONS])
    (second,) = list_configurations(database, pair="NOTABLE/USDT")
    assert second.version == 2
    assert second.stale_reason.endswith("changed while it was trained")
    assert metadata_of(again, CONFIGURATIONS, key)["stale"] == second.stale_reason
    assert train(key, settings=stored_only).success
    (third,) = list_configurations(database, pair="NOTABLE/USDT")
    assert (third.version, third.stale_at) == (3, None)


class TestMixedUpFiles:
    """Each asset refuses what was not made from the files that are there now."""

    def test_trials_of_other_candles(self, train, store):
        key = "simulated:MIXED-USDT:5m"
        train(key)
        train(key, settings=SMALL.model_copy(update={"end": "2024-01-28"}), assets=CHAIN[:2])
        error = error_of(train(key, assets=[RECORD]))
        assert "optimization_results of simulated:MIXED-USDT:5m was made from something else: its candles" in error
        assert "Materialize liquidity_sweep_v3/optimization_results" in error

    def test_a_record_of_other_trials(self, train):
        key = "simulated:STALE-USDT:5m"
        train(key)
        train(key, settings=SMALL.model_copy(update={"seed": 1}), assets=[TRIALS])
        error = error_of(train(key, assets=[CONFIGURATIONS]))
        assert "walk_forward_validation of simulated:STALE-USDT:5m was made from something else: its trials" in error

    def test_settings_are_those_that_the_trials_were_made_with(self, train, database):
        key = "simulated:SOURCE-USDT:5m"
        train(key)
        again = train(key, settings=SMALL.model_copy(update={"fee_rate": 0.05}), assets=[RECORD, CONFIGURATIONS])
        assert again.success
        new, old = list_configurations(database, pair="SOURCE/USDT", active_only=False)
        assert new.settings == old.settings
        assert new.out_of_sample_metrics == old.out_of_sample_metrics
        assert training_jobs.get(database, UUID(again.run_id)).configurations_created == 1

    def test_candles_under_another_name(self, train, store):
        mine, other = SeriesKey.parse("simulated:MINE-USDT:5m"), SeriesKey.parse("simulated:OTHER-USDT:5m")
        train(str(mine), assets=CHAIN[:2])
        Path(store.url(("indicators",), mine)).rename(store.url(("indicators",), other))
        assert "holds candles of simulated:MINE-USDT:5m" in error_of(train(str(other), assets=[TRIALS]))

    def test_trials_of_another_engine(self, train, store, monkeypatch):
        key = "simulated:ENGINE-USDT:5m"
        train(key)
        monkeypatch.setattr("tradepulse_pipeline.orchestration.tables.code_hash", lambda strategy: "another")
        assert "its code of the engine" in error_of(train(key, assets=[RECORD]))


def test_candles_come_from_the_exchange_and_only_the_missing_ones_the_next_time(train, monkeypatch):
    key = "binance:LOOP-USDT:5m"
    series = SeriesKey.parse(key)
    market = SimulatedMarketSettings(outages_per_year=0)
    candles = simulate(series.market, series.timeframe, START, START + 28 * MS_PER_DAY, market)
    settings = SMALL.model_copy(update={"source": "exchange"})
    with LoopbackExchange({series: candles}, clock_ms=lambda: candles.end_ms) as exchange:
        monkeypatch.setenv("TRADEPULSE_EXCHANGE_URL", exchange.base_url)
        first, second = (metadata_of(train(key, settings=settings, assets=CHAIN[:1]), CHAIN[0], key) for _ in range(2))
    assert (first["new_candles"], first["dagster/row_count"]) == (len(candles), len(candles))
    assert (second["new_candles"], second["unchanged_candles"]) == (0, 0)
    assert first["fingerprint"] == second["fingerprint"] == candles.fingerprint()


def test_indicators_without_candles_say_what_to_do_first(train):
    error = error_of(train("binance:EMPTY-USDT:5m", assets=[dg.AssetKey("indicators")]))
    assert "Materialize market_data for binance:EMPTY-USDT:5m first" in error


def test_one_parameter_set_over_all_windows_is_not_called_out_of_sample(train, database):
    key = "simulated:FIXED-USDT:5m"
    result = train(key, settings=SMALL.model_copy(update={"reoptimise": False}))
    figures = metadata_of(result, RECORD, key)
    assert "test_sharpe_ratio" in figures
    assert not any(name.startswith("oos_") for name in figures)
    assert figures["verdict"].startswith("On candles that its parameters were chosen on: ")
    columns = [column.name for column in figures["metrics"].schema.columns]
    assert columns == ["metric", "test windows, not out-of-sample", IN_SAMPLE]
    assert metadata_of(result, TRIALS, key)["train_windows"] == 1
    (configuration,) = list_configurations(database, pair="FIXED/USDT")
    assert configuration.lifecycle_stage == "PAPER"


def test_a_frame_comes_back_to_the_bit(store, database):
    series = SeriesKey.parse("simulated:FRAME-USDT:5m")
    candles = stored_candles(database, "binance:FRAME-USDT:5m", outages_per_year=200.0).filled_forward()
    frame = IndicatorFrame.compute(candles, ALL_INDICATORS)
    write_frame(store, series, frame, candles.fingerprint())
    stored = read_frame(store, series)
    assert stored.fingerprint == stored.candles.fingerprint() == candles.fingerprint()
    for indicator in ALL_INDICATORS:
        np.testing.assert_array_equal(stored.columns[indicator.name], frame[indicator.name])
    assert stored.frame(STRATEGY).columns.keys() == {indicator.name for indicator in STRATEGY.indicators}
    assert stored.candles.close.flags.writeable


def test_no_file_of_a_training_is_a_pickle(train, project_dir):
    train("simulated:FILES-USDT:5m")
    files = [path for path in (project_dir / ".tradepulse" / "artifacts").rglob("*") if path.is_file()]
    assert files
    assert {path.suffix for path in files} == {".parquet"}
    assert all(pl.read_parquet(path).height >= 0 for path in files)


def test_a_job_that_the_command_line_made_is_told_of_progress_and_can_be_cancelled(train, database, instance):
    key = "simulated:CANCEL-USDT:5m"
    series = SeriesKey.parse(key)
    job_id = training_jobs.create(
        database,
        job_id=uuid4(),
        strategy_name=STRATEGY.name,
        config={},
        series=[series],
        seed=0,
        code_version="0",
        user_id="test",
    )
    seen = []

    def cancel_in_the_search(progress):
        job = training_jobs.get(database, job_id)
        seen.append((progress.phase, job.status, job.progress and job.progress["phase"]))
        if progress.phase == "search":
            training_jobs.cancel_job(database, job_id)

    settings = SMALL.model_copy(update={"budget": 2_000})
    with listening(cancel_in_the_search):
        result = train(key, settings=settings, tags={TRAINING_JOB_TAG: str(job_id)})
    assert not result.success
    assert seen[0][:2] == ("candles", "running")
    assert ("search", "running", "candles") in seen
    assert training_jobs.get(database, job_id).status == "cancelled"
    assert list_configurations(database, pair="CANCEL/USDT") == []


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_the_sensors_end_the_training_job_of_a_run(train, database, instance, status):
    key = f"simulated:SENSOR{status.upper()}-USDT:5m"
    result = train(key, settings=SMALL.model_copy(update={"train_days": 90}))
    job_id = UUID(result.run_id)
    assert training_jobs.get(database, job_id).status == "running"
    sensor = failed_trainings if status == "failed" else cancelled_trainings
    context = dg.build_run_status_sensor_context(
        sensor_name=sensor.name,
        dagster_event=result.get_run_failure_event(),
        dagster_instance=instance,
        dagster_run=result.dagster_run,
    )
    sensor(context.for_run_failure() if status == "failed" else context, database=DatabaseResource())
    job = training_jobs.get(database, job_id)
    assert job.status == status
    error = job.series[0].error_message
    assert error == (error_of(result) if status == "failed" else None)
