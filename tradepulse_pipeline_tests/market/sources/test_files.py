"""Files of candles, in every form that is promised, and broken in every way that was thought of."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import zipfile
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from tradepulse_pipeline.errors import CandleError
from tradepulse_pipeline.market.series import Market, Timeframe
from tradepulse_pipeline.market.sources import files
from tradepulse_pipeline.market.sources.files import read_candle_file
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate

FIVE = Timeframe("5m")
START = 1_735_689_600_000
CANDLES = simulate(
    Market.parse("simulated", "BTC/USDT"), FIVE, START, START + 86_400_000, SimulatedMarketSettings(outages_per_year=0)
)
VALUES = ("open", "high", "low", "close", "volume")


def rows(candles=CANDLES, *, unit=1.0):
    columns = [getattr(candles, name).tolist() for name in VALUES]
    return [[int(time / unit), *values] for time, *values in zip(candles.open_time_ms.tolist(), *columns, strict=True)]


def frame(time_name="timestamp", candles=CANDLES):
    return pl.DataFrame(rows(candles), schema=[time_name, *VALUES], orient="row")


def csv(table, header=""):
    return "\n".join([*([header] if header else []), *(",".join(map(str, row)) for row in table)]).encode()


def zipped(members):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return packed.getvalue()


def parquet(table):
    data = io.BytesIO()
    table.write_parquet(data)
    return data.getvalue()


def feather(table):
    data = io.BytesIO()
    table.write_ipc(data, compression="lz4")
    return data.getvalue()


def datetimes(time_unit="ms", time_zone="UTC"):
    times = pl.from_epoch("timestamp", "ms").dt.replace_time_zone(time_zone).dt.cast_time_unit(time_unit)
    return frame().with_columns(times)


def binance(unit=1.0):
    span = int(300_000 / unit) - 1
    return [[*row, row[0] + span, "1.5", 7, "0.5", "0.7", "0"] for row in rows(unit=unit)]


BINANCE_HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)
KRAKEN = [[*row, 3] for row in rows(unit=1000)]
ISO = [[datetime.fromtimestamp(row[0] / 1000, UTC), *row[1:]] for row in rows()]

FORMS = {
    "plain.parquet": parquet(frame()),
    "datetimes.parquet": parquet(datetimes()),
    "nanoseconds.parquet": parquet(datetimes("ns")),
    "naive.parquet": parquet(datetimes("us", None)),
    "more_columns.parquet": parquet(frame().with_columns(pair=pl.lit("BTC/USDT"), trades=1)),
    "texts.parquet": parquet(frame().with_columns(pl.all().cast(pl.String))),
    "freqtrade.feather": feather(datetimes().rename({"timestamp": "date"})),
    "freqtrade.json": json.dumps(rows()).encode(),
    "objects.json": json.dumps([dict(zip(("time", *VALUES), row, strict=True)) for row in rows()]).encode(),
    "binance.csv": csv(binance()),
    "binance_2025.csv": csv(binance(0.001)),
    "binance_header.csv": csv(binance(), BINANCE_HEADER),
    "binance.zip": zipped({"BTCUSDT-5m-2025-01.csv": csv(binance(0.001))}),
    "kraken.csv": csv(KRAKEN),
    "kraken.csv.gz": gzip.compress(csv(KRAKEN)),
    "capitals.csv": csv(rows(), "Open Time,Open,High,Low,Close,Volume"),
    "letters.csv": csv(rows(unit=1e-6), "t,o,h,l,c,v"),
    "any_order.csv": csv([[row[5], row[0], *row[1:5]] for row in rows()], "volume,timestamp,open,high,low,close"),
    "iso.csv": csv(ISO, "date,open,high,low,close,volume"),
    "iso_z.csv": csv([[f"{row[0]:%Y-%m-%dT%H:%M:%SZ}", *row[1:]] for row in ISO], "date,open,high,low,close,volume"),
    "iso_minutes.csv": csv([[f"{row[0]:%Y-%m-%d %H:%M}", *row[1:]] for row in ISO]),
    "iso_elsewhere.csv": csv(
        [[row[0].isoformat().replace("+00:00", ".000-00:00"), *row[1:]] for row in ISO],
        "time,open,high,low,close,volume",
    ),
    "windows.csv": b"\xef\xbb\xbf" + csv(rows(), "time,open,high,low,close,volume").replace(b"\n", b"\r\n"),
    "newest_first.csv": csv(rows()[::-1]),
}


def write(folder, name, data):
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_candles(tmp_path, name):
    read = read_candle_file(write(tmp_path, name, FORMS[name]), FIVE)
    assert read.candles.fingerprint() == CANDLES.fingerprint()
    assert (read.rejected, read.n_duplicates, read.n_rows) == ((), 0, len(CANDLES))


def test_daily_candles_may_have_plain_dates(tmp_path):
    lines = [f"2025-01-{day:02},10,12,9,11,5" for day in range(1, 11)]
    read = read_candle_file(write(tmp_path, "days.csv", "\n".join(lines).encode()), Timeframe("1d"))
    assert (read.candles.open_time_ms == START + 86_400_000 * np.arange(10)).all()


def test_bad_rows_are_set_aside_with_their_numbers(tmp_path):
    table = rows()[:40]
    table[3][4] = "NaN"
    table[5][1] = -table[5][1]
    table[7][2] = ""
    table[9][0] += 1234
    table[11][5] = "many"
    table[13][0] = "then"
    table[20:20] = [table[19]]
    table[31], table[35] = table[35], table[31]
    read = read_candle_file(write(tmp_path, "bad.csv", csv(table, "time,open,high,low,close,volume")), FIVE)
    assert [(one.row, one.reason) for one in read.rejected] == [
        (4, "with a value that is missing or not a number"),
        (6, "with a price not above 0"),
        (8, "with a value that is missing or not a number"),
        (10, "with an open time off the 5m grid"),
        (12, "with a value that is missing or not a number"),
        (14, "without an open time"),
        (32, "out of time order"),
        (36, "out of time order"),
    ]
    assert (read.n_rows, read.n_duplicates, len(read.candles)) == (41, 1, 32)


def test_candles_of_the_future_are_not_believed(tmp_path):
    path = write(tmp_path, "candles.csv", csv(rows()))
    read = read_candle_file(path, FIVE, now_ms=START + 200 * 300_000 + 1)
    assert len(read.candles) == 200
    assert {one.reason for one in read.rejected} == {"not closed yet", "in the future"}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("candles.pkl", pickle.dumps(rows()), "a pickle can run any program and is never read"),
        ("candles.txt", csv(rows()), "unknown kind of file '.txt'. Expected .parquet, .feather, .csv, .json"),
        ("candles", csv(rows()), "unknown kind of file ''"),
        ("candles.csv", b"", "candles.csv is empty"),
        ("candles.parquet", FORMS["plain.parquet"][:-100], "candles.parquet is not a readable .parquet file"),
        ("candles.feather", FORMS["freqtrade.feather"][:500], "candles.feather is not a readable .feather file"),
        ("candles.parquet", csv(rows()), "not a readable .parquet file"),
        ("candles.json", FORMS["freqtrade.json"][:-10], "candles.json is not a readable .json file"),
        ("candles.json", b'{"data": []}', "expected a JSON list of candles"),
        ("candles.json", b"[]", "expected a JSON list of candles"),
        ("candles.json", json.dumps([[1, 2], [3, 4, 5]]).encode(), "candles.json"),
        ("candles.csv.gz", FORMS["kraken.csv.gz"][:-100], "candles.csv.gz is not a readable .gz archive"),
        ("candles.gz", csv(rows()), "candles.gz"),
        ("candles.zip", FORMS["binance.zip"][:300], "candles.zip is not a readable .zip archive"),
        ("candles.zip", zipped({"a.csv": b"1", "b.csv": b"2"}), r"holds 2 files \(a.csv, b.csv\), expected one"),
        ("candles.zip", zipped({}), "holds 0 files"),
        ("candles.zip", zipped({"../../candles.csv": csv(rows())}), "path that leads out of the archive"),
        ("candles.zip", zipped({"/etc/candles.csv": csv(rows())}), "path that leads out of the archive"),
        ("candles.zip", zipped({"candles.pickle": pickle.dumps(rows())}), "a pickle can run any program"),
        (
            "candles.csv",
            csv([row[:5] for row in rows()]),
            "has 5 columns; expected 6 .plain., 7 .Kraken's archive., 12",
        ),
        (
            "candles.csv",
            csv(rows(), "when,open,high,low,last,volume"),
            "no column for time, close. Found: when, open, high, low, last, volume. Expected: time, open, high",
        ),
        ("candles.parquet", parquet(pl.DataFrame({"a": [1], "b": [2]})), "no column for time, open.* Found: a, b"),
        ("candles.csv", csv(rows()[::3]), "100% of its rows are 15m apart, expected 5m. Import it as timeframe 15m"),
        (
            "candles.csv",
            csv(rows()[::2]),
            "rows are 10 minutes apart, expected 5m. Timeframes that can be imported: 1m",
        ),
        ("candles.csv", b"time,open,high,low,close,volume\n", "only 0 of 0 rows are valid candles: there are no rows"),
        (
            "candles.csv",
            csv([[row[0], -1, *row[2:]] for row in rows()[:150]] + rows()[150:]),
            r"only 138 of 288 rows are valid candles: 150 with a price not above 0 \(rows 1, 2, 3, …\)",
        ),
    ],
)
def test_a_file_that_cannot_be_trusted_is_refused_with_the_reason(tmp_path, name, data, message):
    with pytest.raises(CandleError, match=message):
        read_candle_file(write(tmp_path, name, data), FIVE)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CandleError, match=r"nothing\.csv cannot be read: No such file"):
        read_candle_file(tmp_path / "nothing.csv", FIVE)


@pytest.mark.parametrize("pack", [gzip.compress, lambda data: zipped({"candles.csv": data})])
def test_an_archive_that_unpacks_to_far_too_much_is_refused(tmp_path, monkeypatch, pack):
    monkeypatch.setattr(files, "MAX_BYTES", 2 * 1024 * 1024)
    suffix = ".csv.gz" if pack is gzip.compress else ".zip"
    path = write(tmp_path, f"bomb{suffix}", pack(b"0" * 50 * 1024 * 1024))
    assert path.stat().st_size < 100_000
    with pytest.raises(CandleError, match="holds more than 2 MiB; refused"):
        read_candle_file(path, FIVE)


@pytest.mark.parametrize("name", ["plain.parquet", "freqtrade.feather"])
def test_a_table_with_far_too_many_rows_is_refused_before_it_is_unpacked(tmp_path, monkeypatch, name):
    monkeypatch.setattr(files, "MAX_ROWS", 100)
    with pytest.raises(CandleError, match=f"{name}: it holds 288 rows; more than 100 are refused"):
        read_candle_file(write(tmp_path, name, FORMS[name]), FIVE)


def test_all_real_files_import_as_they_are(market_data_dir):
    paths = sorted(market_data_dir.rglob("*.parquet"))
    assert len(paths) == 47
    for path in paths:
        read = read_candle_file(path, Timeframe(path.stem.split("_")[-1]))
        is_vintage = path.parent.name == "vintage-2020-02"
        assert (len(read.candles), len(read.rejected), read.n_duplicates) == (
            read.n_rows - 43 * is_vintage,
            43 * is_vintage,
            0,
        ), path


def test_real_rows_off_the_grid_are_rejected_one_by_one(market_data_dir):
    read = read_candle_file(market_data_dir / "vintage-2020-02/binance_BTC-USDT_1h.parquet", Timeframe("1h"))
    first, last = read.rejected[0], read.rejected[-1]
    assert {one.reason for one in read.rejected} == {"with an open time off the 1h grid"}
    assert datetime.fromtimestamp(first.values[0] / 1000, UTC).isoformat() == "2018-02-09T09:28:14.789000+00:00"
    assert datetime.fromtimestamp(last.values[0] / 1000, UTC).isoformat() == "2018-02-11T03:28:14.789000+00:00"
    assert last.row - first.row == 42
