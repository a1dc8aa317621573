"""A closed market is no gap: which candles are expected, missing, filled and adjacent."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import pytest

from tradepulse_pipeline.backtest.api import run_backtest
from tradepulse_pipeline.backtest.settings import AccountSettings
from tradepulse_pipeline.errors import CandleError, InvalidInputError
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.calendars import NEVER_CLOSES, calendar_of
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.quality import Gap, assess
from tradepulse_pipeline.market.series import MS_PER_DAY, Timeframe
from tradepulse_pipeline.market.sources.files import read_candle_file
from tradepulse_pipeline.market.sources.rows import clean_rows
from tradepulse_pipeline.strategies.decisions import Decisions, Exits
from tradepulse_pipeline_tests.reference.comparison import assert_same_result, plain_candles, plain_orders

NEW_YORK, DAY, HOUR = calendar_of("xnys"), Timeframe("1d"), Timeframe("1h")


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def times(calendar, timeframe, start, end):
    expected = calendar.expected(Timeframe(timeframe), ms(start), ms(end))
    return [str(time) for time in expected.astype("datetime64[ms]").astype("datetime64[m]")]


def candles_at(open_time_ms, timeframe, calendar):
    close = 100.0 + np.arange(len(open_time_ms)) % 7
    columns = (close, close + 1, close - 1, close, np.full(len(close), 5.0))
    return Candles.from_arrays(timeframe, np.asarray(open_time_ms), *columns, calendar=calendar)


@pytest.mark.parametrize(
    ("venue", "timeframe", "start", "end", "expected"),
    [
        # The week of the attacks: the market opened again on the 17th.
        ("xnys", "1d", "2001-09-10", "2001-09-19", ["2001-09-10T00:00", "2001-09-17T00:00", "2001-09-18T00:00"]),
        # A half day in summer time, then a holiday.
        ("xnas", "1h", "2024-07-03", "2024-07-05", [f"2024-07-03T{hour}:30" for hour in (13, 14, 15, 16)]),
        # Winter time, two candles of which the second is cut short.
        ("xnys", "4h", "2024-01-05", "2024-01-06", ["2024-01-05T14:30", "2024-01-05T18:30"]),
        # A lunch break.
        (
            "xtks",
            "2h",
            "2024-01-05",
            "2024-01-06",
            ["2024-01-05T00:00", "2024-01-05T02:00", "2024-01-05T03:30", "2024-01-05T05:30"],
        ),
        # London opens at 8, whatever the season.
        ("xlon", "4h", "2024-07-01", "2024-07-02", ["2024-07-01T07:00", "2024-07-01T11:00", "2024-07-01T15:00"]),
    ],
)
def test_the_expected_candles_are_those_of_the_sessions(venue, timeframe, start, end, expected):
    assert times(calendar_of(venue), timeframe, start, end) == expected


def test_other_exchanges_never_close():
    for exchange in ("binance", "xt", "simulated", "kraken"):
        assert calendar_of(exchange) == NEVER_CLOSES
    assert times(NEVER_CLOSES, "12h", "2024-01-06T01:00", "2024-01-07T12:00") == [
        "2024-01-06T12:00",
        "2024-01-07T00:00",
    ]
    open_time_ms = np.array([0, 1, 2, 5, 7]) * HOUR.milliseconds
    assert NEVER_CLOSES.missing_between(open_time_ms, HOUR).tolist() == [0, 0, 2, 1]


def test_a_stock_exchange_that_is_unknown_is_named_with_its_neighbours():
    with pytest.raises(InvalidInputError, match=r"Unknown stock exchange 'xnyz'\. Did you mean .*'xnys'"):
        calendar_of("xnyz").expected(DAY, 0, MS_PER_DAY)


def test_weekends_and_holidays_are_no_gap_and_a_missing_session_is():
    sessions = NEW_YORK.expected(DAY, ms("2023-01-01"), ms("2024-07-01"))
    holey = np.delete(sessions, [100, 200, 201, 202, 203, 204])
    report = assess(candles_at(holey, DAY, NEW_YORK))
    assert report.gaps == (Gap(int(sessions[100]), 1), Gap(int(sessions[200]), 5))
    assert (report.n_expected, report.n_missing) == (len(sessions), 6)
    whole = assess(candles_at(sessions, DAY, NEW_YORK))
    assert (whole.gaps, whole.coverage) == ((), 1.0)
    assert len(assess(candles_at(sessions, DAY, NEVER_CLOSES)).gaps) > 70  # every weekend, were the market always open


def test_only_expected_candles_are_filled():
    hours = NEW_YORK.expected(HOUR, ms("2024-07-01"), ms("2024-07-09"))
    # The last two hours of 2 July and the first of 3 July are one gap of three candles; the 4th is a holiday.
    gone = [12, 13, 14]
    filled = candles_at(np.delete(hours, gone), HOUR, NEW_YORK).filled_forward()
    assert filled.open_time_ms.tolist() == hours.tolist()
    assert np.flatnonzero(filled.is_filled).tolist() == gone
    assert (filled.close[12:15] == filled.close[11]).all()
    assert filled.filled_forward() is filled
    assert candles_at(np.delete(hours, [*gone, 15]), HOUR, NEW_YORK).filled_forward().is_filled.sum() == 0


def test_intraday_candles_open_on_the_half_hour_and_daily_ones_at_midnight():
    hours = NEW_YORK.expected(HOUR, ms("2024-07-01"), ms("2024-07-03"))
    values = np.tile([10.0, 11.0, 9.0, 10.0, 1.0], (len(hours), 1))
    now_ms = ms("2024-08-01")
    assert len(clean_rows(hours, values, HOUR, now_ms=now_ms, calendar=NEW_YORK).candles) == len(hours)
    crypto = clean_rows(hours, values, HOUR, now_ms=now_ms)
    assert {row.reason for row in crypto.rejected} == {"with an open time off the 1h grid"}
    for timeframe, minutes in (("1d", 30), ("1h", 15), ("15m", 5)):
        with pytest.raises(CandleError, match="off the timeframe's grid"):
            candles_at([ms("2024-07-01") + minutes * 60_000], Timeframe(timeframe), NEW_YORK)


def test_the_calendar_belongs_to_the_fingerprint_where_there_is_one():
    open_time_ms = NEW_YORK.expected(DAY, ms("2024-01-01"), ms("2024-02-01"))
    plain, listed = candles_at(open_time_ms, DAY, NEVER_CLOSES), candles_at(open_time_ms, DAY, NEW_YORK)
    assert plain.fingerprint() != listed.fingerprint()
    assert listed.slice(0, len(listed)).fingerprint() == listed.fingerprint()
    assert listed.between(None, ms("2024-01-10")).calendar == NEW_YORK


def test_a_trading_day_in_sydney_begins_on_the_utc_day_before():
    sydney = calendar_of("xasx")
    opens = np.array([ms("2024-01-03T23:00"), ms("2024-01-04T03:00")])
    assert sydney.trading_days(opens, Timeframe("4h")).tolist() == [ms("2024-01-04")] * 2
    assert NEVER_CLOSES.trading_days(opens, Timeframe("4h")).tolist() == [ms("2024-01-03"), ms("2024-01-04")]


@pytest.mark.parametrize("timeframe", ["1d", "1h", "4h"])
def test_trades_are_entered_over_a_closed_market_but_not_over_a_missing_candle(timeframe):
    rng = np.random.default_rng(7)
    expected = NEW_YORK.expected(Timeframe(timeframe), ms("2024-01-02"), ms("2024-04-01"))
    kept = np.sort(rng.permutation(len(expected))[: len(expected) * 4 // 5])
    close = 100.0 * np.exp(np.cumsum(rng.normal(0, 0.01, len(kept))))
    open_ = close * np.exp(rng.normal(0, 0.003, len(kept)))
    high, low = np.maximum(open_, close) * 1.004, np.minimum(open_, close) * 0.996
    candles = Candles.from_arrays(
        Timeframe(timeframe), expected[kept], open_, high, low, close, np.ones(len(kept)), calendar=NEW_YORK
    )
    frame = IndicatorFrame.compute(candles, ())
    bars = np.arange(len(kept))
    decisions = Decisions.of(bars, np.ones(len(kept), dtype=np.int64), close * 0.99, np.zeros(len(kept)))
    exits, account = Exits(stop_multiple=0.0, target="r", target_multiple=1.0, max_holding_bars=1), AccountSettings()
    result = run_backtest(frame, decisions, exits, account)
    trades = assert_same_result(
        result,
        plain_candles(candles),
        candles.timeframe.milliseconds,
        plain_orders(decisions, exits),
        account,
        (0, len(kept)),
        expected=set(expected.tolist()),
    )
    is_next = np.diff(kept) == 1
    assert {trade.decision_bar for trade in trades} <= set(np.flatnonzero(is_next).tolist())
    overnight = np.diff(expected[kept]) > candles.timeframe.milliseconds
    assert any(overnight[trade.decision_bar] for trade in trades)


def test_real_daily_candles_have_no_gap_but_those_of_closed_markets(equities_dir):
    """SPY traded on every day that the New York calendar names since 1998, and on no other."""
    spy = read_candle_file(equities_dir / "SPY_1d_raw.parquet", DAY, calendar=NEW_YORK).candles
    expected = NEW_YORK.expected(DAY, int(spy.open_time_ms[0]), spy.end_ms)
    assert spy.open_time_ms.tolist() == expected.tolist()
    report = assess(spy)
    assert (report.n_candles, report.gaps) == (5_849, ())


def test_a_market_that_never_closes_needs_no_calendar_library():
    script = (
        "import sys, numpy as np\n"
        "from tradepulse_pipeline.market.quality import assess\n"
        "from tradepulse_pipeline.market.candles import Candles\n"
        "from tradepulse_pipeline.market.series import Timeframe\n"
        "ones = np.ones(3)\n"
        "assess(Candles.from_arrays(Timeframe('1h'), np.array([0, 1, 5]) * 3_600_000, *[ones] * 5).filled_forward())\n"
        "print(sorted({'exchange_calendars', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
