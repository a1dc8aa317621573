"""One look at an active configuration: its paper record, what was predicted, the signs of decay, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import MS_PER_DAY
from tradepulse_pipeline.market.sources.times import iso_utc
from tradepulse_pipeline.monitoring.band import Band, predicted_band
from tradepulse_pipeline.monitoring.breakers import Replay, replay_breakers
from tradepulse_pipeline.monitoring.challenger import Challenger, find_challenger
from tradepulse_pipeline.monitoring.death_signals import DeathSignal, death_signals, lifetime_sharpe
from tradepulse_pipeline.monitoring.drift import Drift, detect_drift
from tradepulse_pipeline.monitoring.paper import (
    Record,
    Subject,
    frame_of,
    out_of_sample_record,
    paper_record,
    sharpe_ratio,
)
from tradepulse_pipeline.monitoring.stages import Comeback, Health, Verdict, as_figures, decide
from tradepulse_pipeline.strategies.base import SignalSource
from tradepulse_pipeline.validation.lifecycle import Stage
from tradepulse_pipeline.validation.significance import p_value, z_score

#: Trades that the mean of adverse selection is taken over, the last ones.
ADVERSE_TRADES: Final = 20

#: Every order of the bar model is filled.
_FILL_RATE: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a configuration stands before it is looked at.

    Attributes
    ----------
    since_ms : int
        Time of candles, UTC ms, from which on it has had its stage.
    fell_at_ms : int or None
        Time of candles at which it fell from a stage above PAPER; None for one that never was there.
    """

    stage: Stage
    is_simulated: bool
    since_ms: int
    fell_at_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """What one look at a configuration found.

    Attributes
    ----------
    frame : IndicatorFrame
        The candles that it was looked at on, from the beginning of its training.
    through_ms : int
        Close time of the last of them.
    past, paper : Record
        The out-of-sample record and the paper record.
    breakers : Replay
        What the circuit breakers would have done to the paper record.
    """

    standing: Standing
    frame: IndicatorFrame
    through_ms: int
    past: Record
    paper: Record
    band: Band | None
    drift: Drift | None
    signals: tuple[DeathSignal, ...]
    breakers: Replay
    challenger: Challenger | None
    health: Health
    verdict: Verdict

    @property
    def moved(self) -> bool:
        """Whether the stage changes."""
        return self.verdict.stage != self.standing.stage

    @property
    def death_signals(self) -> tuple[str, ...]:
        """The death signals that are on."""
        return self.health.death_signals

    def figures(self) -> dict[str, Any]:
        """Return the figures for JSON; None is 'not measured'."""
        paper, band, drift = self.paper, self.band, self.drift
        trades = paper.trades
        n_days = len(paper.day)
        comeback = self.health.comeback
        return {
            "stage_before": self.standing.stage,
            "stage_after": self.verdict.stage,
            "paper_days": n_days,
            "paper_trades": len(trades),
            "has_open_trade": len(paper.open_trade) > 0,
            "net_profit": float(trades.pnl.sum()),
            "total_return": float(paper.equity[-1] - 1) if n_days else 0.0,
            "win_rate": float(np.mean(trades.pnl > 0)) if len(trades) else None,
            "expectancy_r": float(trades.r_multiple.mean()) if len(trades) else None,
            "paper_sharpe_ratio": paper.sharpe_ratio,
            "rolling_30d_sharpe": paper.rolling_sharpe_ratio,
            "lifetime_sharpe_ratio": lifetime_sharpe(self.past, paper),
            "sharpe_floor": band and band.sharpe_floor,
            "band_low": float(band.low[-1]) if band and n_days else None,
            "band_high": float(band.high[-1]) if band and n_days else None,
            "left_band_on": self.health.left_band_on,
            "drift_at": drift and drift.detected_at,
            "drift_statistic": drift and drift.statistic,
            "drift_threshold": drift and drift.threshold,
            "adverse_selection_score": self.health.adverse_selection,
            "fill_rate": self.health.fill_rate,
            "resurrection_score": comeback and comeback.score,
            "death_signals": {
                signal.name: {
                    "is_on": signal.is_on,
                    "figure": signal.figure,
                    "threshold": signal.threshold,
                    "definition": signal.definition,
                }
                for signal in self.signals
            },
            "circuit_breakers": self.breakers.to_json_dict(),
        }

    def deciding_figures(self) -> dict[str, Any]:
        """Return what the stage was decided by, for the history of stages."""
        return {**as_figures(self.health), "through": iso_utc(self.through_ms)}


def evaluate(
    subject: Subject, candles: Candles, standing: Standing, trials: Sequence[Mapping[str, float]] = ()
) -> Evaluation:
    """Look at a configuration on the candles from the beginning of its training to the last closed one.

    Parameters
    ----------
    candles : Candles
        As stored: short gaps are filled here.
    trials : sequence of mappings
        Parameters of the best trials of its search, the best first.
    """
    frame = frame_of(candles, subject.strategy)
    source = SignalSource(subject.strategy, frame, subject.settings.side)
    past, paper = out_of_sample_record(frame, source, subject), paper_record(frame, source, subject)
    seed = subject.settings.search.seed
    band = predicted_band(past.daily_return, len(paper.day), seed=seed)
    drift = detect_drift(past.trades.r_multiple, paper.trades.r_multiple, seed=seed)
    signals = death_signals(frame, subject, past, paper)
    left = None if band is None else band.left_below(paper.equity)
    adverse = paper.adverse_selection[-ADVERSE_TRADES:]
    through_ms = int(frame.open_time_ms[-1]) + frame.timeframe.milliseconds
    health = Health(
        stage=standing.stage,
        is_simulated=standing.is_simulated,
        days_in_stage=max(0.0, (through_ms - standing.since_ms) / MS_PER_DAY),
        n_trades=len(paper.trades),
        death_signals=tuple(signal.name for signal in signals if signal.is_on),
        left_band_on=None if left is None else iso_utc(int(paper.day[left]) * MS_PER_DAY)[:10],
        drift_at=None if drift is None else drift.detected_at,
        rolling_sharpe=paper.rolling_sharpe_ratio,
        sharpe_floor=None if band is None else band.sharpe_floor,
        adverse_selection=float(adverse.mean()) if len(adverse) else None,
        fill_rate=_FILL_RATE,
        comeback=None if standing.fell_at_ms is None else _comeback(frame, paper, standing.fell_at_ms),
    )
    return Evaluation(
        standing=standing,
        frame=frame,
        through_ms=through_ms,
        past=past,
        paper=paper,
        band=band,
        drift=drift,
        signals=signals,
        breakers=replay_breakers(frame, paper, initial_capital=subject.settings.account.initial_capital),
        challenger=find_challenger(frame, source, subject, paper, trials, seed=seed),
        health=health,
        verdict=decide(health),
    )


def _comeback(frame: IndicatorFrame, paper: Record, fell_at_ms: int) -> Comeback:
    since = paper.since(frame.open_time_ms, fell_at_ms)
    return Comeback(
        n_trades=len(since.trades),
        net_profit=float(since.trades.pnl.sum()),
        sharpe_ratio=sharpe_ratio(since.daily_return) if len(since.day) > 1 else None,
        fill_rate=_FILL_RATE,
        p_value=p_value(z_score(since.trades.returns)),
    )
