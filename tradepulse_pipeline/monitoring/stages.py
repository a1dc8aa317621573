"""How the lifecycle stage of a configuration moves on while its paper record grows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tradepulse_pipeline.validation.lifecycle import (
    DISCOVERY_TRADES,
    MINIMUM_FILL_RATE,
    MINIMUM_SHARPE,
    STAGE_MULTIPLIERS,
    Stage,
)

#: So many death signals mean decay.
DEADLY_SIGNALS: Final = 2

#: Mean adverse selection above which the size is halved.
ADVERSE_SELECTION_LIMIT: Final = 0.6
ADVERSE_SIZE: Final = 0.5

#: Trades that a mean of adverse selection, or a rate of fills, takes.
LEAST_TRADES: Final = 10

#: Days after which a decayed configuration goes to PAPER, from where its paper record may bring it back.
DECAY_DAYS: Final = 30

#: p-value of the mean paper trade that brings a configuration back.
RESURRECTION_P_VALUE: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Comeback:
    """The paper record since a configuration fell, as far as it decides whether it comes back; None: undefined."""

    n_trades: int
    net_profit: float
    sharpe_ratio: float | None
    fill_rate: float
    p_value: float | None

    @property
    def score(self) -> float:
        """How far it has come, 0 to 1: the share of the least fulfilled of the gates; 1 when it passes them all."""
        if self.net_profit <= 0 or self.sharpe_ratio is None or self.p_value is None:
            return 0.0
        shares = (
            self.n_trades / DISCOVERY_TRADES,
            self.sharpe_ratio / MINIMUM_SHARPE,
            self.fill_rate / MINIMUM_FILL_RATE,
            (1 - self.p_value) / (1 - RESURRECTION_P_VALUE),
        )
        return min(1.0, max(0.0, min(shares)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What monitoring has found, as far as stages depend on it; None is 'not measured'.

    Attributes
    ----------
    days_in_stage : float
        Days of candles since it came to its stage.
    death_signals : tuple of str
        Those that are on.
    left_band_on : str or None
        Day on which the paper record first lay below the predicted band.
    drift_at : int or None
        Number of the paper trade at which drift was detected.
    rolling_sharpe, sharpe_floor : float or None
        Sharpe ratio of the last 30 paper days, and what it hardly ever falls to while all is as it was.
    adverse_selection : float or None
        Mean over the last paper trades.
    comeback : Comeback or None
        The record since it fell; None for one that was never above PAPER.
    """

    stage: Stage
    is_simulated: bool
    days_in_stage: float
    n_trades: int
    death_signals: tuple[str, ...]
    left_band_on: str | None
    drift_at: int | None
    rolling_sharpe: float | None
    sharpe_floor: float | None
    adverse_selection: float | None
    fill_rate: float
    comeback: Comeback | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The stage that follows, why in one sentence, and the size that a bot may take: a share of the full one."""

    stage: Stage
    reason: str
    size_multiplier: float


def decide(health: Health) -> Verdict:
    """Return the stage that the paper record leads to; the first rule that applies decides.

    1. A fill rate below 0.7 (over 10 trades or more) leads from any stage above to PAPER.
    2. From VALIDATION or MATURE to DECAY lead: two or more death signals; the paper record below the predicted band;
       drift of the trade results; a Sharpe ratio of 30 days below half of the lifetime's *and* below what it hardly
       ever falls to. Half of the lifetime's alone is one death signal: 30 days of a Sharpe ratio are noise for the
       most part, and almost every healthy record is under half within 90 days (measured: docs/monitoring.md).
    3. From DECAY to PAPER after 30 days of candles.
    4. From PAPER back to VALIDATION, for a configuration that was above PAPER once and is not simulated: its paper
       record since it fell passes the gates of the lifecycle anew (at least 30 trades, a net profit, a Sharpe ratio
       of 0.5, a fill rate of 0.7, and a p-value of the mean trade below 0.05), with fewer than two death signals.

    Mean adverse selection above 0.6 (over 10 trades or more) halves the size.
    """
    stage, reason = _next_stage(health)
    size = STAGE_MULTIPLIERS[stage]
    if is_selected_against(health):
        size *= ADVERSE_SIZE
        reason += (
            f" Adverse selection of {health.adverse_selection:.2f} is above {ADVERSE_SELECTION_LIMIT}: half the size."
        )
    return Verdict(stage=stage, reason=reason, size_multiplier=size)


def is_selected_against(health: Health) -> bool:
    """Return whether prices go against new positions at once, more than is usual by far."""
    measured = health.adverse_selection is not None and health.n_trades >= LEAST_TRADES
    return measured and (health.adverse_selection or 0.0) > ADVERSE_SELECTION_LIMIT


def _next_stage(health: Health) -> tuple[Stage, str]:
    stage = health.stage
    if stage not in ("PAPER", "DECAY") and health.n_trades >= LEAST_TRADES and health.fill_rate < MINIMUM_FILL_RATE:
        return "PAPER", f"Its fill rate of {health.fill_rate:.2f} on paper is below {MINIMUM_FILL_RATE}."
    if stage in ("VALIDATION", "MATURE") and (why := _signs_of_decay(health)):
        return "DECAY", f"{'; '.join(why)}."
    if stage == "DECAY" and health.days_in_stage >= DECAY_DAYS:
        return (
            "PAPER",
            (f"It decayed {health.days_in_stage:.0f} days ago: from now on its paper record may bring it back."),
        )
    if stage == "PAPER" and health.comeback is not None and not health.is_simulated:
        return _comeback(health, health.comeback)
    return stage, _steady(health)


def _signs_of_decay(health: Health) -> list[str]:
    why = []
    if len(health.death_signals) >= DEADLY_SIGNALS:
        why.append(f"{len(health.death_signals)} death signals: {', '.join(health.death_signals)}")
    if health.left_band_on is not None:
        why.append(
            f"on {health.left_band_on} its paper record fell below the band that its out-of-sample record predicts"
        )
    if health.drift_at is not None:
        why.append(f"drift: at paper trade {health.drift_at} results were worse than usual beyond doubt")
    if (
        "sharpe_below_50pct" in health.death_signals
        and health.rolling_sharpe is not None
        and health.sharpe_floor is not None
        and health.rolling_sharpe < health.sharpe_floor
    ):
        why.append(
            f"its Sharpe ratio of 30 days, {health.rolling_sharpe:.2f}, is under half of its lifetime's and below "
            f"{health.sharpe_floor:.2f}, which it hardly ever falls to by chance"
        )
    if why:
        why[0] = why[0][0].upper() + why[0][1:]
    return why


def _comeback(health: Health, comeback: Comeback) -> tuple[Stage, str]:
    since = f"since it fell: {comeback.n_trades} paper trades, a net result of {comeback.net_profit:+,.2f}"
    if comeback.score < 1:
        return "PAPER", f"Not back yet {since}; resurrection score {comeback.score:.2f}."
    if len(health.death_signals) >= DEADLY_SIGNALS:
        return "PAPER", f"Not back {since}; {', '.join(health.death_signals)} are on."
    return "VALIDATION", (
        f"Back {since}, a Sharpe ratio of {comeback.sharpe_ratio:.2f} and a p-value of {comeback.p_value:.3f} pass "
        "the gates again."
    )


def _steady(health: Health) -> str:
    """Return, in a sentence, why nothing moves."""
    if health.stage == "DECAY":
        return "It has decayed: a retraining is due."
    if not health.n_trades:
        return "No paper trade has closed yet."
    if why := _signs_of_decay(health):
        return f"It stays in {health.stage}, where signs of decay move nothing. {'; '.join(why)}."
    signals = ", ".join(health.death_signals)
    return f"Nothing to act on: {'1 death signal, ' + signals if signals else 'no death signal'}."


def as_figures(health: Health) -> dict[str, Any]:
    """Return what a move was decided by, for JSON."""
    figures: dict[str, Any] = {name: getattr(health, name) for name in health.__dataclass_fields__}
    figures["death_signals"] = list(health.death_signals)
    comeback = health.comeback
    figures["comeback"] = comeback and {
        **{name: getattr(comeback, name) for name in comeback.__dataclass_fields__},
        "score": comeback.score,
    }
    return figures
