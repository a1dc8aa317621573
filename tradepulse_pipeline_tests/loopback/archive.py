"""The files of Binance's bulk archive, data.binance.vision, made from candles."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from tradepulse_pipeline.market.candles import PRICE_COLUMNS, Candles
from tradepulse_pipeline.market.series import SeriesKey

_FILE = re.compile(
    r"/data/spot/(monthly|daily)/klines/([A-Z0-9]+)/(\w+)/"
    r"(?P<stem>\2-\3-(?P<year>\d{4})-(?P<month>\d\d)(-(?P<day>\d\d))?)\.zip(?P<checksum>\.CHECKSUM)?"
)
#: From here on times are in microseconds.
MICROSECONDS_FROM = datetime(2025, 1, 1, tzinfo=UTC)


def packed(members: Mapping[str, bytes]) -> bytes:
    """Return a zip file of the members, the same bytes every time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def checksum_file(data: bytes, name: str) -> bytes:
    """Return what lies beside a file: its SHA-256 and its name."""
    return f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode()


class Archive:
    """Files of Binance's series; a month's comes on the first Monday after it, a day's the next day."""

    def __init__(self, series: Mapping[SeriesKey, Candles]) -> None:
        self._series = {
            (key.market.base + key.market.quote, key.timeframe.name): candles
            for key, candles in series.items()
            if key.exchange == "binance"
        }

    def file(self, path: str, now_ms: int) -> bytes | None:
        """Return what lies at a path, None for nothing."""
        found = _FILE.fullmatch(path)
        candles = None if found is None else self._series.get((found[2], found[3]))
        if found is None or candles is None or (found[1] == "daily") != (found["day"] is not None):
            return None
        start = datetime(int(found["year"]), int(found["month"]), int(found["day"] or 1), tzinfo=UTC)
        if found["day"]:
            published = end = start + timedelta(days=1)
        else:
            end = (start + timedelta(days=31)).replace(day=1)
            published = end + timedelta(days=-end.weekday() % 7)
        part = candles.between(_ms(start), _ms(end))
        if not len(part) or now_ms < _ms(published):
            return None
        data = packed({f"{found['stem']}.csv": _csv(part, 1000 if start >= MICROSECONDS_FROM else 1)})
        return checksum_file(data, f"{found['stem']}.zip") if found["checksum"] else data


def _csv(candles: Candles, per_ms: int) -> bytes:
    span = candles.timeframe.milliseconds * per_ms
    rows = zip(
        (candles.open_time_ms * per_ms).tolist(),
        *(getattr(candles, name).tolist() for name in PRICE_COLUMNS),
        strict=True,
    )
    lines = [f"{time},{','.join(map(repr, values))},{time + span - 1},0.0,1,0.0,0.0,0" for time, *values in rows]
    return "\n".join([*lines, ""]).encode()


def _ms(time: datetime) -> int:
    return int(time.timestamp()) * 1000
