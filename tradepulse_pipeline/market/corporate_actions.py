"""Splits and dividends of shares: prices adjusted for them as of a date, and where prices and events disagree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Final, Literal

import numpy as np

from tradepulse_pipeline.errors import CandleError, InvalidInputError
from tradepulse_pipeline.market.candles import Candles, FloatArray
from tradepulse_pipeline.market.series import MS_PER_DAY


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Split:
    """From ``ex_date`` on, one share is ``ratio`` shares: 4.0 for a 4-for-1 split, 0.05 for a 1-for-20 reverse one."""

    ex_date: date
    ratio: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.ratio) and self.ratio > 0):
            raise InvalidInputError(f"Split of {self.ex_date}: found the ratio {self.ratio}, expected one above 0.")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Dividend:
    """Who buys on ``ex_date`` or later does not get it: ``amount`` per share in the currency of the prices.

    The amount is as paid, not adjusted for later splits; on the day of a split it is per new share.
    """

    ex_date: date
    amount: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.amount) and self.amount > 0):
            raise InvalidInputError(f"Dividend of {self.ex_date}: found {self.amount}, expected an amount above 0.")


CorporateAction = Split | Dividend


@dataclass(frozen=True, slots=True, eq=False)
class AdjustmentFactors:
    """What prices are multiplied by for dividends and for splits, arrays of shape (n_candles,); 1 where by nothing."""

    dividends: FloatArray
    splits: FloatArray


def adjustment_factors(candles: Candles, actions: Sequence[CorporateAction], as_of_ms: int) -> AdjustmentFactors:
    """Return the factors that make earlier prices comparable with those at ``as_of_ms``.

    A candle's factors are the products over all events with a later ex-date that is not after the trading day of
    ``as_of_ms``: 1 / ratio per split, and 1 - D / C per dividend, D being the amount and C the last close before the
    ex-date in shares of the ex-date. This is the backward adjustment of the CRSP (Data Descriptions Guide, factors to
    adjust prices) and of Yahoo's adjusted close.

    Parameters
    ----------
    candles : Candles
        Prices as traded.
    actions : sequence of CorporateAction
        In any order; several dividends of one day add up.
    as_of_ms : int
        A time in UTC milliseconds. What becomes effective after it is not known yet and changes nothing.

    Raises
    ------
    CandleError
        If a dividend is not below the price.
    """
    calendar, timeframe = candles.calendar, candles.timeframe
    days = calendar.trading_days(candles.open_time_ms, timeframe)
    as_of = int(calendar.trading_days(np.array([as_of_ms], dtype=np.int64), timeframe)[0])
    n = len(candles)
    splits, dividends, amounts = np.ones(n + 1), np.ones(n + 1), np.zeros(n + 1)
    for action in actions:
        ex_ms = midnight_ms(action.ex_date)
        at = int(np.searchsorted(days, ex_ms))
        if ex_ms > as_of or at == 0:
            continue
        if isinstance(action, Split):
            splits[at] /= action.ratio
        else:
            amounts[at] += action.amount
    for at in np.flatnonzero(amounts).tolist():
        before = candles.close[at - 1] * splits[at]
        if amounts[at] >= before:
            raise CandleError(
                f"A dividend of {amounts[at]:g} after {_day(days[at - 1])} is not below the close of {before:g} there: "
                "expected the amount per share in the unit of the prices. Correct the event, or leave it out."
            )
        dividends[at] = 1 - amounts[at] / before
    return AdjustmentFactors(_products_after(dividends), _products_after(splits))


def adjusted(candles: Candles, actions: Sequence[CorporateAction], as_of_ms: int) -> Candles:
    """Return the candles in prices and shares of ``as_of_ms``: prices for splits and dividends, volume for splits only.

    See :func:`adjustment_factors`. Without an event in the span the candles come back as they are.
    """
    factors = adjustment_factors(candles, actions, as_of_ms)
    price = factors.dividends * factors.splits
    if (price == 1).all() and (factors.splits == 1).all():
        return candles
    return replace(
        candles,
        open=candles.open * price,
        high=candles.high * price,
        low=candles.low * price,
        close=candles.close * price,
        volume=candles.volume / factors.splits,
    )


def midnight_ms(day: date) -> int:
    """Return 00:00 UTC of a day in milliseconds."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000


SuspicionKind = Literal[
    "missing split", "split not in prices", "split applied in part", "wrong unit", "implausible dividend",
    "repeated dividend", "missing dividend",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A place where prices and events do not fit together, with a sentence for a person to judge."""

    kind: SuspicionKind
    day: date
    sentence: str


#: Ratios of splits that are common enough to be suspected.
_COMMON_RATIOS: Final = (5 / 4, 4 / 3, 3 / 2, 2, 5 / 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50)
_HUNDRED: Final = math.log(100)

#: A step is out of place if it is this many times the usual move of the candles around it, and at least 18 %.
_OUT_OF_PLACE: Final = 6.0
_LEAST_STEP: Final = math.log(1.2)
_AROUND: Final = 10

#: How far from the ex-date a step may lie that a split applied to some days only has left.
_ABOUT_THE_EX_DATE_MS: Final = 31 * MS_PER_DAY

#: Turnover of this many times the usual one is the sign of news: the move is a true one.
_NEWS_TURNOVER: Final = 3.0


def suspicious_moves(
    candles: Candles, actions: Sequence[CorporateAction], *, is_split_adjusted: bool = False
) -> tuple[Suspicion, ...]:
    """Return where prices and corporate actions do not fit together, in time order; nothing is changed.

    A step from one close to the next open is out of place if it is at least 18 % and six times the median move of the
    ten candles before and after. It is reported if it is close to a factor of 100, to the ratio of a split listed
    nearby, or to a common ratio and the prices stay there. Falls and rises that trade three times the usual turnover,
    or amid others of their size, are taken for true. Dividends are held against the fall on their ex-date, and against
    the others in the list.

    Parameters
    ----------
    candles : Candles
        Prices as traded, or with ``is_split_adjusted`` as a vendor gives them that has adjusted all for splits.
    actions : sequence of CorporateAction
        The events known.
    """
    if len(candles) < 2:
        return ()
    splits = [action for action in actions if isinstance(action, Split)]
    dividends = [action for action in actions if isinstance(action, Dividend)]
    in_prices = [] if is_split_adjusted else splits
    odd = [*_odd_dividends(candles, dividends, in_prices), *_odd_schedule(dividends)]
    sound = [dividend for dividend in dividends if dividend.ex_date not in {one.day for one in odd}]
    found = [*odd, *_unexplained_steps(adjusted(candles, [*in_prices, *sound], candles.end_ms), splits)]
    return tuple(sorted(found, key=lambda one: (one.day, one.kind)))


def _unexplained_steps(candles: Candles, splits: Sequence[Split]) -> Iterator[Suspicion]:
    """Look for steps in prices that should have none left."""
    days = candles.calendar.trading_days(candles.open_time_ms, candles.timeframe)
    steps, usual = np.log(candles.open[1:] / candles.close[:-1]), _usual_moves(candles)
    turnover = candles.close * candles.volume
    is_out_of_place = np.abs(steps) > np.maximum(_LEAST_STEP, _OUT_OF_PLACE * usual)
    for i in np.flatnonzero(is_out_of_place):
        at, step = int(i) + 1, float(steps[i])
        near = 0.01 + 2.5 * float(usual[i])
        day, way = _day(days[at]), "rise" if step > 0 else "fall"
        move = f"prices {way} by a factor of {math.exp(abs(step)):.4g} from one candle to the next"
        if abs(abs(step) - _HUNDRED) < max(near, 0.25):
            yield Suspicion(
                "wrong unit",
                day,
                f"{day}: {move}: two digits slipped, or the unit changed between a currency and its hundredth, "
                "such as pounds and pence.",
            )
            continue
        nearby = [split for split in splits if abs(midnight_ms(split.ex_date) - days[at]) <= _ABOUT_THE_EX_DATE_MS]
        split = min(nearby, key=lambda one: abs(abs(math.log(one.ratio)) - abs(step)), default=None)
        if split is not None and abs(abs(math.log(split.ratio)) - abs(step)) < max(near, 0.1):
            ex_ms = midnight_ms(split.ex_date)
            is_ex_date = days[at - 1] < ex_ms <= days[at]
            yield Suspicion(
                "split not in prices" if is_ex_date else "split applied in part",
                day,
                f"{day}: the split of {split.ratio:g} on {split.ex_date} is listed, but once it is taken into account "
                f"{move}: it was applied to the prices "
                + ("twice, or not at all." if is_ex_date else "of some days only, or its date is wrong."),
            )
            continue
        before = np.median(turnover[max(at - 2 * _AROUND, 0) : at])
        ratio = min(_COMMON_RATIOS, key=lambda one: abs(math.log(one) - abs(step)))
        is_news = before > 0 and turnover[at] > _NEWS_TURNOVER * before
        change = math.log(np.median(candles.close[at : at + 5]) / np.median(candles.close[max(at - 5, 0) : at]))
        lasts = abs(change - step) < abs(step) / 2
        if lasts and not is_news and abs(math.log(ratio) - abs(step)) < near:
            yield Suspicion(
                "missing split",
                day,
                f"{day}: {move}, close to {ratio:.4g}, at usual turnover, and no event explains it: a split is missing "
                "from the list, or the ticker went to another share.",
            )


def _odd_dividends(candles: Candles, dividends: Sequence[Dividend], splits: Sequence[Split]) -> Iterator[Suspicion]:
    """Hold each dividend against the price before its ex-date and the fall on it."""
    days = candles.calendar.trading_days(candles.open_time_ms, candles.timeframe)
    usual = _usual_moves(candles)
    split_on = {split.ex_date: split.ratio for split in splits}
    for dividend in dividends:
        at = int(np.searchsorted(days, midnight_ms(dividend.ex_date)))
        if not 0 < at < len(candles):
            continue
        before = float(candles.close[at - 1]) / split_on.get(dividend.ex_date, 1.0)
        share, fall = dividend.amount / before, 1 - float(candles.open[at]) / before
        noise = 4 * float(usual[at - 1])
        told = f"{dividend.ex_date}: the dividend of {dividend.amount:g} is {share:.1%} of the price"
        if share >= 1:
            yield Suspicion("implausible dividend", dividend.ex_date, f"{told}: it is in another unit than the prices.")
        elif share - max(fall, 0.0) > max(noise, 0.03):
            yield Suspicion(
                "implausible dividend", dividend.ex_date, f"{told}, which fell by {max(fall, 0.0):.1%} only."
            )
        elif fall > max(noise, 0.03) and abs(100 * share - fall) < noise / 4:
            yield Suspicion(
                "implausible dividend",
                dividend.ex_date,
                f"{told}, which fell by {fall:.1%}: it may be in another unit than the prices, 100 times larger.",
            )


def _odd_schedule(dividends: Sequence[Dividend]) -> Iterator[Suspicion]:
    """Look for a dividend that is listed twice, or left out of a regular schedule."""
    ordered = sorted(dividends)
    for former, latter in pairwise(ordered):
        if latter.ex_date - former.ex_date <= timedelta(days=7) and math.isclose(latter.amount, former.amount):
            yield Suspicion(
                "repeated dividend",
                latter.ex_date,
                f"{latter.ex_date}: the dividend of {latter.amount:g} is listed on {former.ex_date} already.",
            )
    days = np.array([dividend.ex_date.toordinal() for dividend in ordered])
    pauses = np.diff(days)
    for i in range(len(pauses)):
        around = np.delete(pauses[max(i - 4, 0) : i + 5], min(i, 4))
        pause = float(np.median(around)) if len(around) >= 4 else math.nan
        is_regular = len(around) >= 4 and np.abs(around - pause).max() < 0.2 * pause
        if is_regular and 1.75 < pauses[i] / pause < 2.25:
            due = ordered[i].ex_date + timedelta(days=round(pause))
            yield Suspicion(
                "missing dividend",
                due,
                f"{due}: dividends were paid every {pause:.0f} days before and after, but none is listed between "
                f"{ordered[i].ex_date} and {ordered[i + 1].ex_date}.",
            )


def _usual_moves(candles: Candles) -> FloatArray:
    """Return, for each move from close to close, the median size of the moves around it, itself left out."""
    sizes = np.abs(np.diff(np.log(candles.close)))
    around = [
        np.concatenate((sizes[max(i - _AROUND, 0) : i], sizes[i + 1 : i + 1 + _AROUND])) for i in range(len(sizes))
    ]
    return np.array([np.median(part) if len(part) else 0.0 for part in around])


def _products_after(factors: FloatArray) -> FloatArray:
    """Return, for each of the first n of n + 1 places, the product of the factors at the places after it."""
    return np.asarray(np.cumprod(factors[:0:-1])[::-1], dtype=np.float64)


def _day(day_ms: np.int64) -> date:
    return datetime.fromtimestamp(int(day_ms) / 1000, UTC).date()
