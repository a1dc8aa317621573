"""Following markets by themselves: those that the settings declare, and pairs that exchanges newly list."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

import tradepulse_pipeline
from tradepulse_pipeline.database import training_jobs
from tradepulse_pipeline.database.candles import coverage_of
from tradepulse_pipeline.database.pace import DatabasePace
from tradepulse_pipeline.errors import InvalidInputError, SourceError
from tradepulse_pipeline.market.listings import Lister, Listings, look_for_listings
from tradepulse_pipeline.market.series import MS_PER_DAY, Market, SeriesKey
from tradepulse_pipeline.market.sources.exchange import ExchangeSource
from tradepulse_pipeline.market.sources.http import Patience
from tradepulse_pipeline.market.sources.registry import check_exchange, source_named
from tradepulse_pipeline.orchestration.followed import (
    DECLARED_MARKETS,
    declared_among,
    forget_declared,
    mark_declared,
    stop_runs,
)
from tradepulse_pipeline.orchestration.jobs import UPDATE_MARKET_DATA
from tradepulse_pipeline.orchestration.names import TRAINING_JOB_TAG, training_job_name
from tradepulse_pipeline.orchestration.partitions import SERIES, SERIES_DIMENSION
from tradepulse_pipeline.orchestration.resources import DatabaseResource, SettingsResource
from tradepulse_pipeline.settings import SETTINGS_FILE, Settings, load_settings
from tradepulse_pipeline.strategies.base import Strategy
from tradepulse_pipeline.strategies.registry import get_strategy
from tradepulse_pipeline.validation.windows import days_needed

#: A tick has a minute: an exchange that does not answer soon is asked at the next one.
_QUICK: Final = Patience(attempts=2, deadline_s=10.0, first_wait_s=0.5, longest_wait_s=5.0)

Tick = dg.SensorResult | dg.SkipReason


def build_declared_markets(trainings: Sequence[UnresolvedAssetJobDefinition]) -> dg.SensorDefinition:
    """Return the sensor that follows the list ``markets`` of the settings; ``trainings`` are the jobs that it runs."""

    @dg.sensor(
        name=DECLARED_MARKETS,
        jobs=list(trainings),
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Keeps the series that `markets` in {SETTINGS_FILE} names: adds a partition for each new one and "
        "trains it with every strategy of `strategies`, candles first; what leaves the list stops and loses its "
        "partition, unless a person added it. All series of one tick are one training job per strategy, over which "
        "p-values are corrected. An empty list costs nothing.",
    )
    def declared_markets(context: dg.SensorEvaluationContext, database: DatabaseResource) -> Tick:
        try:
            return _follow_list(context, database)
        except InvalidInputError as error:
            return dg.SkipReason(f"Nothing is changed until the settings are mended. {error}")

    return declared_markets


def _follow_list(context: dg.SensorEvaluationContext, database: DatabaseResource) -> Tick:
    settings, instance = load_settings(), context.instance
    asked: dict[str, dict[str, Any]] = json.loads(context.cursor or "{}")
    there = set(instance.get_dynamic_partitions(SERIES_DIMENSION))
    declared = [str(series) for series in settings.markets]
    gone = sorted(declared_among(instance, there) - set(declared))
    remarks: list[str] = []
    unasked: dict[Strategy, list[str]] = {get_strategy(name): [] for name in settings.strategies}
    new: list[str] = []
    for key in declared:
        before = asked.get(key, {"time": 0, "strategies": []})
        missing = [strategy for strategy in unasked if strategy.name not in before["strategies"]]
        if key not in there:
            if before["strategies"]:
                remarks.append(
                    f"{key} is in the list, but a person has removed its partition: it rests. Take it from the list "
                    "and put it back, or add the partition, to go on."
                )
                continue
            try:
                check_exchange(SeriesKey.parse(key).exchange)
            except InvalidInputError as error:
                remarks.append(f"{key} is left out. {error}")
                continue
            new.append(key)
        for strategy in missing:
            unasked[strategy].append(key)
    # What left the list is asked for anew when it comes back.
    cursor = {key: {**one, "strategies": one["strategies"] if key in declared else []} for key, one in asked.items()}
    requests: list[dg.RunRequest] = []
    for strategy, keys in unasked.items():
        for key in keys:
            one = cursor.setdefault(key, {"time": 0, "strategies": []})
            times = one["time"] + (not one["strategies"])
            cursor[key] = {"time": times, "strategies": [*one["strategies"], strategy.name]}
        requests += _trainings(
            context,
            settings,
            database,
            strategy,
            {key: f"{key} {strategy.name} #{cursor[key]['time']}" for key in keys},
        )
    for key in gone:
        cursor.setdefault(key, {"time": 0, "strategies": []})
        remarks.append(f"{key} left the list: its partition is removed, its candles and configurations are kept.")
    # Runs end only now: one that began while its partition went away would not have been found before.
    left = declared_among(instance, set(asked) - set(declared) - there)
    remarks += [f"{key} is not followed; {stop_runs(instance, key)} of its runs are cancelled." for key in sorted(left)]
    forget_declared(instance, left)
    for remark in remarks:
        context.log.info(remark)
    mark_declared(instance, new)
    changes: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = [
        *([SERIES.build_add_request(new)] if new else []),
        *([SERIES.build_delete_request(gone)] if gone else []),
    ]
    for key in new:
        context.log.info(f"{key} is new in the list: its partition is added.")
    if requests:
        return dg.SensorResult(
            run_requests=requests, dynamic_partitions_requests=changes, cursor=json.dumps(cursor, sort_keys=True)
        )
    nothing = (
        f"{len(declared)} series are declared, and all have been asked for."
        if declared
        else f"No series are declared. 'tradepulse markets add' writes some into {SETTINGS_FILE}."
    )
    return dg.SensorResult(
        skip_reason=" ".join(remarks or [nothing]),
        dynamic_partitions_requests=changes,
        cursor=json.dumps(cursor, sort_keys=True),
    )


def build_new_listings(trainings: Sequence[UnresolvedAssetJobDefinition]) -> dg.SensorDefinition:
    """Return the sensor that follows pairs which exchanges newly list; ``trainings`` are the jobs that it runs."""

    @dg.sensor(
        name="new_listings",
        jobs=[UPDATE_MARKET_DATA, *trainings],
        minimum_interval_seconds=900,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=f"Looks what the exchanges of `[listings]` in {SETTINGS_FILE} have newly listed. A pair that is "
        "traded enough gets its partitions and its candles at once, and is trained as soon as its history is long "
        "enough for one window. The first tick only learns what there is.",
    )
    def new_listings(context: dg.SensorEvaluationContext, database: DatabaseResource) -> Tick:
        try:
            return _follow_listings(context, database)
        except InvalidInputError as error:
            return dg.SkipReason(f"Nothing is changed until the settings are mended. {error}")

    return new_listings


def _follow_listings(context: dg.SensorEvaluationContext, database: DatabaseResource) -> Tick:
    settings, now_ms = load_settings(), time.time_ns() // 1_000_000
    rules = settings.listings
    cursor: dict[str, Any] = {"listings": {}, "young": [], **json.loads(context.cursor or "{}")}
    there = set(context.instance.get_dynamic_partitions(SERIES_DIMENSION))
    young = [key for key in cursor["young"] if key in there]  # a person who removes a partition ends it
    found, listings, remarks = _look_at_all(settings, database, cursor["listings"], now_ms)
    new = [str(series) for market in found for series in rules.series_of(market)]
    requests = [
        dg.RunRequest(
            job_name=UPDATE_MARKET_DATA.name,
            partition_key=key,
            run_key=f"{key} candles",
            run_config=_run_config(settings),
            tags={"user": "new_listings"},
        )
        for key in new
    ]
    ripe = [key for key in young if _is_long_enough(settings, database, SeriesKey.parse(key), now_ms)]
    for name in settings.strategies:
        strategy = get_strategy(name)
        run_keys = {key: f"{key} {strategy.name}" for key in ripe}
        requests += _trainings(context, settings, database, strategy, run_keys)
    waiting = [*(key for key in young if key not in ripe), *new]
    if waiting and not requests:
        remarks.append(
            f"Waiting for {days_needed(settings.training().windows)} days of history, which one window takes: "
            f"{', '.join(waiting)}."
        )
    for remark in remarks:
        context.log.info(remark)
    told = json.dumps({"listings": listings, "young": waiting}, sort_keys=True)
    if requests:
        added = [SERIES.build_add_request(new)] if new else []
        return dg.SensorResult(run_requests=requests, dynamic_partitions_requests=added, cursor=told)
    return dg.SensorResult(skip_reason=" ".join(remarks), cursor=told)


def _look_at_all(
    settings: Settings, database: DatabaseResource, before: Mapping[str, Any], now_ms: int
) -> tuple[list[Market], dict[str, Any], list[str]]:
    """Return the markets that are new, what is known of each exchange now, and what there is to say."""
    rules = settings.listings
    if not rules.exchanges:
        return [], dict(before), [f"[listings] in {SETTINGS_FILE} names no exchanges: exchanges = ['binance'], say."]
    after, remarks = dict(before), list[str]()
    markets: list[Market] = []
    for name in rules.exchanges:
        place = f"{name} {rules.quote}"
        known = Listings.from_json_dict(before[place]) if place in before else None
        taken = sum(Listings.from_json_dict(one).taken_since(now_ms - MS_PER_DAY) for one in after.values())
        try:
            look = look_for_listings(
                _lister(settings, database, name),
                rules,
                known,
                now_ms=now_ms,
                n_allowed=max(rules.most_per_day - taken, 0),
            )
        except (SourceError, InvalidInputError) as error:
            remarks.append(f"{name}: nothing is known about new pairs this time. {error}")
            continue
        after[place] = look.listings.to_json_dict()
        markets += look.found
        remarks += look.sentences
    return markets, after, remarks


def _lister(settings: Settings, database: DatabaseResource, exchange: str) -> Lister:
    sources = replace(settings.sources(partial(DatabasePace, database.open())), patience=_QUICK)
    source = source_named(exchange, sources)
    if not isinstance(source, ExchangeSource):
        raise InvalidInputError(f"listings.exchanges: {exchange} lists no pairs; expected an exchange, as 'binance'.")
    return source


def _is_long_enough(settings: Settings, database: DatabaseResource, series: SeriesKey, now_ms: int) -> bool:
    there = coverage_of(database.open(), series)
    return there is not None and now_ms - there.first_ms >= days_needed(settings.training().windows) * MS_PER_DAY


def _run_config(settings: Settings) -> dict[str, Any]:
    resource = SettingsResource.of(
        settings.training(), settings.history(), simulated_edge=settings.simulated_edge
    ).to_run_config()
    return {"resources": {"settings": {"config": dict(resource)}}}


def _trainings(
    context: dg.SensorEvaluationContext,
    settings: Settings,
    database: DatabaseResource,
    strategy: Strategy,
    run_keys: Mapping[str, str],
) -> list[dg.RunRequest]:
    """Return the runs of one training job over all the series of ``run_keys``.

    The same run keys are the same job: a tick that is repeated makes no second one.
    """
    if not run_keys:
        return []
    training = settings.training()
    job_id = uuid5(NAMESPACE_URL, "\n".join(("tradepulse", context.sensor_name, *sorted(run_keys.values()))))
    training_jobs.create(
        database.open(),
        job_id=job_id,
        strategy_name=strategy.name,
        config={"training": training.to_json_dict(), "history": asdict(settings.history())},
        series=[SeriesKey.parse(key) for key in run_keys],
        seed=training.search.seed,
        code_version=tradepulse_pipeline.__version__,
        user_id=context.sensor_name,
    )
    for key in run_keys:
        context.log.info(f"{key}: candles, then {strategy.name}, in the training job {job_id}.")
    return [
        dg.RunRequest(
            job_name=training_job_name(strategy),
            partition_key=key,
            run_key=run_key,
            run_config=_run_config(settings),
            tags={TRAINING_JOB_TAG: str(job_id), "user": context.sensor_name},
        )
        for key, run_key in run_keys.items()
    ]
