"""Candles from files: Parquet, Feather, CSV and JSON, plain or packed."""

from __future__ import annotations

import gzip
import io
import json
import time
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np

from tradepulse_pipeline.errors import CandleError
from tradepulse_pipeline.market.calendars import NEVER_CLOSES, TradingCalendar
from tradepulse_pipeline.market.candles import Candles, FloatArray
from tradepulse_pipeline.market.series import TIMEFRAMES, Timeframe
from tradepulse_pipeline.market.sources.rows import Rejected, clean_rows, count_reasons
from tradepulse_pipeline.market.sources.times import most_common_step, to_milliseconds

if TYPE_CHECKING:
    import polars as pl

#: Largest file, unpacked, and longest table that is read: 1m candles of 19 years.
MAX_BYTES: Final = 512 * 1024 * 1024
MAX_ROWS: Final = 10_000_000

#: What the six columns may be called, in the order in which the names are looked for; case and blanks do not matter.
COLUMN_NAMES: Final = {
    "time": ("timestamp", "open_time", "opentime", "time", "date", "datetime", "start", "unix", "ts", "t"),
    "open": ("open", "open_price", "o"),
    "high": ("high", "high_price", "h"),
    "low": ("low", "low_price", "l"),
    "close": ("close", "close_price", "c"),
    "volume": ("volume", "base_volume", "vol", "v"),
}

#: Tables without names that are known, by their number of columns; all start with the six of COLUMN_NAMES in order.
KNOWN_WIDTHS: Final = {6: "plain", 7: "Kraken's archive", 12: "Binance's bulk download"}

_READABLE: Final = ".parquet, .feather, .csv, .json, and .gz or .zip of one of them"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCandles:
    """What a file held: valid candles, refused rows, the number of repeated rows and of rows in all."""

    candles: Candles
    rejected: tuple[Rejected, ...]
    n_duplicates: int
    n_rows: int


def read_candle_file(
    path: Path, timeframe: Timeframe, *, now_ms: int | None = None, calendar: TradingCalendar = NEVER_CLOSES
) -> FileCandles:
    """Read candles from a file, and set aside the rows that are none.

    Columns are recognised by name, or by position in a table without names: time, open, high, low, close, volume
    (freqtrade's JSON), then trades (Kraken's archive) or six more (Binance's bulk download). Times are numbers since
    1970 in s, ms, µs or ns, dates, or ISO 8601 text; a time without a zone is UTC.

    Parameters
    ----------
    path : Path
        A ``.parquet``, ``.feather``, ``.csv`` or ``.json`` file, or a ``.gz`` or ``.zip`` that holds one of them.
    timeframe : Timeframe
        The span of one candle.
    now_ms : int or None
        The time, in UTC milliseconds, up to which candles have closed; None for the present.
    calendar : TradingCalendar
        That of the market.

    Raises
    ------
    CandleError
        If the file is missing, corrupt, too large or of an unknown kind, lacks a column, has another timeframe, or if
        fewer than half of its rows are valid. The message says what was found and what was expected.
    """
    try:
        with path.open("rb") as file:
            return read_candles(file, path.name, timeframe, now_ms=now_ms, calendar=calendar)
    except OSError as error:
        raise CandleError(f"{path} cannot be read: {error.strerror or error}.") from error


def read_candles(
    file: IO[bytes],
    name: str,
    timeframe: Timeframe,
    *,
    now_ms: int | None = None,
    calendar: TradingCalendar = NEVER_CLOSES,
) -> FileCandles:
    """Read candles from an open file, whose ``name`` tells its kind; else as :func:`read_candle_file`."""
    data, suffix = unpacked(file, name)
    try:
        frame = _table(data, suffix)
    except CandleError as error:
        raise CandleError(f"{name}: {error}") from error
    except Exception as error:  # the readers of four formats raise what they like
        detail = (str(error) or repr(error)).splitlines()[0]
        raise CandleError(f"{name} is not a readable {suffix} file: {detail}") from error
    times, values = _columns(frame, name)
    _check_timeframe(times, timeframe, name)
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    cleaned = clean_rows(times, values, timeframe, now_ms=now_ms, calendar=calendar)
    if len(cleaned.rejected) * 2 > frame.height or not len(cleaned.candles):
        raise CandleError(
            f"{name}: only {len(cleaned.candles)} of {frame.height} rows are valid candles: "
            f"{count_reasons(cleaned.rejected) or 'there are no rows'}. Mend the file, and import it again."
        )
    return FileCandles(
        candles=cleaned.candles, rejected=cleaned.rejected, n_duplicates=cleaned.n_duplicates, n_rows=frame.height
    )


def unpacked(file: IO[bytes], name: str) -> tuple[bytes, str]:
    """Return a file's content, taken out of its archive, and the suffix that tells its format."""
    suffix = PurePosixPath(name).suffix.lower()
    try:
        if suffix == ".gz":
            inner = PurePosixPath(PurePosixPath(name).stem).suffix.lower()
            return _limited(gzip.GzipFile(fileobj=file), name), inner
        if suffix == ".zip":
            with zipfile.ZipFile(file) as archive:
                member = _only_member(archive, name)
                return _limited(archive.open(member), name), PurePosixPath(member).suffix.lower()
        return _limited(file, name), suffix
    except (EOFError, NotImplementedError, RuntimeError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error) as error:
        raise CandleError(f"{name} is not a readable {suffix} archive: {error}.") from error


def _only_member(archive: zipfile.ZipFile, name: str) -> str:
    names = [member for member in archive.namelist() if not member.endswith("/")]
    if len(names) != 1:
        listed = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        raise CandleError(f"{name} holds {len(names)} files ({listed}), expected one: unpack it first.")
    member = PurePosixPath(names[0].replace("\\", "/"))
    if member.is_absolute() or ".." in member.parts or ":" in names[0]:
        raise CandleError(f"{name} holds a file with a path that leads out of the archive: {names[0]!r}; refused.")
    return names[0]


def _limited(file: IO[bytes] | gzip.GzipFile, name: str) -> bytes:
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise CandleError(f"{name} holds more than {MAX_BYTES // 1024**2} MiB; refused. Split it into years.")
    if not data:
        raise CandleError(f"{name} is empty.")
    return data


def _table(data: bytes, suffix: str) -> pl.DataFrame:
    """Read a table; columns without names are called by their position."""
    import polars as pl

    match suffix:
        case ".parquet" | ".feather":
            return _arrow_table(data, suffix)
        case ".csv":
            first_cell = data.split(b"\n", 1)[0].split(b",", 1)[0].decode(errors="replace").strip(' \r"\ufeff')
            has_header = not np.isfinite(times_in(pl.Series([first_cell]))[0])
            return pl.read_csv(io.BytesIO(data), has_header=has_header, infer_schema=False).pipe(_named, has_header)
        case ".json":
            return _json_table(json.loads(data))
        case ".pkl" | ".pickle":
            raise CandleError(f"a pickle can run any program and is never read. Expected {_READABLE}.")
        case _:
            raise CandleError(f"unknown kind of file {suffix!r}. Expected {_READABLE}.")


def _arrow_table(data: bytes, suffix: str) -> pl.DataFrame:
    import polars as pl
    import pyarrow as pa
    import pyarrow.dataset as ds

    file_format: ds.FileFormat = ds.ParquetFileFormat() if suffix == ".parquet" else ds.IpcFileFormat()
    fragment = file_format.make_fragment(pa.BufferReader(data))
    n_rows = fragment.count_rows()  # from the metadata: nothing is unpacked yet
    if n_rows > MAX_ROWS:
        raise CandleError(f"it holds {n_rows} rows; more than {MAX_ROWS} are refused. Split it into years.")
    wanted = [
        name
        for name in fragment.physical_schema.names
        if any(plain_name(name) in known for known in COLUMN_NAMES.values())
    ]
    table = fragment.to_table(columns=wanted or None)
    return pl.DataFrame(pl.from_arrow(table))


def _json_table(content: Any) -> pl.DataFrame:
    import polars as pl

    if not isinstance(content, list) or not content:
        raise CandleError(
            "expected a JSON list of candles, each a list [time, open, high, low, close, volume] or an object."
        )
    has_names = isinstance(content[0], dict)
    frame = pl.DataFrame(content, orient="row", infer_schema_length=None, strict=False)
    return _named(frame, has_names)


def _named(frame: pl.DataFrame, has_names: bool) -> pl.DataFrame:
    """Give the first columns their names by position, where the table has none."""
    if has_names:
        return frame
    if frame.width not in KNOWN_WIDTHS:
        widths = ", ".join(f"{width} ({kind})" for width, kind in KNOWN_WIDTHS.items())
        raise CandleError(
            f"a table without column names has {frame.width} columns; expected {widths}, starting with "
            f"{', '.join(COLUMN_NAMES)}. Give it a header line with these names."
        )
    return frame.rename(dict(zip(frame.columns, COLUMN_NAMES, strict=False)))


def plain_name(name: str) -> str:
    """Return a column's name without case and blanks."""
    return name.strip().lower().replace(" ", "_")


def _columns(frame: pl.DataFrame, name: str) -> tuple[FloatArray, FloatArray]:
    """Return open times of shape (n_rows,) and values of shape (n_rows, 5), NaN where there is no number."""
    import polars as pl

    by_name = {plain_name(name): name for name in reversed(frame.columns)}
    found = {
        column: next((by_name[name] for name in names if name in by_name), None)
        for column, names in COLUMN_NAMES.items()
    }
    missing = [column for column, name in found.items() if name is None]
    if missing:
        raise CandleError(
            f"{name}: no column for {', '.join(missing)}. Found: {', '.join(frame.columns[:20])}. "
            f"Expected: {', '.join(COLUMN_NAMES)} (or a known synonym such as "
            f"{', '.join(COLUMN_NAMES[column][1] for column in missing)})."
        )
    time_name, *value_names = (name for name in found.values() if name is not None)
    numbers = frame.select(pl.col(value_names).cast(pl.Float64, strict=False).fill_null(np.nan))
    return times_in(frame[time_name]), numbers.to_numpy().reshape(-1, 5)


def times_in(column: pl.Series) -> FloatArray:
    """Return a column of times as numbers since 1970 in one of the units that are told by magnitude."""
    import polars as pl

    if column.dtype == pl.Date:
        column = column.cast(pl.Datetime("us"))
    if column.dtype == pl.String:
        numbers = column.cast(pl.Float64, strict=False)
        column = numbers if numbers.count() * 2 > column.count() else _parsed_dates(column)
    if isinstance(column.dtype, pl.Datetime):
        column = column.dt.epoch("us")
    times: FloatArray = column.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
    return times


def _parsed_dates(column: pl.Series) -> pl.Series:
    """Read ISO 8601 dates and times, with or without a zone, as UTC; null where it is none."""
    import polars as pl

    zoned = column.str.strip_chars().str.replace(r"(?i)(z| ?utc)$", "+00:00").str.replace(" ", "T")
    naive = zoned.str.replace(r"^(\d{4}-\d\d-\d\d)$", "${1}T00:00:00")
    full = naive.str.replace(r"T(\d\d:\d\d)($|[+-])", "T${1}:00${2}")
    with_zone = pl.when(full.str.contains(r"[+-]\d\d:?\d\d$")).then(full).otherwise(full + "+00:00")
    return pl.select(with_zone.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%#z", time_unit="us", strict=False)).to_series()


def _check_timeframe(times: FloatArray, timeframe: Timeframe, name: str) -> None:
    step, share = most_common_step(to_milliseconds(times))
    if step in {0, timeframe.milliseconds}:
        return
    found = next((one for one in TIMEFRAMES if Timeframe(one).milliseconds == step), None)
    raise CandleError(
        f"{name}: {share:.0%} of its rows are {found or f'{step / 60_000:g} minutes'} apart, expected {timeframe}. "
        + (
            f"Import it as timeframe {found}."
            if found
            else f"Timeframes that can be imported: {', '.join(TIMEFRAMES)}."
        )
    )
