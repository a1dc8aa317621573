"""The out-of-sample record: what re-optimised parameters did on candles that they had not seen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Self, get_args

from tradepulse_pipeline.backtest.result import Metrics
from tradepulse_pipeline.validation.windows import Window

if TYPE_CHECKING:
    import polars as pl

#: ``judged``: its best parameters ran on its test window. ``no valid trial``: no parameter set qualified in train, so
#: nothing was traded in test. ``not searched``: the time was over; the window is not part of the record.
WindowStatus = Literal["judged", "no valid trial", "not searched"]
WINDOW_STATUSES: Final[tuple[WindowStatus, ...]] = get_args(WindowStatus)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenTrial:
    """The best valid trial of a train window."""

    combination: int
    parameters: dict[str, float]
    in_sample: Metrics

    def to_json_dict(self) -> dict[str, Any]:
        """Return the trial as JSON values."""
        return {
            "combination": self.combination,
            "parameters": dict(self.parameters),
            "in_sample": self.in_sample.as_dict(),
        }

    @classmethod
    def from_json_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what ``to_json_dict`` wrote."""
        return cls(
            combination=values["combination"],
            parameters=dict(values["parameters"]),
            in_sample=metrics_from_dict(values["in_sample"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowResult:
    """What came of one window: how many trials its search made, what it chose, and how that did in test."""

    window: int
    status: WindowStatus
    n_trials: int
    train_start_ms: int
    train_end_ms: int
    test_start_ms: int
    test_end_ms: int
    chosen: ChosenTrial | None
    out_of_sample: Metrics | None

    @classmethod
    def of(
        cls,
        window: Window,
        status: WindowStatus,
        *,
        n_trials: int,
        chosen: ChosenTrial | None = None,
        out_of_sample: Metrics | None = None,
    ) -> Self:
        """Join a window and what came of it."""
        return cls(
            window=window.index,
            status=status,
            n_trials=n_trials,
            train_start_ms=window.train_start_ms,
            train_end_ms=window.train_end_ms,
            test_start_ms=window.test_start_ms,
            test_end_ms=window.test_end_ms,
            chosen=chosen,
            out_of_sample=out_of_sample,
        )

    def to_json_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values["chosen"] = self.chosen and self.chosen.to_json_dict()
        values["out_of_sample"] = self.out_of_sample and self.out_of_sample.as_dict()
        return values

    @classmethod
    def from_json_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what ``to_json_dict`` wrote."""
        chosen, out_of_sample = values["chosen"], values["out_of_sample"]
        return cls(
            **{
                **values,
                "chosen": chosen and ChosenTrial.from_json_dict(chosen),
                "out_of_sample": out_of_sample and metrics_from_dict(out_of_sample),
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OutOfSampleRecord:
    """The test windows' trades and equity put together in time order, and what they prove.

    Equity is chained: a window starts with the equity at which the one before it ended.

    Attributes
    ----------
    metrics : Metrics
        Of the whole record; zeros when nothing was traded. Its days are the sum of the test windows' days.
    in_sample : Metrics or None
        Mean over the judged windows of their chosen trials' train metrics; None without any.
    latest : ChosenTrial or None
        The best trial of the latest train window, whose parameters are stored; None when no trial was valid there.
    latest_trials : int
        Trials made in the latest train window; 0 when the time was over before.
    windows : tuple of WindowResult
        In time order.
    trades : polars.DataFrame
        One row per trade: window, decision_time, entry_time, exit_time (UTC, candle open times), side, entry_price,
        exit_price, stop_price, target_price, quantity, pnl, r_multiple, trade_return (pnl over the equity before the
        trade), exit_reason.
    daily : polars.DataFrame
        One row per UTC day with candles: date, equity at its last candle, daily_return.
    total_trials : int
        Trials of all searches together.
    is_out_of_sample : bool
        False for the variant with one parameter set over all windows, which saw the test windows when it was chosen.
    is_complete : bool
        False when the time was over before all searches were done.
    cost_per_trade_r : float
        What fees and slippage take from the mean trade, in R.
    """

    metrics: Metrics
    in_sample: Metrics | None
    latest: ChosenTrial | None
    latest_trials: int
    windows: tuple[WindowResult, ...]
    trades: pl.DataFrame
    daily: pl.DataFrame
    total_trials: int
    is_out_of_sample: bool
    is_complete: bool
    cost_per_trade_r: float
    z_score: float | None
    p_value: float | None
    is_overfit: bool | None
    walk_forward_efficiency: float | None

    @property
    def chosen_parameters(self) -> dict[str, float] | None:
        """Parameters found on the latest train window; None when no trial was valid there."""
        return None if self.latest is None else self.latest.parameters

    @property
    def not_searched(self) -> tuple[int, ...]:
        """Indices of the windows that the time did not suffice for; they are not part of the record."""
        return tuple(result.window for result in self.windows if result.status == "not searched")

    @property
    def windows_table(self) -> pl.DataFrame:
        """One flat row per window: status, times, parameters and, with a prefix each, both sets of metrics."""
        return windows_table(self.windows)

    def to_json_dict(self) -> dict[str, Any]:
        """Return all but the tables ``trades`` and ``daily`` as JSON values."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("trades", "daily")}
        values["metrics"] = self.metrics.as_dict()
        values["in_sample"] = self.in_sample and self.in_sample.as_dict()
        values["latest"] = self.latest and self.latest.to_json_dict()
        values["windows"] = [result.to_json_dict() for result in self.windows]
        return values

    @classmethod
    def from_json_dict(cls, values: Mapping[str, Any], *, trades: pl.DataFrame, daily: pl.DataFrame) -> Self:
        """Join what ``to_json_dict`` wrote and the two tables."""
        in_sample, latest = values["in_sample"], values["latest"]
        return cls(
            **{
                **values,
                "metrics": metrics_from_dict(values["metrics"]),
                "in_sample": in_sample and metrics_from_dict(in_sample),
                "latest": latest and ChosenTrial.from_json_dict(latest),
                "windows": tuple(WindowResult.from_json_dict(result) for result in values["windows"]),
                "trades": trades,
                "daily": daily,
            }
        )


def metrics_from_dict(values: Mapping[str, float | int | None]) -> Metrics:
    """Return the metrics whose ``as_dict`` is ``values``: null stands for an infinite profit factor, NaN here."""
    return Metrics(**{name: math.nan if value is None else float(value) for name, value in values.items()})


def windows_table(windows: tuple[WindowResult, ...]) -> pl.DataFrame:
    """Return one flat row per window; what a window does not have is null."""
    import polars as pl

    times = ("train_start", "train_end", "test_start", "test_end")
    rows = [
        {
            "window": result.window,
            "status": result.status,
            "n_trials": result.n_trials,
            **{name: getattr(result, f"{name}_ms") for name in times},
            **(result.chosen.parameters if result.chosen else {}),
            **_prefixed("in_sample", result.chosen.in_sample if result.chosen else None),
            **_prefixed("out_of_sample", result.out_of_sample),
        }
        for result in windows
    ]
    table = pl.from_dicts(rows, infer_schema_length=None)
    # Metrics that no window has are floats, too.
    return table.with_columns(pl.col(times).cast(pl.Datetime("ms", "UTC")), pl.col(pl.Null).cast(pl.Float64))


def _prefixed(prefix: str, metrics: Metrics | None) -> dict[str, float | int | None]:
    values = dict.fromkeys(Metrics._fields) if metrics is None else metrics.as_dict()
    return {f"{prefix}_{name}": value for name, value in values.items()}
