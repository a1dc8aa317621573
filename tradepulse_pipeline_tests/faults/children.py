"""Processes that things happen to: forked within milliseconds from one that has loaded everything.

``python -m tradepulse_pipeline_tests.faults.children`` reads orders, a line of JSON each, and answers each in a line.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STRATEGY = "LIQUIDITY_SWEEP_V3"


@dataclass
class Child:
    """A process that carries out an order, and the file that it writes what came of it to."""

    pid: int
    outcome: Path
    nursery: Nursery
    code: int | None = None

    def wait(self) -> int:
        """Return its exit code, negative for a signal."""
        if self.code is None:
            self.code = self.nursery.ask({"wait": self.pid})
        return self.code

    def wait_until_stopped(self) -> None:
        """Wait until it has stopped itself."""
        deadline = time.monotonic() + 120
        while Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def result(self) -> dict[str, Any]:
        """Return what came of it, once it ended well."""
        code = self.wait()
        assert code == 0, f"exit code {code}: {self.outcome.with_suffix('.log').read_text()[-3000:]}"
        return json.loads(self.outcome.read_text())


class Nursery:
    """The process that children are forked from."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._numbers = folder, itertools.count()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TRADEPULSE_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name if __spec__ else __name__],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            env=environment,
        )

    def ask(self, order: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def train(self, project: Path, series: str, settings: dict[str, Any], **options: Any) -> Child:
        """Start a training.

        ``kill_at``: it dies at its n-th write; ``pause_at``: it stops before it writes the table of that name; ``env``:
        variables; ``memory``: bytes that it may take beyond what it has; ``file_size``: bytes that a file may have.
        """
        outcome = self._folder / f"{next(self._numbers)}.json"
        order = {"project": str(project), "series": series, "settings": settings, "outcome": str(outcome), **options}
        return Child(self.ask(order), outcome, self)

    def close(self) -> None:
        self._process.communicate(timeout=60)


def main() -> None:
    from matplotlib.figure import Figure

    from tradepulse_pipeline.definitions import build_definitions
    from tradepulse_pipeline.strategies.registry import get_strategy

    definitions = build_definitions([get_strategy(STRATEGY)])
    Figure.savefig = lambda *_, **__: None  # four fifths of the time, and nobody looks
    warm_up()
    for name in ("matplotlib.pyplot", "polars", "psycopg_pool", "scipy.stats", "bidask"):
        __import__(name)
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            answer = os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])
        elif (answer := os.fork()) == 0:
            os._exit(carry_out(order, definitions))
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()


def warm_up() -> None:
    """Load the engine's machine code once for all children. No thread may be left: polars' would be missed by them."""
    import numpy as np

    from tradepulse_pipeline.backtest.evaluators import TabledEvaluator
    from tradepulse_pipeline.backtest.settings import BarRange
    from tradepulse_pipeline.indicators.catalogue import ALL_INDICATORS
    from tradepulse_pipeline.indicators.frame import IndicatorFrame
    from tradepulse_pipeline.market.series import MS_PER_DAY, SeriesKey
    from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate
    from tradepulse_pipeline.strategies.registry import get_strategy

    series, start = SeriesKey.parse("simulated:WARM-USDT:5m"), 19_723 * MS_PER_DAY
    candles = simulate(series.market, series.timeframe, start, start + 10 * MS_PER_DAY, SimulatedMarketSettings())
    frame = IndicatorFrame.compute(candles, ALL_INDICATORS)
    evaluator = TabledEvaluator(frame, get_strategy(STRATEGY), workers=1)
    evaluator.evaluate(np.arange(4), BarRange(0, len(frame)))
    evaluator.block_moments(np.arange(4), 16)
    evaluator.run(0, BarRange(0, len(frame)))


def carry_out(order: dict[str, Any], definitions: Any) -> int:
    outcome = Path(order["outcome"])
    log = os.open(outcome.with_suffix(".log"), os.O_WRONLY | os.O_CREAT)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.chdir(order["project"])
    os.environ.update(order.get("env", {}))
    time.tzset()
    writes = itertools.count(1)
    count_writes(writes, order.get("kill_at", 0))
    pause_before(order.get("pause_at", ""))
    if "memory" in order:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + order["memory"]
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    if "file_size" in order:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_size"], order["file_size"]))
    try:
        outcome.write_text(json.dumps({**train(order, definitions), "writes": next(writes) - 1}))
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def train(order: dict[str, Any], definitions: Any) -> dict[str, Any]:
    import dagster as dg

    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("series", [order["series"]])
        result = definitions.resolve_job_def(f"train_{STRATEGY.lower()}").execute_in_process(
            instance=instance,
            partition_key=order["series"],
            run_config={"resources": {"settings": {"config": order["settings"]}}},
            raise_on_error=False,
        )
        errors = [event.step_failure_data for event in result.get_step_failure_events()]
        return {
            "success": result.success,
            "run_id": result.run_id,
            "errors": [
                one.user_failure_data.description if one.user_failure_data else one.error.to_string() for one in errors
            ],
        }


def count_writes(writes: Any, kill_at: int) -> None:
    """Let this process die of SIGKILL at its n-th write: before or after a COMMIT, an fsync or a renaming."""
    import psycopg

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            for step in (lambda: None, lambda: function(*arguments, **options)):
                result = step()
                if next(writes) == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    os.fsync, os.replace = dying(os.fsync), dying(os.replace)
    psycopg.Connection.commit = dying(psycopg.Connection.commit)


def pause_before(table: str) -> None:
    """Let this process stop, until somebody makes it go on, when it is to write a table."""
    from tradepulse_pipeline.orchestration.artifacts import ArtifactStore

    write = ArtifactStore.write_parquet

    def pausing(store: ArtifactStore, asset: Sequence[str], *arguments: Any) -> Any:
        if asset[-1] == table:
            os.kill(os.getpid(), signal.SIGSTOP)
        return write(store, asset, *arguments)

    ArtifactStore.write_parquet = pausing


if __name__ == "__main__":
    main()
