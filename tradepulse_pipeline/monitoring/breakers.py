"""Circuit breakers: limits at which a bot stops entering, and what each would have cost or saved over a record."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np

from tradepulse_pipeline.backtest.result import Trades
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import FloatArray
from tradepulse_pipeline.market.series import MS_PER_DAY
from tradepulse_pipeline.monitoring.market import (
    LEAST_CANDLES,
    absolute_returns,
    correlation_to_market,
    regime_distance,
    unusual_move,
)
from tradepulse_pipeline.monitoring.paper import ROLLING_DAYS, Record, adverse_selection

#: The limits of the V3 template, in its order.
LIMITS: Final[dict[str, float]] = {
    "max_daily_loss": 0.02,
    "max_correlation_spike": 0.8,
    "unusual_market_threshold": 3.0,
    "latency_threshold_ms": 500,
    "consecutive_losses_limit": 5,
    "max_adverse_selection": 0.6,
    "regime_break_threshold": 0.3,
}

#: What each looks at when a trade is decided, and until when it stops.
DEFINITIONS: Final[dict[str, str]] = {
    "max_daily_loss": "trades closed this UTC day have lost so much of the equity that it began with: stops for the "
    "rest of the day",
    "max_correlation_spike": "correlation of the last 30 daily returns of the record with those of the market: stops "
    "while it lasts",
    "unusual_market_threshold": "move of the last 24 hours in standard deviations of the 30 such moves before: stops "
    "while it lasts",
    "latency_threshold_ms": "milliseconds from order to answer: candles hold no orders, it is not measured",
    "consecutive_losses_limit": "losing trades in a row: stops for 24 hours, then counts anew",
    "max_adverse_selection": "mean adverse selection of the last 20 trades: stops for 24 hours, then counts anew",
    "regime_break_threshold": "Kolmogorov distance of the sizes of returns in the last 7 days (100 candles at least) "
    "from those in a span four times as long before: stops while it lasts",
}

NOT_MEASURED: Final = ("latency_threshold_ms",)
MEASURED: Final = tuple(name for name in LIMITS if name not in NOT_MEASURED)

#: Trades that the mean of adverse selection is taken over.
ADVERSE_TRADES: Final = 20

_RECENT_DAYS: Final = 7
_REFERENCE_SPANS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What breakers would have done to a record.

    Attributes
    ----------
    n_tripped : int
        Times that one began to stop entries.
    stopped : tuple of int
        Trades that would not have been made, by their place in the record.
    saved : float
        How much higher the last equity would have been, quote currency; negative where they cost.
    saved_r : float
        The results of the stopped trades with the sign turned, in R.
    """

    n_tripped: int
    stopped: tuple[int, ...]
    saved: float
    saved_r: float

    def to_json_dict(self) -> dict[str, Any]:
        """Return the outcome as JSON values."""
        return {
            "tripped": self.n_tripped,
            "stopped_trades": len(self.stopped),
            "saved": self.saved,
            "saved_r": self.saved_r,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What each breaker would have done alone (those that can be measured), and all of them together."""

    n_trades: int
    alone: dict[str, Outcome]
    together: Outcome

    def to_json_dict(self) -> dict[str, Any]:
        """Return the replay as JSON values, breakers in the template's order; null is 'not measured'."""
        return {
            "trades": self.n_trades,
            "alone": {name: self.alone[name].to_json_dict() if name in self.alone else None for name in LIMITS},
            "together": self.together.to_json_dict(),
        }


def replay_breakers(frame: IndicatorFrame, record: Record, *, initial_capital: float) -> Replay:
    """Go through the trades of a record and tell which of them each breaker would have stopped.

    A breaker knows what was known when a trade was decided, at the close of its decision bar. It stops entries; a
    position that is open stays. Trades that were stopped count neither as losses nor as wins for the breakers that
    count them, while the market's figures go on; a decision that was passed over because the stopped trade was open is
    not taken in its place. Since a trade's return on equity does not depend on equity, what the others come to without
    the stopped ones is exact.

    Parameters
    ----------
    record : Record
        Its trades' bars are those of ``frame``.
    initial_capital : float
        Equity before its first trade, quote currency.
    """
    figures = _market_figures(frame, record)
    alone = {name: _replay(frame, record.trades, figures, {name}, initial_capital) for name in MEASURED}
    together = _replay(frame, record.trades, figures, set(MEASURED), initial_capital)
    return Replay(n_trades=len(record.trades), alone=alone, together=together)


@dataclass(slots=True)
class _Counts:
    """What the breakers that count trades know."""

    frame: IndicatorFrame
    trades: Trades
    adverse: FloatArray
    names: Iterable[str]
    losses: int = 0
    recent_adverse: list[float] = field(default_factory=list)
    day: int = -1
    day_factor: float = 1.0
    paused_until: dict[str, int] = field(default_factory=dict)
    n_tripped: int = 0

    @classmethod
    def of(cls, frame: IndicatorFrame, trades: Trades, names: Iterable[str]) -> Self:
        return cls(frame, trades, adverse_selection(trades), names)

    def is_paused(self, name: str, entry_ms: int) -> bool:
        return entry_ms < self.paused_until.get(name, 0)

    def settle(self, k: int) -> None:
        """Take in the result of a trade that was made."""
        opened_ms = int(self.frame.open_time_ms[self.trades.exit_bar[k]])
        closed_ms = opened_ms + self.frame.timeframe.milliseconds
        day = opened_ms // MS_PER_DAY
        if day != self.day:
            self.day, self.day_factor = day, 1.0
        self.day_factor *= 1.0 + float(self.trades.returns[k])
        if 1.0 - self.day_factor >= LIMITS["max_daily_loss"]:
            self._trip("max_daily_loss", (day + 1) * MS_PER_DAY, opened_ms)
        self.losses = self.losses + 1 if self.trades.pnl[k] <= 0 else 0
        if self.losses >= LIMITS["consecutive_losses_limit"]:
            self.losses = 0
            self._trip("consecutive_losses_limit", closed_ms + MS_PER_DAY, closed_ms)
        self.recent_adverse = [*self.recent_adverse, float(self.adverse[k])][-ADVERSE_TRADES:]
        is_full = len(self.recent_adverse) == ADVERSE_TRADES
        if is_full and float(np.mean(self.recent_adverse)) > LIMITS["max_adverse_selection"]:
            self.recent_adverse = []
            self._trip("max_adverse_selection", closed_ms + MS_PER_DAY, closed_ms)

    def _trip(self, name: str, until_ms: int, now_ms: int) -> None:
        if name in self.names and not self.is_paused(name, now_ms):
            self.n_tripped += 1
            self.paused_until[name] = until_ms


def _replay(
    frame: IndicatorFrame, trades: Trades, figures: dict[str, FloatArray], names: set[str], capital: float
) -> Outcome:
    counts = _Counts.of(frame, trades, names)
    stopped: list[int] = []
    n_tripped, was_on = 0, dict.fromkeys(figures, False)
    for k in range(len(trades)):
        entry_ms = int(frame.open_time_ms[trades.entry_bar[k]])
        is_on = {name: name in names and bool(values[k] > LIMITS[name]) for name, values in figures.items()}
        n_tripped += sum(is_on[name] and not was_on[name] for name in figures)
        was_on = is_on
        if any(is_on.values()) or any(counts.is_paused(name, entry_ms) for name in names):
            stopped.append(k)
        else:
            counts.settle(k)
    growth = 1.0 + trades.returns
    kept = np.delete(growth, stopped)
    return Outcome(
        n_tripped=n_tripped + counts.n_tripped,
        stopped=tuple(stopped),
        saved=capital * float(np.prod(kept) - np.prod(growth)),
        saved_r=-float(trades.r_multiple[stopped].sum()),
    )


def _market_figures(frame: IndicatorFrame, record: Record) -> dict[str, FloatArray]:
    """Return what the market showed when each trade was decided, NaN where that is unknown: arrays (n_trades,)."""
    returns = absolute_returns(frame)
    bars = record.trades.decision_bar.tolist()
    figures: dict[str, list[float | None]] = {
        "max_correlation_spike": [_correlation(frame, record, bar) for bar in bars],
        "unusual_market_threshold": [unusual_move(frame, bar) for bar in bars],
        "regime_break_threshold": [_distance(frame, returns, bar) for bar in bars],
    }
    return {
        name: np.array([np.nan if value is None else value for value in values], dtype=np.float64)
        for name, values in figures.items()
    }


def _correlation(frame: IndicatorFrame, record: Record, bar: int) -> float | None:
    """Return the size of the correlation over the 30 days of the record before that of the bar's close."""
    today = (int(frame.open_time_ms[bar]) + frame.timeframe.milliseconds) // MS_PER_DAY
    stop = int(np.searchsorted(record.day, today))
    start = stop - ROLLING_DAYS
    if start < 0:
        return None
    found = correlation_to_market(record.day[start:stop], record.daily_return[start:stop], frame)
    return None if found is None else abs(found)


def _distance(frame: IndicatorFrame, returns: FloatArray, bar: int) -> float | None:
    n_recent = max(LEAST_CANDLES, _RECENT_DAYS * MS_PER_DAY // frame.timeframe.milliseconds)
    middle = bar + 1 - n_recent
    start = middle - _REFERENCE_SPANS * n_recent
    return None if start < 0 else regime_distance(returns, (start, middle), (middle, bar + 1))
