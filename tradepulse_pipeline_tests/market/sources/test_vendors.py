"""Shares from Alpha Vantage and Polygon by their REST interfaces, and from Yahoo by yfinance."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tradepulse_pipeline.errors import InvalidInputError, SourceError, SourceUnreachableError, TradePulseError
from tradepulse_pipeline.market.calendars import calendar_of
from tradepulse_pipeline.market.candles import PRICE_COLUMNS, Candles
from tradepulse_pipeline.market.corporate_actions import CorporateAction, Dividend, Split, adjusted, midnight_ms
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.market.sources.alpha_vantage import AlphaVantageSource
from tradepulse_pipeline.market.sources.base import CandleSource, CorporateActionSource, Page
from tradepulse_pipeline.market.sources.exchange import FIRST_CONTACT, Patience
from tradepulse_pipeline.market.sources.polygon import PolygonSource
from tradepulse_pipeline.market.sources.vendors import KeyedSource
from tradepulse_pipeline.market.sources.yahoo import YahooSource
from tradepulse_pipeline_tests.loopback.faults import Fault
from tradepulse_pipeline_tests.loopback.vendors import LoopbackVendors

DAILY, HALF_HOURS = SeriesKey.parse("xnas:AAPL-USD:1d"), SeriesKey.parse("xnas:AAPL-USD:30m")
CLASS_B = SeriesKey.parse("xnys:BRK.B-USD:1d")
ACTIONS: tuple[CorporateAction, ...] = (
    Dividend(ex_date=date(2020, 8, 7), amount=0.82),
    Split(ex_date=date(2020, 8, 31), ratio=4.0),
    Dividend(ex_date=date(2020, 11, 6), amount=0.205),
)
START, END = midnight_ms(date(2020, 6, 1)), midnight_ms(date(2021, 1, 1))
KEY = "s3cret+sentinel/key=="
OTHER_KEY = "wr0ng+key"
IMPATIENT = Patience(attempts=3, deadline_s=3.0, first_wait_s=0.0)


def traded(series: SeriesKey, start: int = START, end: int = END) -> Candles:
    """Return prices that fall to a quarter where the split says so."""
    calendar = calendar_of(series.exchange)
    times = calendar.expected(series.timeframe, start, end)
    close = 400.0 + np.arange(len(times)) % 11
    days = calendar.trading_days(times, series.timeframe)
    close[days >= midnight_ms(date(2020, 8, 31))] /= 4
    columns = (close + 0.25, close + 1.0, close - 1.0, close, 1000.0 + np.arange(len(times)))
    return Candles.from_arrays(series.timeframe, times, *columns, calendar=calendar)


SERIES = {DAILY: traded(DAILY), HALF_HOURS: traded(HALF_HOURS), CLASS_B: traded(CLASS_B)}


@pytest.fixture
def vendors() -> Iterator[LoopbackVendors]:
    with LoopbackVendors(SERIES, key=KEY, actions=ACTIONS, page_size=50) as server:
        yield server


def make(kind: type[KeyedSource], server: LoopbackVendors, **changes: Any) -> KeyedSource:
    given = {"base_url": server.base_url, "key": KEY, "patience": IMPATIENT, "sleep": lambda _: None}
    return kind(**{**given, **changes})


def joined(pages: list[Page]) -> dict[str, np.ndarray]:
    names = ("open_time_ms", *PRICE_COLUMNS)
    return {name: np.concatenate([getattr(page.candles, name) for page in pages]) for name in names}


def assert_same(pages: list[Page], expected: Candles, rtol: float = 0.0) -> None:
    assert pages
    for name, column in joined(pages).items():
        np.testing.assert_allclose(column, getattr(expected, name), rtol=rtol, err_msg=name)
    assert all(not page.rejected and not page.n_duplicates and not page.warning for page in pages)
    assert all(page.candles.calendar == expected.calendar for page in pages)


BOTH = pytest.mark.parametrize("kind", [AlphaVantageSource, PolygonSource])


@BOTH
@pytest.mark.parametrize("series", [DAILY, HALF_HOURS, CLASS_B], ids=str)
def test_candles_come_back_as_traded(vendors, kind, series):
    source = make(kind, vendors)
    source.check(series)
    assert_same(list(source.pages(series, START, END)), SERIES[series])
    part = (midnight_ms(date(2020, 8, 3)), midnight_ms(date(2020, 9, 3)))
    assert_same(list(source.pages(series, *part)), SERIES[series].between(*part))


@BOTH
def test_splits_and_dividends_come_back(vendors, kind):
    source = make(kind, vendors)
    assert isinstance(source, CorporateActionSource)
    assert source.actions(DAILY) == ACTIONS


def test_polygon_is_read_page_by_page(vendors):
    pages = list(make(PolygonSource, vendors).pages(DAILY, START, END))
    assert [len(page.candles) for page in pages] == [50, 50, 50]


def test_only_regular_hours_are_kept():
    early = SERIES[HALF_HOURS].slice(0, 13)
    shifted = Candles.from_arrays(
        HALF_HOURS.timeframe,
        np.append(early.open_time_ms[:1] - 3_600_000, early.open_time_ms),
        *(np.append(getattr(early, name)[:1], getattr(early, name)) for name in PRICE_COLUMNS),
        calendar=early.calendar,
    )
    with LoopbackVendors({HALF_HOURS: shifted}, key=KEY) as server:
        assert_same(list(make(PolygonSource, server).pages(HALF_HOURS, START, END)), early)


@BOTH
def test_history_that_begins_later_is_a_warning(vendors, kind):
    first, *others = make(kind, vendors).pages(DAILY, START - 40 * 86_400_000, END)
    assert "has no AAPL/USD candles from 2020-04-22T00:00Z to 2020-06-01T00:00Z" in first.warning
    assert not any(page.warning for page in others)


@BOTH
def test_unknown_names_are_invalid_input(vendors, kind):
    source = make(kind, vendors)
    with pytest.raises(InvalidInputError, match=r"AAPX|does not know this symbol"):
        source.check(SeriesKey.parse("xnas:AAPX-USD:1d"))
    with pytest.raises(InvalidInputError, match="in USD, expected EUR"):
        source.check(SeriesKey.parse("xnas:AAPL-EUR:1d"))
    with pytest.raises(InvalidInputError, match="Unknown timeframe '1h' in"):
        source.check(SeriesKey.parse("xnas:AAPL-USD:1h"))
    with pytest.raises(InvalidInputError, match="Unknown stock exchange 'xlon' in"):
        list(source.pages(SeriesKey.parse("xlon:AV-GBX:1d"), START, END))


@BOTH
@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="status", status=503, times=2),
        Fault(kind="status", status=429, retry_after="1"),
        Fault(kind="reset"),
        Fault(kind="short_body"),
        Fault(kind="truncated_json"),
        Fault(kind="html"),
        Fault(kind="empty_body"),
        Fault(kind="other_json", body="[]"),
        Fault(kind="other_json", body='{"Note": "5 calls per minute and 500 calls per day", "status": "ERROR"}'),
        Fault(kind="other_json", body='{"Information": "Please consider 1 request per second (25 requests per day)."}'),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}-{fault.body[:12]}",
)
def test_what_may_pass_is_tried_again(vendors, kind, fault):
    vendors.inject(fault)
    waits: list[float] = []
    source = make(kind, vendors, sleep=waits.append)
    assert_same(list(source.pages(DAILY, START, END)), SERIES[DAILY])
    assert len(waits) == fault.times
    assert fault.retry_after == "" or waits == [1.0]


FAILURES = [
    (Fault(kind="status", status=401, times=None), SourceError, "refuses the key"),
    (Fault(kind="status", status=403, times=None), SourceError, "Check the key"),
    (Fault(kind="status", status=451, times=None), SourceUnreachableError, "451"),
    (Fault(kind="status", status=503, times=None), SourceError, "3 attempts"),
    (Fault(kind="status", status=429, retry_after="999", times=None), SourceError, "asks to wait 999 s"),
    (Fault(kind="status", status=418, times=None), SourceError, "418"),
    (Fault(kind="redirect", times=None), SourceError, "redirects"),
    (Fault(kind="reset", times=None), SourceUnreachableError, "cannot be reached"),
    (Fault(kind="short_body", times=None), SourceError, "cut its reply short"),
    (Fault(kind="html", times=None), SourceError, "sent no JSON"),
    (Fault(kind="empty_body", times=None), SourceError, "sent no JSON"),
    (Fault(kind="other_json", body=json.dumps({"Note": f"your key {KEY}, 5 calls per minute"}), times=None),
     SourceError, "5 calls per minute|answered without"),
    (Fault(kind="other_json", body=json.dumps({"next_url": f"http://a/?apikey={KEY}", "Error Message": f"no {KEY}"}),
           times=None), TradePulseError, "…"),
]  # fmt: skip


@BOTH
@pytest.mark.parametrize(("fault", "error", "message"), FAILURES, ids=lambda value: getattr(value, "kind", None))
def test_a_failure_says_what_it_is_and_never_shows_the_key(vendors, kind, fault, error, message, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    vendors.inject(fault)
    source = make(kind, vendors)
    with pytest.raises(error, match=message) as caught:
        list(source.pages(DAILY, START, END))
    shown = [*traceback.format_exception(caught.value), repr(caught.value), repr(source), str(source), caplog.text]
    chain: BaseException | None = caught.value
    while chain is not None:
        shown.append(repr(chain.args))
        chain = chain.__cause__ or chain.__context__
    shown += [*capfd.readouterr()]
    for secret in (KEY, "s3cret"):
        assert not any(secret in text for text in shown)


@BOTH
def test_a_silent_vendor_is_given_up_on(vendors, kind):
    vendors.inject(Fault(kind="drip", seconds=60.0, times=None))
    source = make(kind, vendors, patience=Patience(attempts=2, deadline_s=0.2, first_wait_s=0.0))
    with pytest.raises(SourceUnreachableError, match=r"2 attempts.*: no full reply within 0\.2 s"):
        list(source.pages(DAILY, START, END))


@BOTH
def test_a_wrong_key_is_refused_without_showing_it(vendors, kind):
    with pytest.raises(SourceError, match=f"refuses the key in {kind.key_variable}") as caught:
        list(make(kind, vendors, key=OTHER_KEY).pages(DAILY, START, END))
    assert "wr0ng" not in "".join(traceback.format_exception(caught.value))


@BOTH
def test_a_missing_key_names_the_variable_and_where_to_get_one(vendors, kind, monkeypatch):
    monkeypatch.delenv(kind.key_variable, raising=False)
    with pytest.raises(InvalidInputError, match=rf"{kind.key_variable} is not set\. Get one at https://"):
        make(kind, vendors, key=None).check(DAILY)
    assert not vendors.requests
    monkeypatch.setenv(kind.key_variable, KEY)
    make(kind, vendors, key=None).check(DAILY)


def test_alpha_vantage_is_not_asked_again_for_what_waiting_does_not_give(vendors):
    for said, message in (
        (f"We have detected your API key as {KEY} and our standard API rate limit is 25 requests per day.", "tomorrow"),
        ("Thank you for using Alpha Vantage! This is a premium endpoint.", "to paid keys only"),
    ):
        vendors.requests.clear()
        vendors.inject(Fault(kind="other_json", body=json.dumps({"Information": said})))
        with pytest.raises(SourceError, match=message) as caught:
            list(make(AlphaVantageSource, vendors).pages(DAILY, START, END))
        assert len(vendors.requests) == 1
        assert KEY not in str(caught.value)


def test_polygons_next_page_must_be_on_its_own_host():
    with LoopbackVendors(SERIES, key=KEY, page_size=50, next_host="http://127.0.0.1:9") as server:
        pages = make(PolygonSource, server).pages(DAILY, START, END)
        assert len(next(pages).candles) == 50
        with pytest.raises(SourceError, match=r"sends on to 127\.0\.0\.1:9"):
            next(pages)


# ── Yahoo ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class FakeTicker:
    """What ``yfinance.Ticker`` gives: prices, volumes and dividends adjusted for all splits, in local time."""

    def __init__(self, candles: dict[str, Candles], currency: str = "USD", failures: list[Exception] | None = None):
        self._candles = candles
        self._failures = failures or []
        self.history_metadata = {"currency": currency}

    def history(self, *, interval, auto_adjust, actions, prepost, timeout, period=None, start=None, end=None):
        assert (auto_adjust, actions, prepost) == (False, True, False)
        assert timeout in {IMPATIENT.deadline_s, FIRST_CONTACT.deadline_s}
        if self._failures:
            raise self._failures.pop(0)
        candles = self._candles[interval]
        if start is not None:
            candles = candles.between(int(start.timestamp()) * 1000, int(end.timestamp()) * 1000)
        splits = [one for one in ACTIONS if isinstance(one, Split)]
        vendors = adjusted(candles, splits, candles.end_ms) if len(candles) else candles
        index = pd.to_datetime(vendors.open_time_ms, unit="ms")
        daily = interval == "1d"
        index = (
            index.tz_localize("America/New_York") if daily else index.tz_localize("UTC").tz_convert("America/New_York")
        )
        frame = pd.DataFrame(
            {name.capitalize(): getattr(vendors, name) for name in PRICE_COLUMNS}
            | {"Dividends": 0.0, "Stock Splits": 0.0},
            index=index,
        )
        for one in ACTIONS if daily and len(candles) else ():
            at = pd.Timestamp(one.ex_date, tz="America/New_York")
            if isinstance(one, Split):
                frame.loc[at, "Stock Splits"] = one.ratio
            else:
                later = np.prod([split.ratio for split in splits if split.ex_date > one.ex_date])
                frame.loc[at, "Dividends"] = one.amount / later
        return frame


HOURS = SeriesKey.parse("xnas:AAPL-USD:1h")


def yahoo(asked: list[str] | None = None, **changes: Any) -> YahooSource:
    ticker = FakeTicker({"1d": SERIES[DAILY], "1h": traded(HOURS)}, **changes)

    def make_ticker(symbol: str) -> FakeTicker:
        if asked is not None:
            asked.append(symbol)
        return ticker

    return YahooSource(make_ticker=make_ticker, patience=IMPATIENT, sleep=lambda _: None)


@pytest.mark.parametrize("series", [DAILY, HOURS], ids=str)
def test_yahoos_split_adjustment_is_undone(series):
    source = yahoo()
    source.check(series)
    pages = list(source.pages(series, START, END))
    assert_same(pages, traded(series), rtol=1e-15)
    assert joined(pages)["close"][0] == 400.0  # 100.0 in Yahoo's table


def test_yahoos_dividends_are_as_paid():
    assert yahoo().actions(DAILY) == ACTIONS
    assert isinstance(yahoo(), CorporateActionSource)


@pytest.mark.parametrize(
    ("series", "symbol", "currency"),
    [
        ("xnys:BRK.B-USD:1d", "BRK-B", "USD"),
        ("xlon:AV-GBX:1d", "AV.L", "GBp"),
        ("xtks:7203-JPY:1d", "7203.T", "JPY"),
        ("xjse:SSW-ZAC:1d", "SSW.JO", "ZAc"),
    ],
)
def test_yahoos_symbols_and_units(series, symbol, currency):
    asked: list[str] = []
    yahoo(asked, currency=currency).check(SeriesKey.parse(series))
    assert asked == [symbol]
    with pytest.raises(InvalidInputError, match=r"yahoo quotes AV.* in .*, expected CHF: the series is x"):
        yahoo(currency=currency).check(SeriesKey.of(series.split(":")[0], "AV/CHF", "1d"))


def test_what_yfinance_raises_is_told():
    from curl_cffi.requests.exceptions import ConnectionError as NoConnection
    from yfinance.exceptions import YFPricesMissingError, YFRateLimitError

    assert_same(list(yahoo(failures=[YFRateLimitError()]).pages(DAILY, START, END)), SERIES[DAILY], rtol=1e-15)
    with pytest.raises(SourceError, match=r"yahoo fails .*YFRateLimitError"):
        list(yahoo(failures=[YFRateLimitError() for _ in range(9)]).pages(DAILY, START, END))
    with pytest.raises(SourceUnreachableError, match="yahoo cannot be reached"):
        yahoo(failures=[NoConnection("no route") for _ in range(9)]).check(DAILY)
    with pytest.raises(InvalidInputError, match="yahoo has no candles of AAPL"):
        yahoo(failures=[YFPricesMissingError("AAPL", "")]).check(DAILY)
    empty = SERIES[DAILY].slice(0, 0)
    with pytest.raises(InvalidInputError, match="Check the ticker"):
        YahooSource(make_ticker=lambda _: FakeTicker({"1d": empty}), patience=IMPATIENT).check(DAILY)


def test_every_vendor_says_what_it_gives():
    sources: list[CandleSource] = [AlphaVantageSource(), PolygonSource(), YahooSource()]
    for source in sources:
        offer = source.offer()
        assert offer.volume_unit == "shares"
        assert "1d" in offer.timeframes
        assert offer.limits
    assert [source.offer().key_variable for source in sources] == ["ALPHAVANTAGE_API_KEY", "POLYGON_API_KEY", None]
