"""Single trades of a market, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tradepulse_pipeline.errors import CandleError
from tradepulse_pipeline.market.candles import FloatArray, IntArray

#: Where an exchange gives its trades no number.
NO_ID: Final = -1


@dataclass(frozen=True, slots=True, eq=False)
class Trades:
    """Trades of one market in the order in which they were made, as contiguous arrays of shape (n_trades,).

    ``trade_id`` is the exchange's own number, ``NO_ID`` where it gives none; ``time_ms`` is UTC milliseconds; prices
    are in quote currency, amounts in base currency; ``side`` is +1 where the buyer took liquidity, -1 where the seller
    did.

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
