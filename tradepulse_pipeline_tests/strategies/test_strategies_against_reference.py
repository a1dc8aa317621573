"""Every strategy against its slow reference: orders, trades and metrics, on planted markets and real candles."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradepulse_pipeline.backtest.api import backtest_strategy, run_backtest
from tradepulse_pipeline.backtest.settings import AccountSettings, BarRange
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.strategies.base import SignalSource, Strategy
from tradepulse_pipeline.strategies.decisions import LONG, SHORT, SIDES, Decisions, Side
from tradepulse_pipeline_tests.reference.backtest import Trade
from tradepulse_pipeline_tests.reference.comparison import assert_same_orders, assert_same_result, plain_candles
from tradepulse_pipeline_tests.reference.markets import (
    accounts,
    cases,
    frame_of,
    random_markets,
    real_candles,
)
from tradepulse_pipeline_tests.reference.patterns import PATTERNS, every_strategy, planted_markets, seeded_market
from tradepulse_pipeline_tests.reference.registry import REFERENCES


@dataclass(frozen=True, slots=True)
class Run:
    frame: IndicatorFrame
    parameter_sets: list[dict[str, float]]
    side: Side
    account: AccountSettings


@st.composite
def runs(draw: st.DrawFn, strategy: Strategy) -> Run:
    pattern = PATTERNS[strategy.name]
    planted = planted_markets(pattern)
    return Run(
        frame_of(draw(planted | planted | planted | random_markets(min_bars=100, max_bars=240))),
        draw(st.lists(pattern.parameters, min_size=1, max_size=8)),
        draw(st.sampled_from([*SIDES, "both"])),
        replace(draw(accounts()), max_holding_bars=draw(st.sampled_from([0, 0, 1, 5]))),
    )


def assert_agreement(strategy: Strategy, run: Run) -> list[Trade]:
    frame, candles, trades = run.frame, plain_candles(run.frame), list[Trade]()
    reference, source = (
        REFERENCES[strategy.name](candles, frame.timeframe.minutes),
        SignalSource(strategy, frame, run.side),
    )
    for parameters in map(strategy.check, run.parameter_sets):
        orders, decisions, exits = (
            reference.orders(parameters, run.side),
            source.decisions(parameters),
            strategy.exits(parameters),
        )
        assert_same_orders(decisions, exits, orders, candles)
        window = BarRange(0, len(frame))
        result = run_backtest(frame, decisions, exits, run.account, window)
        trades += assert_same_result(result, candles, frame.timeframe.milliseconds, orders, run.account, window)
    return trades


@every_strategy
def test_a_strategy_agrees_with_its_reference(strategy: Strategy) -> None:
    met: Counter[int] = Counter()

    @settings(max_examples=cases(100))
    @given(run=runs(strategy))
    def compare(run: Run) -> None:
        met.update(trade.side for trade in assert_agreement(strategy, run))

    compare()
    assert min(met[side] for side in (LONG, SHORT)) > 0, f"trades by side: {met}"


@every_strategy
def test_sets_together_decide_as_each_alone(strategy: Strategy) -> None:
    @settings(max_examples=cases(40))
    @given(run=runs(strategy), data=st.data())
    def compare(run: Run, data: st.DataObject) -> None:
        # Some sets share most parameters, some are there twice, in any order.
        sets = run.parameter_sets
        for _ in range(data.draw(st.integers(0, 12))):
            one, other = data.draw(st.sampled_from(sets)), data.draw(st.sampled_from(sets))
            name = data.draw(st.sampled_from(sorted(one)))
            sets = data.draw(st.permutations([*sets, one | {name: other[name]}]))
        sets = [strategy.check(one) for one in sets]
        source = SignalSource(strategy, run.frame, run.side)
        together = source.decision_sets({name: np.array([float(one[name]) for one in sets]) for name in sets[0]})
        assert len(together) == len(sets)
        for number, parameters in enumerate(sets):
            alone = source.decisions(parameters)
            for field in fields(Decisions):
                np.testing.assert_array_equal(getattr(together[number], field.name), getattr(alone, field.name))

    compare()


def random_parameters(strategy: Strategy, rng: np.random.Generator, *, is_lenient: bool) -> dict[str, float]:
    """Draw each parameter from its grid or from between the grid's ends, or take what is lenient most of the time."""
    lenient, drawn = PATTERNS[strategy.name].lenient, {}
    for parameter in strategy.parameters:
        low, high = parameter.grid[0], parameter.grid[-1]
        between = rng.integers(low, high + 1) if parameter.is_integer else rng.uniform(low, high)
        choices = [lenient[parameter.name]] if is_lenient and rng.random() < 0.7 else [*parameter.grid, between]
        drawn[parameter.name] = float(rng.choice(choices))
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
    for _ in range(cases(150)):
        frame = frame_of(seeded_market(PATTERNS[strategy.name], rng))
        parameter_sets = [random_parameters(strategy, rng, is_lenient=True) for _ in range(4)]
        account = AccountSettings(max_holding_bars=int(rng.choice([0, 0, 3])))
        trades = assert_agreement(strategy, Run(frame, parameter_sets, "both", account))
        met.update((trade.exit_reason, trade.side) for trade in trades)
    for reason in exit_reasons(strategy):
        for side in (LONG, SHORT):
            assert met[reason, side] > 10, (
                f"only {met[reason, side]} {reason} of side {side} among {met.total()} trades"
            )


#: File, first row, number of rows. All but the first hold gaps, short ones and long ones.
SLICES = [
    ("binance_BTC-USDT_5m", 80_000, 6_000),
    ("binance_MANA-USDT_15m", 9_000, 6_000),
    ("kraken_BTC-USD_1h", 0, 6_000),
    ("kraken_BTC-USDC_1m", 40_000, 6_000),
]


def random_account(rng: np.random.Generator) -> AccountSettings:
    return AccountSettings(
        risk_fraction=float(rng.choice([0.01, 0.05])),
        max_leverage=float(rng.choice([1.0, 5.0])),
        fee_rate=float(rng.choice([0.0, 0.001])),
        slippage=float(rng.choice([0.0, 0.0005])),
        max_holding_bars=int(rng.choice([0, 0, 12])),
    )


@pytest.mark.parametrize(("name", "first", "n_candles"), SLICES, ids=[name for name, _, _ in SLICES])
@every_strategy
def test_a_strategy_agrees_with_its_reference_on_real_candles(
    market_data_dir: Path, strategy: Strategy, name: str, first: int, n_candles: int
) -> None:
    frame = frame_of(real_candles(market_data_dir, name, first, n_candles))
    candles = plain_candles(frame)
    reference = REFERENCES[strategy.name](candles, frame.timeframe.minutes)
    sources = {side: SignalSource(strategy, frame, side) for side in SIDES}
    rng = np.random.default_rng(11)
    n_trades: Counter[int] = Counter()
    for i in range(cases(40)):
        side, account = SIDES[i % 3], random_account(rng)
        parameters = random_parameters(strategy, rng, is_lenient=bool(i % 2))
        orders = reference.orders(parameters, side)
        assert_same_orders(sources[side].decisions(parameters), strategy.exits(parameters), orders, candles)
        start, stop = sorted(rng.choice(len(frame) + 1, 2, replace=False).tolist())
        for window in (BarRange(0, len(frame)), BarRange(start, stop)):
            result = backtest_strategy(frame, strategy, parameters, side=side, account=account, window=window)
            trades = assert_same_result(result, candles, frame.timeframe.milliseconds, orders, account, window)
            n_trades.update(trade.side for trade in trades)
    assert min(n_trades[side] for side in (LONG, SHORT)) > 10
