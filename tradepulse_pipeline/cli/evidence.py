"""What tells a configuration's record from luck, as rows of a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tradepulse_pipeline.cli import console
from tradepulse_pipeline.validation.statistics import Statistics

if TYPE_CHECKING:
    from tradepulse_pipeline.database.configurations import ConfigurationRow

#: Columns of ``monte_carlo_rows``, and what they mean.
MONTE_CARLO_COLUMNS: Final = ("", "Net profit", "Drawdown", "Under water", "Ruin")
MONTE_CARLO_NOTE: Final = (
    "Net profit of nine in ten histories; drawdown and time under water that one in twenty exceeds; share of those "
    "that lose half of the capital on the way. The parameters were chosen on the candles: that line is in-sample."
)


def evidence_rows(row: ConfigurationRow) -> list[list[str]]:
    """Return what was measured, each with what it means; nothing for configurations from before it was."""
    if row.evidence is None:
        return []
    figures = Statistics(**row.evidence["statistics"])
    number, percent = console.number, console.percent
    rows = [
        ["Parameter sets tried", f"{figures.n_trials:,}", _independent(figures)],
        ["Sharpe ratio", number(row.sharpe_ratio), _sharpe(figures)],
        ["Deflated Sharpe ratio", percent(row.deflated_sharpe_ratio), _deflated(figures)],
        [
            "Overfitting",
            percent(row.probability_of_backtest_overfitting),
            "probability that the best set in-sample is below the median out-of-sample",
        ],
        ["p-value", number(row.tested_p_value, 3), _corrected(row)],
        [
            "Net profit",
            number(row.net_profit),
            f"95 %: {number(figures.net_profit_low)} to {number(figures.net_profit_high)}",
        ],
        [
            "Largest drawdown",
            percent(row.max_drawdown),
            f"95 %: {percent(figures.max_drawdown_low)} to {percent(figures.max_drawdown_high)}",
        ],
    ]
    if figures.var_95 is not None:
        rows.append(["Value at risk", percent(figures.var_95, 2), _value_at_risk(figures)])
    if figures.bootstrapped_share_profitable is not None:
        rows.append(
            [
                "Other histories",
                percent(figures.bootstrapped_share_profitable),
                "of them, made of the same candles in blocks of a week, are profitable (in-sample)",
            ]
        )
    if figures.superior_predictive_ability_p_value is not None:
        spa = number(figures.superior_predictive_ability_p_value, 3)
        rows.append(["SPA", spa, f"p-value that none of the {figures.n_procedures} best sets earns anything"])
    return rows


def monte_carlo_rows(row: ConfigurationRow) -> list[list[str]]:
    """Return what resampled trades and bootstrapped candles came to, under ``MONTE_CARLO_COLUMNS``."""
    if row.evidence is None:
        return []
    figures = Statistics(**row.evidence["statistics"])
    rows = []
    if figures.ruin_probability is not None:
        rows.append(
            [
                "Resampled trades",
                _range(figures.resampled_net_profit_low, figures.resampled_net_profit_high),
                console.percent(figures.drawdown_95),
                f"{console.number(figures.resampled_trades_under_water_95, 0)} trades",
                console.percent(figures.ruin_probability),
            ]
        )
    if figures.bootstrapped_share_profitable is not None:
        rows.append(
            [
                "Reordered candles",
                _range(figures.bootstrapped_net_profit_low, figures.bootstrapped_net_profit_high),
                console.percent(figures.bootstrapped_drawdown_95),
                f"{console.number(figures.bootstrapped_days_under_water_95, 0)} days",
                console.percent(figures.bootstrapped_ruin_probability),
            ]
        )
    return rows


def evidence_sentences(row: ConfigurationRow) -> list[str]:
    """Return where the edge dies, and what the decisions are worth."""
    return [] if row.evidence is None else [row.evidence["costs_verdict"], row.evidence["accuracy_verdict"]]


def _range(low: float | None, high: float | None) -> str:
    return f"{console.number(low)} to {console.number(high)}"


def _independent(figures: Statistics) -> str:
    parts = [] if figures.effective_trials is None else [f"about {figures.effective_trials:,.0f} independent ones"]
    if figures.clustered_trials is not None:
        parts.append(f"{figures.clustered_trials} clusters (silhouette {figures.clusters_silhouette:.2f})")
    elif figures.clusters_silhouette is not None:
        parts.append(f"no clear clusters (silhouette {figures.clusters_silhouette:.2f})")
    return "; ".join(parts)


def _deflated(figures: Statistics) -> str:
    meaning = "probability that it is above what luck reaches"
    if figures.clustered_deflated_sharpe_ratio is None:
        return meaning
    return f"{meaning}; {console.percent(figures.clustered_deflated_sharpe_ratio)} if each cluster were one trial"


def _sharpe(figures: Statistics) -> str:
    parts = []
    if figures.sharpe_low is not None:
        parts.append(f"95 %: {console.number(figures.sharpe_low)} to {console.number(figures.sharpe_high)}")
    if figures.luck_ceiling is not None:
        parts.append(f"luck alone reaches {figures.luck_ceiling:.2f}")
    if figures.months_to_go:
        parts.append(f"{figures.months_to_go:.0f} more months would prove it")
    return "; ".join(parts)


def _value_at_risk(figures: Statistics) -> str:
    meaning = f"loss that one day in twenty exceeds, {console.percent(figures.cvar_95, 2)} in the mean of such days"
    if figures.kupiec_p_value is None:
        return meaning
    return (
        f"{meaning}; told day by day, {figures.var_exceptions} of {figures.var_days} days lost more, "
        f"{figures.var_expected_exceptions:.1f} expected (Kupiec: {console.number(figures.kupiec_likelihood_ratio)}, "
        f"p-value {console.number(figures.kupiec_p_value, 3)})"
    )


def _corrected(row: ConfigurationRow) -> str:
    if row.corrected_p_value is None:
        return ""
    return (
        f"{row.corrected_p_value:.3f} after the correction for all trainings of the job (Benjamini-Hochberg), "
        f"{console.number(row.bonferroni_p_value, 3)} by Bonferroni"
    )
