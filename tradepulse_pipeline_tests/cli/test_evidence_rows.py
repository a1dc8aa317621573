"""What 'show' says of the evidence: all that was measured, and nothing that was not, also of earlier versions."""

from __future__ import annotations

from types import SimpleNamespace

from tradepulse_pipeline.cli.evidence import MONTE_CARLO_COLUMNS, evidence_rows, monte_carlo_rows

EARLIER = {
    "n_days": 207, "n_trials": 201_600, "effective_trials": 971.3, "luck_ceiling": 4.17, "sharpe_low": -3.6,
    "sharpe_high": 1.1, "net_profit_low": -1526.4, "net_profit_high": 361.3, "max_drawdown_low": 0.03,
    "max_drawdown_high": 0.16, "ruin_probability": 0.01, "drawdown_95": 0.143, "bootstrapped_share_profitable": 0.42,
    "bootstrapped_net_profit_low": -1679.4, "bootstrapped_drawdown_95": 0.205, "months_to_go": None,
}  # fmt: skip
NOW = EARLIER | {
    "clustered_trials": 12, "clusters_silhouette": 0.61, "clustered_deflated_sharpe_ratio": 0.34,
    "resampled_net_profit_low": -1368.3, "resampled_net_profit_high": 250.0, "resampled_trades_under_water_95": 38.0,
    "bootstrapped_net_profit_high": 900.0, "bootstrapped_days_under_water_95": 301.6,
    "bootstrapped_ruin_probability": 0.0, "var_95": 0.0123, "cvar_95": 0.0189, "var_days": 147, "var_exceptions": 9,
    "var_expected_exceptions": 7.35, "kupiec_likelihood_ratio": 0.37, "kupiec_p_value": 0.543,
}  # fmt: skip


def row(statistics):
    names = ("sharpe_ratio", "deflated_sharpe_ratio", "probability_of_backtest_overfitting", "tested_p_value",
             "net_profit", "max_drawdown", "corrected_p_value")  # fmt: skip
    return SimpleNamespace(evidence=statistics and {"statistics": statistics}, **dict.fromkeys(names))


def explained(statistics):
    return {name: (value, meaning) for name, value, meaning in evidence_rows(row(statistics))}


def test_clusters_stand_beside_the_independent_trials_and_what_they_would_make_of_the_sharpe_ratio():
    rows = explained(NOW)
    assert rows["Parameter sets tried"][1] == "about 971 independent ones; 12 clusters (silhouette 0.61)"
    assert rows["Deflated Sharpe ratio"][1].endswith("; 34.0 % if each cluster were one trial")
    unclear = explained(NOW | dict.fromkeys(("clustered_trials", "clustered_deflated_sharpe_ratio")))
    assert unclear["Parameter sets tried"][1] == "about 971 independent ones; no clear clusters (silhouette 0.61)"
    assert unclear["Deflated Sharpe ratio"][1] == "probability that it is above what luck reaches"


def test_value_at_risk_has_its_test_where_the_record_is_long_enough():
    assert explained(NOW)["Value at risk"] == (
        "1.23 %",
        "loss that one day in twenty exceeds, 1.89 % in the mean of such days; told day by day, 9 of 147 days lost "
        "more, 7.3 expected (Kupiec: 0.37, p-value 0.543)",
    )
    short = NOW | {"kupiec_p_value": None}
    assert explained(short)["Value at risk"][1].endswith("1.89 % in the mean of such days")


def test_both_monte_carlos_have_a_line():
    rows = monte_carlo_rows(row(NOW))
    assert [dict(zip(MONTE_CARLO_COLUMNS, cells, strict=True)) for cells in rows] == [
        {
            "": "Resampled trades",
            "Net profit": "-1,368.30 to 250.00",
            "Drawdown": "14.3 %",
            "Under water": "38 trades",
            "Ruin": "1.0 %",
        },
        {
            "": "Reordered candles",
            "Net profit": "-1,679.40 to 900.00",
            "Drawdown": "20.5 %",
            "Under water": "302 days",
            "Ruin": "0.0 %",
        },
    ]


def test_what_an_earlier_version_did_not_measure_is_a_dash_or_not_there():
    rows = explained(EARLIER)
    assert rows["Parameter sets tried"][1] == "about 971 independent ones"
    assert "Value at risk" not in rows
    assert [cells[1:] for cells in monte_carlo_rows(row(EARLIER))] == [
        ["– to –", "14.3 %", "– trades", "1.0 %"],
        ["-1,679.40 to –", "20.5 %", "– days", "–"],
    ]
    assert evidence_rows(row(None)) == monte_carlo_rows(row(None)) == []
