"""Timeframes, markets and series: one spelling, one parser."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.series import TIMEFRAMES, Market, SeriesKey, Timeframe


@pytest.mark.parametrize(
    ("name", "minutes"), [("1m", 1), ("5m", 5), ("15m", 15), ("1h", 60), ("4h", 240), ("12h", 720), ("1d", 1440)]
)
def test_timeframes(name: str, minutes: int) -> None:
    timeframe = Timeframe(name)
    assert str(timeframe) == name
    assert timeframe.minutes == minutes
    assert timeframe.milliseconds == minutes * 60_000
    assert timeframe.candles_per_day == 1440 / minutes


def test_an_unknown_timeframe_lists_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match=r"Unknown timeframe '5min'\. Did you mean '5m'.*Allowed: 1m, .*, 1d\."):
        Timeframe("5min")


@pytest.mark.parametrize("pair", ["BTC/USDT", "BTC-USDT", " btc/usdt ", "Btc-Usdt"])
def test_a_pair_is_read_in_any_case_and_with_either_sign(pair: str) -> None:
    market = Market.parse(" Binance", pair)
    assert (market.exchange, market.base, market.quote) == ("binance", "BTC", "USDT")
    assert (market.pair, str(market)) == ("BTC/USDT", "binance:BTC-USDT")


@pytest.mark.parametrize(
    "pair", ["BTCUSDT", "BTC/USDT/X", "/USDT", "BTC/", "", "BTC/US DT", "BTC/USD:USDT", "BTC/U'; --"]
)
def test_what_is_no_pair_is_refused(pair: str) -> None:
    with pytest.raises(InvalidInputError, match="is not valid"):
        Market.parse("binance", pair)


@pytest.mark.parametrize("exchange", ["", "Binance", "9ex", "a", "ex change", "../etc", "x" * 51])
def test_what_is_no_exchange_is_refused(exchange: str) -> None:
    with pytest.raises(InvalidInputError, match="is not a valid name"):
        Market(exchange, "BTC", "USDT")


def test_only_generated_markets_are_simulated() -> None:
    assert Market.parse("simulated", "BTC/USDT").is_simulated
    assert not Market.parse("binance", "BTC/USDT").is_simulated


def test_a_series_by_its_three_names() -> None:
    series = SeriesKey.of("Kraken", "btc/usd", "15m")
    assert str(series) == "kraken:BTC-USD:15m"
    assert (series.exchange, series.pair, series.timeframe) == ("kraken", "BTC/USD", Timeframe("15m"))


@given(
    exchange=st.from_regex(r"[a-z][a-z0-9_]{1,49}", fullmatch=True),
    base=st.from_regex(r"[A-Z0-9][A-Z0-9.]{0,19}", fullmatch=True),
    quote=st.from_regex(r"[A-Z0-9][A-Z0-9.]{0,19}", fullmatch=True),
    timeframe=st.sampled_from(TIMEFRAMES),
)
def test_a_series_is_read_back_from_its_spelling(exchange: str, base: str, quote: str, timeframe: str) -> None:
    series = SeriesKey(Market(exchange, base, quote), Timeframe(timeframe))
    assert SeriesKey.parse(str(series)) == series


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("binance:BTC-USDT", "expected 'exchange:BASE-QUOTE:timeframe'"),
        ("binance:BTC-USDT:5m:x", "expected 'exchange:BASE-QUOTE:timeframe'"),
        ("binance:BTC/USDT:5m", "not in its one spelling: expected 'binance:BTC-USDT:5m'"),
        ("Binance:btc-usdt:5m", "not in its one spelling: expected 'binance:BTC-USDT:5m'"),
        ("binance:BTC-USDT: 5m", "Unknown timeframe ' 5m'"),
        ("binance:BTCUSDT:5m", "Pair 'BTCUSDT' is not valid"),
    ],
)
def test_other_spellings_of_a_series_are_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        SeriesKey.parse(text)
