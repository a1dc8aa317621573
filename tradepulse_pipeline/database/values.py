"""Values of the domain as the database writes them, and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tradepulse_pipeline.market.series import SeriesKey


def names_of(series: SeriesKey | None) -> dict[str, str | None]:
    """Return the columns that name a series; None for each stands for all series."""
    if series is None:
        return {"exchange": None, "pair": None, "timeframe": None}
    return {"exchange": series.exchange, "pair": series.pair, "timeframe": str(series.timeframe)}


def time_of(ms: int) -> datetime:
    """Return a time in UTC milliseconds for a timestamptz column, exactly."""
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=ms)


def milliseconds_of(at: datetime) -> int:
    """Return the UTC milliseconds of a time."""
    return (at - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)
