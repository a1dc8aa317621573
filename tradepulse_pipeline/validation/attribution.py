"""Attribution: where an out-of-sample record's profit comes from, with intervals, so that no one reads noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from tradepulse_pipeline.backtest.result import EXIT_REASONS
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import FloatArray, IntArray
from tradepulse_pipeline.market.sources.times import iso_utc
from tradepulse_pipeline.validation.regimes import THIRDS, thirds, trend, volatility, volume_multiple

if TYPE_CHECKING:
    import polars as pl

#: Groups with fewer trades say nothing.
FEW_TRADES: Final = 20

#: Chance that all intervals of one attribute hold the true means of their groups, 1 minus this.
SIGNIFICANCE: Final = 0.05

WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
HOURS: Final = tuple(f"{hour:02d}" for hour in range(24))
SIDES: Final = ("long", "short")


class _Grouping(NamedTuple):
    """An attribute: the names of its groups, and which of them each trade belongs to."""

    attribute: str
    names: tuple[str, ...]
    codes: IntArray


def attribution(trades: pl.DataFrame, frame: IndicatorFrame) -> pl.DataFrame:
    """Return one row for each group of trades, group by group of each attribute.

    Attributes: ``exit_reason``; ``hour`` and ``weekday`` of the entry (UTC); ``volatility`` (ATR / close) and
    ``trend`` (close above its 200-bar mean, in ATR) at the decision, in thirds of the 90 days before it; ``side``;
    ``volume`` of the decision bar over that of the 20 before, in thirds likewise. Decisions carry no strength of their
    own: volume stands for it. All but the exit reason are known when the trade is entered.

    Parameters
    ----------
    trades : polars.DataFrame
        As in ``OutOfSampleRecord.trades``.
    frame : IndicatorFrame
        The candles that were traded.

    Returns
    -------
    polars.DataFrame
        attribute, group, n_trades, net_profit (quote currency), profit_share (of the record's net profit; null unless
        that is above 0), mean_r, mean_r_low, mean_r_high, win_rate, is_too_few (fewer than 20 trades).

        The interval of the mean R-multiple is Student's t interval. It holds for all of an attribute's k groups at
        once with 95 % (Bonferroni: 1 - 0.05 / k each), because among 24 hours one is always the best; null for fewer
        than two trades.

    Raises
    ------
    InvalidInputError
        If a trade's decision is not at one of the frame's candles.
    """
    import polars as pl
    from scipy.special import stdtrit

    pnl, r_multiple = trades["pnl"].to_numpy(), trades["r_multiple"].to_numpy()
    total = float(pnl.sum())
    rows = []
    for attribute, names, codes in _groupings(trades, frame):
        groups = np.unique(codes).tolist()
        for group in groups:
            here = codes == group
            n, mean_r = int(here.sum()), float(r_multiple[here].mean())
            half = None
            if n > 1:
                quantile = float(stdtrit(n - 1, 1 - SIGNIFICANCE / len(groups) / 2))
                half = quantile * float(r_multiple[here].std(ddof=1)) / n**0.5
            net_profit = float(pnl[here].sum())
            rows.append(
                {
                    "attribute": attribute,
                    "group": names[group],
                    "n_trades": n,
                    "net_profit": net_profit,
                    "profit_share": net_profit / total if total > 0 else None,
                    "mean_r": mean_r,
                    "mean_r_low": None if half is None else mean_r - half,
                    "mean_r_high": None if half is None else mean_r + half,
                    "win_rate": float((pnl[here] > 0).mean()),
                    "is_too_few": n < FEW_TRADES,
                }
            )
    return pl.DataFrame(rows, schema=_schema())


def _groupings(trades: pl.DataFrame, frame: IndicatorFrame) -> Iterator[_Grouping]:
    bars = _decision_bars(trades, frame)
    entry = trades["entry_time"].dt
    yield _Grouping("exit_reason", EXIT_REASONS, _codes(trades["exit_reason"], EXIT_REASONS))
    yield _Grouping("hour", HOURS, entry.hour().to_numpy().astype(np.int64))
    yield _Grouping("weekday", WEEKDAYS, entry.weekday().to_numpy().astype(np.int64) - 1)
    measures: dict[str, FloatArray] = {
        "volatility": volatility(frame),
        "trend": trend(frame),
        "volume": volume_multiple(frame),
    }
    for name, values in measures.items():
        yield _Grouping(name, (*THIRDS, "unknown"), thirds(values, frame.open_time_ms, bars))
    yield _Grouping("side", SIDES, _codes(trades["side"], SIDES))


def _codes(column: pl.Series, names: tuple[str, ...]) -> IntArray:
    return np.array([names.index(name) for name in column], dtype=np.int64)


def _decision_bars(trades: pl.DataFrame, frame: IndicatorFrame) -> IntArray:
    times = trades["decision_time"].dt.epoch("ms").to_numpy()
    bars = np.searchsorted(frame.open_time_ms, times)
    is_there = frame.open_time_ms[np.minimum(bars, len(frame) - 1)] == times
    if not is_there.all():
        raise InvalidInputError(
            f"{int((~is_there).sum())} of {len(times)} trades were decided at candles that are not among these "
            f"{len(frame)}, first at {iso_utc(int(times[np.argmin(is_there)]))}. Use the candles of the record."
        )
    return bars


def _schema() -> dict[str, type[pl.DataType]]:
    import polars as pl

    floats = ("net_profit", "profit_share", "mean_r", "mean_r_low", "mean_r_high", "win_rate")
    return {
        "attribute": pl.String,
        "group": pl.String,
        "n_trades": pl.Int64,
        **dict.fromkeys(floats, pl.Float64),
        "is_too_few": pl.Boolean,
    }
