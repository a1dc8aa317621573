"""Fetching candles: from exchanges that fail, throttle and restate, by processes that are killed."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from tradepulse_pipeline.database.candles import load_candles
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.server import database_url
from tradepulse_pipeline.market.candles import PRICE_COLUMNS, Candles
from tradepulse_pipeline.market.series import MS_PER_DAY, SeriesKey, Timeframe
from tradepulse_pipeline.market.sources.files import read_candle_file
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate
from tradepulse_pipeline_tests.loopback import Fault, LoopbackExchange

BASES = ("BTC", "ETH", "SOL")
STEP = 300_000


def key(base):
    return SeriesKey.of("binance", f"{base}/USDT", "5m")


def simulated(days):
    end = time.time_ns() // 1_000_000 // MS_PER_DAY * MS_PER_DAY
    return {
        key(base): simulate(
            key(base).market,
            Timeframe("5m"),
            end - days * MS_PER_DAY,
            end,
            SimulatedMarketSettings(outages_per_year=20),
        )
        for base in BASES
    }


def real(folder, base, days):
    """Return the last days of a real year, as if they had ended yesterday."""
    found = read_candle_file(folder / f"binance_{base}-USDT_5m.parquet", Timeframe("5m")).candles
    last = found.between(found.end_ms - days * MS_PER_DAY, None)
    days_since = (time.time_ns() // 1_000_000 - last.end_ms) // MS_PER_DAY
    columns = (getattr(last, name) for name in PRICE_COLUMNS)
    return Candles.from_arrays(last.timeframe, last.open_time_ms + days_since * MS_PER_DAY, *columns)


def restated_earlier(candles):
    """Return the candles as they were before the exchange restated every 5,000th of them."""
    volume, close = candles.volume.copy(), candles.close.copy()
    volume[::5_000] *= 1.25
    close[::5_000] = (candles.low + candles.high)[::5_000] / 2
    return Candles.from_arrays(
        candles.timeframe, candles.open_time_ms, candles.open, candles.high, candles.low, close, volume
    )


def assert_stored(project, expected):
    with Database(database_url(project / ".tradepulse", None)) as database:
        for series, candles in expected.items():
            stored = load_candles(database, series)
            for name in ("open_time_ms", *PRICE_COLUMNS):
                np.testing.assert_array_equal(getattr(stored, name), getattr(candles, name), err_msg=f"{series} {name}")


def options(expected):
    first = min(int(candles.open_time_ms[0]) for candles in expected.values())
    days = -(-(time.time_ns() // 1_000_000 - first) // MS_PER_DAY)
    pairs = ",".join(series.pair for series in expected)
    return ("--pair", pairs, "--timeframe", "5m", "--history", str(days))


def fetch_with_kills(start, exchange, command, kills):
    """Start the command, kill it each time that so many more requests were made, and let it end in the end."""
    for n_requests in kills:
        seen = exchange.count("klines")
        process = start("fetch", *command)
        while exchange.count("klines") < seen + n_requests and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        process.communicate()
    process = start("fetch", *command, "--json")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out)


def troubled(series):
    """An exchange that throttles, fails now and then, and gives candles that it is going to restate."""
    faults = [
        Fault(kind="status", status=429, retry_after="1", path="klines", skip=23),
        Fault(kind="status", status=503, path="klines", skip=61, times=2),
        Fault(kind="reset", path="klines", skip=97),
        Fault(kind="short_body", path="klines", skip=130),
        Fault(kind="html", path="klines", skip=171),
        Fault(kind="partial_page", path="klines", skip=200, times=5),
        Fault(kind="duplicated_page", path="klines", skip=240, times=2),
    ]
    earlier = {one: restated_earlier(candles) for one, candles in series.items()}
    return LoopbackExchange(earlier, faults=faults, limit_per_second=40)


def check_troubled_fetch(start, monkeypatch, project, series, kills):
    with troubled(series) as exchange:
        monkeypatch.setenv("TRADEPULSE_EXCHANGE_URL", exchange.base_url)
        command = options(series)
        done = fetch_with_kills(start, exchange, command, kills)
        assert {one["series"] for one in done} == {str(one) for one in series}
        assert_stored(project, {one: restated_earlier(candles) for one, candles in series.items()})
        for one, candles in series.items():
            exchange.replace(one, candles)
        process = start("fetch", *command, "--again", "--json")
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert all(
            one["restated"] >= len(series[key(one["series"].split(":")[1][:3])]) // 5_000 for one in json.loads(out)
        )
    assert_stored(project, series)


def test_killed_and_resumed_it_ends_with_exactly_the_exchanges_candles(start, own_project, monkeypatch):
    check_troubled_fetch(start, monkeypatch, own_project, simulated(40), kills=(5, 9))


def test_real_months_of_three_pairs_killed_and_resumed(start, own_project, monkeypatch, market_data_dir):
    series = {key(base): real(market_data_dir, base, 120) for base in BASES}
    check_troubled_fetch(start, monkeypatch, own_project, series, kills=(12, 30))


def test_series_fail_alone_and_the_others_are_stored(run, own_project, monkeypatch):
    series = simulated(3)
    with LoopbackExchange(series) as exchange:
        monkeypatch.setenv("TRADEPULSE_EXCHANGE_URL", exchange.base_url)
        result = run("fetch", "--pair", "BTC/USDT,SOLL/USDT,ETH/USDT", "--timeframe", "5m", "--history", "4")
    assert result.exit_code == 1
    assert "binance:SOLL-USDT:5m: Unknown pair 'SOLL/USDT' in binance. Did you mean 'SOL/USDT'" in result.stderr
    assert_stored(own_project, {one: candles for one, candles in series.items() if one.market.base != "SOL"})


def test_a_venue_that_bans_does_not_stop_the_others(run, own_project, monkeypatch):
    step = {
        SeriesKey.of(venue, "BTC/USDT", "5m"): candles
        for venue in ("binance", "kraken")
        for candles in simulated(2).values()
    }
    fault = Fault(kind="status", status=418, retry_after="600", path="klines", times=None)
    with LoopbackExchange(step, faults=[fault]) as exchange:
        monkeypatch.setenv("TRADEPULSE_EXCHANGE_URL", exchange.base_url)
        result = run(
            "fetch", "--exchange", "binance,kraken", "--pair", "BTC/USDT", "--timeframe", "5m", "--history", "2"
        )
    assert result.exit_code == 1
    assert "binance:BTC-USDT:5m: binance has banned this address for 600 s" in " ".join(result.stderr.split())
    assert "kraken:BTC-USDT:5m" in result.stdout


def test_the_next_source_gives_what_the_first_lacks(run, own_project, monkeypatch):
    """Binance's interface bans us; its archive has all but the latest day."""
    candles = simulated(80)[key("BTC")]
    fault = Fault(kind="status", status=418, path="/api/v3/klines", skip=3, times=None)
    (own_project / "tradepulse.toml").write_text('[source_order]\nbinance = ["binance", "binance.archive"]\n')
    with LoopbackExchange({key("BTC"): candles}, faults=[fault]) as exchange:
        monkeypatch.setenv("TRADEPULSE_EXCHANGE_URL", exchange.base_url)
        result = run("fetch", "--pair", "BTC/USDT", "--timeframe", "5m", "--history", "81", "--json")
    assert result.exit_code == 0, result.stderr
    (one,) = json.loads(result.stdout)
    assert any("binance.archive is asked for what is missing" in warning for warning in one["warnings"])
    assert_stored(own_project, {key("BTC"): candles})
    with Database(database_url(own_project / ".tradepulse", None)) as database:
        rows = database.run(
            lambda connection: connection.execute(
                "SELECT source, count(*) FROM market_data GROUP BY source ORDER BY source"
            ).fetchall()
        )
    assert [name for name, _ in rows] == ["binance", "binance.archive"]


@pytest.mark.parametrize("text", ['kraken = ["kraken", "krakn.trades"]', 'kraken = "kraken"'])
def test_a_wrong_order_of_sources_is_said(run, own_project, text):
    (own_project / "tradepulse.toml").write_text(f"[source_order]\n{text}\n")
    result = run("fetch", "--exchange", "kraken", "--pair", "BTC/USDT", "--timeframe", "5m")
    assert result.exit_code in {1, 2}
    assert "krakn" in result.stderr or "source_order" in result.stderr
