"""A folder of candle files as a source."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tradepulse_pipeline.errors import CandleError, HistoryUnavailableError, InvalidInputError, SourceUnreachableError
from tradepulse_pipeline.market.series import MS_PER_DAY, Market, SeriesKey, Timeframe
from tradepulse_pipeline.market.sources.folder import FolderSource
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate

START = 1_704_067_200_000
STEP = 3_600_000
SERIES = SeriesKey.of("binance", "BTC/USDT", "1h")
CANDLES = simulate(
    Market.parse("simulated", "BTC/USDT"), Timeframe("1h"), START, START + 5 * MS_PER_DAY, SimulatedMarketSettings()
)
COLUMNS = ("open", "high", "low", "close", "volume")


def frame(**changes):
    columns = {"timestamp": CANDLES.open_time_ms, **{name: getattr(CANDLES, name) for name in COLUMNS}, **changes}
    return pl.DataFrame(columns)


@pytest.fixture
def folder(tmp_path):
    frame().write_parquet(tmp_path / "binance_BTC-USDT_1h.parquet")
    (tmp_path / "README.md").write_text("not a candle file")
    (tmp_path / "binance_ETH-USDT_1h.parquet").mkdir()
    return tmp_path


def test_the_candles_of_the_range_are_one_page(folder):
    source = FolderSource(folder)
    source.check(SERIES)
    (page,) = source.pages(SERIES, START + 10 * STEP - 1, START + 20 * STEP)
    np.testing.assert_array_equal(page.candles.open_time_ms, CANDLES.open_time_ms[10:20])
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(page.candles, name), getattr(CANDLES, name)[10:20])
    assert (page.warning, page.rejected, page.n_duplicates) == ("", (), 0)
    assert source.name == f"folder:{folder}"
    assert source.offer().timeframes == ("1h",)


def test_a_range_that_reaches_beyond_the_file_is_told(folder):
    source = FolderSource(folder)
    (page,) = source.pages(SERIES, START - 24 * STEP, CANDLES.end_ms)
    assert len(page.candles) == len(CANDLES)
    assert page.warning == (
        f"folder:{folder} has binance:BTC-USDT:1h candles from 2024-01-01T00:00Z to 2024-01-06T00:00Z only; "
        "2023-12-31T00:00Z to 2024-01-06T00:00Z was asked for."
    )
    (page,) = source.pages(SERIES, CANDLES.end_ms, CANDLES.end_ms + STEP)
    assert len(page.candles) == 0
    assert "only, with a gap or nothing where 2024-01-06T00:00Z to 2024-01-06T01:00Z was asked for" in page.warning
    with pytest.raises(HistoryUnavailableError, match="to 2024-01-06T00:00Z only, and 2023-12-31T00:00Z to 2024-01-01"):
        list(source.pages(SERIES, START - 24 * STEP, START))


def test_rows_that_are_no_candles_come_with_the_range_that_they_lie_in(folder):
    volume = np.where(np.isin(np.arange(len(CANDLES)), (3, 50)), -1.0, CANDLES.volume)
    frame(volume=volume).write_parquet(folder / "binance_BTC-USDT_1h.parquet")
    (page,) = FolderSource(folder).pages(SERIES, START, START + 10 * STEP)
    assert [(row.row, row.reason) for row in page.rejected] == [(4, "with a negative volume")]
    assert len(page.candles) == 9


def test_what_is_not_there_is_told_with_what_is(folder):
    with pytest.raises(InvalidInputError, match=r"Unknown series 'binance:BTC-USDT:5m' in the folder .* Did you mean"):
        FolderSource(folder).check(SeriesKey.of("binance", "BTC/USDT", "5m"))
    with pytest.raises(SourceUnreachableError, match=r"There is no folder .*nowhere"):
        FolderSource(folder / "nowhere").check(SERIES)
    assert FolderSource(folder / "nowhere").offer().timeframes == ()


def test_two_files_of_one_series_are_refused(folder):
    frame().write_csv(folder / "binance_BTC-USDT_1h.csv")
    with pytest.raises(InvalidInputError, match=r"several files: binance_BTC-USDT_1h.csv, binance_BTC-USDT_1h.parquet"):
        FolderSource(folder).check(SERIES)


def test_a_file_that_cannot_be_read_is_an_error(folder):
    (folder / "binance_BTC-USDT_1h.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(CandleError, match=r"binance_BTC-USDT_1h.parquet is not a readable .parquet file"):
        list(FolderSource(folder).pages(SERIES, START, CANDLES.end_ms))


def test_a_folder_of_real_files(market_data_dir):
    source = FolderSource(market_data_dir)
    assert source.offer().timeframes == ("1m", "5m", "15m", "1h")
    (page,) = source.pages(SeriesKey.of("kraken", "BTC/USDT", "1h"), 1_700_000_000_000, 1_700_100_000_000)
    assert len(page.candles) == 27
