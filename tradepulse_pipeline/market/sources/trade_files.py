"""Single trades from files: an exchange's archive of time and sales, or a table of trades."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from tradepulse_pipeline.errors import CandleError
from tradepulse_pipeline.market.candles import Candles, FloatArray
from tradepulse_pipeline.market.series import Timeframe
from tradepulse_pipeline.market.sources.files import MAX_ROWS, plain_name, times_in, unpacked
from tradepulse_pipeline.market.sources.times import iso_utc, to_milliseconds
from tradepulse_pipeline.market.trades import NO_ID, Trades, candles_of_trades

if TYPE_CHECKING:
    import polars as pl

#: What the columns may be called, in the order in which the names are looked for; the first three must be there.
COLUMN_NAMES: Final = {
    "time": ("timestamp", "time", "date", "datetime", "ts"),
    "price": ("price", "p"),
    "amount": ("amount", "volume", "vol", "qty", "quantity", "size", "q"),
    "id": ("id", "trade_id", "agg_trade_id", "a"),
    "side": ("side",),
}
_NEEDED: Final = ("time", "price", "amount")

_READABLE: Final = ".csv and .parquet, and .gz or .zip of one of them"


def read_trade_file(path: Path) -> Trades:
    """Read single trades from a file, in the order in which they stand there.

    A CSV file without a header is Kraken's "time and sales": time, price, amount. Other tables name their columns;
    ``id`` and ``side`` (buy or sell) may be missing. Times are as in :func:`read_candle_file`; several trades may
    share one.

    Parameters
    ----------
    path : Path
        A ``.csv`` or ``.parquet`` file, or a ``.gz`` or ``.zip`` that holds one.

    Raises
    ------
    CandleError
        If the file is missing, corrupt, too large or of an unknown kind, lacks a column, or holds a row that is no
        trade or runs backwards in time.
    """
    try:
        with path.open("rb") as file:
            data, suffix = unpacked(file, path.name)
    except OSError as error:
        raise CandleError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        trades = _trades(_table(data, suffix))
    except CandleError as error:
        raise CandleError(f"{path.name}: {error}") from error
    except Exception as error:  # the readers raise what they like
        detail = (str(error) or repr(error)).splitlines()[0]
        raise CandleError(f"{path.name} is not a readable {suffix} file: {detail}") from error
    if not len(trades):
        raise CandleError(f"{path.name} holds no trades.")
    return trades


def read_trade_files(paths: Sequence[Path]) -> Trades:
    """Read single trades from several files of one market that follow one another, given in any order.

    Raises
    ------
    CandleError
        As for :func:`read_trade_file`, and if two files overlap in time: trades would count twice.
    """
    read = sorted(((read_trade_file(path), path) for path in paths), key=lambda one: _first_ms(one[0]))
    for (before, earlier), (after, later) in pairwise(read):
        if before.time_ms[-1] >= after.time_ms[0]:
            raise CandleError(
                f"{earlier.name} ends at {iso_utc(int(before.time_ms[-1]))}, and {later.name} begins at "
                f"{iso_utc(int(after.time_ms[0]))}: they overlap. Give files that follow one another."
            )
    return Trades.merged([trades for trades, _ in read])


def closed_candles(trades: Trades, timeframe: Timeframe) -> Candles:
    """Return the candles that trades out of files make, but for the last one: nothing tells that it has closed.

    The first one is taken to be whole, as archives begin with a day.

    Raises
    ------
    CandleError
        If no candle is left.
    """
    candles = candles_of_trades(trades, timeframe)
    if len(candles) < 2:
        raise CandleError(
            f"{len(trades)} trades make no whole {timeframe} candle: expected trades of more than one {timeframe} span."
        )
    return candles.slice(0, len(candles) - 1)


def _first_ms(trades: Trades) -> int:
    return int(trades.time_ms[0])


def _table(data: bytes, suffix: str) -> pl.DataFrame:
    import polars as pl

    match suffix:
        case ".parquet":
            n_rows = int(pl.scan_parquet(io.BytesIO(data)).select(pl.len()).collect().item())
            if n_rows > MAX_ROWS:
                raise CandleError(f"it holds {n_rows} trades; more than {MAX_ROWS} are refused. Split it.")
            return pl.read_parquet(io.BytesIO(data))
        case ".csv":
            first_cell = data.split(b"\n", 1)[0].split(b",", 1)[0].decode(errors="replace").strip(' \r"\ufeff')
            has_header = not np.isfinite(times_in(pl.Series([first_cell]))[0])
            frame = pl.read_csv(io.BytesIO(data), has_header=has_header, infer_schema=False)
            if has_header:
                return frame
            if frame.width != len(_NEEDED):
                raise CandleError(
                    f"a table without column names has {frame.width} columns; expected {', '.join(_NEEDED)}."
                )
            return frame.rename(dict(zip(frame.columns, _NEEDED, strict=True)))
        case _:
            raise CandleError(f"unknown kind of file {suffix!r}. Expected {_READABLE}.")


def _trades(frame: pl.DataFrame) -> Trades:
    import polars as pl

    by_name = {plain_name(name): name for name in reversed(frame.columns)}
    found = {
        column: next((by_name[name] for name in names if name in by_name), None)
        for column, names in COLUMN_NAMES.items()
    }
    missing = [column for column in _NEEDED if found[column] is None]
    if missing:
        raise CandleError(
            f"no column for {', '.join(missing)}. Found: {', '.join(frame.columns[:20])}. "
            f"Expected: {', '.join(_NEEDED)}, and id and side if there are any."
        )
    named = frame.select(**{column: pl.col(name) for column, name in found.items() if name is not None})
    times = to_milliseconds(times_in(named["time"]))
    broken = np.flatnonzero(~np.isfinite(times))
    if len(broken):
        raise CandleError(f"trade {broken[0]} has no time that can be read: {named['time'][int(broken[0])]!r}.")
    nothing = pl.lit(None, dtype=pl.String)
    side = pl.col("side").cast(pl.String).str.to_lowercase() if "side" in named.columns else nothing
    rest = named.select(
        (pl.col("id") if "id" in named.columns else nothing).cast(pl.Int64).fill_null(NO_ID).alias("id"),
        side.replace_strict({"buy": 1, "sell": -1}, default=0, return_dtype=pl.Int8).alias("side"),
        pl.col("price").cast(pl.Float64),
        pl.col("amount").cast(pl.Float64),
    )
    whole_times: FloatArray = np.floor(times)
    return Trades.from_arrays(
        rest["id"].to_numpy(),
        whole_times.astype(np.int64),
        rest["price"].fill_null(np.nan).to_numpy(),
        rest["amount"].fill_null(np.nan).to_numpy(),
        rest["side"].to_numpy(),
    )
