"""How Binance and Kraken give their single trades, and trades that make given candles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import Market
from tradepulse_pipeline.market.trades import Trades
from tradepulse_pipeline_tests.loopback.venues import Query, Rows, kraken_id

PAGE = 1_000
NS_PER_MS = 1_000_000


def kraken_trades(trades: Mapping[Market, Trades], query: Query, now_ms: int) -> tuple[int, object, Rows]:
    """Answer to /Trades: status, the reply and the list in it that holds the rows.

    'since' leaves out what is at that very time, which is in seconds or nanoseconds; 'last' is the time of the page's
    last trade in nanoseconds.
    """
    named = {kraken_id(market): value for market, value in trades.items() if market.exchange == "kraken"}
    known = named.get(query.get("pair", ""))
    if known is None:
        return 200, {"error": ["EQuery:Unknown asset pair"]}, []
    since_ns = int(query.get("since", "0"))
    since_ns *= 1 if since_ns > 1e12 else 1_000_000_000
    made = np.flatnonzero((known.time_ms <= now_ms) & (known.time_ms * NS_PER_MS > since_ns))
    count = min(int(query.get("count", PAGE)), PAGE)
    page = known.take(made[:count] if "since" in query else made[-count:])
    rows: Rows = [
        [repr(price), repr(amount), time_ms / 1000, "b" if side > 0 else "s", "m", "", trade_id]
        for trade_id, time_ms, price, amount, side in _listed(page)
    ]
    last_ns = int(page.time_ms[-1]) * NS_PER_MS if len(page) else since_ns
    return 200, {"error": [], "result": {query["pair"]: rows, "last": str(last_ns)}}, rows


def binance_trades(trades: Mapping[Market, Trades], query: Query, now_ms: int) -> tuple[int, object, list[Any]]:
    """Answer to /aggTrades: status, the reply and the list in it that holds the rows; both ends are included."""
    named = {
        market.base + market.quote: value for market, value in trades.items() if market.exchange.startswith("binance")
    }
    known = named.get(query.get("symbol", ""))
    if known is None:
        return 400, {"code": -1121, "msg": "Invalid symbol."}, []
    is_timed = "startTime" in query or "endTime" in query
    if "fromId" in query and is_timed:
        return 400, {"code": -1128, "msg": "Combination of optional parameters invalid."}, []
    end_ms = min(int(query.get("endTime", now_ms)), now_ms)
    is_wanted = (known.time_ms <= end_ms) & (known.time_ms >= int(query.get("startTime", 0)))
    made = np.flatnonzero(is_wanted & (known.trade_id >= int(query.get("fromId", 0))))
    limit = min(int(query.get("limit", 500)), PAGE)
    page = known.take(made[:limit] if "fromId" in query or "startTime" in query else made[-limit:])
    rows = [
        {
            "a": trade_id,
            "p": repr(price),
            "q": repr(amount),
            "f": trade_id,
            "l": trade_id,
            "T": time_ms,
            "m": side < 0,
            "M": True,
        }
        for trade_id, time_ms, price, amount, side in _listed(page)
    ]
    return 200, rows, rows


def trades_of_candles(candles: Candles, seed: int, first_id: int = 1) -> Trades:
    """Return trades that make the candles: four each, some at the same time; none where nothing was traded.

    The amounts are eighths of the volume, whose sum is exact in any order only if the volume has few binary digits.
    """
    rng = np.random.default_rng(seed)
    made = np.flatnonzero(candles.volume > 0)
    # Ascending within the candle, and often equal.
    offsets = np.sort(rng.integers(0, 3, (len(made), 4)), axis=1) * (candles.timeframe.milliseconds // 3)
    low_first = rng.random(len(made)) < 0.5
    low, high = candles.low[made], candles.high[made]
    price = np.stack(
        [candles.open[made], np.where(low_first, low, high), np.where(low_first, high, low), candles.close[made]],
        axis=1,
    )
    amount = candles.volume[made, None] * np.array([1 / 8, 1 / 8, 1 / 4, 1 / 2])
    n = price.size
    return Trades.from_arrays(
        np.arange(first_id, first_id + n),
        (candles.open_time_ms[made, None] + offsets).ravel(),
        price.ravel(),
        amount.ravel(),
        np.where(rng.random(n) < 0.5, 1, -1),
    )


def _listed(page: Trades) -> Any:
    return zip(
        page.trade_id.tolist(),
        page.time_ms.tolist(),
        page.price.tolist(),
        page.amount.tolist(),
        page.side.tolist(),
        strict=True,
    )
