"""The costs ladder: the same decisions under rising costs, and the cost at which nothing is left of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from tradepulse_pipeline.backtest.result import Metrics, Trades
from tradepulse_pipeline.backtest.settings import AccountSettings
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.strategies.base import Strategy
from tradepulse_pipeline.strategies.decisions import Decisions
from tradepulse_pipeline.validation.chosen import ChosenDecisions, ChosenRun, chosen_decisions
from tradepulse_pipeline.validation.training import TrainingSettings

#: The rungs, lowest costs first; the last one has the costs of the third.
NO_COSTS: Final = "no costs"
FEES: Final = "fees"
AS_SET: Final = "fees and slippage"
TWICE: Final = "twice the slippage"
LATE: Final = "one bar late"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """What the decisions come to under one assumption about costs. ``net_profit`` is in quote currency."""

    name: str
    net_profit: float
    #: Mean result of a trade in R, after the costs of the rung.
    mean_r: float
    sharpe_ratio: float
    n_trades: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEven:
    """The cost of a round trip (entry and exit) at which the mean trade result in R is 0; negative without an edge."""

    #: As a fraction of the notional, the mean of entry's and exit's.
    fraction: float
    #: In R: what the mean trade makes before costs.
    r: float

    @property
    def basis_points(self) -> float:
        """The cost in hundredths of a per cent of the notional."""
        return 1e4 * self.fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class CostsLadder:
    """The rungs in order, the break-even cost (None without trades), and the round trip's cost as set, at most."""

    rungs: tuple[Rung, ...]
    break_even: BreakEven | None
    #: Fees and slippage of a round trip as a fraction of the notional, when entry and exit both slip.
    round_trip_as_set: float

    def rung(self, name: str) -> Rung:
        """Return a rung by name."""
        return next(rung for rung in self.rungs if rung.name == name)

    @property
    def dies_at(self) -> str | None:
        """Name of the first rung on which the mean trade makes nothing; None where it survives all costs."""
        costs = (self.rung(name) for name in (NO_COSTS, FEES, AS_SET, TWICE))
        return next((rung.name for rung in costs if rung.mean_r <= 0), None)

    @property
    def verdict(self) -> str:
        """Where the edge dies, in words."""
        if self.break_even is None:
            return "No trades: nothing is known about what costs do to them."
        free, fees, as_set, twice, late = (self.rung(name) for name in (NO_COSTS, FEES, AS_SET, TWICE, LATE))
        trades = f"the mean of {free.n_trades} trades"
        bears = (
            f"They bear a round trip of {self.break_even.basis_points:.1f} bps; as set it costs up to "
            f"{1e4 * self.round_trip_as_set:.1f} bps."
        )
        delay = f"Entered one bar late, it is {late.mean_r:+.3f} R."
        match self.dies_at:
            case "no costs":
                return f"No edge even before costs: {trades} is {free.mean_r:+.3f} R."
            case "fees":
                said = f"The edge dies of fees: {trades} falls from {free.mean_r:+.3f} R to {fees.mean_r:+.3f} R."
            case "fees and slippage":
                said = (
                    f"The edge dies of slippage: {trades} is {free.mean_r:+.3f} R before costs, {fees.mean_r:+.3f} R "
                    f"after fees and {as_set.mean_r:+.3f} R after slippage."
                )
            case "twice the slippage":
                said = (
                    f"The edge dies when slippage doubles: {trades} falls from {as_set.mean_r:+.3f} R to "
                    f"{twice.mean_r:+.3f} R."
                )
            case _:
                said = f"The edge survives twice the slippage: {trades} is then {twice.mean_r:+.3f} R."
        return f"{said} {bears} {delay}"


def costs_ladder(
    frame: IndicatorFrame, strategy: Strategy, settings: TrainingSettings, runs: Sequence[ChosenRun]
) -> CostsLadder:
    """Run the decisions of each test window's chosen combination under no costs, fees, slippage, and entered late.

    Each rung is a record of its own: equity is chained from window to window and sizes its trades. The last rung
    enters every decision at the open one bar later, with its prices as they were decided, under the costs as set.

    Parameters
    ----------
    frame, strategy, settings
        Those of the training.
    runs : sequence of ChosenRun
        Test windows in time order, see ``chosen_runs``.

    Raises
    ------
    InvalidInputError
        If twice the slippage is more than an account may have.
    """
    account = settings.account
    on_time = chosen_decisions(frame, strategy, settings.side, runs)
    late = [part._replace(decisions=_one_bar_late(part, frame)) for part in on_time]
    steps = (
        (NO_COSTS, replace(account, fee_rate=0.0, slippage=0.0), on_time),
        (FEES, replace(account, slippage=0.0), on_time),
        (AS_SET, account, on_time),
        (TWICE, replace(account, slippage=2 * account.slippage), on_time),
        (LATE, account, late),
    )
    results = {name: _run_chain(frame, parts, costs) for name, costs, parts in steps}
    gross = results[NO_COSTS][1]
    return CostsLadder(
        rungs=tuple(
            Rung(
                name=name,
                net_profit=metrics.net_profit,
                mean_r=metrics.expectancy_r,
                sharpe_ratio=metrics.sharpe_ratio,
                n_trades=len(trades),
            )
            for name, (metrics, trades) in results.items()
        ),
        break_even=break_even(gross) if len(gross) else None,
        round_trip_as_set=2 * (account.fee_rate + account.slippage),
    )


def break_even(gross: Trades) -> BreakEven:
    """Return the cost of a round trip at which the mean R-multiple of trades without costs would be 0.

    A cost of c times the notional on entry and on exit takes ``c * (entry + exit) / R`` from a trade that made
    ``side * (exit - entry) / R``. It moves no price, so the trades stay the same and the mean is 0 at

        c = sum(side * (exit - entry) / R) / sum((entry + exit) / R);

    the round trip costs 2 c. That is exact for costs in proportion to the notional, as fees are. Slippage also moves
    entry, R and target, which this leaves out.

    Parameters
    ----------
    gross : Trades
        At least one trade, run without fees and slippage.
    """
    gains = gross.side * (gross.exit_price - gross.entry_price) / gross.risk
    notionals = (gross.entry_price + gross.exit_price) / gross.risk
    return BreakEven(fraction=2 * float(gains.sum() / notionals.sum()), r=float(gains.mean()))


def _one_bar_late(part: ChosenDecisions, frame: IndicatorFrame) -> Decisions:
    """Return the decisions as if made one bar later; those that could not have been entered in time stay void."""
    decisions = part.decisions.take(np.flatnonzero(part.decisions.bar + 1 < len(frame)))
    bar = decisions.bar
    is_adjacent = frame.open_time_ms[bar + 1] - frame.open_time_ms[bar] == frame.timeframe.milliseconds
    kept = decisions.take(np.flatnonzero(is_adjacent & ~frame.is_filled[bar] & ~frame.is_filled[bar + 1]))
    return replace(kept, bar=kept.bar + 1)


def _run_chain(
    frame: IndicatorFrame, parts: Sequence[ChosenDecisions], account: AccountSettings
) -> tuple[Metrics, Trades]:
    """Return metrics and trades of runs in which each starts with the equity that the one before it ended with."""
    from tradepulse_pipeline.backtest.api import days_covered, metrics_of, run_backtest

    capital, runs = account.initial_capital, []
    for window, decisions, exits in parts:
        runs.append(run_backtest(frame, decisions, exits, account, window, initial_capital=capital))
        capital = float(runs[-1].equity[-1])
    trades = Trades.concatenated([run.trades for run in runs])
    metrics = metrics_of(
        np.concatenate([np.empty(0), *(run.equity for run in runs)]),
        np.concatenate([frame.open_time_ms[:0], *(frame.open_time_ms[slice(*part.window)] for part in parts)]),
        trades,
        initial_capital=account.initial_capital,
        days=sum(days_covered(frame, *part.window) for part in parts),
    )
    return metrics, trades
