"""Death signals of a configuration: signs that its pattern is dying, as far as candles and paper trades tell them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import FloatArray
from tradepulse_pipeline.market.series import MS_PER_DAY
from tradepulse_pipeline.monitoring.market import (
    LEAST_CANDLES,
    absolute_returns,
    correlation_to_market,
    regime_distance,
    share_distance,
    volume_by_part,
)
from tradepulse_pipeline.monitoring.paper import ROLLING_DAYS, Record, Subject

#: A profile of volume has changed when it lies so many times as far off as any month of the training did. On hourly
#: candles of BTC/USDT and ETH/USDT from 2017 on, no month out of 116 did; without a margin 5 did.
VOLUME_MARGIN: Final = 1.25

#: The limits of the circuit breakers of the same names.
CORRELATION_LIMIT: Final = 0.8
REGIME_LIMIT: Final = 0.3

#: p-value below which fills are unusual: looked at every day, on trades that stay, it must be far below 0.05.
FILL_P_VALUE: Final = 0.001
#: Trades on either side that a comparison of fills takes.
LEAST_FILLS: Final = 20
#: Paper trades that are compared at most, the last ones.
MOST_FILLS: Final = 50

SHARPE_SHARE: Final = 0.5

#: In the order of the V3 template.
DEATH_SIGNALS: Final = (
    "volume_profile_changed",
    "new_algo_detected",
    "correlation_spike",
    "sharpe_below_50pct",
    "unusual_fill_pattern",
    "regime_break",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeathSignal:
    """One sign: whether it is there, the figure and the threshold that decide, and what is measured.

    ``is_on`` is None where it was not measured; ``definition`` then says why it was not.
    """

    name: str
    is_on: bool | None
    figure: float | None
    threshold: float | None
    definition: str


def death_signals(frame: IndicatorFrame, subject: Subject, past: Record, paper: Record) -> tuple[DeathSignal, ...]:
    """Return the six signals of the V3 template, in its order.

    Parameters
    ----------
    frame : IndicatorFrame
        Candles of the training and those after it.
    past, paper : Record
        The out-of-sample record, and the paper record.
    """
    measures: dict[str, Callable[[], DeathSignal]] = {
        "volume_profile_changed": lambda: _volume_profile(frame, subject),
        "new_algo_detected": _new_algorithm,
        "correlation_spike": lambda: _correlation(frame, paper),
        "sharpe_below_50pct": lambda: _sharpe(past, paper),
        "unusual_fill_pattern": lambda: _fills(frame, past, paper),
        "regime_break": lambda: _regime(frame, subject),
    }
    return tuple(measures[name]() for name in DEATH_SIGNALS)


def _volume_profile(frame: IndicatorFrame, subject: Subject) -> DeathSignal:
    name = "volume_profile_changed"
    parts = "hours of the day" if frame.timeframe.milliseconds < MS_PER_DAY else "weekdays"
    definition = (
        f"The share of volume that would have to move between {parts} to turn the profile of the last 30 days into "
        f"that of the training; the threshold is {VOLUME_MARGIN} times the largest such share between any 30 days of "
        "the training and its other days."
    )
    n_known = int(np.searchsorted(frame.open_time_ms, subject.data_end_ms))
    usual = volume_by_part(frame, 0, n_known)
    recent = _recent_bars(frame, ROLLING_DAYS)
    now = None if recent[0] < n_known else share_distance(volume_by_part(frame, *recent), usual)
    if now is None:
        return _not_measured(name, f"Not measured: it takes {ROLLING_DAYS} days with volume after the training.")
    first, last = int(frame.open_time_ms[0]) // MS_PER_DAY + 1, subject.data_end_ms // MS_PER_DAY
    distances = []
    for day in range(first, last - ROLLING_DAYS + 1):
        bounds = np.searchsorted(frame.open_time_ms, (day * MS_PER_DAY, (day + ROLLING_DAYS) * MS_PER_DAY))
        month = volume_by_part(frame, *bounds.tolist())
        distances.append(share_distance(month, np.maximum(usual - month, 0.0)))
    known = [distance for distance in distances if distance is not None]
    if not known:
        return _not_measured(name, f"Not measured: the training has no {ROLLING_DAYS} days and others beside them.")
    return _above(name, now, VOLUME_MARGIN * max(known), definition)


def _new_algorithm() -> DeathSignal:
    return _not_measured(
        "new_algo_detected", "Not measured: candles do not tell who trades; it takes single orders and their timing."
    )


def _correlation(frame: IndicatorFrame, paper: Record) -> DeathSignal:
    name = "correlation_spike"
    definition = (
        "The correlation, up or down, of the last 30 daily paper returns with those of holding the market: near 1 it "
        "is no pattern any more, but a bet on the market."
    )
    figure = None
    if len(paper.day) >= ROLLING_DAYS:
        figure = correlation_to_market(paper.day[-ROLLING_DAYS:], paper.daily_return[-ROLLING_DAYS:], frame)
    if figure is None:
        return _not_measured(name, f"Not measured: it takes {ROLLING_DAYS} paper days with trades.")
    return _above(name, abs(figure), CORRELATION_LIMIT, definition)


def _sharpe(past: Record, paper: Record) -> DeathSignal:
    name = "sharpe_below_50pct"
    definition = (
        "The Sharpe ratio of the last 30 paper days; the threshold is half of that of its lifetime, the out-of-sample "
        "record and the paper record together."
    )
    rolling, lifetime = paper.rolling_sharpe_ratio, lifetime_sharpe(past, paper)
    if rolling is None:
        return _not_measured(name, f"Not measured: it takes {ROLLING_DAYS} paper days, there are {len(paper.day)}.")
    if lifetime is None:
        return _not_measured(name, "Not measured: there is no record.")
    threshold = SHARPE_SHARE * lifetime
    return DeathSignal(name=name, is_on=rolling < threshold, figure=rolling, threshold=threshold, definition=definition)


def lifetime_sharpe(past: Record, paper: Record) -> float | None:
    """Return the annual Sharpe ratio of the out-of-sample and the paper record together; None for less than 2 days."""
    from tradepulse_pipeline.monitoring.paper import sharpe_ratio

    returns = np.concatenate([past.daily_return, paper.daily_return])
    return sharpe_ratio(returns) if len(returns) > 1 else None


def _fills(frame: IndicatorFrame, past: Record, paper: Record) -> DeathSignal:
    name = "unusual_fill_pattern"
    definition = (
        f"The p-value of the two-sample Kolmogorov-Smirnov test that the last {MOST_FILLS} entries filled as far from "
        "the close that decided them, in R, as those of the out-of-sample record."
    )
    before, now = _entry_gaps(frame, past), _entry_gaps(frame, paper)[-MOST_FILLS:]
    if min(len(before), len(now)) < LEAST_FILLS:
        return _not_measured(name, f"Not measured: it takes {LEAST_FILLS} trades out-of-sample and on paper.")
    from scipy.stats import ks_2samp

    figure = float(ks_2samp(before, now).pvalue)
    return DeathSignal(
        name=name, is_on=figure < FILL_P_VALUE, figure=figure, threshold=FILL_P_VALUE, definition=definition
    )


def _entry_gaps(frame: IndicatorFrame, record: Record) -> FloatArray:
    trades = record.trades
    gaps: FloatArray = trades.side * (trades.entry_price - frame.close[trades.decision_bar]) / trades.risk
    return gaps


def _regime(frame: IndicatorFrame, subject: Subject) -> DeathSignal:
    name = "regime_break"
    definition = (
        "The Kolmogorov distance between the sizes of the candles' returns in the last 30 days and in the training; "
        "0.3 is about a market 2.3 times as volatile, or as calm."
    )
    n_known = int(np.searchsorted(frame.open_time_ms, subject.data_end_ms))
    start, stop = _recent_bars(frame, ROLLING_DAYS)
    start = min(start, stop - LEAST_CANDLES)
    distance = None if start < n_known else regime_distance(absolute_returns(frame), (0, n_known), (start, stop))
    if distance is None:
        return _not_measured(
            name, f"Not measured: it takes {ROLLING_DAYS} days and {LEAST_CANDLES} candles after the training."
        )
    return _above(name, distance, REGIME_LIMIT, definition)


def _recent_bars(frame: IndicatorFrame, n_days: int) -> tuple[int, int]:
    """Return the bars of the last days, up to the last candle."""
    end_ms = int(frame.open_time_ms[-1]) + frame.timeframe.milliseconds
    return int(np.searchsorted(frame.open_time_ms, end_ms - n_days * MS_PER_DAY)), len(frame)


def _above(name: str, figure: float, threshold: float, definition: str) -> DeathSignal:
    return DeathSignal(name=name, is_on=figure > threshold, figure=figure, threshold=threshold, definition=definition)


def _not_measured(name: str, why: str) -> DeathSignal:
    return DeathSignal(name=name, is_on=None, figure=None, threshold=None, definition=why)
