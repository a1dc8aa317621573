"""Whether another of a search's best trials does better than the active parameters on candles after the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tradepulse_pipeline.backtest.settings import BarRange
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.monitoring.paper import Record, Subject, run_parameters
from tradepulse_pipeline.strategies.base import SignalSource
from tradepulse_pipeline.validation.data_snooping import MOST_CANDIDATES, data_snooping
from tradepulse_pipeline.validation.lifecycle import DISCOVERY_TRADES

#: Paper days and trades that it takes to prefer a challenger.
LEAST_DAYS: Final = 30
LEAST_TRADES: Final = DISCOVERY_TRADES

P_VALUE: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenger:
    """A trial that beat the active parameters on candles that neither was chosen on."""

    parameters: dict[str, float]
    p_value: float
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

    All run on the candles after the training. Hansen's test for superior predictive ability asks of their daily
    returns less those of the active parameters whether the best difference is more than luck; of the trials that
    StepM finds better, the one with the best mean difference and at least 30 trades is the challenger.

    Parameters
    ----------
    trials : sequence of mappings
        Parameter sets, the best first; at most 50 are looked at, the active one is left out.

    Returns
    -------
    Challenger or None
        None without 30 paper days, or when none is better beyond doubt.
    """
    if len(paper.day) < LEAST_DAYS:
        return None
    active = dict(subject.parameters)
    checked = [subject.strategy.check(trial) for trial in trials]
    rivals = [parameters for parameters in checked if parameters != active][:MOST_CANDIDATES]
    start = int(np.searchsorted(frame.open_time_ms, subject.data_end_ms))
    bars = BarRange(start, len(frame))
    records = [run_parameters(frame, source, subject, parameters, bars) for parameters in rivals]
    if not records:
        return None
    gained = np.column_stack([record.daily_return for record in records]) - paper.daily_return[:, None]
    found = data_snooping(gained, seed=seed, size=P_VALUE)
    if found is None or found.superior_predictive_ability >= P_VALUE:
        return None
    better = [k for k in found.better_than_nothing if len(records[k].trades) >= LEAST_TRADES]
    if not better:
        return None
    best = max(better, key=lambda k: float(gained[:, k].mean()))
    record = records[best]
    return Challenger(
        parameters=rivals[best],
        p_value=found.superior_predictive_ability,
        n_trades=len(record.trades),
        sentence=(
            f"Over {len(paper.day)} days after the training another of the {len(rivals)} best trials of its search "
            f"returned {record.equity[-1] - 1:+.1%} in {len(record.trades)} trades, the active parameters "
            f"{paper.equity[-1] - 1:+.1%} in {len(paper.trades)} (superior predictive ability: p = "
            f"{found.superior_predictive_ability:.3f})."
        ),
    )
