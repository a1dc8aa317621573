"""Lifecycle stages: how far a configuration may be trusted, decided by its out-of-sample record alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from tradepulse_pipeline.market.series import Market
from tradepulse_pipeline.validation.record import OutOfSampleRecord
from tradepulse_pipeline.validation.statistics import Statistics

Stage = Literal["PAPER", "DISCOVERY", "VALIDATION", "MATURE", "DECAY"]
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)

#: Share of the full position size that a stage allows.
STAGE_MULTIPLIERS: Final[dict[Stage, float]] = {
    "PAPER": 0.0,
    "DISCOVERY": 0.25,
    "VALIDATION": 0.5,
    "MATURE": 1.0,
    "DECAY": 0.0,
}

MINIMUM_SHARPE: Final = 0.5
MINIMUM_FILL_RATE: Final = 0.7
DISCOVERY_TRADES: Final = 30
MATURE_TRADES: Final = 100
MATURE_SHARPE: Final = 1.5
MATURE_ADVERSE_SELECTION: Final = 0.3
MATURE_P_VALUE: Final = 0.05
MATURE_DEFLATED_SHARPE: Final = 0.95
MATURE_OVERFITTING: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the stage is decided by: out-of-sample figures, and where they come from. None is 'not measured'."""

    net_profit: float
    #: Currency of ``net_profit``.
    currency: str
    sharpe_ratio: float
    fill_rate: float
    sample_size: int
    adverse_selection_score: float
    is_overfit: bool | None
    is_out_of_sample: bool
    is_simulated: bool
    #: p-value of the mean trade return after the false-discovery correction over all that was trained together.
    corrected_p_value: float | None = None
    deflated_sharpe_ratio: float | None = None
    probability_of_backtest_overfitting: float | None = None
    #: Parameter sets tried in each train window, and the Sharpe ratio that the best of so many reaches by luck.
    n_trials: int | None = None
    luck_ceiling: float | None = None
    #: Months that are missing until such a record would be told from luck; None where no length would do.
    months_to_go: float | None = None

    @classmethod
    def of(cls, record: OutOfSampleRecord, market: Market, statistics: Statistics | None = None) -> Evidence:
        """Gather what has been measured of a record on ``market``; the corrected p-value takes the whole job."""
        metrics = record.metrics
        measured = {} if statistics is None else {name: getattr(statistics, name) for name in _FROM_STATISTICS}
        return cls(
            net_profit=metrics.net_profit,
            currency=market.quote,
            sharpe_ratio=metrics.sharpe_ratio,
            fill_rate=metrics.fill_rate,
            sample_size=int(metrics.sample_size),
            adverse_selection_score=metrics.adverse_selection_score,
            is_overfit=record.is_overfit,
            is_out_of_sample=record.is_out_of_sample,
            is_simulated=market.is_simulated,
            **measured,
        )


#: What the evidence takes from the statistics, under the same names.
_FROM_STATISTICS: Final = (
    "deflated_sharpe_ratio",
    "probability_of_backtest_overfitting",
    "n_trials",
    "luck_ceiling",
    "months_to_go",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageDecision:
    """A stage, why in one sentence with the deciding figure, and all the figures that were looked at."""

    stage: Stage
    reason: str
    figures: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.stage}: {self.reason}"


def classify(evidence: Evidence) -> StageDecision:
    """Return the stage that the evidence allows; the first rule that applies decides.

    1. PAPER: a net loss, a Sharpe ratio below 0.5 or fewer than 70 % of orders filled; simulated candles; figures that
       are not out-of-sample.
    2. DISCOVERY: fewer than 30 trades.
    3. VALIDATION: fewer than 100 trades.
    4. MATURE: a Sharpe ratio above 1.5, adverse selection below 0.3, and evidence that holds: p-value below 0.05 after
       the false-discovery correction, deflated Sharpe ratio above 0.95, probability of backtest overfitting below 0.5,
       not overfit. What has not been measured does not hold.
    5. Otherwise VALIDATION.

    DECAY is not among them: only monitoring leads there.

    Examples
    --------
    >>> print(classify(Evidence(net_profit=-212.4, currency="USDT", sharpe_ratio=-0.7, fill_rate=1.0, sample_size=41,
    ...     adverse_selection_score=0.2, is_overfit=True, is_out_of_sample=True, is_simulated=False)))
    PAPER: out-of-sample it lost 212.40 USDT over 41 trades.
    """
    stage, reason = _decide(evidence)
    figures = {name: getattr(evidence, name) for name in evidence.__dataclass_fields__}
    return StageDecision(stage=stage, reason=reason, figures=figures)


def _decide(evidence: Evidence) -> tuple[Stage, str]:
    place = "out-of-sample" if evidence.is_out_of_sample else "on candles that its parameters were chosen on"
    if evidence.is_simulated:
        place += " (SIMULATED)"
    trades = "1 trade" if evidence.sample_size == 1 else f"{evidence.sample_size} trades"
    profit = f"{_shown(evidence.net_profit, 0.0)} {evidence.currency} over {trades}"
    if evidence.sample_size == 0:
        return "PAPER", f"{place} it made no trade."
    if evidence.net_profit < 0:
        return "PAPER", f"{place} it lost {profit.removeprefix('-')}."
    if evidence.sharpe_ratio < MINIMUM_SHARPE:
        shown = _shown(evidence.sharpe_ratio, MINIMUM_SHARPE)
        return "PAPER", f"{place} it earned {profit}, but its Sharpe ratio of {shown} is below {MINIMUM_SHARPE}."
    if evidence.fill_rate < MINIMUM_FILL_RATE:
        shown = _shown(evidence.fill_rate, MINIMUM_FILL_RATE)
        return "PAPER", f"{place} it earned {profit}, but its fill rate of {shown} is below {MINIMUM_FILL_RATE}."
    if evidence.is_simulated:
        return "PAPER", f"{place} it earned {profit}, which shows nothing about a real market."
    if not evidence.is_out_of_sample:
        return "PAPER", f"{place} it earned {profit}, which is not an out-of-sample record."
    luck = _against_luck(evidence)
    if evidence.sample_size < DISCOVERY_TRADES:
        return "DISCOVERY", f"{place} it earned {profit}; fewer than {DISCOVERY_TRADES} trades show little.{luck}"
    if evidence.sample_size < MATURE_TRADES:
        return "VALIDATION", f"{place} it earned {profit}; it takes {MATURE_TRADES} trades to trust it.{luck}"
    failing = _what_fails(evidence)
    if failing:
        return "VALIDATION", f"{place} it earned {profit}, but {'; '.join(failing)}.{luck}"
    shown = _shown(evidence.sharpe_ratio, MATURE_SHARPE)
    return "MATURE", f"{place} it earned {profit} with a Sharpe ratio of {shown}, and the evidence holds."


def _against_luck(evidence: Evidence) -> str:
    """Return what the number of trials makes of the Sharpe ratio, in words; '' where that is not known."""
    if evidence.luck_ceiling is None or evidence.n_trials is None:
        return ""
    bound = evidence.luck_ceiling
    shown = f"Sharpe {_shown(evidence.sharpe_ratio, bound)}"
    if evidence.sharpe_ratio <= bound:
        return f" {shown}, but after {evidence.n_trials:,} trials luck alone reaches {bound:.2f}."
    if evidence.months_to_go:
        return (
            f" {shown}, where luck alone reaches {bound:.2f} after {evidence.n_trials:,} trials; "
            f"{evidence.months_to_go:.0f} more months of it would prove it."
        )
    return f" {shown}, where luck alone reaches {bound:.2f} after {evidence.n_trials:,} trials."


def _what_fails(evidence: Evidence) -> list[str]:
    """Return, in words, each condition for MATURE that does not hold."""
    measured: tuple[tuple[str, float | None, float, bool], ...] = (
        ("its Sharpe ratio", evidence.sharpe_ratio, MATURE_SHARPE, True),
        ("its adverse selection score", evidence.adverse_selection_score, MATURE_ADVERSE_SELECTION, False),
        ("its p-value after the false-discovery correction", evidence.corrected_p_value, MATURE_P_VALUE, False),
        ("its deflated Sharpe ratio", evidence.deflated_sharpe_ratio, MATURE_DEFLATED_SHARPE, True),
        (
            "its probability of backtest overfitting",
            evidence.probability_of_backtest_overfitting,
            MATURE_OVERFITTING,
            False,
        ),
    )
    failing = []
    for name, value, bound, is_above in measured:
        if value is not None and not (value > bound if is_above else value < bound):
            failing.append(f"{name} of {_shown(value, bound)} is not {'above' if is_above else 'below'} {bound}")
    if evidence.is_overfit:
        failing.append("it is overfit: its Sharpe ratio fell to less than half of the in-sample one")
    missing = [name.removeprefix("its ") for name, value, *_ in measured if value is None]
    if evidence.is_overfit is None:
        missing.append("overfitting over the windows")
    if missing:
        failing.append(f"this has not been measured yet: {', '.join(missing)}")
    return failing


def _shown(value: float, bound: float) -> str:
    """Return ``value`` with two decimals, or with as many as it takes to be on its own side of ``bound``.

    Examples
    --------
    >>> _shown(1234.5, 0.0), _shown(0.49996, 0.5), _shown(0.5, 0.5)
    ('1,234.50', '0.49996', '0.50')
    """
    texts = (f"{value:,.{decimals}f}" for decimals in range(2, 17))
    return next((t for t in texts if (float(t.replace(",", "")) == bound) == (value == bound)), repr(value))
