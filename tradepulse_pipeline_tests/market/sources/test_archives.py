"""Candles from an archive on this machine that has Binance's layout, and does everything wrong."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pytest

from tradepulse_pipeline.errors import (
    HistoryUnavailableError,
    InvalidInputError,
    SourceError,
    SourceUnreachableError,
)
from tradepulse_pipeline.market.candles import PRICE_COLUMNS, Candles
from tradepulse_pipeline.market.series import Market, SeriesKey, Timeframe
from tradepulse_pipeline.market.sources import files
from tradepulse_pipeline.market.sources.archives import ArchiveSource
from tradepulse_pipeline.market.sources.files import read_candle_file
from tradepulse_pipeline.market.sources.http import Patience
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate
from tradepulse_pipeline_tests.loopback import Fault, LoopbackExchange
from tradepulse_pipeline_tests.loopback.archive import checksum_file, packed

STEP = 900_000
SERIES = SeriesKey.of("binance", "BTC/USDT", "15m")


def ms(year, month, day=1, hour=0):
    return int(datetime(year, month, day, hour, tzinfo=UTC).timestamp()) * 1000


#: Listed in the middle of a month, across the change from ms to µs.
LISTED = ms(2024, 11, 20, 6)
CANDLES = simulate(
    Market.parse("simulated", "BTC/USDT"),
    Timeframe("15m"),
    LISTED,
    ms(2025, 3, 6),
    SimulatedMarketSettings(),
)
#: A Wednesday: the file of February came on Monday the 3rd.
NOW = ms(2025, 3, 5, 13)
TODAY = ms(2025, 3, 5)
JANUARY = "/data/spot/monthly/klines/BTCUSDT/15m/BTCUSDT-15m-2025-01.zip"


class Waits(list[float]):
    """Takes the place of sleeping."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def archive(candles=CANDLES, *, now=NOW, **settings):
    return LoopbackExchange({SERIES: candles}, clock_ms=lambda: now, **settings)


def source_at(loopback, **patience):
    waits = Waits()
    source = ArchiveSource(
        "binance",
        base_url=loopback.base_url,
        patience=Patience(**patience),
        clock_ms=loopback.clock_ms,
        sleep=waits,
        jitter=lambda: 0.5,
    )
    return source, waits


def fetch(loopback, start=LISTED, end=NOW, series=SERIES):
    return list(source_at(loopback)[0].pages(series, start, end))


def names(loopback):
    """Return the stamps of the zip files that were asked for."""
    asked = [path for path in loopback.requests if path.endswith(".zip")]
    return [path.removesuffix(".zip").split("-15m-")[1] for path in asked]


def assert_same(pages, candles):
    assert all(before.candles.end_ms <= after.candles.open_time_ms[0] for before, after in pairwise(pages))
    for name in ("open_time_ms", *PRICE_COLUMNS):
        got = np.concatenate([getattr(page.candles, name) for page in pages])
        np.testing.assert_array_equal(got, getattr(candles, name), err_msg=name)


def without(candles, start, end):
    kept = (candles.open_time_ms < start) | (candles.open_time_ms >= end)
    columns = (getattr(candles, name)[kept] for name in PRICE_COLUMNS)
    return Candles.from_arrays(candles.timeframe, candles.open_time_ms[kept], *columns)


def test_pages_hold_every_candle_of_the_days_that_are_over_once():
    with archive() as loopback:
        source, waits = source_at(loopback)
        source.check(SERIES)
        pages = list(source.pages(SERIES, LISTED, NOW))
        assert_same(pages, CANDLES.between(None, TODAY))
        assert names(loopback) == [
            "2024-11",
            "2024-12",
            "2025-01",
            "2025-02",
            *(f"2025-03-0{day}" for day in (1, 2, 3, 4)),
        ]
    assert all((page.rejected, page.n_duplicates, page.warning) == ((), 0, "") for page in pages)
    assert (source.name, waits) == ("binance.archive", [])


def test_real_candles_arrive_as_they_are(market_data_dir):
    candles = read_candle_file(market_data_dir / "binance_BTC-USDT_5m.parquet", Timeframe("5m")).candles
    five, start, end = SeriesKey.of("binance", "BTC/USDT", "5m"), ms(2024, 12, 31), ms(2025, 2, 10)
    with LoopbackExchange({five: candles}) as loopback:
        pages = fetch(loopback, start, end, five)
    assert_same(pages, candles.between(start, end))
    assert [page.candles.open_time_ms[0] for page in pages] == [start, ms(2025, 1), ms(2025, 2)]


@pytest.mark.parametrize(
    ("start", "end", "asked"),
    [
        (ms(2024, 12, 30, 5), ms(2025, 1, 2, 3), ["2024-12", "2025-01"]),
        (ms(2025, 1), ms(2025, 2), ["2025-01"]),
        (ms(2025, 1) - 1, ms(2025, 1) + 1, ["2025-01"]),
        (ms(2025, 3, 2, 1), ms(2025, 3, 2, 2), ["2025-03-02"]),
        (ms(2025, 1, 5), ms(2025, 1, 5), []),
    ],
)
def test_only_files_that_touch_the_range_are_asked_for(start, end, asked):
    with archive() as loopback:
        pages = fetch(loopback, start, end)
        assert names(loopback) == asked
    if asked:
        assert_same(pages, CANDLES.between(start, end))
    else:
        assert pages == []


def test_a_month_without_its_file_yet_comes_as_days():
    now = ms(2025, 3, 2, 13)
    with archive(now=now) as loopback:
        pages = fetch(loopback, ms(2025, 2, 27), now)
        assert names(loopback) == ["2025-02-27", "2025-02-28", "2025-03-01"]
    assert_same(pages, CANDLES.between(ms(2025, 2, 27), ms(2025, 3, 2)))


def test_a_page_is_there_before_the_next_file_is_asked_for():
    with archive() as loopback:
        pages = source_at(loopback)[0].pages(SERIES, LISTED, NOW)
        next(pages)
        assert names(loopback) == ["2024-11"]
        pages.close()


def test_a_history_that_begins_later_is_told_and_no_error():
    with archive() as loopback:
        pages = fetch(loopback, ms(2024, 9), NOW)
        assert names(loopback)[:3] == ["2024-09", "2024-10", "2024-11"]
    assert_same(pages, CANDLES.between(None, TODAY))
    assert pages[0].warning == (
        "binance.archive has no BTC/USDT 15m candles from 2024-09-01T00:00Z to 2024-11-20T06:00Z: "
        "its history begins later or has a gap there."
    )
    assert not any(page.warning for page in pages[1:])


def test_a_month_that_is_missing_in_the_middle_is_told():
    gappy = without(CANDLES, ms(2024, 12), ms(2025, 1))
    with archive(gappy) as loopback:
        pages = fetch(loopback)
    assert_same(pages, gappy.between(None, TODAY))
    assert [page.warning for page in pages if page.warning] == [
        "binance.archive has no BTC/USDT 15m candles from 2024-12-01T00:00Z to 2025-01-01T00:00Z: "
        "BTCUSDT-15m-2024-12.zip is not there."
    ]


def test_the_end_of_a_pair_that_is_no_longer_traded_is_told():
    delisted = CANDLES.between(None, ms(2024, 12, 10))
    with archive(delisted) as loopback:
        source_at(loopback)[0].check(SERIES)
        *pages, last = fetch(loopback, end=ms(2025, 2))
        (after,) = fetch(loopback, ms(2025, 1), ms(2025, 2))
    assert_same(pages, delisted)
    for page in (last, after):
        assert len(page.candles) == 0
        assert page.warning == (
            "binance.archive has no BTC/USDT 15m candles from 2025-01-01T00:00Z to 2025-02-01T00:00Z: "
            "BTCUSDT-15m-2025-01.zip is not there. The pair may have been delisted."
        )


@pytest.mark.parametrize(("start", "end"), [(ms(2024, 8), ms(2024, 10)), (ms(2024, 11, 3), ms(2024, 11, 9))])
def test_a_range_before_the_listing_is_an_error(start, end):
    with archive() as loopback, pytest.raises(HistoryUnavailableError, match="its history begins later or has a gap"):
        fetch(loopback, start, end)


def test_yesterday_may_not_be_there_yet():
    late = CANDLES.between(None, ms(2025, 3, 4))
    with archive(late) as loopback:
        assert_same(fetch(loopback, ms(2025, 3)), late.between(ms(2025, 3), None))
        assert fetch(loopback, ms(2025, 3, 4)) == []
        assert fetch(loopback, TODAY) == []


def test_an_unknown_pair_is_an_error():
    unknown = SeriesKey.of("binance", "BTX/USDT", "15m")
    with archive() as loopback:
        for ask in (source_at(loopback)[0].check, lambda series: fetch(loopback, series=series)):
            with pytest.raises(
                InvalidInputError, match=r"Unknown pair 'BTX/USDT' in binance.archive: there is no file"
            ):
                ask(unknown)


def test_an_exchange_without_an_archive_is_refused():
    with pytest.raises(InvalidInputError, match=r"Unknown exchange with an archive 'kraken'. Allowed: binance"):
        ArchiveSource("kraken")


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="status", status=503, path=JANUARY, times=3),
        Fault(kind="flipped_byte", path=JANUARY),
        Fault(kind="flipped_byte", path=f"{JANUARY}.CHECKSUM"),
        Fault(kind="short_body", path=JANUARY),
        Fault(kind="truncated_json", path=JANUARY),
        Fault(kind="empty_body", path=JANUARY),
        Fault(kind="html", path=JANUARY),
        Fault(kind="html", path=f"{JANUARY}.CHECKSUM", times=2),
        Fault(kind="reset", path=JANUARY),
    ],
    ids=lambda fault: f"{fault.kind}{fault.path[-9:]}",
)
def test_what_passes_changes_nothing(fault):
    with archive(faults=[fault]) as loopback:
        source, waits = source_at(loopback)
        pages = list(source.pages(SERIES, LISTED, NOW))
    assert_same(pages, CANDLES.between(None, TODAY))
    assert waits == [1.0, 2.0, 4.0][: fault.times]


def test_retry_after_is_kept():
    with archive(faults=[Fault(kind="status", status=429, retry_after="7", path=JANUARY)]) as loopback:
        source, waits = source_at(loopback)
        assert len(list(source.pages(SERIES, ms(2025, 1), ms(2025, 2)))) == 1
    assert waits == [7.0]


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (
            Fault(kind="status", path=JANUARY, times=None),
            SourceError,
            r"fails \(3 attempts to get BTCUSDT-15m-2025-01.zip",
        ),
        (Fault(kind="status", status=403, path=JANUARY), SourceUnreachableError, r"refuses requests .*HTTP 403"),
        (Fault(kind="status", status=418, path=JANUARY), SourceError, "has banned this address"),
        (Fault(kind="status", status=400, path=JANUARY), SourceError, "answered HTTP 400 Bad Request"),
        (Fault(kind="redirect", path=JANUARY), SourceError, "redirects are not followed"),
        (
            Fault(kind="html", path=JANUARY, times=None),
            SourceError,
            r"2025-01.zip.CHECKSUM holds no SHA-256 of .*text/html, starts with '<!DOCTYPE html",
        ),
    ],
    ids=lambda value: value.kind + str(value.status) if isinstance(value, Fault) else "",
)
def test_what_does_not_pass_is_an_error_after_the_pages_before(fault, error, message):
    with archive(faults=[fault]) as loopback:
        pages = []
        with pytest.raises(error, match=message):
            pages.extend(source_at(loopback, attempts=3)[0].pages(SERIES, LISTED, NOW))
    assert_same(pages, CANDLES.between(None, ms(2025, 1)))


def test_a_drip_ends_with_the_deadline():
    with archive(faults=[Fault(kind="drip", path=JANUARY, seconds=600)]) as loopback:
        source, waits = source_at(loopback, deadline_s=1.5)
        assert_same(list(source.pages(SERIES, ms(2025, 1), ms(2025, 2))), CANDLES.between(ms(2025, 1), ms(2025, 2)))
    assert waits == [1.0]


def test_no_connection_is_told():
    with archive() as loopback:
        source, _ = source_at(loopback)
    with pytest.raises(SourceUnreachableError, match=r"binance.archive cannot be reached \(2 attempts\)"):
        source.check(SERIES)


def served(data, checksum=None):
    """Return an archive whose file of January holds ``data``, with its right checksum if none is given."""
    name = JANUARY.rpartition("/")[2]
    return archive(recorded={JANUARY: data, f"{JANUARY}.CHECKSUM": checksum or checksum_file(data, name)})


def test_a_checksum_that_stays_wrong_is_an_error_with_file_and_hashes():
    data, other = packed({"a.csv": b"1,2,3"}), checksum_file(b"other", "BTCUSDT-15m-2025-01.zip")
    found, expected = hashlib.sha256(data).hexdigest(), hashlib.sha256(b"other").hexdigest()
    with served(data, other) as loopback:
        source, waits = source_at(loopback, attempts=3)
        with pytest.raises(SourceError, match=f"BTCUSDT-15m-2025-01.zip has the SHA-256 {found}, expected {expected}"):
            list(source.pages(SERIES, ms(2025, 1), ms(2025, 2)))
        assert (len(waits), loopback.count("2025-01.zip")) == (2, 6)


def test_the_checksum_of_another_file_is_none():
    data = packed({"a.csv": b"1,2,3"})
    with (
        served(data, checksum_file(data, "BTCUSDT-15m-2024-01.zip")) as loopback,
        pytest.raises(SourceError, match=r"2025-01.zip.CHECKSUM holds no SHA-256 of BTCUSDT-15m-2025-01.zip"),
    ):
        list(source_at(loopback, attempts=1)[0].pages(SERIES, ms(2025, 1), ms(2025, 2)))


def line(time_us, price=100.0):
    return f"{time_us},{price},{price + 1},{price - 1},{price},5,0,0,0,0,0,0\n".encode()


MONTH = b"".join(line(1000 * (ms(2025, 1) + bar * STEP)) for bar in range(96))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<html>not a zip</html>", "is not a readable .zip archive"),
        (packed({"a.csv": MONTH, "b.csv": MONTH}), r"holds 2 files \(a.csv, b.csv\), expected one"),
        (packed({"../../etc/cron.d/a.csv": MONTH}), "a path that leads out of the archive"),
        (packed({"/etc/a.csv": MONTH}), "a path that leads out of the archive"),
        (packed({"a.csv": b"0" * 20_000_000}), "holds more than 1 MiB; refused"),
        (packed({"a.pickle": MONTH}), "a pickle can run any program"),
        (packed({"a.csv": b""}), "is empty"),
        (packed({"a.csv": b"".join(line(1000 * (ms(2025, 1) + bar * 300_000)) for bar in range(96))}), "are 5m apart"),
        (
            packed({"a.csv": line(1000 * ms(2024, 12, 31, 23)) + MONTH}),
            "holds a candle of 2024-12-31T23:00Z, expected none",
        ),
    ],
    ids=["html", "two members", "traversal", "absolute", "bomb", "pickle", "empty", "timeframe", "other month"],
)
def test_a_file_that_cannot_be_trusted_is_refused_whatever_its_checksum(monkeypatch, data, message):
    monkeypatch.setattr(files, "MAX_BYTES", 1024 * 1024)
    with served(data) as loopback, pytest.raises(SourceError, match=message):
        list(source_at(loopback)[0].pages(SERIES, ms(2025, 1), ms(2025, 2)))


def test_rows_that_are_no_candles_are_set_aside_with_the_reason():
    bad = line(1000 * (ms(2025, 1) + 96 * STEP), price=-5.0) + line(1000 * (ms(2025, 1) + 97 * STEP + 17))
    bad += line("")
    with served(packed({"a.csv": MONTH + bad})) as loopback:
        (page,) = fetch(loopback, ms(2025, 1), ms(2025, 2))
    assert len(page.candles) == 96
    assert [(row.row, row.reason) for row in page.rejected] == [
        (97, "with a price not above 0"),
        (98, "with an open time off the 15m grid"),
        (99, "without an open time"),
    ]
