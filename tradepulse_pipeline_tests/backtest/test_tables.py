"""The tabled evaluator against the plain one: every metric of every combination, on markets and exits of all kinds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tradepulse_pipeline.backtest.api import days_covered
from tradepulse_pipeline.backtest.evaluators import PlainEvaluator, TabledEvaluator
from tradepulse_pipeline.backtest.metrics import DAYS_PER_YEAR
from tradepulse_pipeline.backtest.result import EXIT_REASONS, METRIC_NAMES
from tradepulse_pipeline.backtest.settings import AccountSettings, BarRange
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import Candles, FloatArray, IntArray
from tradepulse_pipeline.market.series import MS_PER_DAY
from tradepulse_pipeline.strategies.base import Parameter, Parameters, Strategy
from tradepulse_pipeline.strategies.decisions import LONG, SIDES, Decisions, Exits, Side
from tradepulse_pipeline.strategies.space import ParameterSpace
from tradepulse_pipeline_tests.reference.markets import (
    accounts,
    cases,
    decisions_on,
    exit_rules,
    frame_of,
    random_markets,
    real_candles,
    windows_of,
)
from tradepulse_pipeline_tests.reference.patterns import PATTERNS, every_strategy, planted_markets


def choice(name: str, kind: Any, n: int) -> Parameter:
    grid = tuple(float(k) for k in range(n))
    return Parameter(name=name, unit="", meaning="", kind=kind, grid=grid, minimum=0, maximum=n, is_integer=True)


class Drawn(Strategy):
    """Its signal parameter picks one of some drawn sets of decisions, its exit parameter one of some exits."""

    name = "DRAWN"
    title = description = ""
    indicators = ()

    def __init__(self, sets: list[Decisions], exits: list[Exits]) -> None:
        self.sets, self.rules = sets, exits
        # The order of the two kinds must not matter: exits come first here.
        self.parameters = (choice("rule", "exit", len(exits)), choice("set", "signal", len(sets)))  # type: ignore[misc]

    def signals(self, prepared: IndicatorFrame, parameters: Parameters) -> Decisions:
        drawn = self.sets[int(parameters["set"])]
        is_of_side = drawn.side == prepared.sign * LONG
        own = drawn.take(np.flatnonzero(is_of_side))
        return own if prepared.sign > 0 else own.mirrored()

    def exits(self, parameters: Parameters) -> Exits:
        return self.rules[int(parameters["rule"])]


@dataclass
class Case:
    frame: IndicatorFrame
    strategy: Drawn
    account: AccountSettings
    windows: list[BarRange]


@st.composite
def grids(draw: st.DrawFn) -> Case:
    frame = frame_of(draw(random_markets()))
    sets = draw(st.lists(decisions_on(frame), min_size=1, max_size=3))
    strategy = Drawn(sets, draw(st.lists(exit_rules(), min_size=1, max_size=3)))
    windows = draw(st.lists(windows_of(len(frame)), min_size=1, max_size=2))
    return Case(frame, strategy, draw(accounts()), windows)


def assert_same_rows(tabled: FloatArray, plain: FloatArray, account: AccountSettings, days: float) -> None:
    """Compare to 1e-9, and where a figure is a small difference of large ones, to their rounding.

    Annualising ``days`` raises equity to a high power, and its rounding with it; ratios of losses that are themselves
    hardly more than rounding say nothing. The larger a Sharpe ratio, the less its returns vary, and the more of that
    is rounding.
    """
    annual = 1e-14 * DAYS_PER_YEAR / days
    falls = plain[:, METRIC_NAMES.index("max_drawdown")] > 1e-6
    for column, name in enumerate(METRIC_NAMES):
        rtol, atol, rows = 1e-9, 1e-12 * account.max_leverage, np.ones(len(plain), dtype=np.bool_)
        if name in ("net_profit", "average_win", "average_loss"):
            atol *= account.initial_capital
        elif name in ("sharpe_ratio", "sortino_ratio", "calmar_ratio", "profit_factor"):
            rtol, atol, rows = rtol + annual, 1e-9 + 1e6 * annual * (name == "calmar_ratio"), falls
            if name == "sharpe_ratio":
                rtol += 1e-12 * float(np.abs(plain[:, column]).max(initial=0.0))
        elif name == "annualized_return":
            rtol, atol = rtol + annual, atol + annual
        np.testing.assert_allclose(tabled[rows, column], plain[rows, column], rtol=rtol, atol=atol, err_msg=name)


def assert_agreement(case: Case) -> None:
    tabled = TabledEvaluator(case.frame, case.strategy, side="both", account=case.account)
    plain = PlainEvaluator(case.frame, case.strategy, side="both", account=case.account)
    everything = np.arange(tabled.space.size)
    for window in case.windows:
        days = days_covered(case.frame, *window)
        assert_same_rows(tabled.evaluate(everything, window), plain.evaluate(everything, window), case.account, days)


@settings(max_examples=cases(500))
@given(case=grids())
def test_hopping_equals_walking(case: Case) -> None:
    assert_agreement(case)


def test_drawn_grids_meet_every_exit_and_trades_over_midnight() -> None:
    met: Counter[str] = Counter()

    @settings(max_examples=300, phases=[Phase.generate], database=None)
    @given(case=grids())
    def look(case: Case) -> None:
        plain = PlainEvaluator(case.frame, case.strategy, side="both", account=case.account)
        for combination in range(plain.space.size):
            trades = plain.run(combination, case.windows[0]).trades
            met.update(EXIT_REASONS[reason] for reason in trades.exit_reason)
            days = case.frame.open_time_ms // MS_PER_DAY
            met["over midnight"] += int((days[trades.exit_bar] > days[trades.entry_bar]).sum())

    look()
    assert set(met) == {*EXIT_REASONS, "over midnight"}
    assert min(met.values()) >= 5, met


def some_combinations(strategy: Strategy, seed: int, n: int) -> IntArray:
    """Return random combinations of a strategy's own grid; of each parameter, half of the values are lenient."""
    rng, space = np.random.default_rng(seed), ParameterSpace(strategy.parameters)
    lenient = PATTERNS[strategy.name].lenient
    nearest = [np.abs(np.array(p.grid) - lenient[p.name]).argmin() for p in strategy.parameters]
    anything = rng.integers(space.shape, size=(n, len(nearest)))
    return space.combinations(np.where(rng.random(anything.shape) < 0.5, nearest, anything))


def assert_same_metrics(
    strategy: Strategy,
    frame: IndicatorFrame,
    side: Side,
    account: AccountSettings,
    combinations: IntArray,
    window: BarRange,
) -> FloatArray:
    """Compare the rows of the two evaluators and return the numbers of trades."""
    tabled = TabledEvaluator(frame, strategy, side=side, account=account, workers=2).evaluate(combinations, window)
    plain = PlainEvaluator(frame, strategy, side=side, account=account).evaluate(combinations, window)
    assert_same_rows(tabled, plain, account, days_covered(frame, *window))
    return tabled[:, METRIC_NAMES.index("sample_size")]


@every_strategy
def test_every_strategy_on_drawn_markets(strategy: Strategy) -> None:
    n_trades = []

    @settings(max_examples=cases(60))
    @given(
        candles=planted_markets(PATTERNS[strategy.name]),
        seed=st.integers(0, 1000),
        side=st.sampled_from(SIDES),
        account=accounts(),
    )
    def compare(candles: Candles, seed: int, side: Side, account: AccountSettings) -> None:
        frame, combinations = frame_of(candles), some_combinations(strategy, seed, 20)
        rows = assert_same_metrics(strategy, frame, side, account, combinations, BarRange(0, len(frame)))
        n_trades.append(rows.sum())

    compare()
    assert max(n_trades) > 0


@every_strategy
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("name", "first", "n_candles"),
    [
        ("binance_BTC-USDT_5m", 20_000, 30_000),
        ("kraken_BTC-USDT_15m", 5_000, 12_000),
        ("binance_BTC-USDT_1h", 0, 15_000),
        ("kraken_BTC-USDC_1m", 0, 20_000),
    ],
)
def test_every_strategy_on_real_candles(
    market_data_dir: Any, strategy: Strategy, name: str, first: int, n_candles: int, side: Side
) -> None:
    frame = frame_of(real_candles(market_data_dir, name, first, n_candles))
    account = AccountSettings(fee_rate=0.0002, max_leverage=5.0)
    drawn = some_combinations(strategy, 3, cases(60))
    n_trades = assert_same_metrics(strategy, frame, side, account, drawn, BarRange(0, len(frame)))
    assert n_trades.max() >= 3
    assert_same_metrics(strategy, frame, side, account, drawn, BarRange(len(frame) // 3, len(frame) // 2))


@settings(max_examples=cases(100))
@given(case=grids(), n_blocks=st.integers(1, 5))
def test_block_moments_are_those_of_the_daily_returns(case: Case, n_blocks: int) -> None:
    tabled = TabledEvaluator(case.frame, case.strategy, side="both", account=case.account)
    window = case.windows[0]
    metrics, sums, squares = tabled.evaluate_blocks(np.arange(tabled.space.size), window, n_blocks)
    days = case.frame.open_time_ms[slice(*window)] // MS_PER_DAY
    distinct = np.unique(days)
    for combination in range(tabled.space.size):
        run = tabled.run(combination, window)
        before, wanted, wanted_squares = case.account.initial_capital, np.zeros(n_blocks), np.zeros(n_blocks)
        for number, day in enumerate(distinct):
            after = run.equity[np.flatnonzero(days == day)[-1]]
            if before > 0 and len(run.trades):
                wanted[number * n_blocks // len(distinct)] += after / before - 1
                wanted_squares[number * n_blocks // len(distinct)] += (after / before - 1) ** 2
            before = after
        leverage = case.account.max_leverage
        np.testing.assert_allclose(sums[combination], wanted, rtol=1e-9, atol=1e-12 * leverage)
        np.testing.assert_allclose(squares[combination], wanted_squares, rtol=1e-9, atol=1e-12 * leverage**2)
    np.testing.assert_array_equal(metrics, tabled.evaluate(np.arange(tabled.space.size), window))
