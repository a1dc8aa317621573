"""Splits and dividends in the database, and the candles that a training gets."""

from __future__ import annotations

from datetime import date

import numpy as np
import psycopg
import pytest

from tradepulse_pipeline.database.candles import StoreReport, load_candles, store_candles
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.corporate_actions import candles_for_training, load_actions, store_actions
from tradepulse_pipeline.market.calendars import calendar_of
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.corporate_actions import Dividend, Split, adjusted, midnight_ms
from tradepulse_pipeline.market.series import SeriesKey

SERIES = SeriesKey.parse("xnas:AAPL-USD:1d")
SPLIT = Split(ex_date=date(2020, 8, 31), ratio=4.0)
DIVIDEND = Dividend(ex_date=date(2020, 8, 7), amount=0.82)


def sessions(start: date, end: date, series: SeriesKey = SERIES) -> Candles:
    calendar = calendar_of(series.exchange)
    times = calendar.expected(series.timeframe, midnight_ms(start), midnight_ms(end))
    close = 100.0 + np.arange(len(times))
    return Candles.from_arrays(
        series.timeframe, times, close, close + 1, close - 1, close, np.full(len(times), 8.0), calendar=calendar
    )


def test_actions_are_stored_once_and_come_back_in_order(database: Database) -> None:
    report = store_actions(database, SERIES.market, [SPLIT, DIVIDEND], "yahoo")
    assert report == StoreReport(inserted=2, unchanged=0, restated=0)
    again = store_actions(database, SERIES.market, [DIVIDEND, SPLIT], "polygon")
    assert again == StoreReport(inserted=0, unchanged=2, restated=0)
    assert load_actions(database, SERIES.market) == (DIVIDEND, SPLIT)
    assert load_actions(database, SeriesKey.parse("xnys:AAPL-USD:1d").market) == ()
    assert store_actions(database, SERIES.market, [], "yahoo") == StoreReport(inserted=0, unchanged=0, restated=0)


def test_a_restated_value_leaves_the_former_one_as_a_revision(database: Database) -> None:
    store_actions(database, SERIES.market, [DIVIDEND], "yahoo")
    restated = Dividend(ex_date=DIVIDEND.ex_date, amount=0.205)
    assert store_actions(database, SERIES.market, [restated], "polygon").restated == 1
    assert load_actions(database, SERIES.market) == (restated,)
    rows = database.run(
        lambda connection: connection.execute(
            "SELECT ex_date, kind, value, source, restated_by FROM corporate_action_revisions"
        ).fetchall()
    )
    assert rows == [(DIVIDEND.ex_date, "dividend", 0.82, "yahoo", "polygon")]


def test_dividends_of_one_day_add_up(database: Database) -> None:
    special = Dividend(ex_date=DIVIDEND.ex_date, amount=3.0)
    store_actions(database, SERIES.market, [DIVIDEND, special], "yahoo")
    assert load_actions(database, SERIES.market) == (Dividend(ex_date=DIVIDEND.ex_date, amount=3.82),)


def test_a_training_gets_candles_adjusted_as_of_its_last_one(database: Database) -> None:
    stored = sessions(date(2020, 7, 1), date(2020, 10, 1))
    store_candles(database, SERIES, stored, "file")
    store_actions(database, SERIES.market, [SPLIT, DIVIDEND], "yahoo")
    assert load_candles(database, SERIES).fingerprint() == stored.fingerprint()
    now = candles_for_training(database, SERIES)
    assert now.fingerprint() == adjusted(stored, [SPLIT, DIVIDEND], stored.end_ms).fingerprint()
    assert now.close[0] < 26
    # A training that ends before the split knows nothing of it.
    before = candles_for_training(database, SERIES, None, midnight_ms(SPLIT.ex_date))
    assert before.close[0] == pytest.approx(100 * (1 - 0.82 / stored.close[25]))
    assert before.close[-1] == stored.close[len(before) - 1]
    end_ms = midnight_ms(DIVIDEND.ex_date)
    untouched = candles_for_training(database, SERIES, None, end_ms)
    assert untouched.fingerprint() == stored.between(None, end_ms).fingerprint()


def test_hours_of_a_stock_exchange_may_open_on_the_half_hour_and_no_others(database: Database) -> None:
    hourly = SeriesKey.parse("xnys:IBM-USD:1h")
    candles = sessions(date(2024, 7, 1), date(2024, 7, 9), hourly)
    store_candles(database, hourly, candles, "file")
    loaded = load_candles(database, hourly)
    assert loaded.fingerprint() == candles.fingerprint()
    assert loaded.calendar == calendar_of("xnys")
    shifted = """
        INSERT INTO market_data (exchange, pair, timeframe, "timestamp", open, high, low, close, volume, source)
        VALUES (%s, 'A/USD', %s, timestamptz '2024-07-01 00:00Z' + %s::interval, 1, 1, 1, 1, 0, 'test')
    """
    for exchange, timeframe, offset in (
        ("xnys", "1h", "15m"), ("xnys", "1d", "30m"), ("xnys", "15m", "5m"), ("binance", "1h", "30m"),
    ):  # fmt: skip
        values = (exchange, timeframe, offset)
        with pytest.raises(psycopg.errors.CheckViolation, match="market_data_grid"):
            database.run(lambda connection, values=values: connection.execute(shifted, values))
