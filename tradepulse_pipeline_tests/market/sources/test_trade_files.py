"""Single trades from files."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime

import polars as pl
import pytest

from tradepulse_pipeline.errors import CandleError
from tradepulse_pipeline.market.series import Timeframe
from tradepulse_pipeline.market.sources.trade_files import closed_candles, read_trade_file, read_trade_files
from tradepulse_pipeline.market.trades import NO_ID

SECOND = 1_700_000_000 // 300 * 300


def written(folder, text, name="XBTUSD.csv"):
    path = folder / name
    path.write_text(text)
    return path


def test_time_and_sales_have_no_header_no_ids_and_many_trades_in_a_second(tmp_path):
    path = written(tmp_path, f"{SECOND},90.5,1.1\n{SECOND},90.4,0.2\n{SECOND + 9},90.6,3\n")
    trades = read_trade_file(path)
    assert trades.time_ms.tolist() == [SECOND * 1000, SECOND * 1000, (SECOND + 9) * 1000]
    assert trades.price.tolist() == [90.5, 90.4, 90.6]
    assert trades.amount.tolist() == [1.1, 0.2, 3]
    assert (trades.trade_id.tolist(), trades.side.tolist()) == ([NO_ID] * 3, [0] * 3)
    packed = tmp_path / "XBTUSD.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_trade_file(packed).price.tolist() == [90.5, 90.4, 90.6]


def test_a_table_may_name_its_columns(tmp_path):
    path = written(tmp_path, f"ID,Side,Price,Qty,Time\n7,Buy,2,3,{SECOND}.1239\n8,sell,4,5,{SECOND + 1}\n")
    trades = read_trade_file(path)
    assert trades.time_ms.tolist() == [SECOND * 1000 + 123, SECOND * 1000 + 1000]
    assert (trades.trade_id.tolist(), trades.side.tolist()) == ([7, 8], [1, -1])
    assert (trades.price.tolist(), trades.amount.tolist()) == ([2, 4], [3, 5])


def test_a_parquet_table_of_trades_is_read(tmp_path):
    path = tmp_path / "trades.parquet"
    pl.DataFrame(
        {
            "timestamp": [datetime(2023, 11, 17, 0, 0, 6, 662_000, UTC)] * 2,
            "id": ["5504897", None],
            "type": ["market", "limit"],
            "side": ["sell", None],
            "price": [36160.9, 36160.8],
            "amount": [0.25, 0.5],
            "cost": [1.0, 1.0],
        }
    ).write_parquet(path)
    trades = read_trade_file(path)
    assert trades.time_ms.tolist() == [1_700_179_206_662] * 2
    assert (trades.trade_id.tolist(), trades.side.tolist()) == ([5_504_897, NO_ID], [-1, 0])
    assert (trades.price.tolist(), trades.amount.tolist()) == ([36160.9, 36160.8], [0.25, 0.5])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2\n", "has 2 columns; expected time, price, amount"),
        ("time,price\n1,2\n", r"no column for amount\. Found: time, price"),
        ("time,price,amount\n", "holds no trades"),
        (f"{SECOND},2,3\n{SECOND - 1},2,3\n", "Trade 1: its time is before that of the trade before it"),
        (f"{SECOND},2,3\n{SECOND},0,3\n", r"Trade 1: expected a finite price above 0, found 0\.0"),
        (f"{SECOND},2,\n", "Trade 0: expected a finite amount above 0, found nan"),
        (f"{SECOND},2,3\nsoon,2,3\n{SECOND},2,3\n", "trade 1 has no time that can be read: 'soon'"),
        (f"{SECOND},two,3\n", "is not a readable .csv file"),
        ("", "is empty"),
    ],
)
def test_what_holds_no_trades_is_refused(tmp_path, text, message):
    with pytest.raises(CandleError, match=rf"^XBTUSD\.csv.*{message}"):
        read_trade_file(written(tmp_path, text))


def test_an_unknown_kind_of_file_is_refused(tmp_path):
    with pytest.raises(CandleError, match=r"unknown kind of file '\.pkl'\. Expected \.csv"):
        read_trade_file(written(tmp_path, "1,2,3", name="trades.pkl"))


def test_files_are_put_in_the_order_of_time_and_the_last_candle_is_left_out(tmp_path):
    late = written(tmp_path, f"{SECOND + 400},7,1\n{SECOND + 700},8,1\n", "late.csv")
    early = written(tmp_path, f"{SECOND},5,1\n{SECOND + 301},6,2\n", "early.csv")
    trades = read_trade_files([late, early])
    assert trades.price.tolist() == [5, 6, 7, 8]
    candles = closed_candles(trades, Timeframe("5m"))
    assert (candles.open_time_ms // 1000).tolist() == [SECOND, SECOND + 300]
    assert (candles.open.tolist(), candles.close.tolist(), candles.volume.tolist()) == ([5, 6], [5, 7], [1, 3])


def test_files_that_overlap_are_refused(tmp_path):
    paths = [
        written(tmp_path, f"{SECOND},5,1\n{SECOND + 60},6,2\n", "a.csv"),
        written(tmp_path, f"{SECOND + 60},6,2\n", "b.csv"),
    ]
    with pytest.raises(CandleError, match=r"a\.csv ends at 2023-11-14T22:11Z, and b\.csv begins at .*: they overlap"):
        read_trade_files(paths)


def test_trades_of_one_span_make_no_whole_candle(tmp_path):
    trades = read_trade_file(written(tmp_path, f"{SECOND},5,1\n{SECOND + 60},6,2\n"))
    with pytest.raises(CandleError, match="2 trades make no whole 5m candle"):
        closed_candles(trades, Timeframe("5m"))
    assert len(closed_candles(trades, Timeframe("1m"))) == 1


def test_the_archive_s_files_of_two_quarters_are_read_together(ticks_dir):
    paths = sorted(ticks_dir.glob("kraken_BCHEUR_time-and-sales_*.csv"))
    trades = read_trade_files(paths[::-1])
    assert len(trades) == 148 + 486
    candles = closed_candles(trades, Timeframe("1h"))
    lines = [line.split(",") for path in paths for line in path.read_text().split()]
    first = [line for line in lines if int(line[0]) // 3600 == int(lines[0][0]) // 3600]
    assert candles.open[0] == float(first[0][1])
    assert candles.close[0] == float(first[-1][1])
    assert candles.high[0] == max(float(line[1]) for line in first)
    assert candles.volume[0] == pytest.approx(sum(float(line[2]) for line in first), rel=1e-15)
    assert candles.end_ms == int(lines[-1][0]) // 3600 * 3_600_000
