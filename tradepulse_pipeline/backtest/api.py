"""The engine's front: one run with given parameters, and the evaluation of many parameter sets for a search."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Final, Protocol

import numpy as np

from tradepulse_pipeline.backtest.kernel import (
    TARGET_NONE,
    TARGET_PRICE,
    TARGET_R,
    Account,
    Bars,
    DecisionColumns,
    ExitRule,
    TradeColumns,
    simulate,
)
from tradepulse_pipeline.backtest.metrics import N_METRICS, as_metrics, measure
from tradepulse_pipeline.backtest.result import TAKE_PROFIT, BacktestResult, Metrics, Trades
from tradepulse_pipeline.backtest.settings import AccountSettings, BarRange
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import FloatArray, IntArray
from tradepulse_pipeline.market.series import MS_PER_DAY
from tradepulse_pipeline.strategies.base import SignalSource, Strategy
from tradepulse_pipeline.strategies.decisions import Decisions, Exits, Side
from tradepulse_pipeline.strategies.space import ParameterSpace

_TARGET_RULES: Final = {"none": TARGET_NONE, "r": TARGET_R, "price": TARGET_PRICE}

#: How many sets of signal parameters keep their decisions between evaluations.
_DECISIONS_KEPT: Final = 16_384

#: Combinations that one worker evaluates in one go.
_BATCH: Final = 64


class Evaluator(Protocol):
    """Anything that turns combinations of a parameter space into metrics over a range of bars."""

    @property
    def space(self) -> ParameterSpace:
        """The space whose combinations are evaluated."""
        ...

    def evaluate(self, combinations: IntArray, window: BarRange) -> FloatArray:
        """Return the metrics of each combination, shape (n, n_metrics), in the order of ``Metrics``."""
        ...

    def run(self, combination: int, window: BarRange, *, initial_capital: float | None = None) -> BacktestResult:
        """Return trades, equity and metrics of one combination."""
        ...


def run_backtest(
    frame: IndicatorFrame,
    decisions: Decisions,
    exits: Exits,
    account: AccountSettings,
    window: BarRange | None = None,
) -> BacktestResult:
    """Run ``decisions`` over the bars of ``window`` (all bars without one), one position at a time.

    Parameters
    ----------
    frame : IndicatorFrame
        The market as it is, not mirrored.
    window : BarRange, optional
        Signals before it are not taken; what is open at its last bar is closed there. Trades carry bars of ``frame``;
        the equity curve has one value per bar of the window.

    Raises
    ------
    InvalidInputError
        If the window is empty or lies outside the frame.
    """
    start, stop = _checked(window, frame)
    columns = _decision_columns(decisions)
    trades, equity, metrics = _run(
        _bars(frame), columns, _exit_rule(exits, account), _account(account), BarRange(start, stop)
    )
    return BacktestResult(Trades(*trades), equity, as_metrics(metrics))


def backtest_strategy(
    frame: IndicatorFrame,
    strategy: Strategy,
    parameters: Mapping[str, object],
    *,
    side: Side = "long",
    account: AccountSettings | None = None,
    window: BarRange | None = None,
) -> BacktestResult:
    """Check ``parameters`` and run ``strategy`` with them.

    Raises
    ------
    InvalidInputError
        If a parameter is unknown, missing or out of its range, or the window lies outside the frame.
    """
    checked = strategy.check(parameters)
    decisions = SignalSource(strategy, frame, side).decisions(checked)
    return run_backtest(frame, decisions, strategy.exits(checked), account or AccountSettings(), window)


class PlainEvaluator:
    """Evaluates combinations by walking their positions; decisions are kept for reuse by other exits and windows.

    Results do not depend on ``workers``: every combination is evaluated on its own.
    """

    def __init__(
        self,
        frame: IndicatorFrame,
        strategy: Strategy,
        *,
        side: Side = "long",
        account: AccountSettings | None = None,
        workers: int = 1,
    ) -> None:
        self._space: Final = ParameterSpace(strategy.parameters)
        self._strategy: Final = strategy
        self._frame: Final = frame
        self._settings: Final = account or AccountSettings()
        self._bars: Final = _bars(frame)
        self._workers: Final = max(1, workers)
        source = SignalSource(strategy, frame, side)
        names = tuple(p.name for p in strategy.parameters if p.kind == "signal")

        @lru_cache(maxsize=_DECISIONS_KEPT)
        def decisions(values: tuple[float, ...]) -> DecisionColumns:
            return _decision_columns(source.decisions(dict(zip(names, values, strict=True))))

        self._signal_names: Final = names
        self._decisions: Final = decisions

    @property
    def space(self) -> ParameterSpace:
        """The space whose combinations are evaluated."""
        return self._space

    def evaluate(self, combinations: IntArray, window: BarRange) -> FloatArray:
        """Return the metrics of each combination over ``window``, shape (n, n_metrics), in the order of ``Metrics``."""
        bounds = BarRange(*_checked(window, self._frame))
        metrics = np.empty((len(combinations), N_METRICS), dtype=np.float64)

        def evaluate_batch(first: int) -> None:
            for row in range(first, min(first + _BATCH, len(combinations))):
                metrics[row] = self._run(int(combinations[row]), bounds, _account(self._settings))[2]

        batches = range(0, len(combinations), _BATCH)
        if self._workers == 1 or len(batches) < 2:
            for first in batches:
                evaluate_batch(first)
        else:
            with ThreadPoolExecutor(self._workers) as pool:
                list(pool.map(evaluate_batch, batches))
        return metrics

    def run(self, combination: int, window: BarRange, *, initial_capital: float | None = None) -> BacktestResult:
        """Return trades, equity and metrics of one combination over ``window``."""
        bounds = BarRange(*_checked(window, self._frame))
        account = _account(self._settings)
        if initial_capital is not None:
            account = account._replace(initial_capital=initial_capital)
        trades, equity, metrics = self._run(combination, bounds, account)
        return BacktestResult(Trades(*trades), equity, as_metrics(metrics))

    def _run(self, combination: int, window: BarRange, account: Account) -> tuple[TradeColumns, FloatArray, FloatArray]:
        parameters = self._space.values(combination)
        decisions = self._decisions(tuple(parameters[name] for name in self._signal_names))
        rule = _exit_rule(self._strategy.exits(parameters), self._settings)
        return _run(self._bars, decisions, rule, account, window)


def metrics_of(
    equity: FloatArray, open_time_ms: IntArray, trades: Trades, *, initial_capital: float, days: float
) -> Metrics:
    """Return the metrics of a record that was put together from several runs.

    Parameters
    ----------
    equity : float64 array of shape (n_bars,)
        Marked-to-market equity at the close of each bar, one run after the other.
    open_time_ms : int64 array of shape (n_bars,)
    trades : Trades
        All trades, sized by that same equity.
    initial_capital : float
        Equity before the first bar, quote currency.
    days : float
        Days that the record covers.
    """
    metrics = np.empty(N_METRICS, dtype=np.float64)
    columns = TradeColumns(*(getattr(trades, name) for name in TradeColumns._fields))
    measure(columns, len(trades), equity, open_time_ms, float(initial_capital), float(days), metrics)
    return as_metrics(metrics)


def cost_per_trade_r(trades: Trades, account: AccountSettings) -> float:
    """Return what fees and slippage take from the mean trade, in R; 0 without trades.

    The difference between the result at the prices before slippage and without fees, and the actual result.
    """
    if not len(trades):
        return 0.0
    slips = trades.exit_reason != TAKE_PROFIT
    exit_reference = np.where(slips, trades.exit_price / (1.0 - trades.side * account.slippage), trades.exit_price)
    entry_reference = trades.entry_price / (1.0 + trades.side * account.slippage)
    slippage = trades.side * ((trades.entry_price - entry_reference) + (exit_reference - trades.exit_price))
    fees = account.fee_rate * (trades.entry_price + trades.exit_price)
    return float(np.mean((slippage + fees) / trades.risk))


def _checked(window: BarRange | None, frame: IndicatorFrame) -> tuple[int, int]:
    start, stop = window or (0, len(frame))
    if not 0 <= start < stop <= len(frame):
        raise InvalidInputError(
            f"Backtest window [{start}, {stop}): expected a range of at least one bar within the {len(frame)} candles."
        )
    return start, stop


def _bars(frame: IndicatorFrame) -> Bars:
    return Bars(
        frame.open_time_ms,
        frame.open,
        frame.high,
        frame.low,
        frame.close,
        frame.is_filled,
        frame.timeframe.milliseconds,
    )


def _decision_columns(decisions: Decisions) -> DecisionColumns:
    return DecisionColumns(*(getattr(decisions, name) for name in DecisionColumns._fields))


def _exit_rule(exits: Exits, account: AccountSettings) -> ExitRule:
    limits = [limit for limit in (exits.max_holding_bars, account.max_holding_bars) if limit > 0]
    return ExitRule(
        float(exits.stop_multiple),
        _TARGET_RULES[exits.target],
        float(exits.target_multiple),
        float(exits.trail_activation),
        float(exits.trail_distance),
        int(exits.exit_level_bars),
        int(min(limits, default=0)),
    )


def _account(settings: AccountSettings) -> Account:
    return Account(*(float(getattr(settings, name)) for name in Account._fields))


def _run(
    bars: Bars, decisions: DecisionColumns, rule: ExitRule, account: Account, window: BarRange
) -> tuple[TradeColumns, FloatArray, FloatArray]:
    """Simulate and measure; return trades, equity and metrics as plain arrays."""
    start, stop = window
    first, last = np.searchsorted(decisions.bar, (start, stop))
    trades = _empty_trades(int(last - first))
    equity = np.empty(stop - start, dtype=np.float64)
    n_trades = int(simulate(bars, decisions, rule, account, start, stop, trades, equity))
    trades = TradeColumns._make(column[:n_trades] for column in trades)
    metrics = np.empty(N_METRICS, dtype=np.float64)
    times = bars.open_time_ms[start:stop]
    days = (int(times[-1]) + bars.step_ms - int(times[0])) / MS_PER_DAY
    measure(trades, n_trades, equity, times, account.initial_capital, days, metrics)
    return trades, equity, metrics


def _empty_trades(capacity: int) -> TradeColumns:
    integers = {"decision_bar", "entry_bar", "exit_bar", "side", "exit_reason"}
    columns: list[Any] = [
        np.empty(capacity, np.int64 if name in integers else np.float64) for name in TradeColumns._fields
    ]
    return TradeColumns._make(columns)
