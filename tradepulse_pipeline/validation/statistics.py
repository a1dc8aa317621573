"""The figures that tell an out-of-sample record from luck."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """The figures that tell a record from luck; None is 'not measured' or 'undefined'.

    Sharpe ratios are annual (365 days), shares and probabilities fractions, intervals hold 95 %.

    Attributes
    ----------
    n_days : int
        Days of the record.
    n_trials : int
        Parameter sets that were tried in each train window.
    effective_trials : float
        Independent trials that would reach as high by luck, see ``luck_of_trials``.
    clustered_trials : int
        Clusters that the trials' returns fall into, see ``clusters_of_trials``; None where they fall into none.
    clusters_silhouette : float
        How well they do: up to 0.25 not at all, 1 at most.
    clustered_deflated_sharpe_ratio : float
        What the deflated Sharpe ratio would be with so many trials; for comparison, it decides nothing.
    trials_sharpe_deviation, luck_deviation : float
        Standard deviation of the trials' Sharpe ratios over the whole history, and what of it is luck: see
        ``luck_of_trials``.
    luck_ceiling : float
        Sharpe ratio that the best of so many trials reaches without skill.
    probabilistic_sharpe_ratio, deflated_sharpe_ratio : float
        Probability that the record's true Sharpe ratio is above 0, above what luck reaches.
    probability_of_backtest_overfitting, probability_of_loss : float
        By CSCV over all parameter sets: that the best one in-sample is below the median, loses, out-of-sample.
    bootstrap_p_value : float
        Of the mean trade return, by the stationary bootstrap.
    sharpe_low, sharpe_high, net_profit_low, net_profit_high, max_drawdown_low, max_drawdown_high : float
        Intervals by the stationary bootstrap of daily returns.
    reality_check_p_value, superior_predictive_ability_p_value : float
        Whether any of the 20 procedures 'trade the k-th best of each train window' earns more than nothing.
    n_better_than_nothing, n_procedures : int
        How many of them do by StepM, and how many there are.
    minimum_track_record_months, months_to_go : float
        Months after which the record would be told from luck with 95 %, all else equal, and what of it is missing.
    ruin_probability : float
        That resampled trades lose half of the capital on the way.
    resampled_net_profit_low, resampled_net_profit_high : float
        Net profit that one in twenty resampled histories falls below, exceeds.
    resampled_trades_under_water_95 : float
        Trades in a row below the highest equity before, which one in twenty resampled histories exceeds.
    drawdown_95 : float
        Maximum drawdown that one in twenty resampled histories exceeds.
    loss_95 : float
        Value at risk: the loss, as a share of the capital, that one in twenty resampled histories exceeds; 0 if none.
    bootstrapped_share_profitable, bootstrapped_ruin_probability : float
        Of the stored parameters over histories whose candles were put together anew in blocks of a week: the share that
        earns, that loses half of the capital on the way. In-sample: the parameters were chosen on these candles.
    bootstrapped_net_profit_low, bootstrapped_net_profit_high : float
        Of the same histories: the net profit that one in twenty falls below, exceeds.
    bootstrapped_drawdown_95, bootstrapped_days_under_water_95 : float
        Of the same histories: the maximum drawdown, the days in a row below the highest equity before, that one in
        twenty exceeds.
    var_95, cvar_95 : float
        One-day value at risk and expected shortfall of the record at 95 %, fractions of equity: ``value_at_risk``.
    var_days, var_exceptions, var_expected_exceptions : int, int, float
        Days whose value at risk was told from those before them, how many lost more, and how many were to be expected.
    kupiec_likelihood_ratio, kupiec_p_value : float
        Whether that is as many: ``backtest_value_at_risk``.
    break_even_bps : float
        Cost of a round trip at which the mean trade makes nothing, in bps of the notional.
    precision, precision_low, precision_high, base_precision : float
        Decisions after which the target came before the stop, and the same share of any bar.
    """

    n_days: int
    n_trials: int
    effective_trials: float | None = None
    clustered_trials: int | None = None
    clusters_silhouette: float | None = None
    clustered_deflated_sharpe_ratio: float | None = None
    trials_sharpe_deviation: float | None = None
    luck_deviation: float | None = None
    luck_ceiling: float | None = None
    probabilistic_sharpe_ratio: float | None = None
    deflated_sharpe_ratio: float | None = None
    probability_of_backtest_overfitting: float | None = None
    probability_of_loss: float | None = None
    bootstrap_p_value: float | None = None
    sharpe_low: float | None = None
    sharpe_high: float | None = None
    net_profit_low: float | None = None
    net_profit_high: float | None = None
    max_drawdown_low: float | None = None
    max_drawdown_high: float | None = None
    reality_check_p_value: float | None = None
    superior_predictive_ability_p_value: float | None = None
    n_better_than_nothing: int | None = None
    n_procedures: int | None = None
    minimum_track_record_months: float | None = None
    months_to_go: float | None = None
    ruin_probability: float | None = None
    resampled_net_profit_low: float | None = None
    resampled_net_profit_high: float | None = None
    resampled_trades_under_water_95: float | None = None
    drawdown_95: float | None = None
    loss_95: float | None = None
    bootstrapped_share_profitable: float | None = None
    bootstrapped_ruin_probability: float | None = None
    bootstrapped_net_profit_low: float | None = None
    bootstrapped_net_profit_high: float | None = None
    bootstrapped_drawdown_95: float | None = None
    bootstrapped_days_under_water_95: float | None = None
    var_95: float | None = None
    cvar_95: float | None = None
    var_days: int | None = None
    var_exceptions: int | None = None
    var_expected_exceptions: float | None = None
    kupiec_likelihood_ratio: float | None = None
    kupiec_p_value: float | None = None
    break_even_bps: float | None = None
    precision: float | None = None
    precision_low: float | None = None
    precision_high: float | None = None
    base_precision: float | None = None

    def tested_p_value(self, normal: float | None) -> float | None:
        """Return the p-value that is tested: the larger of the normal one and the bootstrap's."""
        return max((p for p in (normal, self.bootstrap_p_value) if p is not None), default=None)
