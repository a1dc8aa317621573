"""The reference of each strategy."""

from __future__ import annotations

from typing import Final

from tradepulse_pipeline_tests.reference.capitulation_reversal_v3 import Climaxes
from tradepulse_pipeline_tests.reference.failed_breakdown_v3 import FailedBreakdowns
from tradepulse_pipeline_tests.reference.liquidity_sweep_v3 import Sweeps
from tradepulse_pipeline_tests.reference.strategy import ReferenceStrategy
from tradepulse_pipeline_tests.reference.supply_shock_v3 import Shocks

REFERENCES: Final[dict[str, type[ReferenceStrategy]]] = {
    "LIQUIDITY_SWEEP_V3": Sweeps,
    "CAPITULATION_REVERSAL_V3": Climaxes,
    "FAILED_BREAKDOWN_V3": FailedBreakdowns,
    "SUPPLY_SHOCK_V3": Shocks,
}
