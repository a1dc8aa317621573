"""What an exchange trades and how much, through the real ccxt client from an exchange on this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tradepulse_pipeline.errors import SourceError, SourceUnreachableError
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import MS_PER_DAY, SeriesKey
from tradepulse_pipeline.market.sources.exchange import ExchangeSource
from tradepulse_pipeline.market.sources.http import Patience
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate
from tradepulse_pipeline_tests.loopback import Fault, LoopbackExchange

START = 1_704_067_200_000
NOW = START + 3 * MS_PER_DAY
QUICK = Patience(attempts=2, deadline_s=5.0, first_wait_s=0.0)


def candles(series: SeriesKey) -> Candles:
    return simulate(series.market, series.timeframe, START, NOW, SimulatedMarketSettings(outages_per_year=0))


@pytest.fixture(params=["binance", "kraken"])
def venue(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def exchange(venue: str) -> Iterator[LoopbackExchange]:
    keys = [SeriesKey.of(venue, pair, "1h") for pair in ("BTC/USDT", "ETH/USD")]
    with LoopbackExchange({key: candles(key) for key in keys}, clock_ms=lambda: NOW) as exchange:
        yield exchange


def source(venue: str, exchange: LoopbackExchange) -> ExchangeSource:
    return ExchangeSource(venue, base_url=exchange.base_url, patience=QUICK, sleep=lambda _: None)


def test_a_pair_that_is_listed_is_seen_by_the_next_who_looks(venue: str, exchange: LoopbackExchange) -> None:
    assert source(venue, exchange).traded_pairs() == ["BTC/USDT", "ETH/USD"]
    key = SeriesKey.of(venue, "NEW/USDT", "1h")
    exchange.replace(key, candles(key))
    assert source(venue, exchange).traded_pairs() == ["BTC/USDT", "ETH/USD", "NEW/USDT"]


def test_volumes_are_of_the_last_day_in_quote_currency(venue: str, exchange: LoopbackExchange) -> None:
    day = candles(SeriesKey.of(venue, "BTC/USDT", "1h")).between(NOW - MS_PER_DAY, NOW)
    expected = sum(price * volume for price, volume in zip(day.close.tolist(), day.volume.tolist(), strict=True))
    volumes = source(venue, exchange).day_volumes(["BTC/USDT"])
    assert volumes == {"BTC/USDT": pytest.approx(expected, rel=1e-9)}
    n_requests = len(exchange.requests)
    assert source(venue, exchange).day_volumes([]) == {}
    assert len(exchange.requests) == n_requests


def test_an_exchange_without_a_list_of_tickers_is_asked_pair_by_pair(
    venue: str, exchange: LoopbackExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = source(venue, exchange)
    monkeypatch.setitem(asked.client.has, "fetchTickers", False)
    tickers = {
        "BTC/USDT": {"quoteVolume": None, "baseVolume": 2.0, "last": 3.0, "vwap": None},
        "ETH/USD": {"quoteVolume": None, "baseVolume": None, "last": 3.0, "vwap": 4.0},
    }
    monkeypatch.setattr(asked.client, "fetch_ticker", tickers.__getitem__)
    assert asked.day_volumes(["BTC/USDT", "ETH/USD"]) == {"BTC/USDT": 6.0, "ETH/USD": None}


@pytest.mark.parametrize(
    "fault", [Fault(kind=kind, path="icker", times=None) for kind in ("status", "html", "reset", "empty_body")]
)
def test_a_failure_is_an_error_and_no_empty_answer(venue: str, exchange: LoopbackExchange, fault: Fault) -> None:
    exchange.inject(fault)
    asked = source(venue, exchange)
    assert asked.traded_pairs()
    with pytest.raises(SourceError) as raised:
        asked.day_volumes(["BTC/USDT"])
    assert isinstance(raised.value, SourceUnreachableError) == (fault.kind == "reset")
