"""Side by side with vectorbt and backtesting.py: the same candles and parameter sets, in one run.

The peers are installed from the package registry, at the versions below, into a virtual environment that this script
makes; they are no dependencies. Run ``python benchmarks/peers.py``, with ``--candles FILE --timeframe 5m`` for real
candles.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import (
    STRATEGY,
    Grid,
    add_market_options,
    arguments,
    as_rate,
    as_seconds,
    console,
    in_fresh_process,
    load_candles,
    measure_grid,
    positive,
    sample,
    show_machine,
    show_table,
)

from tradepulse_pipeline.backtest.api import account_of, bars_of, exit_rule_of
from tradepulse_pipeline.backtest.evaluators import PlainEvaluator
from tradepulse_pipeline.backtest.kernel import DecisionColumns
from tradepulse_pipeline.backtest.outcomes import entry_of
from tradepulse_pipeline.backtest.result import METRIC_NAMES
from tradepulse_pipeline.backtest.settings import AccountSettings, BarRange
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.strategies.base import SignalSource
from tradepulse_pipeline.strategies.registry import get_strategy

#: Keeps libraries from spreading over the cores.
ONE_THREAD = dict.fromkeys(("NUMBA_NUM_THREADS", "RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

PINNED = ("numpy==2.4.6", "pandas==3.1.1", "numba==0.68.1")


class Peer(NamedTuple):
    """A package to compare with, and what it is called in the table."""

    engine: str
    title: str
    requirements: tuple[str, ...]


PEERS = (
    Peer("vectorbt-numba", "vectorbt 1.2.0, numba", ("vectorbt==1.2.0",)),
    Peer("vectorbt-rust", "vectorbt 1.2.0, Rust", ("vectorbt[rust]==1.2.0",)),
    Peer("backtesting", "backtesting.py 0.6.6", ("backtesting==0.6.6",)),
)

NOTES = """\
Peers only simulate: TradePulse has decided, checked, priced and sized every entry for them beforehand, and that time \
is not charged to them; TradePulse's own figure starts at the candles and includes decisions, exits and all metrics. \
Ratios are to the peer's simulation alone, without its statistics (backtesting.py cannot be run without them). \
All run on one core, in processes of their own, one after the other; compiling and a first run are left out. \
TradePulse's rate is that of the whole grid, which shares work between combinations; that of the peers is the mean \
over the sample, since they run each combination on its own.
Not alike: vectorbt looks at stop and target only from the bar after the entry, and its target fills pay slippage; \
backtesting.py charges no slippage on exits, and buys whole units of one millionth of the currency. \
Trades and returns therefore differ somewhat; both are shown."""


def hand_over(candles: Candles, n_combinations: int, path: Path) -> tuple[float, float]:
    """Write candles and the entries of sampled combinations for the peers; return our mean trades and return."""
    strategy, account = get_strategy(STRATEGY), AccountSettings()
    frame = IndicatorFrame.compute(candles, strategy.indicators)
    evaluator = PlainEvaluator(frame, strategy, account=account)
    combinations = sample(evaluator.space.size, n_combinations)
    source, bars = SignalSource(strategy, frame), bars_of(frame)
    entries: list[tuple[float, ...]] = []
    offsets = [0]
    for combination in combinations.tolist():
        parameters = evaluator.space.values(combination)
        rule = exit_rule_of(strategy.exits(parameters), account)
        decisions = source.decisions(parameters)
        columns = DecisionColumns(*(getattr(decisions, name) for name in DecisionColumns._fields))
        for d, bar in enumerate(decisions.bar.tolist()):
            entry = entry_of(bars, columns, rule, account_of(account), d, len(frame))
            if entry.quantity > 0.0:
                share = entry.quantity * entry.price
                entries.append((bar + 1, entry.price, entry.stop_price, entry.target_price, share))
        offsets.append(len(entries))
    bar, price, stop, target, share = np.array(entries, dtype=np.float64).reshape(-1, 5).T
    np.savez(
        path,
        open_time_ms=frame.open_time_ms,
        open=frame.open,
        high=frame.high,
        low=frame.low,
        close=frame.close,
        volume=frame.volume,
        step_ms=frame.timeframe.milliseconds,
        fee_rate=account.fee_rate,
        slippage=account.slippage,
        initial_capital=account.initial_capital,
        offsets=offsets,
        entry_bar=bar.astype(np.int64),
        entry_price=price,
        stop_price=stop,
        target_price=target,
        share_of_equity=share,
    )
    metrics = evaluator.evaluate(combinations, BarRange(0, len(frame)))
    trades, total_return = (float(metrics[:, METRIC_NAMES.index(m)].mean()) for m in ("sample_size", "total_return"))
    return trades, total_return


def make_environment(folder: Path) -> Path:
    """Make a virtual environment in ``folder``, unless there is one, and return its Python."""
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not python.exists():
        venv.create(folder, with_pip=True)
    return python


def install(python: Path, requirements: tuple[str, ...]) -> str:
    """Install into the environment; return what went wrong, nothing if all is well."""
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements, *PINNED]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return "" if done.returncode == 0 else f"pip: {_last_line(done.stderr)}"


def simulate_with(python: Path, engine: str, path: Path, runs: int) -> dict[str, Any] | str:
    """Run a peer in its environment; return its figures, or what went wrong."""
    script = Path(__file__).with_name("peer_simulations.py")
    command = [str(python), str(script), engine, str(path), str(runs)]
    environment = {**os.environ, **ONE_THREAD}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)  # noqa: S603
    if done.returncode:
        return _last_line(done.stderr)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


def main() -> None:
    """Measure and show."""
    parser = arguments("Side by side with vectorbt and backtesting.py.", runs=3)
    add_market_options(parser)
    parser.add_argument("--sample", type=positive, default=24, help="combinations that the peers simulate")
    parser.add_argument("--venv", type=Path, help="where the peers are installed and kept; a temporary folder without")
    options = parser.parse_args()
    show_machine()
    candles = load_candles(options)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "entries.npz"
        with console.status("entries for the peers"):
            trades, total_return = in_fresh_process(hand_over, candles, options.sample, path)
        with console.status("TradePulse, whole grid"):
            ours = in_fresh_process(measure_grid, candles, Grid(), 1, options.runs)
        rows = [("TradePulse, whole grid", as_rate(ours.rate), "", "", as_seconds(ours.seconds), "1", "", "")]
        rows.append(("TradePulse, the sample", "", "", "", "", "", f"{trades:.1f}", f"{total_return:+.2%}"))
        failures = []
        try:
            python = make_environment(options.venv or Path(folder) / "venv")
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"No virtual environment for the peers could be made, nothing is compared: {error}")
        for peer in PEERS:
            with console.status(f"{peer.title}: installing"):
                problem = install(python, peer.requirements)
            if problem:
                failures.append(f"{peer.title} could not be installed and is not compared. {problem}")
                continue
            with console.status(f"{peer.title}: simulating"):
                found = simulate_with(python, peer.engine, path, options.runs)
            if isinstance(found, str):
                failures.append(f"{peer.title} could not be run and is not compared. {found}")
                continue
            rate = found["n_combinations"] / found["simulation_seconds"]
            statistics_seconds = found["statistics_seconds"]
            total_seconds = found["simulation_seconds"] + (statistics_seconds or 0.0)
            rows.append(
                (
                    peer.title,
                    as_rate(rate),
                    as_seconds(found["simulation_seconds"] / found["n_combinations"]),
                    as_rate(found["n_combinations"] / total_seconds) if statistics_seconds else "included",
                    as_seconds(ours.n_combinations / rate),
                    f"{ours.rate / rate:,.0f}",
                    f"{found['trades']:.1f}",
                    f"{found['total_return']:+.2%}",
                )
            )
    show_table(
        f"{STRATEGY}, one core; peers on {options.sample} combinations drawn at random from {ours.n_combinations:,}",
        (
            "",
            "combinations/s",
            "each",
            "combinations/s\nwith statistics",
            "whole grid",
            "ratio",
            "trades",
            "return",
        ),
        rows,
        caption="Whole grid: for the peers, what it would take at that rate. Trades and return: means over the sample.",
    )
    console.print(NOTES)
    for failure in failures:
        console.print(failure, style="bold red", markup=False)
    if failures:
        sys.exit(1)


if __name__ == "__main__":
    main()
