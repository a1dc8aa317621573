"""What a backtest assumes about the account, its costs and its limits; and the range of bars that it runs over."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from tradepulse_pipeline.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSettings:
    """Capital, sizing and costs. Rates and fractions are fractions: 0.01 is one per cent."""

    #: Equity at the start, quote currency.
    initial_capital: float = 10_000.0
    #: Share of equity lost when a trade is stopped out at its stop, before costs.
    risk_fraction: float = 0.01
    #: Largest notional as a multiple of equity.
    max_leverage: float = 1.0
    #: Taker fee on the notional, on entry and on exit.
    fee_rate: float = 0.001
    #: How much worse than its reference price a market or stop order fills.
    slippage: float = 0.0005
    #: Longest position in bars, over what the strategy declares; 0 for no limit.
    max_holding_bars: int = 0

    def __post_init__(self) -> None:
        ranges = {
            "initial_capital": (0.0, math.inf, False),
            "risk_fraction": (0.0, 1.0, False),
            "max_leverage": (0.0, 1_000.0, False),
            "fee_rate": (0.0, 0.1, True),
            "slippage": (0.0, 0.1, True),
            "max_holding_bars": (0, math.inf, True),
        }
        for name, (low, high, low_is_allowed) in ranges.items():
            value = getattr(self, name)
            if not (low < value <= high or (low_is_allowed and value == low)) or value == math.inf:
                bound = "at least" if low_is_allowed else "above"
                upper = "" if high == math.inf else f" and at most {high}"
                raise InvalidInputError(f"{name}: found {value}, expected a number {bound} {low}{upper}.")


class BarRange(NamedTuple):
    """A half-open range of bars ``[start, stop)`` of a series: the window that a backtest runs over."""

    start: int
    stop: int
