"""Recordings of real exchanges, replayed through the decoders and checks that the live feed uses."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tradepulse_pipeline.errors import CandleError, InvalidInputError
from tradepulse_pipeline.market.live.book import Book, book_at
from tradepulse_pipeline.market.live.dialects import BinanceDialect, KrakenDialect
from tradepulse_pipeline.market.live.events import CandleClosed, DepthChanged, Event, Level, TradesMade
from tradepulse_pipeline.market.live.replay import replay
from tradepulse_pipeline.market.live.sequence import DepthSequence, Runs
from tradepulse_pipeline.market.series import Market

KRAKEN_PAIRS = [
    "WAVES/EUR",
    "XMR/USD",
    "KSM/BTC",
    "GRT/ETH",
    "SC/EUR",
    "ETH/CHF",
    "OCEAN/BTC",
    "OMG/USD",
    "BTC/CHF",
    "ADA/BTC",
]


def told(folder: Path, exchange: str, pairs: Sequence[str], *names: str) -> list[Event]:
    return list(replay([folder / name for name in names], [Market.parse(exchange, pair) for pair in pairs]))


def trade_ids(events: Sequence[Event]) -> list[int]:
    return [trade.trade_id for event in events if isinstance(event, TradesMade) for trade in event.trades]


def breaks(changes: Sequence[DepthChanged]) -> int:
    sequences = {change.market: DepthSequence(change.market) for change in changes}
    return sum(sequences[change.market].check(change) is not None for change in changes)


def changes_of(events: Sequence[Event]) -> list[DepthChanged]:
    return [event for event in events if isinstance(event, DepthChanged)]


@pytest.mark.parametrize(("coin", "n_changes", "n_trades"), [("BTC", 6_495, 19_904), ("ETH", 6_470, 14_515)])
def test_two_parts_of_a_binance_recording_join_without_a_loss(ticks_dir, coin, n_changes, n_trades):
    parts = [f"binance_spot_{coin}-USDT_2024-08-08T2354_ws.gz", f"binance_spot_{coin}-USDT_2024-08-09T0000_ws.gz"]
    events = told(ticks_dir, "binance", [f"{coin}/USDT"], *parts)
    ids, changes = trade_ids(events), changes_of(events)
    assert len(ids) == n_trades
    assert ids == list(range(ids[0], ids[0] + n_trades))
    assert sum(not change.is_snapshot for change in changes) == n_changes
    assert sum(change.is_snapshot for change in changes) == 1
    assert not changes[0].is_snapshot
    assert breaks(changes) == 0
    del changes[n_changes // 2]
    assert breaks(changes) == 1


def test_the_book_of_a_binance_recording_agrees_with_the_best_prices_that_it_holds_too(ticks_dir):
    name = "binance_spot_BTC-USDT_2024-08-08T2354_ws.gz"
    changes = changes_of(told(ticks_dir, "binance", ["BTC/USDT"], name))
    best = {}
    with gzip.open(ticks_dir / name, "rt") as file:
        for line in file:
            if "@bookTicker" in line:
                data = json.loads(line.split(" ", 1)[1])["data"]
                best[data["u"]] = [float(data[key]) for key in ("b", "B", "a", "A")]
    book, n_compared = Book(), 0
    for change in changes:
        book.apply(change)
        if book.is_whole and change.last_id in best:
            assert [*book.bids(1)[0], *book.asks(1)[0]] == best[change.last_id]
            n_compared += 1
    assert n_compared > 100


def test_the_second_part_of_a_recording_has_no_book_by_itself(ticks_dir):
    changes = changes_of(told(ticks_dir, "binance", ["BTC/USDT"], "binance_spot_BTC-USDT_2024-08-09T0000_ws.gz"))
    assert breaks(changes) == 0
    with pytest.raises(CandleError, match="build upon a snapshot that is not among them"):
        book_at(changes, changes[-1].time_ms)


def test_binance_usdm_names_the_change_before(ticks_dir):
    events = told(ticks_dir, "binanceusdm", ["BTC/USDT"], "binance_usdm_BTC-USDT_2024-08-08T2354_ws.gz")
    changes = changes_of(events)
    assert (len(trade_ids(events)), sum(not change.is_snapshot for change in changes)) == (21_313, 6_551)
    assert breaks(changes) == 0
    assert book_at(changes, changes[-1].time_ms).bids(1)[0].price > 0
    del changes[3_000]
    assert breaks(changes) == 1


def test_running_candles_are_not_candles(ticks_dir):
    events = told(ticks_dir, "binance", ["NKN/USDT", "LRC/BTC"], "binance_spot_ws_2021-10-12.txt.gz")
    with gzip.open(ticks_dir / "binance_spot_ws_2021-10-12.txt.gz", "rt") as file:
        text = file.read()
    assert text.count('"e":"kline"') > 0
    assert sum(isinstance(event, CandleClosed) for event in events) == text.count('"x":true')
    assert len(trade_ids(events)) == 2


def test_krakens_checksums_match_the_books_that_its_changes_make(ticks_dir):
    changes = changes_of(told(ticks_dir, "kraken", KRAKEN_PAIRS, "kraken_ws_book-1000_2021-04-17.txt.gz"))
    assert sum(change.is_snapshot for change in changes) == len(KRAKEN_PAIRS)
    assert sum(change.checksum is not None for change in changes) > 4_000
    assert breaks(changes) == 0
    lost = next(i for i, change in enumerate(changes) if change.checksum is not None and change.market.base == "XMR")
    del changes[lost]
    assert breaks(changes) == 1


def test_krakens_trades_of_version_1_have_no_numbers(ticks_dir):
    events = told(ticks_dir, "kraken", KRAKEN_PAIRS, "kraken_ws_trade_2021-04-17.txt.gz")
    trades = [trade for event in events if isinstance(event, TradesMade) for trade in event.trades]
    assert trades
    assert {trade.trade_id for trade in trades} == {-1}


@pytest.mark.parametrize(("pair", "n_lost"), [("BTC-USDT", 26), ("ETH-BTC", 9)])
def test_one_trade_is_missing_after_each_page_of_krakens_trades(ticks_dir, pair, n_lost):
    ids = trade_ids(told(ticks_dir, "kraken", [pair], f"kraken_{pair}_trades_2023-11.parquet"))
    missing = Runs((number, number) for number in ids).missing(ids[0], ids[-1])
    assert len(missing) == n_lost
    assert all(first == last and (first - ids[0] + 1) % 1_000 == 0 for first, last in missing)


def test_bybits_and_coinbases_books_are_read(ticks_dir):
    bybit = changes_of(told(ticks_dir, "bybit", ["XRP/USDT"], "bybit_XRP-USDT_ob500.data.zip"))
    assert (bybit[0].is_snapshot, breaks(bybit)) == (True, 0)
    coinbase = told(ticks_dir, "coinbase", ["SKL/USD"], "coinbase_ws_level2_2021-04-17.txt.gz")
    book = book_at(changes_of(coinbase), 1 << 60)
    assert book.bids(1)[0].price < book.asks(1)[0].price


def test_what_is_no_recording_is_refused(tmp_path, ticks_dir):
    market = Market.parse("binance", "BTC/USDT")
    with pytest.raises(InvalidInputError, match=r"tardis_bitmex.*line 1: found 'exchange,symbol.*Known forms"):
        list(replay([ticks_dir / "tardis_bitmex_trades_XBTUSD.csv"], [market]))
    broken = tmp_path / "broken.gz"
    broken.write_bytes(gzip.compress(b'1723161253937085768 {"e": "trade", "s": "BTCUSDT"}\n'))
    with pytest.raises(InvalidInputError, match=r"line 1: not a message of binance that is known: KeyError\('t'\)"):
        list(replay([broken], [market]))
    with pytest.raises(InvalidInputError, match="Unknown exchange 'okx' in recorded messages"):
        list(replay([broken], [Market.parse("okx", "BTC/USDT")]))


def test_a_candle_of_binance_counts_when_it_is_closed():
    dialect = BinanceDialect([Market.parse("binance", "BTC/USDT")])
    kline = {"t": 0, "i": "1m", "o": "1", "h": "3", "l": "0.5", "c": "2", "v": "7", "x": False}
    message = {"e": "kline", "s": "BTCUSDT", "k": kline}
    assert list(dialect.decode(message, None)) == []
    kline["x"] = True
    (event,) = dialect.decode(message, None)
    assert isinstance(event, CandleClosed)
    assert (str(event.series), event.row) == ("binance:BTC-USDT:1m", (0, 1.0, 3.0, 0.5, 2.0, 7.0))


def test_a_candle_of_kraken_is_closed_by_the_next_one():
    dialect = KrakenDialect([Market.parse("kraken", "BTC/USD")])

    def say(minute: int, close: float) -> list[Event]:
        entry = {"symbol": "BTC/USD", "interval": 1, "interval_begin": f"2024-01-01T00:0{minute}:00.000000000Z"}
        values = {"open": 1.0, "high": 9.0, "low": 1.0, "close": close, "volume": 2.0}
        return list(dialect.decode({"channel": "ohlc", "type": "update", "data": [{**entry, **values}]}, None))

    assert [say(0, 2.0), say(0, 3.0)] == [[], []]
    (event,) = say(1, 4.0)
    assert isinstance(event, CandleClosed)
    assert event.row[4] == 3.0


def test_a_book_waits_for_the_changes_before_its_snapshot_and_ends_at_a_loss():
    market = Market.parse("binance", "BTC/USDT")

    def change(first: int, last: int, price: float, **more: object) -> DepthChanged:
        return DepthChanged(
            market=market, time_ms=last, bids=(Level(price, 1.0),), asks=(), first_id=first, last_id=last, **more
        )

    book = Book()
    for one in (change(1, 2, 10.0), change(3, 5, 11.0), change(3, 3, 9.0, is_snapshot=True), change(6, 6, 12.0)):
        book.apply(one)
    assert [level.price for level in book.bids()] == [12.0, 11.0, 9.0]
    book.apply(change(9, 9, 13.0))
    assert not book.is_whole
