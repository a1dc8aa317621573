"""Every strategy against its slow reference: orders, trades and metrics, on planted markets and real candles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradepulse_pipeline.backtest.api import run_backtest
from tradepulse_pipeline.backtest.settings import AccountSettings, BarRange
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.strategies.base import SignalSource, Strategy
from tradepulse_pipeline.strategies.decisions import LONG, SHORT, SIDES, Decisions, Side
from tradepulse_pipeline_tests.reference.backtest import Trade
from tradepulse_pipeline_tests.reference.comparison import assert_same_orders, assert_same_result, plain_candles
from tradepulse_pipeline_tests.reference.markets import accounts, cases, frame_of, random_markets, real_candles
from tradepulse_pipeline_tests.reference.patterns import PATTERNS, every_strategy, planted_markets, seeded_market
from tradepulse_pipeline_tests.reference.registry import REFERENCES


class Comparison:
    """One strategy on one market: what the engine and the reference make of it."""

    def __init__(self, strategy: Strategy, candles: Candles) -> None:
        self.strategy, self.frame = strategy, frame_of(candles)
        self.candles = plain_candles(self.frame)
        self.reference = REFERENCES[strategy.name](self.candles, self.frame.timeframe.minutes)
        self.sources = {side: SignalSource(strategy, self.frame, side) for side in SIDES}

    def assert_agreement(
        self,
        parameters: Mapping[str, float],
        side: Side,
        account: AccountSettings,
        window: BarRange | None = None,
    ) -> list[Trade]:
        """Compare one run, over all bars without a window, and return its trades."""
        checked, window = self.strategy.check(parameters), window or BarRange(0, len(self.frame))
        orders = self.reference.orders(checked, side)
        decisions, exits = self.sources[side].decisions(checked), self.strategy.exits(checked)
        assert_same_orders(decisions, exits, orders, self.candles)
        result = run_backtest(self.frame, decisions, exits, account, window)
        step_ms = self.frame.timeframe.milliseconds
        return assert_same_result(result, self.candles, step_ms, orders, account, window)


@dataclass(frozen=True, slots=True)
class Case:
    candles: Candles
    parameter_sets: list[dict[str, float]]
    side: Side
    account: AccountSettings


@st.composite
def cases_of(draw: st.DrawFn, strategy: Strategy) -> Case:
    pattern = PATTERNS[strategy.name]
    planted = planted_markets(pattern)
    return Case(
        draw(planted | planted | planted | random_markets(min_bars=100, max_bars=240)),
        draw(st.lists(pattern.parameters, min_size=1, max_size=8)),
        draw(st.sampled_from([*SIDES, "both"])),
        replace(draw(accounts()), max_holding_bars=draw(st.sampled_from([0, 0, 1, 5]))),
    )


@every_strategy
def test_a_strategy_agrees_with_its_reference(strategy: Strategy) -> None:
    met: Counter[int] = Counter()

    @settings(max_examples=cases(100))
    @given(case=cases_of(strategy))
    def compare(case: Case) -> None:
        comparison = Comparison(strategy, case.candles)
        for parameters in case.parameter_sets:
            met.update(trade.side for trade in comparison.assert_agreement(parameters, case.side, case.account))

    compare()
    assert min(met[side] for side in (LONG, SHORT)) > 0, f"trades by side: {met}"


@every_strategy
def test_sets_together_decide_as_each_alone(strategy: Strategy) -> None:
    @settings(max_examples=cases(40))
    @given(case=cases_of(strategy), data=st.data())
    def compare(case: Case, data: st.DataObject) -> None:
        # Some sets share most parameters, some are there twice, in any order.
        sets = [strategy.check(parameters) for parameters in case.parameter_sets]
        for _ in range(data.draw(st.integers(0, 12))):
            one, other = data.draw(st.sampled_from(sets)), data.draw(st.sampled_from(sets))
            name = data.draw(st.sampled_from(sorted(one)))
            sets = data.draw(st.permutations([*sets, one | {name: other[name]}]))
        source = SignalSource(strategy, frame_of(case.candles), case.side)
        together = source.decision_sets({name: np.array([one[name] for one in sets]) for name in sets[0]})
        assert len(together) == len(sets)
        for number, parameters in enumerate(sets):
            alone = source.decisions(parameters)
            for field in fields(Decisions):
                np.testing.assert_array_equal(getattr(together[number], field.name), getattr(alone, field.name))

    compare()


def random_parameters(strategy: Strategy, rng: np.random.Generator, *, lenient_share: float) -> dict[str, float]:
    """Draw each parameter from its grid or from between the grid's ends, but a share of them as lenient as can be."""
    lenient, drawn = PATTERNS[strategy.name].lenient, {}
    for parameter in strategy.parameters:
        low, high = parameter.grid[0], parameter.grid[-1]
        between = rng.integers(low, high + 1) if parameter.is_integer else rng.uniform(low, high)
        is_lenient = rng.random() < lenient_share
        drawn[parameter.name] = lenient[parameter.name] if is_lenient else float(rng.choice([*parameter.grid, between]))
    return drawn


def exit_reasons(strategy: Strategy) -> set[str]:
    exits = strategy.exits(PATTERNS[strategy.name].lenient)
    found = {"STOP_LOSS", "TIME_LIMIT", "END_OF_DATA"}
    if exits.target != "none":
        found.add("TAKE_PROFIT")
    if exits.trail_activation > 0:
        found.add("TRAILING_STOP")
    if exits.exit_level_bars > 0:
        found.add("RETRACEMENT")
    return found


@every_strategy
def test_a_strategy_agrees_with_its_reference_on_every_exit_of_both_sides(strategy: Strategy) -> None:
    rng, met = np.random.default_rng(7), Counter[tuple[str, int]]()
    for _ in range(cases(100)):
        comparison = Comparison(strategy, seeded_market(PATTERNS[strategy.name], rng))
        account = AccountSettings(max_holding_bars=int(rng.choice([0, 0, 3])))
        for _ in range(4):
            trades = comparison.assert_agreement(random_parameters(strategy, rng, lenient_share=0.5), "both", account)
            met.update((trade.exit_reason, trade.side) for trade in trades)
    for key in ((reason, side) for reason in exit_reasons(strategy) for side in (LONG, SHORT)):
        assert met[key] > 5, f"{key}: {met[key]} of {met.total()} trades"


def random_account(rng: np.random.Generator) -> AccountSettings:
    return AccountSettings(
        risk_fraction=float(rng.choice([0.01, 0.05])),
        max_leverage=float(rng.choice([1.0, 5.0])),
        fee_rate=float(rng.choice([0.0, 0.001])),
        slippage=float(rng.choice([0.0, 0.0005])),
        max_holding_bars=int(rng.choice([0, 0, 12])),
    )


#: File, first row, number of rows. All but the first hold gaps, short ones and long ones.
SLICES = [
    ("binance_BTC-USDT_5m", 80_000, 6_000),
    ("binance_MANA-USDT_15m", 9_000, 6_000),
    ("kraken_BTC-USD_1h", 0, 6_000),
    ("kraken_BTC-USDC_1m", 40_000, 6_000),
]


@pytest.mark.parametrize(("name", "first", "n_candles"), SLICES, ids=[name for name, _, _ in SLICES])
@every_strategy
def test_a_strategy_agrees_with_its_reference_on_real_candles(
    market_data_dir: Path, strategy: Strategy, name: str, first: int, n_candles: int
) -> None:
    comparison = Comparison(strategy, real_candles(market_data_dir, name, first, n_candles))
    n_bars, rng, met = len(comparison.frame), np.random.default_rng(11), Counter[int]()
    for i in range(cases(40)):
        parameters = random_parameters(strategy, rng, lenient_share=0.7 if i % 2 else 0.0)
        start, stop = sorted(rng.choice(n_bars + 1, 2, replace=False).tolist())
        account = random_account(rng)
        for window in (BarRange(0, n_bars), BarRange(start, stop)):
            trades = comparison.assert_agreement(parameters, SIDES[i % 3], account, window)
            met.update(trade.side for trade in trades)
    assert min(met[side] for side in (LONG, SHORT)) > 10, f"trades by side: {met}"
