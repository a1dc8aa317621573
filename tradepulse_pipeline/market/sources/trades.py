"""Candles built from an exchange's single trades, which reach back further than its candles may."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol

import numpy as np

from tradepulse_pipeline.errors import InvalidInputError, SourceError
from tradepulse_pipeline.market.candles import BoolArray, Candles, IntArray
from tradepulse_pipeline.market.resampling import resample
from tradepulse_pipeline.market.series import MS_PER_DAY, TIMEFRAMES, SeriesKey, Timeframe
from tradepulse_pipeline.market.sources.base import Offer, Page
from tradepulse_pipeline.market.sources.exchange import ExchangeSource, holds_rows
from tradepulse_pipeline.market.sources.http import TransientError
from tradepulse_pipeline.market.sources.times import iso_utc
from tradepulse_pipeline.market.trades import NO_TRADES, Trades, candles_of_trades, missing_ids

#: Trades that one request gives at most, at every exchange below.
PAGE_SIZE: Final = 1_000

#: Where to ask again for trades that a page lacks: so many trades before them, so that they are not at an edge.
_STEPS_BACK: Final = (1, PAGE_SIZE // 4, PAGE_SIZE // 2)

_MINUTE: Final = Timeframe("1m")
_NS_PER_MS: Final = 1_000_000


class TradePages(Protocol):
    """How to go through the trades of one market in the order of their ids, page by page."""

    def at(self, start_ms: int) -> Trades:
        """Return the page with the first trade at or after a time; it may begin with earlier ones."""
        ...

    def after(self, last_id: int) -> Trades:
        """Return the page that follows the one given last, beginning with its last trade, whose id is ``last_id``."""
        ...

    def around(self, trade_id: int, time_ms: int) -> Trades:
        """Return the page that begins with a trade, or shortly before it."""
        ...


class KrakenTrades:
    """Kraken's trades, paged by time: 'since' and the reply's mark 'last' are nanoseconds.

    'since' leaves out the trade at that very time, and all that share it. So each page is asked for from one
    nanosecond before the last trade of the page before.
    """

    def __init__(self, exchange: ExchangeSource, symbol: str) -> None:
        self._exchange = exchange
        self._symbol = symbol
        self._last_ns = 0

    def at(self, start_ms: int) -> Trades:
        """See :class:`TradePages`."""
        since_ns = start_ms * _NS_PER_MS - 1
        page, self._last_ns = self._page(since_ns)
        return page

    def after(self, last_id: int) -> Trades:
        """See :class:`TradePages`."""
        page, last_ns = self._page(self._last_ns - 1, is_known=True)
        if len(page) == PAGE_SIZE and page.trade_id[-1] <= last_id:
            # A whole page of trades of one nanosecond: the only way on is past all of them.
            page, last_ns = self._page(self._last_ns)
        self._last_ns = last_ns
        return page

    def around(self, trade_id: int, time_ms: int) -> Trades:
        """See :class:`TradePages`."""
        return self._page(time_ms * _NS_PER_MS - 1, is_known=True)[0]

    def _page(self, since_ns: int, *, is_known: bool = False) -> tuple[Trades, int]:
        what = f"trades since {iso_utc(since_ns // _NS_PER_MS)}"
        replied = _ask(
            self._exchange, self._symbol, what, {"since": str(since_ns), "count": PAGE_SIZE}, is_known=is_known
        )
        # ccxt gives the rows as they came, the seventh value being the id, and puts the mark behind the last one.
        rows = [trade["info"] for trade in replied]
        if any(len(row) < 7 or not isinstance(row[6], int) for row in rows):
            raise SourceError(
                f"{self._exchange.name} gives {self._symbol} trades without ids, which alone tell that none is lost. "
                f"Import {self._exchange.name}'s archive files."
            )
        marks = [int(row[7]) for row in rows if len(row) > 7]
        return _trades(replied, [row[6] for row in rows]), marks[0] if marks else since_ns


class BinanceTrades:
    """Binance's aggregate trades, paged by id: 'fromId' is the first trade of the page."""

    def __init__(self, exchange: ExchangeSource, symbol: str) -> None:
        self._exchange = exchange
        self._symbol = symbol

    def at(self, start_ms: int) -> Trades:
        """See :class:`TradePages`.

        Asking by time gives no more than an hour, which may be empty, so the id is searched for: from the latest page
        back in growing steps, then by bisection.
        """
        page, asked, later, back = self._page({}), -1, 0, PAGE_SIZE
        while len(page) and page.time_ms[0] >= start_ms and asked != 0:
            later = int(page.trade_id[0])
            asked = max(later - back, 0)
            page = self._from(asked)
            back *= 2
        while len(page) and page.time_ms[-1] < start_ms and later - page.trade_id[-1] > 1:
            asked = (int(page.trade_id[-1]) + later) // 2
            middle = self._from(asked)
            if middle.time_ms[0] < start_ms:
                page = middle
            else:
                later = asked
        return page

    def after(self, last_id: int) -> Trades:
        """See :class:`TradePages`."""
        return self._from(last_id)

    def around(self, trade_id: int, time_ms: int) -> Trades:
        """See :class:`TradePages`."""
        return self._from(trade_id)

    def _from(self, trade_id: int) -> Trades:
        return self._page({"fromId": trade_id}, is_known=True)

    def _page(self, params: dict[str, int], *, is_known: bool = False) -> Trades:
        what = f"trades from {params['fromId']} on" if params else "the latest trades"
        trades = _ask(self._exchange, self._symbol, what, {**params, "limit": PAGE_SIZE}, is_known=is_known)
        return _trades(trades, [int(trade["id"]) for trade in trades])


#: The exchanges whose trades can be gone through from any time on, none lost and none doubled.
TRADE_PAGES: Final[dict[str, type[KrakenTrades | BinanceTrades]]] = {
    "kraken": KrakenTrades,
    "binance": BinanceTrades,
    "binanceus": BinanceTrades,
}


class TradesSource:
    """The candles of one exchange, built from all its single trades: closed ones, from any time on.

    Neighbouring pages share a trade, and ids have to go on without a gap; what is missing is asked for again, and what
    the exchange does not give then is told in the page's warning. A span without a trade has no candle. Longer candles
    are made from 1m candles, so that no more than a page of trades and the minutes of one candle are held.

    Parameters
    ----------
    exchange : ExchangeSource
        How to reach the exchange.

    Raises
    ------
    InvalidInputError
        If the exchange gives only its latest trades.
    """

    def __init__(self, exchange: ExchangeSource) -> None:
        if exchange.name not in TRADE_PAGES:
            raise InvalidInputError(
                f"Candles cannot be built from the trades of {exchange.name}: its trades cannot be gone through from "
                f"a time or an id on so that none is lost. Exchanges where they can: {', '.join(TRADE_PAGES)}."
            )
        self.name = f"{exchange.name}.trades"
        self._exchange = exchange

    def offer(self) -> Offer:
        """See :class:`CandleSource`."""
        return Offer(
            timeframes=TIMEFRAMES,
            history="since the pair was listed",
            limits=(
                f"a request gives at most {PAGE_SIZE} trades, so that a busy pair takes many; "
                "a span without a trade has no candle"
            ),
        )

    def check(self, series: SeriesKey) -> None:
        """See :class:`CandleSource`."""
        self._exchange.check(SeriesKey(series.market, _MINUTE))

    def pages(self, series: SeriesKey, start_ms: int, end_ms: int) -> Iterator[Page]:
        """See :class:`CandleSource`; a page holds the candles that a page of trades completes."""
        symbol = self._exchange.symbol_of(series, self._exchange.patience)
        step = series.timeframe.milliseconds
        start, end = (
            -(-start_ms // step) * step,
            min(-(-end_ms // step), self._exchange.now_ms(self._exchange.patience) // step) * step,
        )
        if start >= end:
            return
        building = _Building(series.timeframe, start)
        pages: TradePages = TRADE_PAGES[self._exchange.name](self._exchange, symbol)
        page, warning = pages.at(start), ""
        if not len(page):
            page = pages.at(start)  # as it may be a slip
        first_ms = int(page.time_ms[page.time_ms >= start].min(initial=end))
        if start + MS_PER_DAY <= first_ms < end:
            warning = (
                f"{self._exchange.name} has no {series.pair} trades from {iso_utc(start)} to {iso_utc(first_ms)}: "
                "its history begins later or has a gap there."
            )
        known = NO_TRADES
        while len(page):
            new = _mended(pages, known, page)
            candles = building.add(new.take((new.time_ms >= start) & (new.time_ms < end)))
            warning = " ".join(filter(None, (warning, self._lost(series, known, new))))
            if len(candles) or warning:
                yield Page(candles=candles, warning=warning)
            warning = ""
            if new.time_ms[-1] >= end:
                break
            known = new
            # An end of the trades before the end of the time may be a slip, too.
            page = _newer(pages, known)
            if not len(page):
                page = _newer(pages, known)
        candles = building.finish(end)
        if len(candles):
            yield Page(candles=candles)

    def _lost(self, series: SeriesKey, known: Trades, new: Trades) -> str:
        """Return what to say of the trades that are missing between and before new ones, '' if none is."""
        trades = Trades.merged([known.take(slice(-1, None)), new])
        gaps = missing_ids(trades)
        if not len(gaps):
            return ""
        n_missing = int((gaps[:, 1] - gaps[:, 0] + 1).sum())
        ids = _listed([str(low) if low == high else f"{low} to {high}" for low, high in gaps.tolist()])
        step = series.timeframe.milliseconds
        after = np.searchsorted(trades.trade_id, gaps[:, 1])
        spans = np.stack([trades.time_ms[after - 1], trades.time_ms[after]], axis=1) // step * step
        return (
            f"{self._exchange.name} does not give {n_missing} {series.pair} trade{'s' if n_missing > 1 else ''} "
            f"(id{'s' if n_missing > 1 else ''} {ids}): {series.timeframe} candles from around them may differ from "
            f"the exchange's own ({_listed([iso_utc(time) for time in np.unique(spans).tolist()])})."
        )


class _Building:
    """Candles in the making: the trades of the last minute, and the 1m candles of the last longer span."""

    def __init__(self, timeframe: Timeframe, start_ms: int) -> None:
        self._timeframe = timeframe
        self._start_ms = start_ms
        self._trades = NO_TRADES
        self._minutes: list[Candles] = []

    def add(self, trades: Trades) -> Candles:
        """Return the candles that are known to be complete by these trades, which follow those before."""
        self._trades = Trades.merged([self._trades, trades])
        return self._complete(int(self._trades.time_ms[-1]) if len(self._trades) else self._start_ms)

    def finish(self, end_ms: int) -> Candles:
        """Return the candles that are left, all trades before ``end_ms`` having been added."""
        return self._complete(end_ms)

    def _complete(self, until_ms: int) -> Candles:
        minute = until_ms // _MINUTE.milliseconds * _MINUTE.milliseconds
        is_done = self._trades.time_ms < minute
        self._minutes.append(candles_of_trades(self._trades.take(is_done), _MINUTE))
        self._trades = self._trades.take(~is_done)
        step = self._timeframe.milliseconds
        span = until_ms // step * step
        if span <= self._start_ms:
            return Candles.joined(self._timeframe, [])
        minutes = Candles.joined(_MINUTE, self._minutes)
        self._minutes = [minutes.between(span, None)]
        candles = resample(minutes, self._timeframe, start_ms=self._start_ms, end_ms=span)
        self._start_ms = span
        return candles


def _ask(exchange: ExchangeSource, symbol: str, what: str, params: dict[str, Any], *, is_known: bool) -> list[Any]:
    """Return one page of trades as ccxt gives it; ``is_known`` tells that there is at least one."""

    def request() -> list[Any]:
        # Not by ccxt's own 'since' and 'limit': it would round the one, and cut a reply to the other from its front.
        trades: list[Any] = exchange.client.fetch_trades(symbol, params=params)
        if not trades and (is_known or not holds_rows(exchange.client.reply)):
            raise TransientError(
                f"{exchange.name} answered without trades: {str(exchange.client.reply)[:120]}", is_answered=True
            )
        return trades

    return exchange.ask(f"{symbol} {what}", request, exchange.patience)


def _trades(replied: list[Any], trade_ids: list[int]) -> Trades:
    """Return ccxt's trades in order, each once; one without a price and an amount above 0 counts as not given."""
    ids = np.array(trade_ids, dtype=np.int64)
    time_ms = np.array([trade["timestamp"] for trade in replied], dtype=np.int64)
    price = np.array([trade["price"] for trade in replied], dtype=np.float64)
    amount = np.array([trade["amount"] for trade in replied], dtype=np.float64)
    side = np.array([1 if trade["side"] == "buy" else -1 for trade in replied], dtype=np.int8)
    once = np.unique(ids, return_index=True)[1]
    is_sound = np.isfinite(price) & np.isfinite(amount) & (price > 0) & (amount > 0)
    rows = once[is_sound[once]]
    rows = rows[np.lexsort((ids[rows], time_ms[rows]))]
    return Trades.from_arrays(ids[rows], time_ms[rows], price[rows], amount[rows], side[rows])


def _newer(pages: TradePages, known: Trades) -> Trades:
    """Return the trades of the next page that are not among the known ones."""
    last_id = int(known.trade_id[-1])
    page = pages.after(last_id)
    return page.take(page.trade_id > last_id)


def _mended(pages: TradePages, known: Trades, new: Trades) -> Trades:
    """Return new trades with those that they lack, as far as the exchange gives them when asked again.

    What lies between the known ones and them counts, too. At most one request is made for each of ``_STEPS_BACK``.
    """
    for back in _STEPS_BACK:
        gaps = missing_ids(Trades.merged([known.take(slice(-1, None)), new]))
        if not len(gaps):
            break
        trades = Trades.merged([known, new])
        row = max(int(np.searchsorted(trades.trade_id, gaps[0, 0])) - back, 0)
        page = pages.around(int(trades.trade_id[row]), int(trades.time_ms[row]))
        new = Trades.merged([new, page.take(_is_within(page.trade_id, gaps))])
    return new


def _is_within(ids: IntArray, stretches: IntArray) -> BoolArray:
    """Mark the ids that lie in one of several ascending stretches of shape (n_stretches, 2), ends included."""
    first, last = stretches[np.minimum(np.searchsorted(stretches[:, 1], ids), len(stretches) - 1)].T
    is_within: BoolArray = (first <= ids) & (ids <= last)
    return is_within


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
