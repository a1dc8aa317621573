"""What is stored around a series is found by name, and loaded only when it is asked for."""

from __future__ import annotations

import pytest

from tradepulse_pipeline.database import surroundings
from tradepulse_pipeline.database.candles import store_candles
from tradepulse_pipeline.database.quarantine import RefusedRow, dismiss, keep, quarantine, quarantined
from tradepulse_pipeline.database.surroundings import MAX_PAIRS, stored_series, surroundings_of
from tradepulse_pipeline.market.series import MS_PER_DAY, Market, SeriesKey, Timeframe
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate

START = 1_735_689_600_000
BITCOIN = SeriesKey.parse("binance:BTC-USDT:1h")


def candles(timeframe="1h", first_day=0, days=10):
    settings = SimulatedMarketSettings(outages_per_year=0)
    start = START + first_day * MS_PER_DAY
    return simulate(
        Market.parse("simulated", "BTC/USDT"), Timeframe(timeframe), start, start + days * MS_PER_DAY, settings
    )


@pytest.fixture
def store(database):
    def store_all(*keys, **given):
        for key in keys:
            series = SeriesKey.parse(key)
            store_candles(database, series, candles(str(series.timeframe), **given), "file")

    return store_all


def test_an_empty_database_knows_nothing(database):
    assert stored_series(database) == []
    known = surroundings_of(database, BITCOIN, candles().slice(0, 0))
    assert (known.pairs, known.venues, known.timeframes, known.set_aside) == ({}, {}, {}, {})


def test_series_are_known_by_what_they_share(database, store):
    store(
        "binance:BTC-USDT:1h", "binance:BTC-USDT:4h", "binance:ETH-USDT:1h", "binance:ETH-USDT:4h",
        "kraken:BTC-USD:1h", "kraken:BTC-EUR:1h", "kraken:ETH-USD:1h", "simulated:BTC-USDT:1h",
    )  # fmt: skip
    keep(database, BITCOIN, START)
    known = surroundings_of(database, BITCOIN, candles(), now_ms=5, sentences=["a"])
    assert list(known.pairs) == ["binance:ETH-USDT:1h"]
    assert list(known.venues) == ["kraken:BTC-USD:1h"]
    assert list(known.timeframes) == ["binance:BTC-USDT:4h"]
    assert (known.now_ms, known.confirmed_ms, known.sentences) == (5, frozenset({START}), ("a",))
    assert len(known.timeframes["binance:BTC-USDT:4h"]()) == 60
    made_up = surroundings_of(database, SeriesKey.parse("simulated:BTC-USDT:1h"), candles())
    assert (made_up.pairs, made_up.venues) == ({}, {})


def test_the_series_with_the_longest_history_come_first_and_not_all_of_them(database, store):
    for day in range(MAX_PAIRS + 2):
        store(f"binance:C{day}-USDT:1h", first_day=9 - day, days=1)
    assert str(stored_series(database)[0]) == f"binance:C{MAX_PAIRS + 1}-USDT:1h"
    known = surroundings_of(database, BITCOIN, candles())
    assert list(known.pairs) == [f"binance:C{day}-USDT:1h" for day in range(MAX_PAIRS + 1, 1, -1)]


def test_candles_are_loaded_once_within_the_span_and_not_before(database, store, monkeypatch):
    store("binance:BTC-USDT:1h", "binance:ETH-USDT:1h")
    asked = []
    load = surroundings.load_candles
    monkeypatch.setattr(surroundings, "load_candles", lambda *given: asked.append(given[1:]) or load(*given))
    part = candles().slice(24, 72)
    known = surroundings_of(database, BITCOIN, part)
    assert asked == []
    found = known.pairs["binance:ETH-USDT:1h"]()
    assert found.open_time_ms.tolist() == part.open_time_ms.tolist()
    assert known.pairs["binance:ETH-USDT:1h"]() is found
    assert len(asked) == 1


def test_rows_in_quarantine_are_counted_by_reason_until_somebody_decides(database):
    def refused(number, reason):
        return RefusedRow(row_number=number, raw={"open": "x"}, reason=reason)

    rows = [refused(0, "off the grid"), refused(1, "in the future"), refused(2, "off the grid")]
    quarantine(database, BITCOIN, rows, "file")
    quarantine(database, SeriesKey.parse("kraken:BTC-USD:1h"), rows, "file")
    known = surroundings_of(database, BITCOIN, candles())
    assert known.set_aside == {"off the grid": 2, "in the future": 1}
    for row in quarantined(database, BITCOIN)[:2]:
        dismiss(database, row.id)
    assert surroundings_of(database, BITCOIN, candles()).set_aside == {"off the grid": 1}
