"""Recordings of others and of our own, told as the events that they once were."""

from __future__ import annotations

import gzip
import io
import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final

from tradepulse_pipeline.errors import InvalidInputError, one_of
from tradepulse_pipeline.market.live.dialects import DIALECTS
from tradepulse_pipeline.market.live.events import Event, Trade, TradesMade
from tradepulse_pipeline.market.series import Market
from tradepulse_pipeline.market.trades import NO_ID

#: Forms of a line: receive time in ns, a space, JSON; receive time in s, a colon, JSON; JSON alone.
_LINE: Final = re.compile(r"(?:(?P<ns>\d{19}) |(?P<s>\d+\.\d+): )?(?P<json>[\[{].*)")

#: What is no message: the address that was connected to, and what the client sent.
_NOT_RECEIVED: Final = re.compile(r"\S+ <->? ")

_FORMATS: Final = (
    "Known forms: messages as received over WebSocket, one per line, alone or after the receive time "
    "('nanoseconds {…}' or 'seconds: {…}'), plain, in .gz or in .zip (so Bybit's order-book files), of "
    f"{', '.join(DIALECTS)}; trades in .parquet with columns timestamp, id, side, price and amount."
)

_TRADES_PER_EVENT: Final = 1_000


def replay(paths: Sequence[Path], markets: Sequence[Market]) -> Iterator[Event]:
    """Yield what recordings tell about ``markets``, all of one exchange; several files are parts of one recording.

    Lag is told by the receive times in the files. Parquet files of trades belong to the one market that is asked for.

    Raises
    ------
    InvalidInputError
        If a file cannot be read, is of no known form, or if the exchange's messages are not known.
    """
    exchange = markets[0].exchange
    parquet = [path for path in paths if path.suffix == ".parquet"]
    if parquet and (len(markets) > 1 or len(parquet) < len(paths)):
        raise InvalidInputError(
            f"{parquet[0]}: trades in Parquet do not name their market. Replay them alone, with one pair."
        )
    if parquet:
        yield from chain.from_iterable(_parquet_trades(path, markets[0]) for path in parquet)
        return
    if exchange not in DIALECTS:
        raise one_of("exchange", exchange, DIALECTS, where="recorded messages")
    dialect = DIALECTS[exchange](markets)
    for path in paths:
        for number, received_ms, message in _messages(path):
            try:
                yield from dialect.decode(message, received_ms)
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                raise InvalidInputError(
                    f"{path}, line {number}: not a message of {exchange} that is known: {error!r}."
                ) from error


def _messages(path: Path) -> Iterator[tuple[int, float | None, Any]]:
    """Yield line number, receive time in ms and message."""
    number = 0
    try:
        for number, line in enumerate(_lines(path), start=1):
            if not line.strip() or _NOT_RECEIVED.match(line):
                continue
            parts = _LINE.fullmatch(line.rstrip())
            if parts is None:
                raise InvalidInputError(f"{path}, line {number}: found {line[:60]!r}. {_FORMATS}")
            received = int(parts["ns"]) / 1e6 if parts["ns"] else float(parts["s"]) * 1e3 if parts["s"] else None
            yield number, received, json.loads(parts["json"])
    except (OSError, EOFError, zipfile.BadZipFile, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InvalidInputError(f"{path}, line {number}: cannot be read: {error}. {_FORMATS}") from error


def _lines(path: Path) -> Iterator[str]:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as member:
                    yield from io.TextIOWrapper(member, encoding="utf-8")
    else:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            yield from file


def _parquet_trades(path: Path, market: Market) -> Iterator[TradesMade]:
    import polars as pl

    try:
        table = pl.read_parquet(path, columns=["timestamp", "id", "side", "price", "amount"]).select(
            pl.col("id").cast(pl.Int64).fill_null(NO_ID),
            pl.col("timestamp").dt.epoch("ms"),
            pl.col("price", "amount").cast(float),
            pl.col("side").replace_strict({"buy": 1, "sell": -1}, return_dtype=pl.Int8),
        )
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InvalidInputError(f"{path}: cannot be read: {error}. {_FORMATS}") from error
    for rows in table.iter_slices(_TRADES_PER_EVENT):
        yield TradesMade(market=market, trades=tuple(map(Trade._make, rows.iter_rows())))
