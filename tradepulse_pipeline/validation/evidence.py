"""The evidence of a training: everything that tells its out-of-sample record from luck, put together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import FloatArray
from tradepulse_pipeline.strategies.base import Strategy
from tradepulse_pipeline.validation.chosen import chosen_runs
from tradepulse_pipeline.validation.record import OutOfSampleRecord
from tradepulse_pipeline.validation.sharpe import (
    ReturnMoments,
    deflated_sharpe_ratio,
    luck_ceiling,
    minimum_track_record_length,
    probabilistic_sharpe_ratio,
)
from tradepulse_pipeline.validation.statistics import Statistics
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline.validation.trials import N_BEST, SearchResult
from tradepulse_pipeline.validation.windows import make_windows

if TYPE_CHECKING:
    import polars as pl

    from tradepulse_pipeline.validation.candle_bootstrap import CandleMonteCarlo
    from tradepulse_pipeline.validation.monte_carlo import TradePaths

#: Daily returns of a market that never closes; a share's days without trading count as flat.
DAYS_PER_YEAR: Final = 365
DAYS_PER_MONTH: Final = DAYS_PER_YEAR / 12

#: Bins of the histogram of CSCV's logits, as many on either side of the median.
N_BINS: Final = 40

#: Histories of bootstrapped candles.
N_HISTORIES: Final = 50

#: A resampled history is ruin where equity falls below this share of the start.
RUIN_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrialBlocks:
    """Sums and sums of squares of the daily returns of every parameter set that was tried, by block of days.

    ``sums`` and ``squares`` have shape (n_sets, n_blocks); ``n_days`` counts the days of all blocks together.
    """

    sums: FloatArray
    squares: FloatArray
    n_days: int

    def sharpe_ratios(self) -> FloatArray:
        """Return the daily Sharpe ratio of each set over all blocks, of those that vary, shape (n,)."""
        total, squares = self.sums.sum(axis=1), self.squares.sum(axis=1)
        mean = total / self.n_days
        variance = (squares - self.n_days * mean**2) / (self.n_days - 1)
        varies = variance > 1e-24
        ratios: FloatArray = mean[varies] / np.sqrt(variance[varies])
        return ratios


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceReport:
    """The statistics of a record, and the tables behind them, as JSON values.

    Attributes
    ----------
    statistics : Statistics
    costs_verdict, accuracy_verdict : str
        Where the edge dies; what the precision of the decisions is worth.
    costs : list of dict
        Rungs of the costs ladder.
    attribution : list of dict
        See ``attribution``.
    decay : list of dict
        See ``signal_decay``.
    fan : dict
        ``trades`` and the quantiles of equity after so many of them, by resampling: see ``TradePaths``.
    candle_fan : dict
        ``days``, the quantiles of equity after so many of them over bootstrapped candles, and that over the candles
        themselves: see ``CandleMonteCarlo``. Empty in reports from before it was kept.
    logits : dict
        ``edges`` and ``counts`` of CSCV's logits over all splits; the median, 0, belongs to the lower half.
    sharpe_histogram : dict
        ``edges`` and ``counts`` of all trials' annual Sharpe ratios over the whole history.
    """

    statistics: Statistics
    costs_verdict: str
    accuracy_verdict: str
    costs: list[dict[str, Any]]
    attribution: list[dict[str, Any]]
    decay: list[dict[str, Any]]
    fan: dict[str, list[Any]]
    logits: dict[str, list[float]]
    sharpe_histogram: dict[str, list[float]]
    candle_fan: dict[str, list[Any]] = field(default_factory=dict)

    def to_json_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return asdict(self)

    @classmethod
    def from_json_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what ``to_json_dict`` wrote; what an earlier version did not measure is not there."""
        return cls(**{**values, "statistics": Statistics(**values["statistics"])})


def gather_evidence(
    frame: IndicatorFrame,
    strategy: Strategy,
    settings: TrainingSettings,
    found: SearchResult,
    record: OutOfSampleRecord,
    blocks: TrialBlocks | None,
) -> EvidenceReport:
    """Measure everything that tells the record of a training from luck.

    Parameters
    ----------
    frame, strategy, settings
        Those of the training.
    found : SearchResult
        What its search came to.
    record : OutOfSampleRecord
        What came of that out-of-sample.
    blocks : TrialBlocks or None
        Of all parameter sets that were tried; None where a search was cut off before they were known.
    """
    from tradepulse_pipeline.validation.attribution import attribution
    from tradepulse_pipeline.validation.costs import costs_ladder
    from tradepulse_pipeline.validation.signal_accuracy import signal_accuracy

    runs = chosen_runs(record, frame, settings.windows)
    ladder = costs_ladder(frame, strategy, settings, runs)
    accuracy = signal_accuracy(frame, strategy, settings.side, runs)
    seed, capital = settings.search.seed, settings.account.initial_capital
    daily = record.daily["daily_return"].to_numpy()
    paths = _paths(record.trades["trade_return"].to_numpy(), capital, seed)
    bootstrapped = _bootstrapped(frame, strategy, settings, record)
    figures: dict[str, Any] = {
        "n_days": len(daily),
        "n_trials": found.planned if blocks is None else len(blocks.sums),
        **_against_luck(daily, blocks, seed),
        **_intervals(daily, record.trades["trade_return"].to_numpy(), capital, seed),
        **_procedures(frame, strategy, settings, found),
        **_risk(paths, capital),
        **_bootstrapped_risk(bootstrapped, capital),
        **_value_at_risk(daily),
        "break_even_bps": ladder.break_even and ladder.break_even.basis_points,
    }
    if accuracy.hits.n:
        low, high = accuracy.interval
        figures |= {
            "precision": accuracy.hits.precision,
            "precision_low": low,
            "precision_high": high,
            "base_precision": accuracy.base_precision,
        }
    overfitting, logits = _overfitting(blocks, settings)
    return EvidenceReport(
        statistics=Statistics(**{name: _finite(value) for name, value in (figures | overfitting).items()}),
        costs_verdict=ladder.verdict,
        accuracy_verdict=accuracy.verdict,
        costs=[{name: getattr(rung, name) for name in _names(type(rung))} for rung in ladder.rungs],
        attribution=_rows(attribution(record.trades, frame)) if record.trades.height else [],
        decay=_rows(accuracy.decay),
        fan={} if paths is None else {"trades": paths.fan_trades.tolist(), "equity": paths.fan_equity.tolist()},
        candle_fan=_candle_fan(bootstrapped),
        logits=logits,
        sharpe_histogram=_histogram(blocks),
    )


def _against_luck(daily: FloatArray, blocks: TrialBlocks | None, seed: int) -> dict[str, float | None]:
    """Return what the number and the spread of the trials make of the record's Sharpe ratio."""
    from tradepulse_pipeline.validation.trial_clusters import clusters_of_trials
    from tradepulse_pipeline.validation.trial_luck import luck_of_trials

    moments = ReturnMoments.of(daily)
    figures: dict[str, float | None] = {"probabilistic_sharpe_ratio": probabilistic_sharpe_ratio(moments)}
    luck = None if blocks is None else luck_of_trials(blocks.sums, blocks.squares)
    if blocks is None or luck is None:
        return figures
    n_trials, variance = len(blocks.sums), luck.variance / blocks.n_days
    ceiling = luck_ceiling(n_trials, variance)
    needed = minimum_track_record_length(moments, benchmark=ceiling)
    clusters = clusters_of_trials(blocks.sums, seed=seed)
    if clusters is not None:
        figures["clusters_silhouette"] = clusters.silhouette
        if clusters.are_clear:
            deflated = deflated_sharpe_ratio(moments, n_trials=clusters.n_clusters, trials_variance=variance)
            figures |= {"clustered_trials": clusters.n_clusters, "clustered_deflated_sharpe_ratio": deflated}
    return figures | {
        "effective_trials": luck.effective_trials,
        "trials_sharpe_deviation": float(np.std(blocks.sharpe_ratios())) * math.sqrt(DAYS_PER_YEAR),
        "luck_deviation": math.sqrt(variance * DAYS_PER_YEAR),
        "luck_ceiling": ceiling * math.sqrt(DAYS_PER_YEAR),
        "deflated_sharpe_ratio": deflated_sharpe_ratio(moments, n_trials=n_trials, trials_variance=variance),
        "minimum_track_record_months": None if needed is None else needed / DAYS_PER_MONTH,
        "months_to_go": None if needed is None else max(needed - len(daily), 0) / DAYS_PER_MONTH,
    }


def _intervals(daily: FloatArray, trades: FloatArray, capital: float, seed: int) -> dict[str, float | None]:
    from tradepulse_pipeline.validation.bootstrap import bootstrap_intervals, bootstrap_p_value

    figures: dict[str, float | None] = {"bootstrap_p_value": bootstrap_p_value(trades, seed=seed)}
    found = bootstrap_intervals(daily, initial_capital=capital, periods_per_year=DAYS_PER_YEAR, seed=seed)
    if found is None:
        return figures
    parts = {"sharpe": found.sharpe_ratio, "net_profit": found.net_profit, "max_drawdown": found.max_drawdown}
    for name, interval in parts.items():
        figures |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    return figures


def _procedures(
    frame: IndicatorFrame, strategy: Strategy, settings: TrainingSettings, found: SearchResult
) -> dict[str, float | int | None]:
    """Test the procedures 'trade the k-th best trial of each train window' against nothing, out-of-sample."""
    from tradepulse_pipeline.validation.data_snooping import data_snooping

    returns = procedure_returns(frame, strategy, settings, found)
    if not returns.shape[1]:
        return {}
    tested = data_snooping(returns, seed=settings.search.seed)
    if tested is None:
        return {}
    return {
        "reality_check_p_value": tested.reality_check,
        "superior_predictive_ability_p_value": tested.superior_predictive_ability,
        "n_better_than_nothing": len(tested.better_than_nothing),
        "n_procedures": returns.shape[1],
    }


def procedure_returns(
    frame: IndicatorFrame, strategy: Strategy, settings: TrainingSettings, found: SearchResult
) -> FloatArray:
    """Return the daily returns over the test windows of trading each window's k-th best trial, (n_days, n_ranks).

    Each was chosen on its train window alone, so all are out-of-sample. A window with fewer valid trials stays flat.
    """
    import polars as pl

    from tradepulse_pipeline.backtest.evaluators import PlainEvaluator
    from tradepulse_pipeline.backtest.metrics import daily_returns
    from tradepulse_pipeline.validation.walk_forward import LATEST

    windows = make_windows(frame.open_time_ms, frame.timeframe, settings.windows)
    evaluator = PlainEvaluator(frame, strategy, side=settings.side, account=settings.account)
    ranked = found.best.filter(pl.col("rank").is_not_null()).select("window", "rank", "combination")
    chosen = {(window, rank): combination for window, rank, combination in ranked.iter_rows()}
    searched = {search.window for search in found.searches if search.n_trials}
    columns: list[FloatArray] = []
    for rank in range(1, N_BEST + 1):
        parts: list[FloatArray] = []
        for window in windows:
            source = window.index if settings.windows.reoptimise else LATEST
            if source not in searched:
                continue
            times = frame.open_time_ms[window.test.start : window.test.stop]
            combination = chosen.get((source, rank))
            capital = settings.account.initial_capital
            if combination is None:
                equity = np.full(len(times), capital)
            else:
                equity = evaluator.run(combination, window.test, initial_capital=capital).equity
            parts.append(daily_returns(equity, times, capital))
        columns.append(np.concatenate([np.empty(0), *parts]))
    return np.stack(columns, axis=1)


def _overfitting(
    blocks: TrialBlocks | None, settings: TrainingSettings
) -> tuple[dict[str, float | None], dict[str, list[float]]]:
    from tradepulse_pipeline.validation.overfitting import backtest_overfitting

    if blocks is None or len(blocks.sums) < 2:
        return {}, {}
    found = backtest_overfitting(blocks.sums, blocks.squares, workers=settings.search.threads)
    if found is None:
        return {}, {}
    logits = found.logits[np.isfinite(found.logits)]
    reach = float(np.abs(logits).max(initial=0.0)) or 1.0
    edges = np.linspace(-reach, reach, N_BINS + 1)
    counts = np.histogram(-logits, edges)[0][::-1]  # mirrored twice, because the median belongs to the lower half
    return (
        {
            "probability_of_backtest_overfitting": found.probability,
            "probability_of_loss": found.probability_of_loss,
        },
        {"edges": edges.tolist(), "counts": counts.tolist()},
    )


def _paths(trades: FloatArray, capital: float, seed: int) -> TradePaths | None:
    from tradepulse_pipeline.validation.monte_carlo import resample_trades

    if not len(trades):
        return None
    return resample_trades(trades, initial_capital=capital, seed=seed, ruin_share=RUIN_SHARE)


def _risk(paths: TradePaths | None, capital: float) -> dict[str, float | None]:
    if paths is None:
        return {}
    return {
        "ruin_probability": paths.probability_of_ruin,
        "resampled_net_profit_low": float(np.quantile(paths.net_profit, 0.05)),
        "resampled_net_profit_high": float(np.quantile(paths.net_profit, 0.95)),
        "resampled_trades_under_water_95": float(np.quantile(paths.longest_under_water, 0.95)),
        "drawdown_95": float(np.quantile(paths.max_drawdown, 0.95)),
        "loss_95": max(-float(np.quantile(paths.net_profit, 0.05)) / capital, 0.0),
    }


def _bootstrapped(
    frame: IndicatorFrame, strategy: Strategy, settings: TrainingSettings, record: OutOfSampleRecord
) -> CandleMonteCarlo | None:
    """Run the stored parameters over histories put together anew from blocks of a week."""
    from tradepulse_pipeline.validation.candle_bootstrap import candle_monte_carlo
    from tradepulse_pipeline.validation.regimes import candles_of

    if record.latest is None:
        return None
    return candle_monte_carlo(
        candles_of(frame),
        strategy,
        record.latest.combination,
        mean_block=max(2, round(7 * frame.timeframe.candles_per_day)),
        n_series=N_HISTORIES,
        seed=settings.search.seed,
        side=settings.side,
        account=settings.account,
        workers=settings.search.threads,
    )


def _bootstrapped_risk(made: CandleMonteCarlo | None, capital: float) -> dict[str, float | None]:
    if made is None:
        return {}
    return {
        "bootstrapped_share_profitable": float(np.mean(made.net_profit > 0)),
        "bootstrapped_ruin_probability": float(np.mean(made.lowest_equity <= RUIN_SHARE * capital)),
        "bootstrapped_net_profit_low": float(np.quantile(made.net_profit, 0.05)),
        "bootstrapped_net_profit_high": float(np.quantile(made.net_profit, 0.95)),
        "bootstrapped_drawdown_95": float(np.quantile(made.max_drawdown, 0.95)),
        "bootstrapped_days_under_water_95": float(np.quantile(made.longest_under_water, 0.95)),
    }


def _candle_fan(made: CandleMonteCarlo | None) -> dict[str, list[Any]]:
    if made is None:
        return {}
    return {"days": made.fan_days.tolist(), "equity": made.fan_equity.tolist(), "own": made.own_equity.tolist()}


def _value_at_risk(daily: FloatArray) -> dict[str, float | None]:
    """Return what one day may lose, and how that would have been predicted."""
    from tradepulse_pipeline.validation.value_at_risk import backtest_value_at_risk, value_at_risk

    figures: dict[str, float | None] = {}
    if risk := value_at_risk(daily):
        figures |= {"var_95": risk.value_at_risk, "cvar_95": risk.expected_shortfall}
    if backtest := backtest_value_at_risk(daily):
        figures |= {
            "var_days": backtest.n_days,
            "var_exceptions": backtest.n_exceptions,
            "var_expected_exceptions": backtest.expected_exceptions,
            "kupiec_likelihood_ratio": backtest.test.likelihood_ratio,
            "kupiec_p_value": backtest.test.p_value,
        }
    return figures


def _histogram(blocks: TrialBlocks | None) -> dict[str, list[float]]:
    ratios = np.empty(0) if blocks is None else blocks.sharpe_ratios() * math.sqrt(DAYS_PER_YEAR)
    if not len(ratios):
        return {}
    counts, edges = np.histogram(ratios, bins=480)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _rows(table: pl.DataFrame) -> list[dict[str, Any]]:
    return [{name: _finite(value) for name, value in row.items()} for row in table.to_dicts()]


def _finite(value: Any) -> Any:
    """Return plain JSON values: what is NaN or infinite is None."""
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))
