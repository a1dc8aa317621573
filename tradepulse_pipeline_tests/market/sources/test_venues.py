"""The candles of the exchanges that users are told to use, several pages at a time, through the real ccxt client."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tradepulse_pipeline.errors import InvalidInputError, SourceError, SourceUnreachableError
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import MS_PER_DAY, Market, SeriesKey, Timeframe
from tradepulse_pipeline.market.sources.exchange import VENUES, ExchangeSource, Patience
from tradepulse_pipeline.market.sources.pace import LocalPace
from tradepulse_pipeline.market.sources.registry import SourceSettings, source_named
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate
from tradepulse_pipeline_tests.loopback import Fault, LoopbackExchange

STEP = 300_000
START = 1_704_067_200_000
PAIRS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
SERIES = {
    pair: simulate(
        Market.parse("simulated", pair),
        Timeframe("5m"),
        START,
        START + 10 * MS_PER_DAY,
        SimulatedMarketSettings(outages_per_year=120),
    )
    for pair in PAIRS
}
CANDLES = SERIES["BTC/USDT"]
NOW = CANDLES.end_ms - STEP // 2
CLOSED = CANDLES.between(None, NOW - STEP)
#: Where each exchange gives its candles.
PATHS = {
    "binance": "klines",
    "bybit": "kline",
    "coinbase": "candles",
    "delta": "candles",
    "kraken": "OHLC",
    "okx": "candles",
}
#: Those that give more than the latest candles.
WITH_HISTORY = sorted(set(PATHS) - {"kraken"})


class NoPace:
    """Every turn comes at once; holds are noted."""

    def __init__(self):
        self.holds = []

    def wait(self, seconds):
        assert seconds > 0

    def hold(self, seconds):
        self.holds.append(seconds)


def key(name, pair="BTC/USDT", timeframe="5m"):
    return SeriesKey.of(name, pair, timeframe)


def loopback_of(name, candles=CANDLES, **options):
    return LoopbackExchange({key(name): candles}, clock_ms=lambda: NOW, **options)


def source_at(loopback, name, pace=None, patience=None, **options):
    patience = patience or Patience(first_wait_s=0.001, longest_wait_s=30)
    return ExchangeSource(name, base_url=loopback.base_url, pace=pace or NoPace(), patience=patience, **options)


def fetch(source, series, start=START, end=NOW):
    """Return the pages that came, and the error that ended them, if any."""
    pages = []
    try:
        for page in source.pages(series, start, end):
            pages.append(page)  # noqa: PERF402 - the pages before an error count
    except SourceError as error:
        return pages, error
    return pages, None


def assert_same(pages, candles):
    for name in ("open_time_ms", "open", "high", "low", "close", "volume"):
        column = np.concatenate([getattr(page.candles, name) for page in pages])
        np.testing.assert_array_equal(column, getattr(candles, name), err_msg=name)


@pytest.mark.parametrize("n_threads", [1, 4])
@pytest.mark.parametrize("name", WITH_HISTORY)
def test_every_closed_candle_arrives_once_and_as_it_is(name, n_threads):
    with loopback_of(name) as loopback:
        source = source_at(loopback, name, n_threads=n_threads)
        source.check(key(name))
        pages, error = fetch(source, key(name))
        assert error is None
        assert_same(pages, CLOSED)
        assert all((page.rejected, page.n_duplicates, page.warning) == ((), 0, "") for page in pages)
        # On the same clients, a range in the middle.
        middle = CLOSED.slice(500, 2_100)
        assert_same(fetch(source, key(name), int(middle.open_time_ms[0]) - 1, middle.end_ms)[0], middle)


def test_kraken_gives_its_latest_candles_as_they_are():
    with loopback_of("kraken") as loopback:
        start = int(CLOSED.open_time_ms[-600])
        (page,) = fetch(source_at(loopback, "kraken"), key("kraken"), start)[0]
        expected = CLOSED.between(start, None).filled_forward(100)
        assert (page.candles.open_time_ms[0], page.candles.end_ms) == (start, CLOSED.end_ms)
        np.testing.assert_array_equal(page.candles.close, expected.close)
        np.testing.assert_array_equal(page.candles.volume, expected.volume)
        assert loopback.count("OHLC") == 1


@pytest.mark.parametrize("name", sorted(PATHS))
def test_the_running_candle_is_left_out_by_the_clock_of_the_exchange(name):
    with loopback_of(name, CANDLES.slice(0, 600)) as loopback:
        last = int(CANDLES.open_time_ms[599])
        for offset, n_closed in [(0, 599), (STEP - 1000, 599), (STEP, 600)]:
            loopback.clock_ms = lambda at=last + offset: at
            pages, _ = fetch(source_at(loopback, name), key(name), last - 10 * STEP, last + MS_PER_DAY)
            assert pages[-1].candles.end_ms == int(CANDLES.open_time_ms[n_closed - 1]) + STEP
            assert all(page.rejected == () for page in pages)


def test_okx_is_asked_for_what_is_old_by_its_own_clock():
    # It gives recent and old candles at two addresses; by our clock all of these would be recent.
    shift = 20 * 365 * MS_PER_DAY
    names = ("open", "high", "low", "close", "volume")
    shifted = Candles.from_arrays(
        CANDLES.timeframe, CANDLES.open_time_ms + shift, *(getattr(CANDLES, name) for name in names)
    )
    with LoopbackExchange({key("okx"): shifted}, clock_ms=lambda: NOW + shift) as loopback:
        pages, _ = fetch(source_at(loopback, "okx"), key("okx"), START + shift, NOW + shift)
    assert_same(pages, shifted.between(None, NOW + shift - STEP))


@pytest.mark.parametrize("name", sorted(PATHS))
def test_an_unknown_pair_is_answered_with_the_nearest_ones(name):
    message = rf"Unknown pair 'BTC/USTD' in {name}\. Did you mean 'BTC/USDT'"
    with loopback_of(name) as loopback, pytest.raises(InvalidInputError, match=message):
        source_at(loopback, name).check(key(name, "BTC/USTD"))


@pytest.mark.parametrize("name", sorted({*PATHS} - {"binance"}))
def test_an_unknown_timeframe_is_answered_with_those_that_there_are(name):
    with pytest.raises(InvalidInputError, match=rf"Unknown timeframe '8h' in {name}.* Allowed: 1m,.* 1d"):
        ExchangeSource(name).check(key(name, timeframe="8h"))


@pytest.mark.parametrize("name", sorted(PATHS))
def test_an_offer_says_what_there_is_without_a_connection(name):
    offer = source_named(name).offer()
    assert {"1m", "5m", "15m", "30m", "1h", "1d"} <= set(offer.timeframes)
    assert (offer.volume_unit, offer.key_variable) == ("base currency", None)
    assert offer.history == VENUES[name].history
    assert "spot pairs only" in offer.limits
    assert ("720" in offer.history) == (name == "kraken")
    assert ("in contracts" in offer.limits) == (name == "delta")


@pytest.mark.parametrize("name", WITH_HISTORY)
@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="status", status=500, skip=2, times=3),
        Fault(kind="reset", skip=1, times=3),
        Fault(kind="short_body", skip=1, times=3),
        Fault(kind="html", skip=2, times=2),
        Fault(kind="empty_body", skip=1, times=2),
        Fault(kind="truncated_json", skip=3, times=2),
        Fault(kind="empty_page", skip=1, times=1),
        Fault(kind="partial_page", skip=1, times=4),
        Fault(kind="duplicated_page", times=2),
        Fault(kind="overlapping_page", times=2),
    ],
    ids=lambda fault: fault.kind,
)
def test_what_passes_in_any_of_the_pages_changes_nothing(name, fault):
    fault = type(fault)(**{field: getattr(fault, field) for field in fault.__slots__} | {"path": PATHS[name]})
    with loopback_of(name, faults=[fault]) as loopback:
        pages, error = fetch(source_at(loopback, name), key(name))
        assert error is None
        assert_same(pages, CLOSED)


# OKX has the smallest pages: ten for these candles.


@pytest.mark.parametrize("status", [418, 403, 451])
def test_a_refusal_ends_all_threads(status):
    with loopback_of("okx", latency_s=0.01) as loopback:
        loopback.inject(Fault(kind="status", status=status, retry_after="900", path="candles", skip=3, times=None))
        pages, error = fetch(source_at(loopback, "okx"), key("okx"))
        time.sleep(0.1)
        assert loopback.count("candles") <= 3 + 4
        assert isinstance(error, SourceUnreachableError) == (status in {403, 451})
        assert str(status) in str(error)
        assert 1 <= len(pages) <= 3
        assert_same(pages, CLOSED.between(None, pages[-1].candles.end_ms))


def test_a_page_that_fails_for_good_comes_after_all_before_it():
    with loopback_of("okx") as loopback:
        loopback.inject(Fault(kind="status", status=503, query=f"before={START + 1500 * STEP - 1}", times=None))
        pages, error = fetch(source_at(loopback, "okx"), key("okx"))
        assert "answered HTTP 503" in str(error)
        assert_same(pages, CLOSED.between(None, START + 1500 * STEP))
        # What is left is had by the next run.
        resumed = START + 1500 * STEP + 1
        assert_same(fetch(source_at(loopback, "okx"), key("okx"), resumed)[0], CLOSED.between(resumed, None))


def test_a_rate_limit_holds_all_threads_as_long_as_told():
    with loopback_of("okx") as loopback:
        loopback.inject(Fault(kind="status", status=429, retry_after="7", path="candles", skip=2))
        pace = NoPace()
        pages, error = fetch(source_at(loopback, "okx", pace), key("okx"))
        assert (error, pace.holds) == (None, [7.0])
        assert_same(pages, CLOSED)


def test_what_comes_while_an_exchange_is_silent_waits_too():
    released = threading.Event()

    class Held(NoPace):
        def wait(self, seconds):
            if self.holds:
                assert released.wait(10)

        def hold(self, seconds):
            super().hold(seconds)

    with loopback_of("okx") as loopback:
        loopback.inject(Fault(kind="status", status=429, retry_after="9", path="candles", skip=1))
        pace = Held()
        with ThreadPoolExecutor(1) as pool:
            fetched = pool.submit(fetch, source_at(loopback, "okx", pace), key("okx"))
            while not pace.holds:
                time.sleep(0.001)
            time.sleep(0.1)
            n_asked = loopback.count("candles")
            time.sleep(0.1)
            assert loopback.count("candles") == n_asked <= 1 + 2 * 4
            assert not fetched.done()
            released.set()
            assert_same(fetched.result(10)[0], CLOSED)


def test_closing_stops_the_requests():
    with loopback_of("okx", latency_s=0.02) as loopback:
        pages = source_at(loopback, "okx", n_threads=2).pages(key("okx"), START, NOW)
        next(pages), next(pages)
        pages.close()
        n_asked = loopback.count("candles")
        time.sleep(0.2)
        assert loopback.count("candles") <= n_asked + 2 < 10


def test_a_slow_consumer_is_not_run_ahead_of():
    with loopback_of("okx") as loopback:
        pages = source_at(loopback, "okx", n_threads=2).pages(key("okx"), START, NOW)
        next(pages), next(pages)
        time.sleep(0.2)
        assert loopback.count("candles") <= 1 + 2 * 2 + 1
        pages.close()


# Gaps and beginnings


@pytest.mark.parametrize("name", WITH_HISTORY)
def test_a_gap_of_many_pages_is_no_end(name):
    outage = Candles.from_arrays(
        CANDLES.timeframe,
        *(
            np.concatenate([getattr(CANDLES.slice(0, 400), column), getattr(CANDLES.slice(2_500, 3_000), column)])
            for column in ("open_time_ms", "open", "high", "low", "close", "volume")
        ),
    )
    with loopback_of(name, outage) as loopback:
        assert_same(fetch(source_at(loopback, name), key(name))[0], outage.between(None, NOW - STEP))


@pytest.mark.parametrize("name", WITH_HISTORY)
def test_a_late_beginning_is_found_in_few_requests(name):
    years = START - 4 * 365 * MS_PER_DAY
    with loopback_of(name) as loopback:
        pages, error = fetch(source_at(loopback, name), key(name), years)
        assert error is None
        assert_same(pages, CLOSED)
        assert pages[0].warning == (
            f"{name} has no BTC/USDT candles from 2020-01-02T00:00Z to 2024-01-01T00:00Z: "
            "its history begins later or has a gap there."
        )
        # Four years are 1 400 pages at OKX. Daily candles: 5 pages, all but the last asked for twice.
        assert loopback.count(PATHS[name]) < 40
        assert fetch(source_at(loopback, name), key(name), years, START) == ([], None)


def test_a_pair_listed_today_is_found_without_its_daily_candle():
    day = NOW // MS_PER_DAY * MS_PER_DAY
    listed = CANDLES.between(day + 3 * 12 * STEP, None)
    with loopback_of("okx", listed) as loopback:
        loopback.inject(Fault(kind="empty_page", query="bar=1Dutc", times=None))
        pages, error = fetch(source_at(loopback, "okx"), key("okx"), day - 900 * MS_PER_DAY)
        assert error is None
        assert_same(pages, listed.between(None, NOW - STEP))


# The rate limit


#: ccxt counts 110 ms of OKX's allowance for one request for old candles or for markets, 220 ms for the time: nine
#: requests a second. What is above that is for turns that are a little late.
ALLOWED_PER_SECOND = 14
OLD = NOW - 1_440 * STEP


def serving_all_pairs(**options):
    series = {key("okx", pair): candles for pair, candles in SERIES.items()}
    return LoopbackExchange(series, clock_ms=lambda: NOW, **options)


def fetch_old_candles(loopback, pace):
    def one(pair):
        return fetch(source_at(loopback, "okx", pace), key("okx", pair), end=OLD)

    with ThreadPoolExecutor(len(PAIRS)) as pool:
        return dict(zip(PAIRS, pool.map(one, PAIRS), strict=True))


def test_three_pairs_at_once_stay_within_the_rate_limit():
    with serving_all_pairs(limit_per_second=ALLOWED_PER_SECOND) as loopback:
        for pair, (pages, error) in fetch_old_candles(loopback, LocalPace()).items():
            assert error is None
            assert_same(pages, SERIES[pair].between(None, OLD))
        assert len(loopback.requests) > ALLOWED_PER_SECOND
        assert loopback.n_refused == 0


def test_without_a_shared_pace_they_would_not():
    with serving_all_pairs(limit_per_second=ALLOWED_PER_SECOND) as loopback:
        fetch_old_candles(loopback, NoPace())
        assert loopback.n_refused > 0


def test_one_source_serves_several_threads():
    with serving_all_pairs() as loopback:
        source = source_at(loopback, "okx", n_threads=2)
        with ThreadPoolExecutor(len(PAIRS)) as pool:
            fetched = list(pool.map(lambda pair: fetch(source, key("okx", pair)), PAIRS))
        for pair, (pages, error) in zip(PAIRS, fetched, strict=True):
            assert error is None
            assert_same(pages, SERIES[pair].between(None, NOW - STEP))
        assert loopback.count("instruments") == 1


def test_at_least_one_page_is_fetched_at_a_time():
    with pytest.raises(InvalidInputError, match="n_threads=0"):
        ExchangeSource("binance", n_threads=0)


def test_the_settings_give_each_exchange_its_pace():
    asked = []

    class Counted(NoPace):
        def wait(self, seconds):
            asked.append(seconds)

    with loopback_of("bybit") as loopback:
        paces = {"bybit": Counted()}
        source = source_named("bybit", SourceSettings(base_url=loopback.base_url, pace=paces.__getitem__))
        source.check(key("bybit"))
        assert len(asked) == len(loopback.requests) == 2


# The stand-in itself


def test_candles_can_be_restated_and_added_while_the_exchange_runs():
    with loopback_of("binance", CANDLES.slice(0, 100)) as loopback:
        source = source_at(loopback, "binance")
        assert_same(fetch(source, key("binance"))[0], CANDLES.slice(0, 100))
        restated = Candles.from_arrays(
            CANDLES.timeframe,
            CANDLES.open_time_ms[:200],
            *(getattr(CANDLES, name)[:200] for name in ("open", "high", "low", "close")),
            CANDLES.volume[:200] * 2,
        )
        loopback.replace(key("binance"), restated)
        assert_same(fetch(source, key("binance"))[0], restated)


@pytest.mark.parametrize(
    ("name", "path", "query", "recorded", "rows_in"),
    [
        (
            "okx",
            "/api/v5/market/history-candles",
            {"instId": "BTC-USDT", "bar": "5m"},
            "okx_api-v5-market-candles_BTC-USDT-SWAP_1m_2025-05-12.json",
            lambda reply: reply["data"],
        ),
        (
            "coinbase",
            "/api/v3/brokerage/market/products/BTC-USDT/candles",
            {"granularity": "FIVE_MINUTE", "start": str(START // 1000), "end": str(START // 1000 + 3000)},
            "coinbase_advanced-trade-candles_BTC-USD_1h_2024-04-04.json",
            lambda reply: reply["candles"],
        ),
    ],
)
def test_the_loopback_gives_candles_in_the_recorded_shape(exchange_fixtures_dir, name, path, query, recorded, rows_in):
    recorded = json.loads((exchange_fixtures_dir / recorded).read_text())
    loopback = loopback_of(name)
    with loopback:
        ours = loopback.answer(path, query, None)[1]
    assert ours.keys() == recorded.keys()
    mine, theirs = rows_in(ours), rows_in(recorded)
    assert len(mine) > 1
    if isinstance(theirs[0], dict):
        assert mine[0].keys() == theirs[0].keys()
        assert int(mine[0]["start"]) > int(mine[1]["start"])
        assert int(theirs[0]["start"]) > int(theirs[1]["start"])
    else:
        assert len(mine[0]) == len(theirs[0])
        assert int(mine[0][0]) > int(mine[1][0])
        assert int(theirs[0][0]) > int(theirs[1][0])


def test_the_recorded_candles_of_coinbase_are_read(exchange_fixtures_dir):
    reply = json.loads(
        (exchange_fixtures_dir / "coinbase_advanced-trade-candles_BTC-USD_1h_2024-04-04.json").read_text()
    )
    first = int(reply["candles"][-1]["start"]) * 1000
    path = "/api/v3/brokerage/market/products/BTC-USD/candles"
    series = key("coinbase", "BTC/USD", "1h")
    traded = {series: Candles.from_arrays(Timeframe("1h"), np.array([first]), *np.ones((5, 1)))}
    with LoopbackExchange(traded, recorded={path: reply}) as loopback:
        (page,) = fetch(source_at(loopback, "coinbase"), series, first, first + 7_200_000)[0]
    assert page.candles.open_time_ms.tolist() == [first, first + 3_600_000]
    expected = [[float(row[name]) for row in reply["candles"][::-1]] for name in ("open", "high", "low", "close")]
    found = [getattr(page.candles, name).tolist() for name in ("open", "high", "low", "close")]
    assert found == expected
    assert page.candles.volume.tolist() == [358.74851052, 355.82896243]
