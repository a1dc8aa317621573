"""Candles from single trades, through the real ccxt client, from an exchange that loses some."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tradepulse_pipeline.errors import InvalidInputError, SourceError
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.resampling import resample
from tradepulse_pipeline.market.series import MS_PER_DAY, Market, SeriesKey, Timeframe
from tradepulse_pipeline.market.sources.exchange import ExchangeSource, Patience
from tradepulse_pipeline.market.sources.registry import source_named
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate
from tradepulse_pipeline.market.sources.times import iso_utc
from tradepulse_pipeline.market.sources.trades import PAGE_SIZE, TradesSource
from tradepulse_pipeline.market.trades import Trades, candles_of_trades, missing_ids
from tradepulse_pipeline_tests.loopback import Fault, LoopbackExchange
from tradepulse_pipeline_tests.loopback.trades import trades_of_candles

STEP = 300_000
START = 1_704_067_200_000
SERIES = {name: SeriesKey.of(name, "BTC/USDT", "5m") for name in ("kraken", "binance")}
PATHS = {"kraken": "Trades", "binance": "aggTrades"}
SIMULATED = simulate(
    Market.parse("simulated", "BTC/USDT"),
    Timeframe("5m"),
    START,
    START + 5 * MS_PER_DAY,
    SimulatedMarketSettings(outages_per_year=120),
)
#: Volumes of whole 1024ths: the sums of their parts are exact in any order.
SIMULATED = replace(SIMULATED, volume=np.round(SIMULATED.volume * 1024) / 1024)
#: In the middle of the last candle but three.
NOW = SIMULATED.end_ms - 3 * STEP - STEP // 2
TRADES = trades_of_candles(SIMULATED, seed=1, first_id=41)


def traded(candles):
    """Return the candles with a trade in them."""
    rows = candles.volume > 0
    columns = (getattr(candles, name)[rows] for name in ("open_time_ms", "open", "high", "low", "close", "volume"))
    return Candles.from_arrays(candles.timeframe, *columns)


CLOSED = traded(SIMULATED.between(None, NOW - STEP))


def loopback(trades=TRADES, **options):
    return LoopbackExchange(
        dict.fromkeys(SERIES.values(), SIMULATED),
        trades={series.market: trades for series in SERIES.values()},
        clock_ms=lambda: NOW,
        **options,
    )


@pytest.fixture
def exchange():
    with loopback() as exchange:
        yield exchange


def source_at(exchange, name="kraken", **patience):
    venue = ExchangeSource(
        name,
        base_url=exchange.base_url,
        patience=Patience(**patience),
        sleep=lambda _: None,
        jitter=lambda: 0.5,
    )
    venue.client.enableRateLimit = False
    return TradesSource(venue)


def fetch(source, series=SERIES["kraken"], start=START, end=NOW):
    return list(source.pages(series, start, end))


def assert_same(pages, candles):
    assert all(before.candles.end_ms <= after.candles.open_time_ms[0] for before, after in pairwise(pages))
    found = Candles.joined(candles.timeframe, [page.candles for page in pages])
    for name in ("open_time_ms", "open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(getattr(found, name), getattr(candles, name), err_msg=name)


def warnings(pages):
    return [page.warning for page in pages if page.warning]


def without(trades, *ids):
    return trades.take(~np.isin(trades.trade_id, ids))


@pytest.mark.parametrize("name", SERIES)
@pytest.mark.parametrize("n_shared", [2, 3, 40])
def test_trades_of_one_nanosecond_may_lie_on_both_sides_of_a_page_s_edge(name, n_shared):
    time_ms = TRADES.time_ms[:2_400].copy()
    edge = slice(PAGE_SIZE - n_shared // 2, PAGE_SIZE + n_shared - n_shared // 2)
    time_ms[edge] = time_ms[edge.start]
    trades = replace(TRADES.take(slice(0, 2_400)), time_ms=time_ms)
    with loopback(trades) as exchange:
        pages = fetch(source_at(exchange, name), SERIES[name])
        assert_same(pages, candles_of_trades(trades, Timeframe("5m")))
        if name == "kraken":
            assert exchange.count("Trades") == 3 + 2  # three pages, and twice what shows that these are all
    assert warnings(pages) == []


@pytest.mark.parametrize("name", SERIES)
def test_the_candles_are_those_of_the_series(exchange, name):
    source = source_at(exchange, name)
    source.check(SERIES[name])
    pages = fetch(source, SERIES[name])
    assert_same(pages, CLOSED)
    assert (source.name, warnings(pages)) == (f"{name}.trades", [])
    assert len(pages) > 5
    if name == "kraken":
        assert exchange.count("Trades") == 6  # nothing had to be asked for twice


@pytest.mark.parametrize("name", SERIES)
@pytest.mark.parametrize(("first", "last"), [(0, 1), (30, 900), (249, 251), (7, 7), (1100, 1300)])
def test_a_range_is_half_open_and_need_not_be_on_the_grid(exchange, name, first, last):
    start, end = int(CLOSED.open_time_ms[first]), int(CLOSED.open_time_ms[last])
    source = source_at(exchange, name)
    assert_same(fetch(source, SERIES[name], start - 1, end), CLOSED.slice(first, last))
    assert_same(fetch(source, SERIES[name], start, end + 1), CLOSED.slice(first, last + 1))


@pytest.mark.parametrize("name", SERIES)
@pytest.mark.parametrize("timeframe", ["15m", "2h", "1d"])
def test_longer_candles_are_those_of_the_shorter_ones(exchange, name, timeframe):
    series = SeriesKey.of(name, "BTC/USDT", timeframe)
    pages = fetch(source_at(exchange, name), series)
    step = series.timeframe.milliseconds
    expected = resample(CLOSED, series.timeframe, start_ms=START, end_ms=NOW // step * step)
    found = Candles.joined(series.timeframe, [page.candles for page in pages])
    assert found.open_time_ms.tolist() == expected.open_time_ms.tolist()
    for column in ("open", "high", "low", "close"):
        np.testing.assert_array_equal(getattr(found, column), getattr(expected, column))
    np.testing.assert_allclose(found.volume, expected.volume, rtol=1e-12)


@pytest.mark.parametrize("name", SERIES)
def test_a_killed_run_goes_on_from_its_last_candle(exchange, name):
    kept, start = [], START
    for _ in range(20):
        stream = source_at(exchange, name).pages(SERIES[name], start, NOW)
        page = next(stream, None)
        stream.close()
        if page is None:
            break
        kept.append(page)
        start = page.candles.end_ms
    assert_same(kept, CLOSED)


def test_a_page_is_there_before_the_next_one_is_asked_for(exchange):
    pages = source_at(exchange).pages(SERIES["kraken"], START, NOW)
    assert 200 < len(next(pages).candles) <= 250
    assert exchange.count("Trades") == 1
    pages.close()


@pytest.mark.parametrize("name", SERIES)
@pytest.mark.parametrize(
    ("kind", "times"),
    [
        ("edge_page", None),
        ("hole_page", 1),
        ("hole_page", None),
        ("partial_page", 3),
        ("stale_page", 1),
        ("duplicated_page", 4),
        ("overlapping_page", 4),
        ("empty_page", 1),
        ("reset", 2),
        ("truncated_json", 2),
    ],
)
def test_what_a_page_loses_or_doubles_changes_nothing(exchange, name, kind, times):
    exchange.inject(Fault(kind=kind, path=PATHS[name], skip=1, times=times))
    pages = fetch(source_at(exchange, name), SERIES[name])
    assert_same(pages, CLOSED)
    assert warnings(pages) == []


def test_a_trade_that_is_none_is_asked_for_again(exchange):
    row = ["NaN", "-1", 0, "b", "m", "", 46]
    honest = kraken_reply(TRADES.take(slice(0, 10)))
    broken = json.loads(json.dumps(honest))
    broken["result"]["XBTUSDT"][5] = [*row[:2], honest["result"]["XBTUSDT"][5][2], *row[3:]]
    exchange.inject(Fault(kind="other_json", path="Trades", body=json.dumps(broken)))
    pages = fetch(source_at(exchange))
    assert_same(pages, CLOSED)
    assert warnings(pages) == []


def kraken_reply(trades):
    rows = [
        [str(price), str(amount), time_ms / 1000, "b", "m", "", trade_id]
        for trade_id, time_ms, price, amount in zip(
            trades.trade_id.tolist(), trades.time_ms.tolist(), trades.price, trades.amount, strict=True
        )
    ]
    return {"error": [], "result": {"XBTUSDT": rows, "last": str(int(trades.time_ms[-1]) * 1_000_000)}}


@pytest.mark.parametrize("name", SERIES)
def test_a_trade_that_the_exchange_never_gives_is_reported(name):
    row = 4 * 760 + 1  # a candle's second trade
    lost = TRADES.trade_id[[row, row + 1, row + 401]].tolist()
    opened = [int(TRADES.time_ms[at]) // STEP * STEP for at in (row, row + 401)]
    with loopback(without(TRADES, *lost)) as exchange:
        pages = fetch(source_at(exchange, name), SERIES[name])
    (warning,) = warnings(pages)
    assert warning.startswith(
        f"{name} does not give 3 BTC/USDT trades (ids {lost[0]} to {lost[1]}, {lost[2]}): 5m candles from around them"
    )
    for time in opened:
        assert iso_utc(time) in warning
    found = Candles.joined(CLOSED.timeframe, [page.candles for page in pages])
    assert found.open_time_ms.tolist() == CLOSED.open_time_ms.tolist()
    differ = found.open_time_ms[found.volume != CLOSED.volume]
    assert differ.tolist() == opened


def test_trades_at_one_time_that_fill_more_than_a_page_are_passed_and_the_rest_reported():
    """Kraken cannot be asked for what comes after the 1,000th trade of a nanosecond."""
    n = 2_500
    time_ms = np.append(np.full(n, START), START + STEP)
    ones = np.ones(n + 1)
    trades = Trades.from_arrays(np.arange(n + 1) + 1, time_ms, ones, ones, ones)
    with loopback(trades) as exchange:
        pages = fetch(source_at(exchange))
    (warning,) = warnings(pages)
    assert "does not give 1500 BTC/USDT trades (ids 1001 to 2500)" in warning
    assert sum(len(page.candles) for page in pages) == 2


@pytest.mark.parametrize("name", SERIES)
def test_a_history_that_begins_later_is_said(exchange, name):
    pages = fetch(source_at(exchange, name), SERIES[name], start=START - 30 * MS_PER_DAY)
    assert_same(pages, CLOSED)
    assert warnings(pages) == [
        f"{name} has no BTC/USDT trades from 2023-12-02T00:00Z to {iso_utc(int(TRADES.time_ms[0]))}: "
        "its history begins later or has a gap there."
    ]


@pytest.mark.parametrize("name", SERIES)
def test_nothing_traded_is_nothing(exchange, name):
    source = source_at(exchange, name)
    assert fetch(source, SERIES[name], start=START - 7 * MS_PER_DAY, end=START) == []
    assert fetch(source, SERIES[name], start=NOW, end=NOW + MS_PER_DAY) == []
    with loopback(TRADES.take(slice(0, 0))) as silent:
        assert fetch(source_at(silent, name), SERIES[name]) == []


def test_a_late_start_takes_few_requests_where_trades_are_paged_by_id(exchange):
    fetch(source_at(exchange, "binance"), SERIES["binance"], start=NOW - 3 * STEP)
    assert exchange.count("aggTrades") <= 3


@pytest.mark.parametrize(("name", "skip"), [("kraken", 4), ("binance", 8)])
def test_what_lasts_ends_in_an_error_and_the_pages_before_hold(exchange, name, skip):
    exchange.inject(Fault(kind="empty_page", path=PATHS[name], skip=skip, times=None))
    source = source_at(exchange, name, attempts=2)
    pages = []

    def go_on():
        for page in source.pages(SERIES[name], START - MS_PER_DAY, NOW + MS_PER_DAY):
            pages.append(page)  # noqa: PERF402 - the pages before the error count

    with pytest.raises(SourceError, match=rf"^{name} fails \(2 attempts .*answered without trades"):
        go_on()
    found = Candles.joined(CLOSED.timeframe, [page.candles for page in pages])
    assert_same(pages, CLOSED.slice(0, len(found)))
    assert 0 < len(found) < len(CLOSED)


def test_trades_without_ids_are_refused(exchange):
    reply = kraken_reply(TRADES.take(slice(0, 3)))
    reply["result"]["XBTUSDT"] = [row[:6] for row in reply["result"]["XBTUSDT"]]
    exchange.inject(Fault(kind="other_json", path="Trades", body=json.dumps(reply), times=None))
    with pytest.raises(SourceError, match=r"gives BTC/USDT trades without ids.*archive files"):
        fetch(source_at(exchange))


def test_an_exchange_whose_trades_cannot_be_gone_through_is_refused():
    with pytest.raises(InvalidInputError, match=r"trades of bybit.*Exchanges where they can: kraken, binance"):
        TradesSource(ExchangeSource("bybit"))
    with pytest.raises(InvalidInputError, match=r"Unknown source 'bybit\.trades'"):
        source_named("bybit.trades")


def test_the_factory_knows_the_trades():
    source = source_named("kraken.trades")
    assert isinstance(source, TradesSource)
    assert source.name == "kraken.trades"
    assert {"1m", "2h", "1d"} <= set(source.offer().timeframes)


def test_the_recorded_trades_make_the_recorded_candles(exchange_fixtures_dir):
    def reply(name):
        return json.loads((exchange_fixtures_dir / f"kraken_0-public-{name}_2025-11-10.json").read_text())

    trades, candles, pairs = reply("Trades_XBTUSDT"), reply("OHLC_XBTUSDT_1m"), reply("AssetPairs_XBTUSDT")
    recorded = trades["result"]["XBTUSDT"]
    now = int(recorded[-1][2] * 1000)
    minute = 60_000
    start = -(-int(recorded[0][2] * 1000) // minute) * minute
    series = SeriesKey.of("kraken", "BTC/USDT", "1m")
    replies = {"/0/public/AssetPairs": pairs, "/0/public/Trades": trades}
    with LoopbackExchange({}, clock_ms=lambda: now, recorded=replies) as exchange:
        pages = fetch(source_at(exchange), series, start, now)
    found = Candles.joined(series.timeframe, [page.candles for page in pages])
    rows = [row for row in candles["result"]["XBTUSDT"] if start <= row[0] * 1000 <= now - minute]
    expected = np.array([[float(value) for value in (*row[:5], row[6])] for row in rows if float(row[6]) > 0])
    assert len(expected) == 272
    assert found.open_time_ms.tolist() == (expected[:, 0] * 1000).tolist()
    for column, values in zip(("open", "high", "low", "close"), expected[:, 1:5].T, strict=True):
        np.testing.assert_array_equal(getattr(found, column), values)
    np.testing.assert_array_equal(found.volume.round(8), expected[:, 5])


def test_the_trades_of_the_loopback_have_the_recorded_shape(exchange_fixtures_dir, exchange):
    def recorded(name):
        return json.loads((exchange_fixtures_dir / name).read_text())

    theirs = recorded("kraken_0-public-Trades_XBTUSDT_2025-11-10.json")
    _, ours = exchange.answer("/0/public/Trades", {"pair": "XBTUSDT", "since": "1704067200"}, None)
    assert ours["result"].keys() == theirs["result"].keys()
    types = [type(value) for value in theirs["result"]["XBTUSDT"][0]]
    assert [type(value) for value in ours["result"]["XBTUSDT"][0]] == types
    assert len(ours["result"]["XBTUSDT"]) == len(theirs["result"]["XBTUSDT"]) == PAGE_SIZE
    aggregate = recorded("binance_api-v3-aggTrades_BTCUSDT_2021-10-22.json")[0]
    _, ours = exchange.answer("/api/v3/aggTrades", {"symbol": "BTCUSDT"}, None)
    assert {name: type(value) for name, value in ours[0].items()} == {
        name: type(value) for name, value in aggregate.items()
    }
    assert len(missing_ids(TRADES)) == 0
