"""The strategies that TradePulse knows, by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tradepulse_pipeline.errors import StrategyError, one_of
from tradepulse_pipeline.strategies.base import Strategy
from tradepulse_pipeline.strategies.capitulation_reversal_v3 import CapitulationReversalV3
from tradepulse_pipeline.strategies.failed_breakdown_v3 import FailedBreakdownV3
from tradepulse_pipeline.strategies.liquidity_sweep_v3 import LiquiditySweepV3
from tradepulse_pipeline.strategies.supply_shock_v3 import SupplyShockV3

_STRATEGIES: Final[dict[str, Strategy]] = {
    strategy.name: strategy
    for strategy in (LiquiditySweepV3(), CapitulationReversalV3(), FailedBreakdownV3(), SupplyShockV3())
}

#: Those of a user: see ``register``.
_OWN: Final[dict[str, Strategy]] = {}


def strategy_names() -> tuple[str, ...]:
    """Return the names of all strategies, those that come with TradePulse first."""
    return (*_STRATEGIES, *_OWN)


def get_strategy(name: str) -> Strategy:
    """Return the strategy called ``name``.

    Raises
    ------
    InvalidInputError
        If there is none; the message lists those that there are.
    """
    known = _STRATEGIES | _OWN
    if name not in known:
        raise one_of("strategy", name, known)
    return known[name]


def register(own: Iterable[Strategy]) -> None:
    """Make strategies of a user known, in the place of those that were registered before.

    Raises
    ------
    StrategyError
        If a name is taken; nothing is registered then.
    """
    known: dict[str, Strategy] = {}
    for strategy in own:
        other = _STRATEGIES.get(strategy.name) or known.get(strategy.name)
        if other is not None:
            raise StrategyError(
                f"{_place(strategy)}: the name {strategy.name} is taken: {_place(other)} has it. Choose another."
            )
        known[strategy.name] = strategy
    _OWN.clear()
    _OWN.update(known)


def _place(strategy: Strategy) -> str:
    return "TradePulse" if strategy.origin is None else strategy.origin.place
