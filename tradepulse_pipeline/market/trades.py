"""Single trades of a market, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from tradepulse_pipeline.errors import CandleError
from tradepulse_pipeline.market.candles import BoolArray, Candles, FloatArray, IntArray
from tradepulse_pipeline.market.resampling import span_starts
from tradepulse_pipeline.market.series import Timeframe

#: Where an exchange gives its trades no number.
NO_ID: Final = -1


@dataclass(frozen=True, slots=True, eq=False)
class Trades:
    """Trades of one market in the order in which they were made, as contiguous arrays of shape (n_trades,).

    ``trade_id`` is the exchange's own number, ``NO_ID`` where it gives none; ``time_ms`` is UTC milliseconds; prices
    are in quote currency, amounts in base currency; ``side`` is +1 where the buyer took liquidity, -1 where the seller
    did, 0 where that is not told.

    Raises
    ------
    CandleError
        If the columns differ in length, times run backwards, or a price or an amount is not finite and above 0.
    """

    trade_id: IntArray
    time_ms: IntArray
    price: FloatArray
    amount: FloatArray
    side: NDArray[np.int8]

    def __post_init__(self) -> None:
        n = len(self.time_ms)
        for name in ("trade_id", "price", "amount", "side"):
            if len(getattr(self, name)) != n:
                raise CandleError(f"Column {name!r} of the trades has {len(getattr(self, name))} values, expected {n}.")
        for name in ("price", "amount"):
            values = getattr(self, name)
            bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
            if len(bad):
                raise CandleError(f"Trade {bad[0]}: expected a finite {name} above 0, found {values[bad[0]]}.")
        backwards = np.flatnonzero(np.diff(self.time_ms) < 0)
        if len(backwards):
            raise CandleError(f"Trade {backwards[0] + 1}: its time is before that of the trade before it.")

    def __len__(self) -> int:
        return len(self.time_ms)

    @classmethod
    def from_arrays(
        cls, trade_id: IntArray, time_ms: IntArray, price: FloatArray, amount: FloatArray, side: NDArray[np.int8]
    ) -> Self:
        """Build trades from arrays of any layout or lists; dtype and contiguity are fixed here, once."""
        return cls(
            np.ascontiguousarray(trade_id, dtype=np.int64),
            np.ascontiguousarray(time_ms, dtype=np.int64),
            np.ascontiguousarray(price, dtype=np.float64),
            np.ascontiguousarray(amount, dtype=np.float64),
            np.ascontiguousarray(side, dtype=np.int8),
        )

    @classmethod
    def merged(cls, parts: Sequence[Trades]) -> Self:
        """Return several lots of trades as one, in the order of their times; at the same time by id, then as given."""
        ids = np.concatenate([part.trade_id for part in parts])
        time_ms = np.concatenate([part.time_ms for part in parts])
        order = np.lexsort((ids, time_ms))
        return cls.from_arrays(
            ids[order],
            time_ms[order],
            np.concatenate([part.price for part in parts])[order],
            np.concatenate([part.amount for part in parts])[order],
            np.concatenate([part.side for part in parts])[order],
        )

    def take(self, rows: IntArray | BoolArray | slice) -> Self:
        """Return the trades of some rows: indices, a mask or a slice."""
        return self.from_arrays(
            self.trade_id[rows], self.time_ms[rows], self.price[rows], self.amount[rows], self.side[rows]
        )


#: No trade at all.
NO_TRADES: Final = Trades(
    np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0), np.empty(0), np.empty(0, dtype=np.int8)
)


def candles_of_trades(trades: Trades, timeframe: Timeframe) -> Candles:
    """Return the candles that trades make: first, highest, lowest and last price, and the summed amount.

    A span without a trade gives no candle. Trades of the same millisecond count in the order in which they stand.
    Whether the first and the last span are complete is the caller's to know.
    """
    starts = span_starts(trades.time_ms, timeframe)
    if not len(starts):
        return Candles.joined(timeframe, [])
    last = np.append(starts[1:], len(trades)) - 1
    return Candles.from_arrays(
        timeframe,
        trades.time_ms[starts] // timeframe.milliseconds * timeframe.milliseconds,
        trades.price[starts],
        np.maximum.reduceat(trades.price, starts),
        np.minimum.reduceat(trades.price, starts),
        trades.price[last],
        np.add.reduceat(trades.amount, starts),
    )


def missing_ids(trades: Trades) -> IntArray:
    """Return the stretches of ids that are absent between the lowest and the highest one.

    Returns
    -------
    int64 array of shape (n_stretches, 2)
        The first and the last absent id of each stretch, ascending; none where the exchange gives no ids.

    Examples
    --------
    >>> trades = Trades.from_arrays([7, 8, 11, NO_ID], [1, 2, 3, 4], [1.0] * 4, [1.0] * 4, [1] * 4)
    >>> missing_ids(trades).tolist()
    [[9, 10]]
    """
    ids = np.unique(trades.trade_id[trades.trade_id != NO_ID])
    before = np.flatnonzero(np.diff(ids) > 1)
    return np.stack([ids[before] + 1, ids[before + 1] - 1], axis=1)
