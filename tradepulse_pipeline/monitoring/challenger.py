"""Whether another of a search's best trials does better than the active parameters on candles after the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tradepulse_pipeline.backtest.settings import BarRange
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.series import MS_PER_DAY
from tradepulse_pipeline.monitoring.paper import Record, Subject, run_parameters
from tradepulse_pipeline.strategies.base import SignalSource
from tradepulse_pipeline.validation.data_snooping import MOST_CANDIDATES, data_snooping
from tradepulse_pipeline.validation.lifecycle import DISCOVERY_TRADES

#: Paper days of the first look; each further one takes twice as many days as the one before.
FIRST_LOOK_DAYS: Final = 30

#: Trades that it takes to prefer a challenger.
LEAST_TRADES: Final = DISCOVERY_TRADES

#: Chance that all looks at a configuration together find a challenger where none is better.
FALSE_CHALLENGERS: Final = 0.05

#: Resamples of a test: p-values below 1 / 2,001 do not occur, so that no look after the ninth (21 years) can succeed.
_N_RESAMPLES: Final = 2_000


def look_due(n_days: int) -> tuple[int, float] | None:
    """Return the paper days of the latest look that is due, and the p-value below which it succeeds.

    There are looks after 30, 60, 120, ... days. The k-th spends ``0.05 / (k (k + 1))`` of the chance of a false
    challenger, all of them together 0.05, however long the configuration is watched. Between two looks the earlier
    one stands, whatever was asked in between: asking every day raises no chance. None before the first.

    Examples
    --------
    >>> look_due(29), look_due(59), look_due(60)
    (None, (30, 0.025), (60, 0.008333333333333333))
    """
    if n_days < FIRST_LOOK_DAYS:
        return None
    number = (n_days // FIRST_LOOK_DAYS).bit_length()
    return FIRST_LOOK_DAYS * 2 ** (number - 1), FALSE_CHALLENGERS / (number * (number + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenger:
    """A trial that beat the active parameters on candles that neither was chosen on."""

    parameters: dict[str, float]
    p_value: float
    n_days: int
    n_trades: int
    sentence: str

    def to_json_dict(self) -> dict[str, Any]:
        """Return the challenger as JSON values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def find_challenger(
    frame: IndicatorFrame,
    source: SignalSource,
    subject: Subject,
    paper: Record,
    trials: Sequence[Mapping[str, float]],
    *,
    seed: int,
) -> Challenger | None:
    """Return the best of the trials that beats the active parameters, once it is known how many there are.

    All run on the candles after the training, up to the latest look that is due (:func:`look_due`). Hansen's test for
    superior predictive ability asks of their daily returns less those of the active parameters whether the best
    difference is more than luck; of the trials that StepM finds better, the one with the best mean difference that
    earned something itself, in at least 30 trades, is the challenger.

    Parameters
    ----------
    trials : sequence of mappings
        Parameter sets, the best first; at most 50 are looked at, the active one is left out.

    Returns
    -------
    Challenger or None
        None before the first look, or when none is better beyond doubt.
    """
    due = look_due(len(paper.day))
    if due is None:
        return None
    n_days, alpha = due
    active = dict(subject.parameters)
    checked = [subject.strategy.check(trial) for trial in trials]
    rivals = [parameters for parameters in checked if parameters != active][:MOST_CANDIDATES]
    bars = BarRange(int(np.searchsorted(frame.open_time_ms, subject.data_end_ms)), len(frame))
    records = [run_parameters(frame, source, subject, parameters, bars) for parameters in rivals]
    if not records:
        return None
    gained = np.column_stack([record.daily_return for record in records]) - paper.daily_return[:, None]
    gained = gained[:n_days]
    found = data_snooping(gained, seed=seed, n_resamples=_N_RESAMPLES, size=alpha)
    if found is None or found.superior_predictive_ability >= alpha:
        return None
    stop = int(np.searchsorted(frame.open_time_ms, (int(paper.day[n_days - 1]) + 1) * MS_PER_DAY))
    n_trades = [int(np.count_nonzero(record.trades.exit_bar < stop)) for record in records]
    better = [k for k in found.better_than_nothing if n_trades[k] >= LEAST_TRADES and records[k].equity[n_days - 1] > 1]
    if not better:
        return None
    best = max(better, key=lambda k: float(gained[:, k].mean()))
    n_own = np.count_nonzero(paper.trades.exit_bar < stop)
    return Challenger(
        parameters=rivals[best],
        p_value=found.superior_predictive_ability,
        n_days=n_days,
        n_trades=n_trades[best],
        sentence=(
            f"Over the first {n_days} days after the training another of the {len(rivals)} best trials of its search "
            f"returned {records[best].equity[n_days - 1] - 1:+.1%} in {n_trades[best]} trades, the active parameters "
            f"{paper.equity[n_days - 1] - 1:+.1%} in {n_own} (superior predictive ability: p = "
            f"{found.superior_predictive_ability:.4f}, less than {alpha:.4f})."
        ),
    )
