"""What runs by itself when new candles come, once a person has switched it on."""

from __future__ import annotations

from typing import Final

import dagster as dg

#: Evaluates the condition of every asset that has one: those of lifecycle monitoring.
follow_new_candles: Final = dg.AutomationConditionSensorDefinition(
    "follow_new_candles",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="Looks at the active configuration of a series as soon as new candles of it are stored. It fetches "
    "and trains nothing; off until you switch it on.",
)
