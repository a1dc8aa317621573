"""What it costs to train 24 series through Dagster, and where the time goes.

Six markets (three pairs on each of two exchanges) in four timeframes, a year each: whole grid in every train window,
re-optimised walk-forward, from stored candles to stored configurations. Two ways: one ``tradepulse train`` for all, and
backfills in the web UI, where each run is a process that the daemon starts: of one series, then of a batch of them.

Run ``python benchmarks/markets.py``, with ``--candles FILE FILE FILE`` for real 5m candles of three pairs on one
exchange; the second exchange is the simulated one then. Six files make all of them real. ``--partitions-per-run`` takes
the sizes of the batches; ``--markets`` and ``--timeframes`` leave series out, to try it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import TypeVar

import dagster as dg
import polars as pl
from common import STRATEGY, as_mebibytes, as_rate, as_seconds, console, show_machine, show_table
from dagster._core.execution.backfill import BulkActionStatus

from tradepulse_pipeline.cli.naming import series_of_file
from tradepulse_pipeline.cli.signals import interruptible
from tradepulse_pipeline.database.candles import store_candles
from tradepulse_pipeline.database.configurations import list_configurations
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.migrations import migrate
from tradepulse_pipeline.database.server import database_url, stop_embedded
from tradepulse_pipeline.database.training_jobs import list_jobs
from tradepulse_pipeline.database.trials import searches_of
from tradepulse_pipeline.errors import InvalidInputError, TradePulseError
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.history import HistorySettings
from tradepulse_pipeline.market.series import MS_PER_DAY, SIMULATED_EXCHANGE, Market, SeriesKey, Timeframe
from tradepulse_pipeline.market.sources.files import read_candle_file
from tradepulse_pipeline.market.sources.simulated import ORIGIN_MS, SimulatedMarketSettings, simulate
from tradepulse_pipeline.optimizers.settings import SearchSettings
from tradepulse_pipeline.orchestration.launch import open_instance
from tradepulse_pipeline.orchestration.names import PARTITION_TAG, training_job_name
from tradepulse_pipeline.orchestration.partitions import SERIES_DIMENSION
from tradepulse_pipeline.orchestration.resources import SettingsResource
from tradepulse_pipeline.orchestration.sensors.batches import series_of_batch
from tradepulse_pipeline.settings import load_settings, variable
from tradepulse_pipeline.strategies.registry import get_strategy
from tradepulse_pipeline.validation.training import TrainingSettings

T = TypeVar("T")

PROJECT = Path(__file__).resolve().parents[1]

TIMEFRAMES = ("5m", "15m", "1h", "4h")
N_MARKETS = 6
SIMULATED_PAIRS = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "BTC/USD", "ETH/USD", "SOL/USD")

HISTORY = HistorySettings(source="stored")
TRAINING = TrainingSettings(search=SearchSettings(method="grid"))

#: Trained before anything is measured: compiles the engine, and makes Dagster's tables and Python's byte code.
WARM_UP = SeriesKey.parse(f"{SIMULATED_EXCHANGE}:WARM-UP:4h")

STEPS = ("market_data", "indicators", "optimization_results", "walk_forward_validation", "trained_configurations")
STARTING, AROUND = "process start, imports", "Dagster around the steps"

#: Lines of a command that failed that are shown.
LOG_TAIL = 15

LAUNCH = """mutation ($parameters: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $parameters) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCost:
    """One run as its event log tells it: when it was there (seconds since 1970), and its seconds by stage."""

    run_id: str
    series: Sequence[SeriesKey]
    began: float
    ended: float
    stages: Mapping[str, float]

    @property
    def seconds(self) -> float:
        """Seconds from beginning to end."""
        return self.ended - self.began

    @property
    def timeframe(self) -> Timeframe:
        """The timeframe of a run over one series."""
        return self.series[0].timeframe


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one way of training all series cost: asked for at ``began``, all done at ``ended``."""

    way: str
    began: float
    ended: float
    runs: Sequence[RunCost]

    @property
    def first_run_began(self) -> float:
        """When the first run was there."""
        return min(run.began for run in self.runs)

    @property
    def runs_at_a_time(self) -> float:
        """Runs at a time, in the mean, from the first one's beginning to the last one's end."""
        return sum(run.seconds for run in self.runs) / (self.last_run_ended - self.first_run_began)

    @property
    def last_run_ended(self) -> float:
        """When the last configuration was stored."""
        return max(run.ended for run in self.runs)


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description="24 series through Dagster, and where the time goes.")
    parser.add_argument("--candles", type=Path, nargs="+", default=[], metavar="FILE", help="three or six files of 5m")
    parser.add_argument("--timeframes", type=Timeframe, nargs="+", default=[Timeframe(name) for name in TIMEFRAMES])
    parser.add_argument("--through", choices=("train", "backfill"), nargs="+", default=["train", "backfill"])
    parser.add_argument("--partitions-per-run", type=int, nargs="+", default=[1, 6], metavar="N", help="of a backfill")
    parser.add_argument("--markets", type=int, default=N_MARKETS, metavar="N", help="only the first N of the six")
    options = parser.parse_args()
    try:
        markets = dict(list(chosen_markets(options.candles).items())[: options.markets])
    except InvalidInputError as error:
        parser.error(str(error))
    show_machine()
    with interruptible():
        try:
            measure(markets, options.timeframes, options.through, options.partitions_per_run)
        except TradePulseError as error:
            sys.exit(str(error))
        except KeyboardInterrupt:
            sys.exit("Interrupted. The benchmark's database and files are removed.")


def measure(
    markets: Mapping[Market, Path | None],
    timeframes: Sequence[Timeframe],
    ways: Sequence[str],
    batch_sizes: Sequence[int],
) -> None:
    """Store the candles, train them in each of the ``ways`` (backfills in each size of batches), show what it cost."""
    with own_project() as database, open_instance() as instance:
        with console.status("storing candles"):
            counts = store_all(database, markets, timeframes)
            instance.add_dynamic_partitions(SERIES_DIMENSION, [str(series) for series in counts])
        show_candles(markets, counts)
        with console.status("warming up"):
            warm_up(database)
        costs = []
        if "train" in ways:
            with console.status("tradepulse train"):
                costs.append(through_train(instance, list(counts)))
            show_stages(costs[-1])
        for size in batch_sizes if "backfill" in ways else ():
            with console.status(f"backfill, {size} series a run"):
                costs.append(through_backfill(instance, list(counts), size))
            if size == 1:
                show_stages(costs[-1])
        show_wall_clock(costs, database)


def chosen_markets(files: Sequence[Path]) -> dict[Market, Path | None]:
    """Return six markets, each with the file of its 5m candles, or None where they are simulated.

    Raises
    ------
    InvalidInputError
        If the files are not 5m candles of three markets of one exchange, or of all six.
    """
    given: dict[Market, Path | None] = {}
    for path in files:
        series = series_of_file(path, exchange=None, pair=None, timeframe=None)
        if series.timeframe != Timeframe("5m"):
            raise InvalidInputError(f"{path.name}: found candles of {series.timeframe}, expected 5m.")
        given[series.market] = path
    simulated_pairs = [market.pair for market in given] or SIMULATED_PAIRS
    twins = [] if len(given) == N_MARKETS else [Market.parse(SIMULATED_EXCHANGE, pair) for pair in simulated_pairs]
    markets = {**given, **dict.fromkeys(twins)}
    if len(markets) != N_MARKETS or len(list(product(*_names(markets)))) != N_MARKETS:
        raise InvalidInputError(
            f"Found files of {', '.join(str(market) for market in given)}; expected three pairs on one exchange, the "
            "same three pairs on two, or six pairs on one."
        )
    return markets


def _names(markets: Mapping[Market, object]) -> tuple[list[str], list[str]]:
    """Return the exchanges and the pairs of ``markets``."""
    return list(dict.fromkeys(m.exchange for m in markets)), list(dict.fromkeys(m.pair for m in markets))


@contextmanager
def own_project() -> Iterator[Database]:
    """Work in a project with a database of its own; nothing of it is left at the end, however that comes."""
    for name in [name for name in os.environ if name.startswith(("TRADEPULSE_", "DAGSTER_"))]:
        del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="tradepulse-benchmark-") as folder, chdir(folder):
        for name in ("dagster.yaml", "workspace.yaml"):
            shutil.copy(PROJECT / name, folder)
        data_dir = load_settings().data_dir
        try:
            with Database(database_url(data_dir, None)) as database:
                migrate(database)
                yield database
        finally:
            stop_embedded(data_dir)
            pgdata = data_dir / "pgdata"
            if pgdata.is_symlink():  # root's server keeps its data where its own account may enter
                shutil.rmtree(pgdata.resolve().parent)


def store_all(
    database: Database, markets: Mapping[Market, Path | None], timeframes: Sequence[Timeframe]
) -> dict[SeriesKey, int]:
    """Store a year of candles of every series, and return how many each has."""
    counts = {}
    for market, path in markets.items():
        real = None if path is None else HISTORY.select(read_candle_file(path, Timeframe("5m")).candles)
        for timeframe in timeframes:
            series = SeriesKey(market, timeframe)
            candles = simulated_year(series) if real is None else resampled(real, timeframe)
            store_candles(database, series, candles, SIMULATED_EXCHANGE if path is None else f"file {path.name}")
            counts[series] = len(candles)
    return counts


def simulated_year(series: SeriesKey) -> Candles:
    """Return a year of a simulated market without outages."""
    end_ms = ORIGIN_MS + HISTORY.history_days * MS_PER_DAY
    return simulate(series.market, series.timeframe, ORIGIN_MS, end_ms, SimulatedMarketSettings(outages_per_year=0))


def resampled(candles: Candles, timeframe: Timeframe) -> Candles:
    """Return the candles of a longer timeframe, each from those of its span that are there."""
    step = timeframe.milliseconds
    columns = {name: getattr(candles, name) for name in ("open", "high", "low", "close", "volume")}
    table = (
        pl.DataFrame({"time": candles.open_time_ms // step * step, **columns})
        .filter(pl.col("time") + step <= candles.end_ms)
        .group_by("time", maintain_order=True)
        .agg(pl.first("open"), pl.max("high"), pl.min("low"), pl.last("close"), pl.sum("volume"))
    )
    return Candles.from_arrays(timeframe, *(table[name].to_numpy() for name in table.columns))


def warm_up(database: Database) -> None:
    """Train one series that is not among the measured ones."""
    store_candles(database, WARM_UP, simulated_year(WARM_UP), SIMULATED_EXCHANGE)
    train([WARM_UP])


def train(all_series: Sequence[SeriesKey]) -> None:
    """Train all series by one command.

    Raises
    ------
    TradePulseError
        If it fails; the message has the end of what it said.
    """
    exchanges, pairs = _names({series.market: None for series in all_series})
    timeframes = list(dict.fromkeys(str(series.timeframe) for series in all_series))
    names = {"--exchange": exchanges, "--pair": pairs, "--timeframe": timeframes, "--strategy": [STRATEGY]}
    chosen = [word for option, values in names.items() for word in (option, ",".join(values))]
    with tradepulse("train", *chosen, "--source", HISTORY.source, "--method", TRAINING.search.method) as (command, log):
        if command.wait():
            raise failed(command, log)


def through_train(instance: dg.DagsterInstance, all_series: Sequence[SeriesKey]) -> Cost:
    """Measure one ``tradepulse train``: one process, one run after the other."""
    earlier = {record.dagster_run.run_id for record in instance.get_run_records()}
    began = time.time()
    train(all_series)
    ended = time.time()
    records = [record for record in instance.get_run_records() if record.dagster_run.run_id not in earlier]
    runs = [run_cost(instance, record) for record in records]
    return Cost(way="tradepulse train", began=began, ended=ended, runs=runs)


def through_backfill(instance: dg.DagsterInstance, all_series: Sequence[SeriesKey], partitions_per_run: int) -> Cost:
    """Measure a backfill as the web UI launches it, ``tradepulse up`` being ready; a run takes that many series.

    Raises
    ------
    TradePulseError
        If it cannot be launched or a run fails.
    """
    settings = SettingsResource.of(TRAINING, HISTORY).to_run_config()
    parameters = {
        "selector": {
            "repositorySelector": {"repositoryLocationName": "tradepulse", "repositoryName": "__repository__"},
            "partitionSetName": f"{training_job_name(get_strategy(STRATEGY))}_partition_set",
        },
        "partitionNames": [str(series) for series in all_series],
        "runConfigData": {"resources": {"settings": {"config": settings}}},
    }
    os.environ[variable("partitions_per_run")] = str(partitions_per_run)
    with tradepulse("up", "--port", "0") as (command, log):
        ready = wait_for(lambda: re.search(r"Web UI +(http\S+)(?s:.*)Ctrl-C", log.read_text()), command, log)
        began = time.time()
        backfill_id = launch(ready[1], parameters)
        wait_for(lambda: has_ended(instance, backfill_id), command, log)
        ended = time.time()
    records = instance.get_run_records(dg.RunsFilter(tags={"dagster/backfill": backfill_id}))
    queue = instance.get_concurrency_config().run_queue_config
    assert queue is not None
    return Cost(
        way=f"backfill, {partitions_per_run} series a run, up to {queue.max_concurrent_runs} runs at a time",
        began=began,
        ended=ended,
        runs=[run_cost(instance, record) for record in records],
    )


def run_cost(instance: dg.DagsterInstance, record: dg.RunRecord) -> RunCost:
    """Return what a run cost, from the launch of its process if it has one of its own, else from its creation.

    Raises
    ------
    TradePulseError
        If it failed.
    """
    run = record.dagster_run
    keys = [run.tags[PARTITION_TAG]] if PARTITION_TAG in run.tags else series_of_batch(instance, run)
    if not run.is_success:
        raise TradePulseError(f"The run of {', '.join(keys)} ended as {run.status.value}, expected SUCCESS.")
    launched = instance.get_run_stats(run.run_id).launch_time
    began, started, ended = launched or record.create_timestamp.timestamp(), record.start_time, record.end_time
    assert started is not None
    assert ended is not None
    steps = instance.get_run_step_stats(run.run_id)
    stages = {STARTING: started - began} if launched else {}
    stages |= {step.step_key.split("__")[-1]: (step.end_time or ended) - (step.start_time or ended) for step in steps}
    return RunCost(
        run_id=run.run_id,
        series=[SeriesKey.parse(key) for key in keys],
        began=began,
        ended=ended,
        stages={**stages, AROUND: ended - began - sum(stages.values())},
    )


@contextmanager
def tradepulse(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Start a command, and yield it with the file that it writes to; stop it at the end if it still runs."""
    log = Path(f"{arguments[0]}.log").absolute()
    with log.open("wb") as output:
        command = subprocess.Popen(  # noqa: S603
            [Path(sys.executable).with_name("tradepulse"), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield command, log
    finally:
        if command.poll() is None:
            command.terminate()
            command.wait()


def wait_for(find: Callable[[], T | None], command: subprocess.Popen[bytes], log: Path) -> T:
    """Return what ``find`` finds as soon as it does.

    Raises
    ------
    TradePulseError
        If ``command`` ends before.
    """
    while not (found := find()):
        if command.poll() is not None:
            raise failed(command, log)
        time.sleep(0.25)
    return found


def failed(command: subprocess.Popen[bytes], log: Path) -> TradePulseError:
    """Return the error that says how a command ended."""
    lines = "\n".join(log.read_text().splitlines()[-LOG_TAIL:])
    return TradePulseError(f"tradepulse {log.stem} ended with code {command.returncode}. The last it said:\n{lines}")


def launch(url: str, parameters: Mapping[str, object]) -> str:
    """Launch a backfill through the web server at ``url`` and return its id.

    Raises
    ------
    TradePulseError
        If it is refused.
    """
    request = urllib.request.Request(  # noqa: S310 (our own server)
        f"{url}/graphql",
        data=json.dumps({"query": LAUNCH, "variables": {"parameters": parameters}}).encode(),
        headers={"Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as reply:
        launched = json.load(reply)["data"]["launchPartitionBackfill"]
    if "backfillId" not in launched:
        raise TradePulseError(f"The backfill was not launched: {launched}.")
    return str(launched["backfillId"])


def has_ended(instance: dg.DagsterInstance, backfill_id: str) -> bool:
    """Whether the daemon has marked a backfill as ended."""
    backfill = instance.get_backfill(backfill_id)
    return backfill is not None and backfill.status is not BulkActionStatus.REQUESTED


def show_candles(markets: Mapping[Market, Path | None], counts: Mapping[SeriesKey, int]) -> None:
    """Say what is trained."""
    timeframes = list(dict.fromkeys(series.timeframe for series in counts))
    show_table(
        f"{len(counts)} series of {HISTORY.history_days} days",
        ("market", *(f"{timeframe} candles" for timeframe in timeframes), "from"),
        [
            (
                f"{market.exchange} {market.pair}",
                *(f"{counts[SeriesKey(market, timeframe)]:,}" for timeframe in timeframes),
                "SIMULATED, no real market" if path is None else path.name,
            )
            for market, path in markets.items()
        ],
        caption="Longer timeframes of a file are resampled from its 5m candles." if any(markets.values()) else "",
    )


def show_stages(cost: Cost) -> None:
    """Print where the time of the runs went."""
    timeframes = sorted({run.timeframe for run in cost.runs}, key=lambda timeframe: timeframe.minutes)
    total = sum(run.seconds for run in cost.runs)
    stages = [stage for stage in (STARTING, *STEPS, AROUND) if stage in cost.runs[0].stages]

    def row(name: str, seconds: Sequence[float]) -> tuple[str, ...]:
        by_timeframe = (
            [one for one, run in zip(seconds, cost.runs, strict=True) if run.timeframe == timeframe]
            for timeframe in timeframes
        )
        means = (as_seconds(statistics.mean(part)) for part in by_timeframe)
        return name, *means, as_seconds(sum(seconds)), f"{sum(seconds) / total:.1%}"

    show_table(
        f"{cost.way}: where the time of {len(cost.runs)} runs went",
        ("", *(f"{timeframe}\nmean" for timeframe in timeframes), "all runs\nsum", "share"),
        [
            *(row(stage, [run.stages[stage] for run in cost.runs]) for stage in stages),
            row("a run", [run.seconds for run in cost.runs]),
        ],
        caption=f"From Dagster's event log, Dagster {version('dagster')}. Around the steps: Dagster's own preparation, "
        "events and end of a run.",
    )


def show_wall_clock(costs: Sequence[Cost], database: Database) -> None:
    """Print how long it took, and what came of it."""
    n_trials: Counter[str] = Counter()
    for job in list_jobs(database, limit=100):
        for search in searches_of(database, job.id):
            n_trials[search.run_id] += search.n_trials
    stored = [row.run_id for row in list_configurations(database, active_only=False, limit=1_000)]
    rows = []
    for cost in costs:
        trials = sum(n_trials[run.run_id] for run in cost.runs)
        runs = {run.run_id for run in cost.runs}
        seconds = cost.last_run_ended - cost.began
        rows.append(
            (
                cost.way,
                f"{trials:,}",
                f"{sum(run_id in runs for run_id in stored)} of {sum(len(run.series) for run in cost.runs)}",
                as_seconds(cost.first_run_began - cost.began),
                as_seconds(cost.last_run_ended - cost.first_run_began),
                f"{cost.runs_at_a_time:.2f}",
                as_seconds(cost.ended - cost.last_run_ended),
                as_seconds(seconds),
                as_rate(trials / seconds),
            )
        )
    files = [path for path in Path(load_settings().artifacts_url).rglob("*") if path.is_file()]
    show_table(
        "From stored candles to stored configurations, wall-clock",
        (
            "",
            "trials",
            "configu-\nrations",
            "before the\nfirst run",
            "all runs",
            "runs at\na time",
            "after the\nlast run",
            "time",
            "trials/s",
        ),
        rows,
        caption="Time: from asking to the end of the last run. Before the first run: the command starts and plans; "
        "Dagster's daemon looks for backfills every 30 s, and notices as late that one has ended. A training without a "
        "valid trial in the latest train window stores no configuration. Files of one way: "
        f"{as_mebibytes(sum(path.stat().st_size for path in files))}.",
    )


if __name__ == "__main__":
    main()
