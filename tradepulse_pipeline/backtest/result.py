"""What a backtest returns: trades, the equity curve and the metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final, NamedTuple, Self

import numpy as np

from tradepulse_pipeline.market.candles import FloatArray, IntArray

#: Exit reasons by their code in ``Trades.exit_reason``.
EXIT_REASONS: Final = ("STOP_LOSS", "TAKE_PROFIT", "TIME_LIMIT", "END_OF_DATA", "TRAILING_STOP", "RETRACEMENT")
STOP_LOSS, TAKE_PROFIT, TIME_LIMIT, END_OF_DATA, TRAILING_STOP, EXIT_LEVEL = range(6)


@dataclass(frozen=True, slots=True, eq=False)
class Trades:
    """Trades in time order, as arrays of shape (n_trades,). Bars are indices into the series that was run over.

    Prices are in quote currency; ``quantity`` is in base currency and positive; ``pnl`` is in quote currency after
    fees and slippage; ``equity_before`` is the equity that sized the trade; ``target_price`` is NaN where there is
    none; ``exit_reason`` indexes ``EXIT_REASONS``.
    """

    decision_bar: IntArray
    entry_bar: IntArray
    exit_bar: IntArray
    side: IntArray
    entry_price: FloatArray
    exit_price: FloatArray
    stop_price: FloatArray
    target_price: FloatArray
    quantity: FloatArray
    pnl: FloatArray
    equity_before: FloatArray
    entry_bar_close: FloatArray
    exit_reason: IntArray

    @classmethod
    def concatenated(cls, parts: Sequence[Self]) -> Self:
        """Return the trades of all parts, one part after another; none without parts."""
        dtypes = {field.name: np.int64 if field.type == "IntArray" else np.float64 for field in fields(cls)}
        return cls(
            **{
                name: np.concatenate([np.empty(0, dtype), *(getattr(part, name) for part in parts)])
                for name, dtype in dtypes.items()
            }
        )

    def __len__(self) -> int:
        return len(self.entry_bar)

    @property
    def risk(self) -> FloatArray:
        """R, the distance from entry to stop in price units, positive."""
        return self.side * (self.entry_price - self.stop_price)

    @property
    def r_multiple(self) -> FloatArray:
        """Result after costs as a multiple of what was risked: ``pnl / (quantity * R)``."""
        return self.pnl / (self.quantity * self.risk)

    @property
    def returns(self) -> FloatArray:
        """Result as a fraction of the equity before entry: ``pnl / E``."""
        return self.pnl / self.equity_before


class Metrics(NamedTuple):
    """The metrics of one run, as defined in the documentation of the backtest model. Rates are fractions.

    ``profit_factor`` is NaN where it is infinite (no losing trade); ``as_dict`` turns that into None.
    """

    net_profit: float
    total_return: float
    annualized_return: float
    sharpe_ratio: float
    sortino_ratio: float
    max_drawdown: float
    calmar_ratio: float
    sample_size: float
    win_rate: float
    gross_win_rate: float
    average_win: float
    average_loss: float
    profit_factor: float
    expectancy_r: float
    average_holding_bars: float
    exposure: float
    adverse_selection_score: float
    fill_rate: float

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the metrics by name, fit for JSON: an infinite profit factor is None, the sample size an int."""
        values: dict[str, float | int | None] = {
            name: None if math.isnan(value) else float(value) for name, value in self._asdict().items()
        }
        values["sample_size"] = int(self.sample_size)
        return values


METRIC_NAMES: Final = Metrics._fields


@dataclass(frozen=True, slots=True, eq=False)
class BacktestResult:
    """One run: its trades, the marked-to-market equity at the close of each bar, and the metrics."""

    trades: Trades
    equity: FloatArray
    metrics: Metrics
