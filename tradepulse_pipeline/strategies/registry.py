"""The strategies that TradePulse knows, by name."""

from __future__ import annotations

from typing import Final

from tradepulse_pipeline.errors import one_of
from tradepulse_pipeline.strategies.base import Strategy
from tradepulse_pipeline.strategies.capitulation_reversal_v3 import CapitulationReversalV3
from tradepulse_pipeline.strategies.failed_breakdown_v3 import FailedBreakdownV3
from tradepulse_pipeline.strategies.liquidity_sweep_v3 import LiquiditySweepV3
from tradepulse_pipeline.strategies.supply_shock_v3 import SupplyShockV3

_STRATEGIES: Final[dict[str, Strategy]] = {
    strategy.name: strategy
    for strategy in (LiquiditySweepV3(), CapitulationReversalV3(), FailedBreakdownV3(), SupplyShockV3())
}


def strategy_names() -> tuple[str, ...]:
    """Return the names of all strategies."""
    return tuple(_STRATEGIES)


def get_strategy(name: str) -> Strategy:
    """Return the strategy called ``name``.

    Raises
    ------
    InvalidInputError
        If there is none; the message lists those that there are.
    """
    if name not in _STRATEGIES:
        raise one_of("strategy", name, _STRATEGIES)
    return _STRATEGIES[name]
