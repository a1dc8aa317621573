"""Account settings check themselves."""

from __future__ import annotations

import math

import pytest

from tradepulse_pipeline.backtest.settings import AccountSettings
from tradepulse_pipeline.errors import InvalidInputError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("initial_capital", 0.0),
        ("initial_capital", math.inf),
        ("initial_capital", math.nan),
        ("risk_fraction", 0.0),
        ("risk_fraction", 1.01),
        ("max_leverage", -1.0),
        ("fee_rate", -0.001),
        ("fee_rate", 0.11),
        ("slippage", math.nan),
        ("max_holding_bars", -1),
    ],
)
def test_impossible_settings_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(InvalidInputError, match=rf"{name}: found {value}, expected a number"):
        AccountSettings(**{name: value})


@pytest.mark.parametrize(("name", "value"), [("fee_rate", 0.0), ("slippage", 0.1), ("risk_fraction", 1.0)])
def test_settings_at_the_ends_of_their_ranges(name: str, value: float) -> None:
    assert getattr(AccountSettings(**{name: value}), name) == value
