"""What candles belong to: timeframe, market and series, each with one spelling and one parser."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from tradepulse_pipeline.errors import InvalidInputError, one_of

MS_PER_MINUTE: Final = 60_000
MS_PER_DAY: Final = 86_400_000

#: The exchange whose candles TradePulse generates itself. Everything trained on it is called simulated.
SIMULATED_EXCHANGE: Final = "simulated"

_TIMEFRAME_MINUTES: Final = {
    "1m": 1,
    "3m": 3,
    "5m": 5,
    "15m": 15,
    "30m": 30,
    "1h": 60,
    "2h": 120,
    "4h": 240,
    "6h": 360,
    "8h": 480,
    "12h": 720,
    "1d": 1_440,
}
TIMEFRAMES: Final = tuple(_TIMEFRAME_MINUTES)

_EXCHANGE = re.compile(r"[a-z][a-z0-9_]{1,49}")
_CURRENCY = re.compile(r"[A-Z0-9][A-Z0-9.]{0,19}")


@dataclass(frozen=True, slots=True, order=True)
class Timeframe:
    """The span of one candle, spelled as exchanges do: ``5m``, ``1h``, ``1d``."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in _TIMEFRAME_MINUTES:
            raise one_of("timeframe", self.name, TIMEFRAMES)

    @property
    def minutes(self) -> int:
        """Minutes in one candle."""
        return _TIMEFRAME_MINUTES[self.name]

    @property
    def milliseconds(self) -> int:
        """Milliseconds in one candle."""
        return self.minutes * MS_PER_MINUTE

    @property
    def candles_per_day(self) -> float:
        """Candles in a day without gaps."""
        return MS_PER_DAY / self.milliseconds

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, order=True)
class Market:
    """A pair on an exchange: ``Market("binance", "BTC", "USDT")``."""

    exchange: str
    base: str
    quote: str

    def __post_init__(self) -> None:
        if not _EXCHANGE.fullmatch(self.exchange):
            raise InvalidInputError(
                f"Exchange {self.exchange!r} is not a valid name: expected lower-case letters, digits and '_', "
                "such as 'binance'."
            )
        for currency in (self.base, self.quote):
            if not _CURRENCY.fullmatch(currency):
                raise InvalidInputError(
                    f"Currency {currency!r} is not valid: expected upper-case letters, digits or '.', as in 'BTC'."
                )

    @classmethod
    def parse(cls, exchange: str, pair: str) -> Self:
        """Read ``BTC/USDT`` or ``BTC-USDT``, in any case.

        Raises
        ------
        InvalidInputError
            If the pair is not two currencies joined by ``/`` or ``-``.
        """
        parts = re.split(r"[/-]", pair.strip().upper())
        if len(parts) != 2:
            raise InvalidInputError(
                f"Pair {pair!r} is not valid: expected base and quote joined by '/' or '-', such as 'BTC/USDT'."
            )
        return cls(exchange.strip().lower(), parts[0], parts[1])

    @classmethod
    def parse_key(cls, key: str) -> Self:
        """Read ``kraken:BTC-USD``.

        Raises
        ------
        InvalidInputError
            If the text is not an exchange and a pair joined by ``:``.
        """
        exchange, colon, pair = key.partition(":")
        if not colon:
            raise InvalidInputError(
                f"Market {key!r} is not valid: expected 'exchange:BASE-QUOTE', as 'kraken:BTC-USD'."
            )
        return cls.parse(exchange, pair)

    @property
    def pair(self) -> str:
        """The pair as exchanges and the database spell it: ``BTC/USDT``."""
        return f"{self.base}/{self.quote}"

    @property
    def is_simulated(self) -> bool:
        """Whether TradePulse generates the candles of this market itself."""
        return self.exchange == SIMULATED_EXCHANGE

    def __str__(self) -> str:
        return f"{self.exchange}:{self.base}-{self.quote}"


@dataclass(frozen=True, slots=True, order=True)
class SeriesKey:
    """A market and a timeframe: what one partition holds, spelled ``binance:BTC-USDT:5m``.

    Examples
    --------
    >>> key = SeriesKey.parse("binance:BTC-USDT:5m")
    >>> key.market.pair, key.timeframe.milliseconds, str(key)
    ('BTC/USDT', 300000, 'binance:BTC-USDT:5m')
    """

    market: Market
    timeframe: Timeframe

    @classmethod
    def of(cls, exchange: str, pair: str, timeframe: str) -> Self:
        """Build a key from the three names that a user gives."""
        return cls(Market.parse(exchange, pair), Timeframe(timeframe))

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a series as a person writes it: ``binance:BTC/USDT:5m`` is ``binance:BTC-USDT:5m``.

        Raises
        ------
        InvalidInputError
            If the text is not an exchange, a pair and a timeframe joined by ``:``.
        """
        parts = text.strip().split(":")
        if len(parts) != 3:
            raise InvalidInputError(
                f"Series {text!r} is not valid: expected 'exchange:BASE-QUOTE:timeframe', such as "
                "'binance:BTC-USDT:5m'."
            )
        return cls.of(*parts)

    @classmethod
    def parse(cls, key: str) -> Self:
        """Read a partition key.

        Raises
        ------
        InvalidInputError
            If the text is not ``exchange:BASE-QUOTE:timeframe`` in exactly that spelling.
        """
        series = cls.read(key)
        if str(series) != key:
            raise InvalidInputError(f"Series {key!r} is not in its one spelling: expected {str(series)!r}.")
        return series

    @property
    def exchange(self) -> str:
        """Name of the exchange."""
        return self.market.exchange

    @property
    def pair(self) -> str:
        """The pair, ``BTC/USDT``."""
        return self.market.pair

    def __str__(self) -> str:
        return f"{self.market}:{self.timeframe}"
