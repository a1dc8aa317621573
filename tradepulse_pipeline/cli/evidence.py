"""What tells a configuration's record from luck, as rows of a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tradepulse_pipeline.cli import console

if TYPE_CHECKING:
    from tradepulse_pipeline.database.configurations import ConfigurationRow


def evidence_rows(row: ConfigurationRow) -> list[list[str]]:
    """Return what was measured, each with what it means; nothing for configurations from before it was."""
    if row.evidence is None:
        return []
    figures = row.evidence["statistics"]
    number, percent = console.number, console.percent
    interval = "{} to {}".format
    rows = [
        ["Parameter sets tried", f"{figures['n_trials']:,}", _independent(figures)],
        ["Sharpe ratio", number(row.sharpe_ratio), _sharpe(figures)],
        ["Deflated Sharpe ratio", percent(row.deflated_sharpe_ratio), "probability that it is above what luck reaches"],
        [
            "Overfitting",
            percent(row.probability_of_backtest_overfitting),
            "probability that the best set in-sample is below the median out-of-sample",
        ],
        ["p-value", number(row.tested_p_value, 3), _corrected(row)],
        [
            "Net profit",
            number(row.net_profit),
            f"95 %: {interval(number(figures['net_profit_low']), number(figures['net_profit_high']))}",
        ],
        [
            "Largest drawdown",
            percent(row.max_drawdown),
            f"95 %: {interval(percent(figures['max_drawdown_low']), percent(figures['max_drawdown_high']))}",
        ],
        ["Ruin", percent(figures["ruin_probability"]), "resampled trades lose half of the capital on the way"],
    ]
    if figures["bootstrapped_share_profitable"] is not None:
        rows.append(
            [
                "Other histories",
                percent(figures["bootstrapped_share_profitable"]),
                "of them, made of the same candles in blocks of a week, are profitable (in-sample)",
            ]
        )
    if figures["superior_predictive_ability_p_value"] is not None:
        spa = number(figures["superior_predictive_ability_p_value"], 3)
        rows.append(["SPA", spa, f"p-value that none of the {figures['n_procedures']} best sets earns anything"])
    return rows


def evidence_sentences(row: ConfigurationRow) -> list[str]:
    """Return where the edge dies, and what the decisions are worth."""
    return [] if row.evidence is None else [row.evidence["costs_verdict"], row.evidence["accuracy_verdict"]]


def _independent(figures: dict[str, Any]) -> str:
    effective = figures["effective_trials"]
    return "" if effective is None else f"about {effective:,.0f} independent ones"


def _sharpe(figures: dict[str, Any]) -> str:
    low, high = figures["sharpe_low"], figures["sharpe_high"]
    parts = [] if low is None else [f"95 %: {low:.2f} to {high:.2f}"]
    if figures["luck_ceiling"] is not None:
        parts.append(f"luck alone reaches {figures['luck_ceiling']:.2f}")
    if figures["months_to_go"]:
        parts.append(f"{figures['months_to_go']:.0f} more months would prove it")
    return "; ".join(parts)


def _corrected(row: ConfigurationRow) -> str:
    if row.corrected_p_value is None:
        return ""
    return (
        f"{row.corrected_p_value:.3f} after the correction for all trainings of the job (Benjamini-Hochberg), "
        f"{console.number(row.bonferroni_p_value, 3)} by Bonferroni"
    )
