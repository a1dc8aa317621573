"""Candles through the real ccxt client from an exchange on this machine that does everything wrong."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tradepulse_pipeline.errors import InvalidInputError, SourceError, SourceUnreachableError
from tradepulse_pipeline.market.series import MS_PER_DAY, Market, SeriesKey, Timeframe
from tradepulse_pipeline.market.sources.exchange import ExchangeSource
from tradepulse_pipeline.market.sources.files import read_candle_file
from tradepulse_pipeline.market.sources.http import Patience, within
from tradepulse_pipeline.market.sources.registry import SourceSettings, check_exchange, exchange_names, source_named
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, SimulatedSource, simulate
from tradepulse_pipeline_tests.loopback import Fault, LoopbackExchange

STEP = 300_000
START = 1_704_067_200_000
BINANCE = SeriesKey.of("binance", "BTC/USDT", "5m")
KRAKEN = SeriesKey.of("kraken", "BTC/USDT", "5m")
CANDLES = simulate(
    Market.parse("simulated", "BTC/USDT"),
    Timeframe("5m"),
    START,
    START + 10 * MS_PER_DAY,
    SimulatedMarketSettings(outages_per_year=120),
)
#: In the middle of the last candle but three: 2 879 less what outages took have closed.
NOW = CANDLES.end_ms - 3 * STEP - STEP // 2
CLOSED = CANDLES.between(None, NOW - STEP)
#: Where the second and the third of Binance's pages of 1 000 begin, and how their requests are told.
SECOND, THIRD = START + 1000 * STEP, START + 2000 * STEP
FROM_SECOND, FROM_THIRD = f"startTime={SECOND}", f"startTime={THIRD}"


@pytest.fixture
def exchange():
    with LoopbackExchange({BINANCE: CANDLES, KRAKEN: CANDLES}, clock_ms=lambda: NOW) as loopback:
        yield loopback


class Waits(list[float]):
    """Takes the place of sleeping."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


class NoPace:
    """Takes the place of a pace: every turn comes at once, and holds are noted."""

    def __init__(self, holds):
        self._holds = holds

    def wait(self, seconds):
        assert seconds > 0

    def hold(self, seconds):
        self._holds.append(seconds)


def source_at(loopback, name="binance", **patience):
    waits = Waits()
    source = ExchangeSource(
        name,
        base_url=loopback.base_url,
        patience=Patience(**patience),
        pace=NoPace(waits),
        sleep=waits,
        jitter=lambda: 0.5,
    )
    return source, waits


def fetch(source, series=BINANCE, start=START, end=NOW):
    """Return the pages that came, and the error that ended them, if any."""
    pages = []
    try:
        for page in source.pages(series, start, end):
            pages.append(page)  # noqa: PERF402 - the pages before an error count
    except SourceError as error:
        return pages, error
    return pages, None


def joined(pages):
    assert all(before.candles.end_ms <= after.candles.open_time_ms[0] for before, after in pairwise(pages))
    return {
        name: np.concatenate([getattr(page.candles, name) for page in pages])
        for name in ("open_time_ms", "open", "high", "low", "close", "volume")
    }


def assert_same(pages, candles):
    for name, column in joined(pages).items():
        np.testing.assert_array_equal(column, getattr(candles, name), err_msg=name)


def test_the_loopback_has_gaps_and_a_running_candle():
    assert len(CANDLES) < 10 * 288
    assert 2_000 < len(CLOSED) < len(CANDLES)


@pytest.mark.parametrize("name", ["binance", "binanceus"])
def test_pages_hold_every_closed_candle_once(name):
    series = SeriesKey.of(name, "BTC/USDT", "5m")
    with LoopbackExchange({series: CANDLES}, clock_ms=lambda: NOW) as loopback:
        source, waits = source_at(loopback, name)
        source.check(series)
        pages, error = fetch(source, series)
        assert_same(pages, CLOSED)
        assert (error, waits, loopback.count("klines")) == (None, [], 3)
        expected = [CLOSED.between(START, SECOND), CLOSED.between(SECOND, THIRD), CLOSED.between(THIRD, None)]
        assert [len(page.candles) for page in pages] == [len(one) for one in expected]
        assert all((page.rejected, page.n_duplicates, page.warning) == ((), 0, "") for page in pages)


def test_real_candles_arrive_as_they_are(market_data_dir):
    month = read_candle_file(market_data_dir / "binance_BTC-USDT_5m.parquet", Timeframe("5m")).candles.slice(0, 8_928)
    with LoopbackExchange({BINANCE: month}) as loopback:
        pages, _ = fetch(source_at(loopback)[0], start=int(month.open_time_ms[0]), end=month.end_ms)
    assert_same(pages, month)


@pytest.mark.parametrize(("first", "last"), [(0, 1), (10, 1500), (999, 1001), (7, 7)])
def test_a_range_is_half_open_and_need_not_be_on_the_grid(exchange, first, last):
    source, _ = source_at(exchange)
    start, end = int(CLOSED.open_time_ms[first]), int(CLOSED.open_time_ms[last])
    assert sum(len(page.candles) for page in fetch(source, start=start, end=end)[0]) == last - first
    assert sum(len(page.candles) for page in fetch(source, start=start - 1, end=end + 1)[0]) == last - first + 1


def test_a_page_is_there_before_the_next_one_is_asked_for(exchange):
    pages = source_at(exchange)[0].pages(BINANCE, START, NOW)
    assert next(pages).candles.end_ms == SECOND
    assert exchange.count("klines") == 1
    pages.close()


def test_a_later_run_goes_on_from_there(exchange):
    source, _ = source_at(exchange)
    middle = int(CLOSED.open_time_ms[1234])
    assert_same([*fetch(source, end=middle)[0], *fetch(source, start=middle)[0]], CLOSED)


def test_every_address_of_the_client_is_the_given_one(exchange):
    def texts(value):
        return [value] if isinstance(value, str) else [text for part in value.values() for text in texts(part)]

    for name in ("binance", "kraken", "okx", "coinbase"):
        addresses = texts(source_at(exchange, name)[0].client.urls["api"])
        assert all(address.startswith(f"{exchange.base_url}") for address in addresses), addresses


# What passes


def test_a_rate_limit_is_waited_for_as_long_as_told(exchange):
    exchange.inject(Fault(kind="status", status=429, retry_after="7", path="klines", skip=1))
    source, waits = source_at(exchange)
    assert_same(fetch(source)[0], CLOSED)
    assert (waits, exchange.count("klines")) == ([7.0], 4)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="status", status=429, path="klines", times=2),
        Fault(kind="status", status=500, path="exchangeInfo", times=2),
        Fault(kind="status", status=503, path="klines", query=FROM_THIRD, times=4),
        Fault(kind="reset", path="time"),
        Fault(kind="reset", path="klines", query=FROM_SECOND, times=3),
        Fault(kind="short_body", path="klines", query=FROM_SECOND),
        Fault(kind="truncated_json", path="klines", query=FROM_SECOND),
        Fault(kind="html", path="klines", query=FROM_SECOND, times=2),
        Fault(kind="html", path="exchangeInfo"),
        Fault(kind="empty_body", path="klines", query=FROM_THIRD),
        Fault(kind="other_json", path="klines", query=FROM_SECOND),
        Fault(kind="other_json", path="klines", body='{"symbol": null}'),
        Fault(kind="other_json", path="klines", body="[1, 2, 3]"),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.path}",
)
def test_what_passes_changes_nothing(exchange, fault):
    exchange.inject(fault)
    source, waits = source_at(exchange)
    pages, error = fetch(source)
    assert error is None
    assert_same(pages, CLOSED)
    assert waits == [2.0**attempt for attempt in range(fault.times)]


def test_waits_grow_up_to_a_limit_and_are_spread():
    patience = Patience(first_wait_s=1, longest_wait_s=10)
    assert [patience.wait_s(attempt, 0.5) for attempt in range(1, 7)] == [1, 2, 4, 8, 10, 10]
    assert (patience.wait_s(3, 0.0), patience.wait_s(3, 0.99)) == (2.0, pytest.approx(5.96))


@pytest.mark.parametrize("kind", ["duplicated_page", "overlapping_page"])
def test_repeated_rows_count_once(exchange, kind):
    exchange.inject(Fault(kind=kind, path="klines", times=2))
    pages, _ = fetch(source_at(exchange)[0])
    assert_same(pages, CLOSED)
    assert sum(page.n_duplicates for page in pages) > 0


def test_short_pages_are_followed_from_their_last_candle(exchange):
    exchange.inject(Fault(kind="partial_page", path="klines", times=3))
    assert_same(fetch(source_at(exchange)[0])[0], CLOSED)
    assert exchange.count("klines") == 5


def test_an_empty_page_is_asked_for_again(exchange):
    exchange.inject(Fault(kind="empty_page", path="klines", skip=1))
    assert_same(fetch(source_at(exchange)[0])[0], CLOSED)


def test_an_empty_page_in_mid_history_is_a_gap_and_not_the_end(exchange):
    exchange.inject(Fault(kind="empty_page", path="klines", query=FROM_SECOND, times=2))
    pages, error = fetch(source_at(exchange)[0])
    lost = (CLOSED.open_time_ms >= SECOND) & (CLOSED.open_time_ms < THIRD)
    assert error is None
    assert joined(pages)["open_time_ms"].tolist() == CLOSED.open_time_ms[~lost].tolist()


def test_rows_that_are_no_candles_are_set_aside(exchange):
    exchange.inject(Fault(kind="nonsense_page", path="klines"))
    pages, _ = fetch(source_at(exchange)[0])
    (rejected,) = pages[0].rejected
    assert (rejected.row, rejected.values[0]) == (6, CLOSED.open_time_ms[5])
    assert rejected.reason == "with a value that is missing or not a number"
    assert joined(pages)["open_time_ms"].tolist() == np.delete(CLOSED.open_time_ms, 5).tolist()


def test_a_restated_candle_is_handed_on_as_restated(exchange):
    source, _ = source_at(exchange)
    before, _ = fetch(source, end=START + 10 * STEP)
    exchange.inject(Fault(kind="restated_page", path="klines"))
    after, _ = fetch(source, end=START + 10 * STEP)
    np.testing.assert_array_equal(after[0].candles.volume, before[0].candles.volume * 1.5)
    np.testing.assert_array_equal(after[0].candles.close, before[0].candles.close)


# What does not


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(kind="status", status=503, path="klines", query=FROM_THIRD, times=None), "answered HTTP 503"),
        (Fault(kind="status", status=429, path="klines", query=FROM_THIRD, times=None), "answered HTTP 429"),
        (
            Fault(kind="html", path="klines", query=FROM_THIRD, times=None),
            "sent no JSON .HTTP 200, 61 characters, text/html",
        ),
        (Fault(kind="empty_body", path="klines", query=FROM_THIRD, times=None), "sent no JSON .HTTP 200, 0 characters"),
        (Fault(kind="truncated_json", path="klines", query=FROM_THIRD, times=None), "sent no JSON"),
        (Fault(kind="short_body", path="klines", query=FROM_THIRD, times=None), "cut its reply short"),
        (Fault(kind="other_json", path="klines", query=FROM_THIRD, times=None), "answered without a list of candles"),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_what_lasts_ends_in_an_error_and_the_pages_before_hold(exchange, fault, message):
    exchange.inject(fault)
    source, waits = source_at(exchange, attempts=3)
    pages, error = fetch(source)
    assert_same(pages, CLOSED.between(None, THIRD))
    assert not isinstance(error, SourceUnreachableError)
    assert str(error).startswith("binance fails (3 attempts to get BTC/USDT candles since 2024-01-0")
    with pytest.raises(SourceError, match=message):
        raise error
    assert (len(waits), exchange.count("klines")) == (2, 2 + 3)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            Fault(kind="status", status=418, retry_after="900", path="klines", query=FROM_SECOND),
            "banned this address for 900 s",
        ),
        (
            Fault(kind="status", status=403, path="klines", query=FROM_SECOND),
            "refuses requests from here .HTTP 403.*another exchange",
        ),
        (
            Fault(kind="status", status=451, path="klines", query=FROM_SECOND),
            "refuses requests from here .HTTP 451.*another exchange",
        ),
        (Fault(kind="status", status=404, path="klines", query=FROM_SECOND), "answered HTTP 404"),
        (Fault(kind="redirect", path="klines", query=FROM_SECOND), "redirects .* to 'http://elsewhere.invalid/'"),
        (
            Fault(kind="status", status=429, retry_after="86400", path="klines", query=FROM_SECOND),
            "asks to wait 86400 s",
        ),
    ],
    ids=lambda value: getattr(value, "status", None),
)
def test_a_refusal_is_not_argued_with(exchange, fault, message):
    exchange.inject(fault)
    source, waits = source_at(exchange)
    pages, error = fetch(source)
    with pytest.raises(SourceError, match=message):
        raise error
    # Only a venue that refuses this place is out of reach: training may then go on without it.
    assert isinstance(error, SourceUnreachableError) == (fault.status in {403, 451})
    # The page after it may have been asked for at the same time.
    assert waits == []
    assert exchange.count("klines") in {2, 3}
    assert_same(pages, CLOSED.between(None, SECOND))


def test_a_redirect_is_not_followed_to_another_host(exchange):
    with LoopbackExchange({BINANCE: CANDLES}, clock_ms=lambda: NOW) as other:
        exchange.inject(Fault(kind="redirect", location=f"{other.base_url}/api/v3/time"))
        with pytest.raises(SourceError, match="redirects are not followed"):
            source_at(exchange)[0].check(BINANCE)
        assert other.requests == []


def test_a_reply_that_drips_is_not_waited_for(exchange):
    exchange.inject(Fault(kind="drip", path="klines", query=FROM_SECOND, times=None))
    source, waits = source_at(exchange, attempts=2, deadline_s=1.5)
    pages, error = fetch(source)
    assert_same(pages, CLOSED.between(None, SECOND))
    assert "no full reply within 1.5 s" in str(error)
    assert len(waits) == 1


def test_work_that_fails_in_time_fails_as_itself():
    assert within(5, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 // 0)


def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize("name", ["binance", "kraken", "bitstamp"])
def test_no_connection_is_said_after_two_attempts(name):
    waits = Waits()
    source = ExchangeSource(name, base_url=f"http://127.0.0.1:{closed_port()}", sleep=waits, pace=NoPace(waits))
    message = (
        r"cannot be reached \(2 attempts\): no connection to 127.0.0.1:\d+: Connection refused. Check the network."
    )
    with pytest.raises(SourceUnreachableError, match=rf"^{name} {message}$"):
        source.check(SeriesKey.of(name, "BTC/USDT", "5m"))
    assert len(waits) == 1


def test_an_exchange_that_answers_with_errors_is_not_unreachable(exchange):
    exchange.inject(Fault(kind="status", status=502, times=None))
    with pytest.raises(SourceError, match="HTTP 502") as caught:
        source_at(exchange)[0].check(BINANCE)
    assert not isinstance(caught.value, SourceUnreachableError)


# Clocks


@pytest.mark.parametrize("years", [-5, 0, 20])
def test_a_candle_has_closed_when_the_clock_of_the_exchange_says_so(years):
    shift = years * 365 * MS_PER_DAY
    shifted = type(CANDLES).from_arrays(
        CANDLES.timeframe,
        CANDLES.open_time_ms + shift,
        *(getattr(CANDLES, name) for name in ("open", "high", "low", "close", "volume")),
    )
    for offset, n_closed in [(0, 2), (STEP - 1, 2), (STEP, 3)]:
        now = int(shifted.open_time_ms[2]) + offset
        with LoopbackExchange({BINANCE: shifted}, clock_ms=lambda now=now: now) as loopback:
            pages, _ = fetch(source_at(loopback)[0], start=START + shift, end=now + 10 * STEP)
        assert_same(pages, shifted.slice(0, n_closed))
        assert all(page.rejected == () for page in pages)


# Names


def test_an_unknown_name_is_answered_with_the_nearest_ones(exchange):
    source, _ = source_at(exchange)
    with pytest.raises(InvalidInputError, match=r"Unknown pair 'BTC/USTD' in binance\. Did you mean 'BTC/USDT'"):
        source.check(SeriesKey.of("binance", "BTC/USTD", "5m"))
    with pytest.raises(InvalidInputError, match="Unknown pair"):
        next(source.pages(SeriesKey.of("binance", "BTC/USTD", "5m"), START, NOW))
    kraken, _ = source_at(exchange, "kraken")
    with pytest.raises(InvalidInputError, match=r"Unknown timeframe '2h' in kraken.* Allowed: 1m, 5m, 15m, 30m, 1h"):
        kraken.check(SeriesKey.of("kraken", "BTC/USDT", "2h"))
    with pytest.raises(InvalidInputError, match=r"Unknown exchange 'binnance'\. Did you mean 'binance'"):
        check_exchange("binnance")


def test_the_factory_knows_the_simulated_market_and_the_exchanges(exchange):
    assert exchange_names()[0] == "simulated"
    assert {"binance", "binanceus", "kraken"} <= set(exchange_names())
    simulated = SimulatedMarketSettings(seed=5)
    source = source_named("simulated", SourceSettings(simulated=simulated))
    assert isinstance(source, SimulatedSource)
    assert source.settings is simulated
    binance = source_named("binance", SourceSettings(base_url=exchange.base_url))
    binance.check(BINANCE)
    assert (binance.name, exchange.count("exchangeInfo")) == ("binance", 1)


# Kraken


def test_kraken_gives_its_latest_candles_and_says_what_it_does_not_give(exchange):
    source, _ = source_at(exchange, "kraken")
    source.check(KRAKEN)
    (page,) = fetch(source, KRAKEN)[0]
    assert len(page.candles) == 720
    assert page.candles.end_ms == CLOSED.end_ms
    shared = np.isin(page.candles.open_time_ms, CLOSED.open_time_ms)
    expected = CLOSED.between(int(page.candles.open_time_ms[0]), None)
    np.testing.assert_array_equal(page.candles.close[shared], expected.close)
    np.testing.assert_array_equal(page.candles.volume[shared], expected.volume)
    assert page.warning.startswith("History unavailable beyond 2024-01-08T11:40Z: kraken gives only the latest 720")
    assert '([source_order] in tradepulse.toml: kraken = ["kraken", "kraken.trades"])' in page.warning
    assert "tradepulse import FILE --exchange kraken --pair BTC/USDT --timeframe 5m" in page.warning


def test_kraken_has_nothing_of_the_distant_past(exchange):
    pages, error = fetch(source_at(exchange, "kraken")[0], KRAKEN, end=START + MS_PER_DAY)
    assert pages == []
    assert "History unavailable beyond 2024-01-08T11:40Z" in str(error)


def test_kraken_has_the_last_days_without_a_warning(exchange):
    start = NOW // STEP * STEP - 700 * STEP
    (page,) = fetch(source_at(exchange, "kraken")[0], KRAKEN, start=start)[0]
    assert (page.candles.open_time_ms[0], page.warning) == (start, "")


@pytest.mark.parametrize("text", ["EService:Busy", "EAPI:Rate limit exceeded", "EService:Unavailable"])
def test_an_error_in_a_good_reply_of_kraken_is_waited_out(exchange, text):
    exchange.inject(Fault(kind="other_json", path="OHLC", body=json.dumps({"error": [text]})))
    source, waits = source_at(exchange, "kraken")
    (page,) = fetch(source, KRAKEN)[0]
    assert (len(page.candles), len(waits)) == (720, 1)


def test_a_history_that_begins_later_is_said(exchange):
    pages, _ = fetch(source_at(exchange)[0], start=START - 7 * MS_PER_DAY)
    assert_same(pages, CLOSED)
    assert pages[0].warning == (
        "binance has no BTC/USDT candles from 2023-12-25T00:00Z to 2024-01-01T00:00Z: "
        "its history begins later or has a gap there."
    )
    assert fetch(source_at(exchange)[0], start=START - 7 * MS_PER_DAY, end=START) == ([], None)


# Recorded replies


def test_the_recorded_reply_of_kraken_is_read_without_its_running_candle(exchange_fixtures_dir):
    reply = json.loads((exchange_fixtures_dir / "kraken_0-public-OHLC_XBTUSDT_1m_2025-11-10.json").read_text())
    pairs = json.loads((exchange_fixtures_dir / "kraken_0-public-AssetPairs_XBTUSDT_2025-11-10.json").read_text())
    rows = reply["result"]["XBTUSDT"]
    recorded = {"/0/public/OHLC": reply, "/0/public/AssetPairs": pairs}
    series = SeriesKey.of("kraken", "BTC/USDT", "1m")
    now = rows[-1][0] * 1000 + 30_000
    with LoopbackExchange({}, clock_ms=lambda: now, recorded=recorded) as loopback:
        (page,) = fetch(source_at(loopback, "kraken")[0], series, start=rows[0][0] * 1000, end=now)[0]
    expected = np.array([[float(value) for value in (*row[:5], row[6])] for row in rows[:-1]])
    assert page.candles.open_time_ms.tolist() == (expected[:, 0] * 1000).tolist()
    found = np.stack([getattr(page.candles, name) for name in ("open", "high", "low", "close", "volume")], axis=1)
    np.testing.assert_array_equal(found, expected[:, 1:])
    assert (page.candles.volume == 0).sum() == 215  # the running candle is the 216th
    assert page.warning == ""


def test_the_recorded_reply_of_binance_is_read(exchange_fixtures_dir):
    rows = json.loads((exchange_fixtures_dir / "binance_api-v3-klines_BTCUSDT_1m_2021-10-22.json").read_text())
    info = json.loads((exchange_fixtures_dir / "binance_api-v3-exchangeInfo_2021-10-12.some-symbols.json").read_text())
    recorded = {"/api/v3/klines": rows, "/api/v3/exchangeInfo": info}
    with LoopbackExchange({}, recorded=recorded) as loopback:
        source, _ = source_at(loopback)
        series = SeriesKey.of("binance", "BTC/USDT", "1m")
        (page,) = fetch(source, series, start=rows[0][0], end=rows[-1][0] + 60_000)[0]
        assert page.candles.open_time_ms.tolist() == [row[0] for row in rows]
        assert page.candles.close.tolist() == [float(row[4]) for row in rows]
        assert page.candles.volume.tolist() == [float(row[5]) for row in rows]
        for pair, nearest in [("VEN/USDT", "no longer trades VEN/USDT"), ("SOL/USTD", "Did you mean 'SOL/USDT'")]:
            with pytest.raises(InvalidInputError, match=nearest):
                source.check(SeriesKey.of("binance", pair, "1m"))


def test_the_loopback_speaks_in_the_recorded_shapes(exchange_fixtures_dir):
    info = json.loads((exchange_fixtures_dir / "binance_api-v3-exchangeInfo_2021-10-12.some-symbols.json").read_text())
    pairs = json.loads((exchange_fixtures_dir / "kraken_0-public-AssetPairs_XBTUSDT_2025-11-10.json").read_text())
    loopback = LoopbackExchange({BINANCE: CANDLES, KRAKEN: CANDLES}, clock_ms=lambda: NOW)
    with loopback:
        ours = loopback.answer("/api/v3/exchangeInfo", {}, None)[1]
        assert ours.keys() <= info.keys()
        assert ours["symbols"][0].keys() <= info["symbols"][0].keys()
        ours = loopback.answer("/0/public/AssetPairs", {}, None)[1]["result"]["XBTUSDT"]
        recorded = pairs["result"]["XBTUSDT"]
        assert ours.keys() <= recorded.keys()
        assert all(ours[name] == recorded[name] for name in ("altname", "wsname", "base", "quote", "status"))


def test_the_loopback_starts_by_hand(tmp_path):
    from_here = Path(__file__).parents[3]
    path = tmp_path / "binance_BTC-USDT_5m.csv"
    path.write_text("\n".join(f"{START + at * STEP},10,12,9,11,5" for at in range(5)))
    command = [sys.executable, "-m", "tradepulse_pipeline_tests.loopback", "--candles", str(path)]
    options = ["--fault", "html,path=klines", "--limit", "100", "--latency", "0.001"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True, cwd=from_here) as process:
        try:
            base_url = process.stdout.readline().strip()
            waits = Waits()
            source = ExchangeSource("binance", base_url=base_url, sleep=waits)
            (page,) = source.pages(BINANCE, START, START + MS_PER_DAY)
            assert page.candles.open_time_ms.tolist() == [START + at * STEP for at in range(5)]
            assert len(waits) == 1
        finally:
            process.kill()
