"""Every metric from its definition, from the trades, the equity curve and the candles' open times."""

from __future__ import annotations

import math
import statistics
import sys

from tradepulse_pipeline_tests.reference.backtest import Trade

MS_PER_DAY = 24 * 60 * 60 * 1000

NAMES = (
    "net_profit",
    "total_return",
    "annualized_return",
    "sharpe_ratio",
    "sortino_ratio",
    "max_drawdown",
    "calmar_ratio",
    "sample_size",
    "win_rate",
    "gross_win_rate",
    "average_win",
    "average_loss",
    "profit_factor",
    "expectancy_r",
    "average_holding_bars",
    "exposure",
    "adverse_selection_score",
    "fill_rate",
)


def all_metrics(
    trades: list[Trade], equity: list[float], open_time_ms: list[int], days: float, initial_capital: float
) -> dict[str, float | None]:
    """Return the metrics by name; ``None`` for an infinite profit factor."""
    if not trades:
        return dict.fromkeys(NAMES, 0.0)
    returns = daily_returns(equity, open_time_ms, initial_capital)
    total_return = equity[-1] / initial_capital - 1
    annualized_return = annualized(total_return, days) if equity[-1] > 0 else -1.0
    drawdown = max_drawdown(equity, initial_capital)
    wins = [trade.pnl for trade in trades if trade.pnl > 0]
    losses = [trade.pnl for trade in trades if not trade.pnl > 0]
    return {
        "net_profit": equity[-1] - initial_capital,
        "total_return": total_return,
        "annualized_return": annualized_return,
        "sharpe_ratio": sharpe(returns),
        "sortino_ratio": sortino(returns),
        "max_drawdown": drawdown,
        "calmar_ratio": finite(annualized_return / drawdown) if drawdown > 1e-12 else 0.0,
        "sample_size": float(len(trades)),
        "win_rate": len(wins) / len(trades),
        "gross_win_rate": sum(is_gross_win(trade) for trade in trades) / len(trades),
        "average_win": math.fsum(wins) / len(wins) if wins else 0.0,
        "average_loss": math.fsum(losses) / len(losses) if losses else 0.0,
        "profit_factor": profit_factor(wins, losses),
        "expectancy_r": math.fsum(trade.pnl / (trade.quantity * risk(trade)) for trade in trades) / len(trades),
        "average_holding_bars": sum(trade.exit_bar - trade.entry_bar + 1 for trade in trades) / len(trades),
        "exposure": sum(trade.exit_bar - trade.entry_bar + 1 for trade in trades) / len(equity),
        "adverse_selection_score": math.fsum(adverse_move(trade) for trade in trades) / len(trades),
        "fill_rate": 1.0,
    }


def days_of(open_time_ms: list[int], step_ms: int) -> float:
    return (open_time_ms[-1] + step_ms - open_time_ms[0]) / MS_PER_DAY


def risk(trade: Trade) -> float:
    return trade.entry_price - trade.stop_price if trade.side == 1 else trade.stop_price - trade.entry_price


def is_gross_win(trade: Trade) -> bool:
    return trade.exit_price > trade.entry_price if trade.side == 1 else trade.exit_price < trade.entry_price


def adverse_move(trade: Trade) -> float:
    rise = trade.entry_bar_close - trade.entry_price
    move = -rise if trade.side == 1 else rise
    return min(max(move / risk(trade), 0.0), 1.0)


def profit_factor(wins: list[float], losses: list[float]) -> float | None:
    if not wins:
        return 0.0
    lost = -math.fsum(losses)
    return None if lost == 0 else math.fsum(wins) / lost


def daily_returns(equity: list[float], open_time_ms: list[int], initial_capital: float) -> list[float]:
    at_day_end: dict[int, float] = {}
    for time, value in zip(open_time_ms, equity, strict=True):
        at_day_end[time // MS_PER_DAY] = value
    returns: list[float] = []
    before = initial_capital
    for value in at_day_end.values():
        returns.append(value / before - 1 if before > 0 else 0.0)
        before = value
    return returns


def sharpe(returns: list[float]) -> float:
    if len(returns) < 2:
        return 0.0
    deviation = statistics.stdev(returns)
    if deviation <= 1e-12 * max(abs(r) for r in returns):
        return 0.0
    return statistics.fmean(returns) / deviation * math.sqrt(365)


def sortino(returns: list[float]) -> float:
    downside = math.sqrt(statistics.fmean(min(r, 0.0) ** 2 for r in returns))
    if downside <= 1e-12 * max(map(abs, returns)):
        return 0.0
    return statistics.fmean(returns) / downside * math.sqrt(365)


def annualized(total_return: float, days: float) -> float:
    """Return the growth in a year of 365 days; the largest float where that is larger still."""
    try:
        growth: float = (1 + total_return) ** (365 / days)
        return growth - 1
    except OverflowError:
        return sys.float_info.max


def max_drawdown(equity: list[float], initial_capital: float) -> float:
    peak, worst = initial_capital, 0.0
    for value in equity:
        peak = max(peak, value)
        worst = max(worst, 1 - value / peak)
    return worst


def finite(value: float) -> float:
    return min(max(value, -sys.float_info.max), sys.float_info.max)
