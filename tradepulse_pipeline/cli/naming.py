"""Which series a user means: names given as options, or told by a file's name."""

from __future__ import annotations

from pathlib import Path

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.series import TIMEFRAMES, SeriesKey, Timeframe
from tradepulse_pipeline.market.sources.naming import names_in


def series_of_file(path: Path, *, exchange: str | None, pair: str | None, timeframe: str | None) -> SeriesKey:
    """Return the series whose candles a file holds; an option that is given holds over the file's name.

    Raises
    ------
    InvalidInputError
        If a name is neither given nor in the file's name.
    """
    given = {"exchange": exchange, "pair": pair, "timeframe": timeframe}
    names = names_in(path) | {option: name for option, name in given.items() if name is not None}
    missing = [f"--{option}" for option in given if option not in names]
    if missing:
        raise InvalidInputError(
            f"{path.name}: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing, and the file's name "
            "does not tell: expected a name such as binance_BTC-USDT_5m.parquet."
        )
    return SeriesKey.of(names["exchange"], names["pair"], names["timeframe"])


def timeframe_of_file(path: Path, timeframe: str | None) -> Timeframe:
    """Return the timeframe of a file's candles.

    Raises
    ------
    InvalidInputError
        If it is neither given nor in the file's name.
    """
    name = timeframe or names_in(path).get("timeframe")
    if name is None:
        raise InvalidInputError(
            f"{path.name}: --timeframe is missing, and the file's name does not tell: expected one of "
            f"{', '.join(TIMEFRAMES)}, or a name such as binance_BTC-USDT_5m.parquet."
        )
    return Timeframe(name)
