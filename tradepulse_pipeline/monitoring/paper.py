"""Paper trading: an active configuration on the closed candles that came after those it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Self

import numpy as np

from tradepulse_pipeline.backtest.result import Trades
from tradepulse_pipeline.backtest.settings import BarRange
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import Candles, FloatArray, IntArray
from tradepulse_pipeline.market.series import MS_PER_DAY
from tradepulse_pipeline.strategies.base import SignalSource, Strategy
from tradepulse_pipeline.validation.record import WindowResult
from tradepulse_pipeline.validation.training import TrainingSettings

#: Where Sharpe ratios of the last days are asked for, it is of so many.
ROLLING_DAYS: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A stored configuration as monitoring needs it: what to run, and since when its candles are new."""

    strategy: Strategy
    parameters: Mapping[str, float]
    settings: TrainingSettings
    #: The walk-forward windows, whose chosen parameters made the out-of-sample record.
    windows: tuple[WindowResult, ...]
    #: Close time of the last candle that it was trained on, UTC ms: paper trading starts there.
    data_end_ms: int

    @classmethod
    def of(
        cls,
        strategy: Strategy,
        *,
        parameters: Mapping[str, float],
        settings: Mapping[str, Any],
        windows: Sequence[Mapping[str, Any]],
        data_end_ms: int,
    ) -> Self:
        """Read what is stored of a configuration.

        Raises
        ------
        InvalidInputError
            If the parameters are not those of the strategy as it is now.
        """
        training = TrainingSettings.from_json_dict(settings)
        filtered = strategy.with_filters(training.filters)
        return cls(
            strategy=filtered,
            parameters=filtered.check(parameters),
            settings=training,
            windows=tuple(WindowResult.from_json_dict(window) for window in windows),
            data_end_ms=data_end_ms,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record:
    """Trades and daily returns of one stretch of time.

    Attributes
    ----------
    trades : Trades
        Closed trades in time order; bars are those of the frame that was run over.
    open_trade : Trades
        The position that is still open, or none; valued at the last close, without the costs of leaving.
    day : int64 array of shape (n_days,)
        Complete UTC days with candles, counted from 1970-01-01.
    daily_return : float64 array of shape (n_days,)
        Simple returns of these days, by the marked-to-market equity.
    """

    trades: Trades
    open_trade: Trades
    day: IntArray
    daily_return: FloatArray

    @property
    def equity(self) -> FloatArray:
        """Equity after each day as a multiple of that at the start, shape (n_days,)."""
        return np.cumprod(1.0 + self.daily_return, dtype=np.float64)

    @property
    def sharpe_ratio(self) -> float | None:
        """Annual Sharpe ratio of the daily returns; None for fewer than two days."""
        return sharpe_ratio(self.daily_return) if len(self.day) > 1 else None

    @property
    def rolling_sharpe_ratio(self) -> float | None:
        """Annual Sharpe ratio of the last 30 days; None for a shorter record."""
        return sharpe_ratio(self.daily_return[-ROLLING_DAYS:]) if len(self.day) >= ROLLING_DAYS else None

    @property
    def adverse_selection(self) -> FloatArray:
        """How far price had gone against each trade by the close of its entry bar, in R, from 0 to 1: (n_trades,)."""
        return adverse_selection(self.trades)

    @classmethod
    def joined(cls, first: Record, second: Record) -> Record:
        """Return one record after another, over the same frame."""
        return Record(
            trades=Trades.concatenated([first.trades, second.trades]),
            open_trade=second.open_trade,
            day=np.concatenate([first.day, second.day]),
            daily_return=np.concatenate([first.daily_return, second.daily_return]),
        )

    def since(self, open_time_ms: IntArray, start_ms: int) -> Record:
        """Return the trades entered at or after a time, and the days that begin at or after it."""
        chosen = taken(self.trades, open_time_ms[self.trades.entry_bar] >= start_ms)
        is_later = self.day * MS_PER_DAY >= start_ms
        return Record(
            trades=chosen,
            open_trade=self.open_trade,
            day=self.day[is_later],
            daily_return=self.daily_return[is_later],
        )


def frame_of(candles: Candles, strategy: Strategy) -> IndicatorFrame:
    """Return what the strategy sees of stored candles: short gaps are filled, as in a training."""
    return IndicatorFrame.compute(candles.filled_forward(), strategy.indicators)


def paper_record(frame: IndicatorFrame, source: SignalSource, subject: Subject) -> Record:
    """Run a configuration over the candles that came after its training.

    The plain evaluator runs from the first candle that opens at or after ``data_end_ms`` to the last of the frame;
    the candles before are warm-up. No trade is entered before, none decided. What is open at the last bar stays open:
    more candles add trades and days, and change none that are there.

    Parameters
    ----------
    frame : IndicatorFrame
        Candles from the beginning of the training on, with the strategy's indicators: a recursive indicator has its
        values only if it begins where it did in the training.
    """
    start = int(np.searchsorted(frame.open_time_ms, subject.data_end_ms))
    return run_parameters(frame, source, subject, subject.parameters, BarRange(start, len(frame)))


def run_parameters(
    frame: IndicatorFrame, source: SignalSource, subject: Subject, parameters: Mapping[str, float], bars: BarRange
) -> Record:
    """Run parameters of the configuration's strategy over a range of bars, as ``paper_record`` does."""
    from tradepulse_pipeline.backtest.api import run_backtest
    from tradepulse_pipeline.backtest.metrics import daily_returns
    from tradepulse_pipeline.backtest.result import END_OF_DATA

    if bars.start >= bars.stop:
        nothing = Trades.concatenated([])
        empty = np.empty(0, dtype=np.int64)
        return Record(trades=nothing, open_trade=nothing, day=empty, daily_return=empty.astype(np.float64))
    account = subject.settings.account
    exits = subject.strategy.exits(parameters)
    result = run_backtest(frame, source.decisions(parameters), exits, account, bars)
    trades, equity = result.trades, result.equity.copy()
    is_open = trades.exit_reason == END_OF_DATA
    open_trade = taken(trades, is_open)
    if len(open_trade):
        gained = open_trade.side * (frame.close[bars.stop - 1] - open_trade.entry_price)
        fee = account.fee_rate * open_trade.entry_price
        equity[-1] = (open_trade.equity_before + open_trade.quantity * (gained - fee))[0]
    times = frame.open_time_ms[bars.start : bars.stop]
    day = np.unique(times // MS_PER_DAY)
    returns = daily_returns(equity, times, account.initial_capital)
    end_ms = int(times[-1]) + frame.timeframe.milliseconds
    is_complete = (day + 1) * MS_PER_DAY <= end_ms
    return Record(
        trades=taken(trades, ~is_open), open_trade=open_trade, day=day[is_complete], daily_return=returns[is_complete]
    )


def out_of_sample_record(frame: IndicatorFrame, source: SignalSource, subject: Subject) -> Record:
    """Run the parameters that each train window chose over its test window again, one after the other.

    On the candles of the training this is the record that the configuration was judged by.
    """
    from tradepulse_pipeline.backtest.api import run_backtest
    from tradepulse_pipeline.backtest.metrics import daily_returns

    account, capital = subject.settings.account, subject.settings.account.initial_capital
    trades, equity, times = [Trades.concatenated([])], [np.empty(0)], [np.empty(0, dtype=np.int64)]
    for window in subject.windows:
        start, stop = np.searchsorted(frame.open_time_ms, (window.test_start_ms, window.test_end_ms)).tolist()
        if window.status == "not searched" or start >= stop:
            continue
        times.append(frame.open_time_ms[start:stop])
        if window.chosen is None:
            equity.append(np.full(stop - start, capital))
            continue
        parameters = subject.strategy.check(window.chosen.parameters)
        result = run_backtest(
            frame,
            source.decisions(parameters),
            subject.strategy.exits(parameters),
            account,
            BarRange(start, stop),
            initial_capital=capital,
        )
        trades.append(result.trades)
        equity.append(result.equity)
        capital = float(result.equity[-1])
    all_times = np.concatenate(times)
    return Record(
        trades=Trades.concatenated(trades),
        open_trade=Trades.concatenated([]),
        day=np.unique(all_times // MS_PER_DAY),
        daily_return=daily_returns(np.concatenate(equity), all_times, account.initial_capital),
    )


def sharpe_ratio(daily_return: FloatArray) -> float:
    """Return the annual Sharpe ratio of daily returns (365 days); 0 where they do not vary."""
    from tradepulse_pipeline.backtest.metrics import DAYS_PER_YEAR, ROUNDING

    if len(daily_return) < 2:
        return 0.0
    deviation = float(np.std(daily_return, ddof=1))
    if deviation <= ROUNDING * float(np.abs(daily_return).max()):
        return 0.0
    return float(np.mean(daily_return)) / deviation * float(np.sqrt(DAYS_PER_YEAR))


def adverse_selection(trades: Trades) -> FloatArray:
    """Return ``clip((entry - close of the entry bar) / R, 0, 1)`` of each trade, by its side: shape (n_trades,)."""
    return np.clip(trades.side * (trades.entry_price - trades.entry_bar_close) / trades.risk, 0.0, 1.0)


def taken(trades: Trades, rows: Any) -> Trades:
    """Return some of the trades: by index, slice or mask."""
    return Trades(**{field.name: getattr(trades, field.name)[rows] for field in fields(Trades)})


def start_of_new(candles: Candles, subject: Subject) -> int:
    """Return how many candles there are that the configuration was not trained on.

    Raises
    ------
    InvalidInputError
        If there is none of those that it was trained on: it has no warm-up.
    """
    n_known = int(np.searchsorted(candles.open_time_ms, subject.data_end_ms))
    if not n_known:
        raise InvalidInputError("The candles before the configuration's paper trading are not stored: fetch them.")
    return len(candles) - n_known
