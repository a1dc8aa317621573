"""Outcomes: what becomes of a decision under one exit rule, found once and shared by all combinations.

Sizes are proportional to equity, so what a trade does to equity does not depend on when it happens. An outcome holds
it relative to the equity at entry: the gain at the exit, the path's lowest and highest mark and its worst inner
drawdown, and, where the position is held over the end of a UTC day, the factor of each day's part.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tradepulse_pipeline.backtest.kernel import (
    Account,
    Bars,
    DecisionColumns,
    ExitRule,
    entry_of,
    mark,
    walk_position,
)
from tradepulse_pipeline.compiled import njit
from tradepulse_pipeline.market.candles import FloatArray, IndexArray

IS_TRADE: Final = 1
IS_WIN: Final = 2
IS_GROSS_WIN: Final = 4

#: One outcome, one cache line. ``parts`` is where the factors of its days begin, -1 for a position within one day.
OUTCOME: Final = np.dtype(
    [
        ("gain", np.float64),
        ("lowest", np.float64),
        ("highest", np.float64),
        ("drawdown", np.float64),
        ("r_multiple", np.float64),
        ("adverse", np.float64),
        ("exit_bar", np.int32),
        ("exit_day", np.int32),
        ("flags", np.int32),
        ("parts", np.int32),
    ]
)

OutcomeArray = Any  # a record or an array of records: numba reads their fields as attributes


@njit(cache=True, nogil=True)
def find_outcome(
    bars: Bars,
    day_of_bar: IndexArray,
    decisions: DecisionColumns,
    rule: ExitRule,
    account: Account,
    d: int,
    stop: int,
    outcome: OutcomeArray,
    parts: FloatArray,
    n_parts: int,
) -> int:
    """Write the outcome of decision ``d`` before bar ``stop``, and the factors of its days from ``parts[n_parts]`` on.

    Returns the number of factors in ``parts`` afterwards; they are not written where there is no room for them.
    """
    outcome.flags = 0
    outcome.parts = -1
    entry = entry_of(bars, decisions, rule, account, d, stop)
    if entry.quantity == 0.0:
        return n_parts
    entry_bar = decisions.bar[d] + 1
    exit_bar, exit_price, _ = walk_position(bars, decisions, rule, account.slippage, d, entry, stop)
    fees = account.fee_rate * entry.quantity * (entry.price + exit_price)
    pnl = entry.quantity * entry.side * (exit_price - entry.price) - fees
    outcome.gain = pnl
    outcome.exit_bar = exit_bar
    outcome.exit_day = day_of_bar[exit_bar]
    outcome.r_multiple = pnl / (entry.quantity * entry.risk)
    outcome.adverse = min(max(entry.side * (entry.price - bars.close[entry_bar]) / entry.risk, 0.0), 1.0)
    outcome.flags = IS_TRADE
    if pnl > 0.0:
        outcome.flags |= IS_WIN
    if entry.side * (exit_price - entry.price) > 0.0:
        outcome.flags |= IS_GROSS_WIN
    if day_of_bar[exit_bar] != day_of_bar[entry_bar]:
        outcome.parts = n_parts
    lowest, highest, peak, drawdown, day_start = np.inf, 0.0, 1.0, 0.0, 1.0
    for k in range(entry_bar, exit_bar + 1):
        equity = mark(bars, entry, account.fee_rate, k) if k < exit_bar else 1.0 + outcome.gain
        lowest = min(lowest, equity)
        highest = max(highest, equity)
        peak = max(peak, equity)
        drawdown = max(drawdown, 1.0 - equity / peak)
        is_part_end = k == exit_bar or day_of_bar[k + 1] != day_of_bar[k]
        if is_part_end and outcome.parts >= 0:
            if n_parts < parts.shape[0]:
                parts[n_parts] = equity / day_start if day_start > 0.0 else 1.0
            n_parts += 1
            day_start = equity
    outcome.lowest = lowest
    outcome.highest = highest
    outcome.drawdown = drawdown
    return n_parts


@njit(cache=True, nogil=True)
def drawdown_from(
    bars: Bars,
    decisions: DecisionColumns,
    rule: ExitRule,
    account: Account,
    d: int,
    stop: int,
    outcome: OutcomeArray,
    peak: float,
) -> float:
    """Return the worst drawdown of a position's path below the running maximum that starts at ``peak``.

    An outcome's own figures give it as long as equity stays positive: a loss beyond all equity is a smaller share of a
    higher peak, and only its path tells which peak was the one before it.
    """
    entry = entry_of(bars, decisions, rule, account, d, stop)
    drawdown = 0.0
    for k in range(decisions.bar[d] + 1, outcome.exit_bar + 1):
        equity = mark(bars, entry, account.fee_rate, k) if k < outcome.exit_bar else 1.0 + outcome.gain
        peak = max(peak, equity)
        drawdown = max(drawdown, 1.0 - equity / peak)
    return drawdown


@njit(cache=True, nogil=True)
def find_outcomes(
    bars: Bars,
    day_of_bar: IndexArray,
    decisions: DecisionColumns,
    rule: ExitRule,
    account: Account,
    first: int,
    last: int,
    outcomes: OutcomeArray,
    parts: FloatArray,
    n_parts: int,
) -> int:
    """Write the outcomes of decisions ``[first, last)`` over all bars; return the number of factors of days."""
    for d in range(first, last):
        n_parts = find_outcome(
            bars, day_of_bar, decisions, rule, account, d, bars.close.shape[0], outcomes[d], parts, n_parts
        )
    return n_parts
