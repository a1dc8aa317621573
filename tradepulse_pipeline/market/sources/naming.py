"""What the name of a candle file tells: binance_BTC-USDT_5m.parquet."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from tradepulse_pipeline.market.series import TIMEFRAMES

_FILE_NAME: Final = re.compile(
    rf"(?P<exchange>[a-z][a-z0-9]+)_(?P<pair>[A-Z0-9][A-Z0-9.]*-[A-Z0-9][A-Z0-9.]*)_(?P<timeframe>{'|'.join(TIMEFRAMES)})\..+"
)


def names_in(path: Path) -> dict[str, str]:
    """Return exchange, pair and timeframe as a file's name tells them; empty if it does not.

    Examples
    --------
    >>> names_in(Path("binance_BTC-USDT_5m.parquet"))
    {'exchange': 'binance', 'pair': 'BTC-USDT', 'timeframe': '5m'}
    """
    found = _FILE_NAME.fullmatch(path.name)
    return {} if found is None else found.groupdict()
