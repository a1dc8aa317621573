"""Simulate given entries with another package: run by ``peers.py`` with the Python of the peers' environment.

``python peer_simulations.py ENGINE ENTRIES.npz RUNS`` prints one line of JSON: time of the simulation, time of the
statistics (null where they are part of it), mean trades and mean total return per combination.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

Arrays = Mapping[str, Any]
Figures = tuple[float, float | None, list[float], list[float]]

#: Cells of one matrix (bars x combinations) that vectorbt gets at once: its memory is a few hundred bytes for each.
MATRIX_CELLS = 3_000_000

#: backtesting.py buys whole units: prices are per millionth of the base currency, so that these do not matter.
UNITS_PER_COIN = 1e6


def entries_of(arrays: Arrays) -> Iterator[slice]:
    """Yield where the entries of each combination are."""
    offsets = arrays["offsets"].tolist()
    yield from (slice(first, last) for first, last in pairwise(offsets))


def with_vectorbt(arrays: Arrays, kernel: str) -> Figures:
    """Simulate in matrices of several combinations, which is how vectorbt is at its fastest."""
    import vectorbt as vbt

    n_bars = len(arrays["close"])
    times = pd.to_datetime(arrays["open_time_ms"], unit="ms")
    open_, high, low, close = (pd.Series(arrays[name], times) for name in ("open", "high", "low", "close"))
    combinations = list(entries_of(arrays))
    width = max(1, MATRIX_CELLS // n_bars)
    simulation = statistic = 0.0
    trades: list[float] = []
    returns: list[float] = []
    for at in range(0, len(combinations), width):
        part = combinations[at : at + width]
        is_entry = np.zeros((n_bars, len(part)), dtype=np.bool_, order="F")
        share, stop, target = (np.full((n_bars, len(part)), np.nan, order="F") for _ in range(3))
        for column, rows in enumerate(part):
            bar, price = arrays["entry_bar"][rows], arrays["entry_price"][rows]
            is_entry[bar, column] = True
            share[bar, column] = arrays["share_of_equity"][rows]
            stop[bar, column] = 1.0 - arrays["stop_price"][rows] / price
            target[bar, column] = arrays["target_price"][rows] / price - 1.0
        begin = time.perf_counter()
        portfolio = vbt.Portfolio.from_signals(
            close,
            is_entry,
            exits=False,
            size=share,
            size_type="percent",
            price=open_,
            open=open_,
            high=high,
            low=low,
            sl_stop=stop,
            tp_stop=target,
            stop_entry_price="fillprice",
            stop_exit_price="stopmarket",
            fees=float(arrays["fee_rate"]),
            slippage=float(arrays["slippage"]),
            init_cash=float(arrays["initial_capital"]),
            freq=pd.Timedelta(int(arrays["step_ms"]), "ms"),
            engine=kernel,
        )
        simulated = time.perf_counter()
        total_return = portfolio.total_return()
        for name in ("sharpe_ratio", "sortino_ratio", "max_drawdown", "calmar_ratio"):
            getattr(portfolio, name)()
        closed = portfolio.trades
        for name in ("win_rate", "profit_factor", "expectancy"):
            getattr(closed, name)()
        count = closed.count()
        statistic += time.perf_counter() - simulated
        simulation += simulated - begin
        trades += np.ravel(count).tolist()
        returns += np.ravel(total_return).tolist()
    return simulation, statistic, trades, returns


def with_backtesting(arrays: Arrays) -> Figures:
    """Simulate one combination after the other, each with the orders that its entries ask for."""
    from backtesting import Backtest, Strategy

    times = pd.to_datetime(arrays["open_time_ms"], unit="ms")
    prices = {name.title(): arrays[name] / UNITS_PER_COIN for name in ("open", "high", "low", "close")}
    data = pd.DataFrame({**prices, "Volume": arrays["volume"]}, index=times)

    class Entries(Strategy):
        """Sends each order at the close before its entry, unless a position is open."""

        orders: Mapping[int, tuple[float, float, float]]

        def init(self) -> None:
            """Nothing to prepare: the entries are given."""

        def next(self) -> None:
            """Send the order of this bar, if it has one."""
            order = self.orders.get(len(self.data))  # the number of bars so far is that of the bar to enter at
            if order is None or self.position:
                return
            share, stop, target = order
            if stop < self.data.Close[-1] * (1.0 + slippage) < target:  # otherwise an order is refused with an error
                self.buy(size=share, sl=stop, tp=target)

    slippage = float(arrays["slippage"])
    backtest = Backtest(
        data,
        Entries,
        cash=float(arrays["initial_capital"]),
        spread=slippage,
        commission=float(arrays["fee_rate"]),
        finalize_trades=True,
    )
    seconds = 0.0
    trades: list[float] = []
    returns: list[float] = []
    for rows in entries_of(arrays):
        columns = (
            arrays["share_of_equity"][rows],
            arrays["stop_price"][rows] / UNITS_PER_COIN,
            arrays["target_price"][rows] / UNITS_PER_COIN,
        )
        orders = zip(*(column.tolist() for column in columns), strict=True)
        Entries.orders = dict(zip(arrays["entry_bar"][rows].tolist(), orders, strict=True))
        begin = time.perf_counter()
        result = backtest.run()
        seconds += time.perf_counter() - begin
        trades.append(float(result["# Trades"]))
        returns.append(float(result["Return [%]"]) / 100.0)
    return seconds, None, trades, returns


ENGINES: dict[str, Callable[[Arrays], Figures]] = {
    "vectorbt-numba": lambda arrays: with_vectorbt(arrays, "numba"),
    "vectorbt-rust": lambda arrays: with_vectorbt(arrays, "rust"),
    "backtesting": with_backtesting,
}


def first_of(arrays: Arrays, n: int) -> Arrays:
    """Return the arrays with the first ``n`` combinations only."""
    return {**arrays, "offsets": arrays["offsets"][: n + 1]}


def main() -> None:
    """Warm up with one combination, simulate all of them several times and print the medians."""
    engine, path, runs = sys.argv[1:]
    warnings.simplefilter("ignore")  # the packages' own, of pandas and of orders that cannot be paid
    with np.load(path) as file:
        arrays = dict(file)
    simulate = ENGINES[engine]
    simulate(first_of(arrays, 2))
    figures = [simulate(arrays) for _ in range(int(runs))]
    statistic = [seconds for _, seconds, _, _ in figures if seconds is not None]
    found = {
        "n_combinations": len(arrays["offsets"]) - 1,
        "simulation_seconds": statistics.median(seconds for seconds, _, _, _ in figures),
        "statistics_seconds": statistics.median(statistic) if statistic else None,
        "trades": statistics.fmean(figures[0][2]),
        "total_return": statistics.fmean(figures[0][3]),
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
