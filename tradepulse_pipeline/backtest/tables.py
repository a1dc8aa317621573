"""The tabled kernel: a combination hops from decision to exit through outcomes, without touching a candle."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tradepulse_pipeline.backtest.kernel import SPENT, Account, Bars, DecisionColumns, ExitRule, stop_of
from tradepulse_pipeline.backtest.metrics import DAYS_PER_YEAR, LARGEST, ROUNDING
from tradepulse_pipeline.backtest.outcomes import (
    IS_GROSS_WIN,
    IS_WIN,
    OutcomeArray,
    drawdown_from,
    find_outcome,
)
from tradepulse_pipeline.compiled import njit
from tradepulse_pipeline.market.candles import FloatArray, IndexArray, IntArray


class OutcomeTable(NamedTuple):
    """The outcomes of all known decisions under one exit rule."""

    rule: ExitRule
    outcomes: OutcomeArray
    parts: FloatArray


class Days(NamedTuple):
    """Running sums over the daily returns that are not 0 for certain (Welford's method)."""

    n: int
    mean: float
    squares: float
    downside: float
    largest: float


@njit(cache=True, nogil=True, inline="always")
def with_day(days: Days, value: float, reciprocal: FloatArray) -> Days:
    """Return the sums with one more daily return."""
    n = days.n + 1
    delta = value - days.mean
    mean = days.mean + delta * reciprocal[n]
    loss = min(value, 0.0)
    return Days(
        n,
        mean,
        days.squares + delta * (value - mean),
        days.downside + loss * loss,
        max(days.largest, abs(value)),
    )


@njit(cache=True, nogil=True, inline="always")
def add_to_block(block_moments: FloatArray, day: int, n_days: int, value: float) -> None:
    """Add a day's return, and its square, to those of its block of days; nothing where there are no blocks."""
    n_blocks = block_moments.shape[1]
    if n_blocks > 0:
        block = day * n_blocks // n_days
        block_moments[0, block] += value
        block_moments[1, block] += value * value


@njit(cache=True, nogil=True)
def hop(
    bars: Bars,
    day_of_bar: IndexArray,
    candidates: DecisionColumns,
    account: Account,
    table: OutcomeTable,
    decisions: IndexArray,
    first: int,
    last: int,
    start: int,
    stop: int,
    covered_days: float,
    reciprocal: FloatArray,
    cut: OutcomeArray,
    cut_parts: FloatArray,
    metrics: FloatArray,
    block_moments: FloatArray,
) -> None:
    """Write the metrics of one combination over bars ``[start, stop)``, and the moments of its daily returns by block.

    It hops through ``decisions[first:last]``, of which none is before ``start``. ``block_moments``, of shape
    (2, n_blocks), takes sums and sums of squares over blocks of equally many days each.
    """
    first_day = day_of_bar[start]
    n_days = day_of_bar[stop - 1] - first_day + 1
    equity, peak, drawdown = 1.0, 1.0, 0.0
    n_trades, n_wins, n_gross_wins, bars_held = 0, 0, 0, 0
    won, lost, r_total, adverse_total = 0.0, 0.0, 0.0, 0.0
    days = Days(0, 0.0, 0.0, 0.0, 0.0)
    today, growth = -1, 1.0
    flat_from = start
    i = first
    while i < last and equity > SPENT:
        d = decisions[i]
        j = candidates.bar[d]
        i += 1
        if j + 1 >= stop:
            break
        if i < last and candidates.bar[decisions[i]] == j:
            d, i = nearest(bars, candidates, table.rule, decisions, i - 1, last)
        if j + 1 < flat_from:
            continue
        outcome = table.outcomes[d]
        if outcome.flags == 0:
            continue
        is_cut = outcome.exit_bar >= stop
        if is_cut:
            outcome = cut[0]
            find_outcome(bars, day_of_bar, candidates, table.rule, account, d, stop, outcome, cut_parts, 0)
        before = equity
        equity = before * (1.0 + outcome.gain)
        if outcome.lowest > 0.0:
            drawdown = max(drawdown, max(outcome.drawdown, 1.0 - before * outcome.lowest / peak))
        else:
            fall = drawdown_from(bars, candidates, table.rule, account, d, stop, outcome, peak / before)
            drawdown = max(drawdown, fall)
        peak = max(peak, before * outcome.highest)
        n_trades += 1
        if outcome.flags & IS_WIN:
            n_wins += 1
            won += before * outcome.gain
        else:
            lost += before * outcome.gain
        if outcome.flags & IS_GROSS_WIN:
            n_gross_wins += 1
        r_total += outcome.r_multiple
        adverse_total += outcome.adverse
        bars_held += outcome.exit_bar - j
        flat_from = outcome.exit_bar + 1
        entry_day = day_of_bar[j + 1]
        if entry_day != today:
            if today >= 0:
                days = with_day(days, growth - 1.0, reciprocal)
                add_to_block(block_moments, today - first_day, n_days, growth - 1.0)
            today, growth = entry_day, 1.0
        if outcome.parts < 0:
            growth *= 1.0 + outcome.gain
        else:
            growth *= cut_parts[0] if is_cut else table.parts[outcome.parts]
            for part in range(outcome.parts + 1, outcome.parts + 1 + outcome.exit_day - entry_day):
                days = with_day(days, growth - 1.0, reciprocal)
                add_to_block(block_moments, today - first_day, n_days, growth - 1.0)
                today += 1
                growth = cut_parts[part] if is_cut else table.parts[part]
    metrics[:] = 0.0
    if n_trades == 0:
        return
    days = with_day(days, growth - 1.0, reciprocal)
    add_to_block(block_moments, today - first_day, n_days, growth - 1.0)
    mean = days.mean * days.n / n_days
    squares = days.squares + days.mean * mean * (n_days - days.n)
    deviation = np.sqrt(squares / (n_days - 1)) if n_days > 1 else 0.0
    annualized_return = min(equity ** (DAYS_PER_YEAR / covered_days) - 1.0, LARGEST) if equity > 0.0 else -1.0
    metrics[0] = account.initial_capital * (equity - 1.0)
    metrics[1] = equity - 1.0
    metrics[2] = annualized_return
    if deviation > ROUNDING * days.largest:
        metrics[3] = mean / deviation * np.sqrt(DAYS_PER_YEAR)
    downside_deviation = np.sqrt(days.downside / n_days)
    if downside_deviation > ROUNDING * days.largest:
        metrics[4] = mean / downside_deviation * np.sqrt(DAYS_PER_YEAR)
    metrics[5] = drawdown
    if drawdown > ROUNDING:
        metrics[6] = min(annualized_return / drawdown, LARGEST)
    metrics[7] = n_trades
    metrics[8] = n_wins / n_trades
    metrics[9] = n_gross_wins / n_trades
    if n_wins > 0:
        metrics[10] = account.initial_capital * won / n_wins
    if n_wins < n_trades:
        metrics[11] = account.initial_capital * lost / (n_trades - n_wins)
    if lost < 0.0:
        metrics[12] = won / -lost
    elif won > 0.0:
        metrics[12] = np.nan
    metrics[13] = r_total / n_trades
    metrics[14] = bars_held / n_trades
    metrics[15] = bars_held / (stop - start)
    metrics[16] = adverse_total / n_trades
    metrics[17] = 1.0


@njit(cache=True, nogil=True)
def nearest(
    bars: Bars, candidates: DecisionColumns, rule: ExitRule, decisions: IndexArray, i: int, last: int
) -> tuple[int, int]:
    """Return which decision of a bar has its stop nearest to the close, and where the next bar's decisions begin."""
    best = decisions[i]
    j = candidates.bar[best]
    shortest = abs(bars.close[j] - stop_of(candidates, rule, best))
    i += 1
    while i < last and candidates.bar[decisions[i]] == j:
        distance = abs(bars.close[j] - stop_of(candidates, rule, decisions[i]))
        if distance < shortest:
            best, shortest = decisions[i], distance
        i += 1
    return best, i


@njit(cache=True, nogil=True)
def hop_all(
    bars: Bars,
    day_of_bar: IndexArray,
    candidates: DecisionColumns,
    account: Account,
    table: OutcomeTable,
    decisions: IndexArray,
    spans: IntArray,
    start: int,
    stop: int,
    covered_days: float,
    reciprocal: FloatArray,
    cut: OutcomeArray,
    sets: IntArray,
    rows: IntArray,
    metrics: FloatArray,
    block_moments: FloatArray,
) -> None:
    """Evaluate combinations that share an exit rule: row ``rows[i]`` hops through the span of set ``sets[i]``."""
    cut_parts = np.empty(day_of_bar[stop - 1] - day_of_bar[start] + 1, np.float64)
    for i in range(rows.shape[0]):
        hop(
            bars,
            day_of_bar,
            candidates,
            account,
            table,
            decisions,
            spans[sets[i], 0],
            spans[sets[i], 1],
            start,
            stop,
            covered_days,
            reciprocal,
            cut,
            cut_parts,
            metrics[rows[i]],
            block_moments[:, rows[i]],
        )
