"""The costs ladder: rungs against single runs, and the break-even cost against the engine itself."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from scipy.optimize import brentq

from tradepulse_pipeline.backtest.settings import AccountSettings, BarRange
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.indicators.volatility import ATR
from tradepulse_pipeline.optimizers.settings import SearchSettings
from tradepulse_pipeline.strategies.base import Parameter, Strategy
from tradepulse_pipeline.strategies.decisions import LONG, Decisions, Exits
from tradepulse_pipeline.validation.chosen import ChosenDecisions, ChosenRun, chosen_decisions, chosen_runs
from tradepulse_pipeline.validation.costs import CostsLadder, _one_bar_late, costs_ladder
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline.validation.walk_forward import judge_windows, search_windows
from tradepulse_pipeline.validation.windows import WindowSettings
from tradepulse_pipeline_tests.reference import backtest as reference
from tradepulse_pipeline_tests.reference.comparison import plain_candles, plain_orders
from tradepulse_pipeline_tests.reference.markets import candles_of, frame_of


class EveryNthBar(Strategy):
    name: ClassVar[str] = "EVERY_NTH_BAR"
    title = description = "Buys every few bars."
    parameters = (
        Parameter(name="every", unit="bars", meaning="", kind="signal", grid=(3.0, 5.0), minimum=1, maximum=9),
        Parameter(name="target", unit="R", meaning="", kind="exit", grid=(1.0, 2.0), minimum=0.1, maximum=9),
    )
    indicators = (ATR,)

    def signals(self, prepared, parameters):
        bars = np.arange(20, len(prepared), int(parameters["every"]), dtype=np.int64)
        return Decisions.of(bars, LONG, prepared.close[bars], prepared[ATR.name][bars])

    def exits(self, parameters):
        return Exits(stop_multiple=1.5, target="r", target_multiple=parameters["target"])


STRATEGY = EveryNthBar()
ACCOUNT = AccountSettings(fee_rate=0.0004, slippage=0.0003)
SETTINGS = TrainingSettings(
    side="both",
    account=ACCOUNT,
    search=SearchSettings(method="grid", minimum_trades=1),
    windows=WindowSettings(train_days=20, test_days=10, gap_days=2),
)


def walk(n: int, seed: int, drift: float = 0.0, missing: tuple[int, ...] = ()) -> IndicatorFrame:
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(drift + 0.01 * rng.standard_normal(n)))
    open_ = np.append(100.0, close[:-1])
    up, down = np.exp(0.01 * rng.random((2, n)))
    rows = list(zip(open_, np.maximum(open_, close) * up, np.minimum(open_, close) / down, close, strict=True))
    return frame_of(candles_of(rows, missing=missing))


@pytest.fixture(scope="module")
def frame() -> IndicatorFrame:
    return walk(1_200, 5, drift=0.0004, missing=(300, 301, 530, 531, 532, 533, 900))


@pytest.fixture(scope="module")
def runs() -> list[ChosenRun]:
    return [ChosenRun(BarRange(100, 400), 1), ChosenRun(BarRange(400, 500), None), ChosenRun(BarRange(510, 1_150), 2)]


def ladder_of(frame: IndicatorFrame, runs: list[ChosenRun], **account: float) -> CostsLadder:
    return costs_ladder(frame, STRATEGY, replace(SETTINGS, account=replace(ACCOUNT, **account)), runs)


def test_rungs_agree_with_the_slow_reference(frame: IndicatorFrame, runs: list[ChosenRun]) -> None:
    ladder = ladder_of(frame, runs)
    candles, step = plain_candles(frame), frame.timeframe.milliseconds
    accounts = [(0.0, 0.0, 0), (0.0004, 0.0, 0), (0.0004, 0.0003, 0), (0.0004, 0.0006, 0), (0.0004, 0.0003, 1)]
    assert [rung.name for rung in ladder.rungs] == [
        "no costs", "fees", "fees and slippage", "twice the slippage", "one bar late",
    ]  # fmt: skip
    for rung, (fee_rate, slippage, delay) in zip(ladder.rungs, accounts, strict=True):
        account = AccountSettings(fee_rate=fee_rate, slippage=slippage)
        trades: list[reference.Trade] = []
        for part in chosen_decisions(frame, STRATEGY, "both", runs):
            orders = [
                replace(order, bar=order.bar + delay)
                for order in plain_orders(part.decisions, part.exits)
                if not delay or reference.can_enter_after(candles, step, order.bar)
            ]
            found, equity = reference.run(candles, step, orders, account, *part.window)
            trades += found
            account = replace(account, initial_capital=equity[-1])
        assert rung.n_trades == len(trades) > 80
        assert rung.net_profit == pytest.approx(account.initial_capital - 10_000, rel=1e-9)
        r_multiples = [t.pnl / t.quantity / abs(t.entry_price - t.stop_price) for t in trades]
        assert rung.mean_r == pytest.approx(np.mean(r_multiples), rel=1e-9)


def test_break_even_is_the_fee_at_which_the_engine_makes_nothing(frame: IndicatorFrame, runs: list[ChosenRun]) -> None:
    ladder = ladder_of(frame, runs)
    assert ladder.break_even is not None
    assert ladder.break_even.fraction > 0
    assert ladder.break_even.r == pytest.approx(ladder.rung("no costs").mean_r, rel=1e-12)

    def mean_r(fee_rate: float) -> float:
        return ladder_of(frame, runs, fee_rate=fee_rate, slippage=0.0).rung("fees").mean_r

    assert mean_r(ladder.break_even.fraction / 2) == pytest.approx(0, abs=1e-12)
    assert 2 * brentq(mean_r, 0.0, 0.01) == pytest.approx(ladder.break_even.fraction, rel=1e-9)
    assert ladder.break_even.basis_points == ladder.break_even.fraction * 10_000


def test_as_set_the_ladder_shows_the_record_itself() -> None:
    frame = walk(24 * 60, 8)
    record = judge_windows(frame, STRATEGY, SETTINGS, search_windows(frame, STRATEGY, SETTINGS))
    ladder = costs_ladder(frame, STRATEGY, SETTINGS, chosen_runs(record, frame, SETTINGS.windows))
    rung = ladder.rung("fees and slippage")
    metrics = record.metrics
    assert metrics.sample_size > 20
    assert (rung.net_profit, rung.mean_r, rung.sharpe_ratio, rung.n_trades) == (
        metrics.net_profit, metrics.expectancy_r, metrics.sharpe_ratio, metrics.sample_size,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("missing", "expected"), [((), [24]), (tuple(range(24, 34)), []), ((24,), [])], ids=["whole", "gap", "filled"]
)
def test_what_could_not_be_entered_in_time_is_not_entered_late(missing: tuple[int, ...], expected: list[int]) -> None:
    """The decision at bar 23 is void where no candle follows at once: so it is one bar later, where one does."""
    frame = frame_of(candles_of([(100.0, 101.0, 99.0, 100.0)] * 40, missing=missing))
    decisions = Decisions.of(np.array([23]), LONG, np.array([95.0]), np.zeros(1))
    part = ChosenDecisions(BarRange(0, len(frame)), decisions, Exits())
    assert _one_bar_late(part, frame).bar.tolist() == expected


@pytest.mark.parametrize(
    ("fee_rate", "slippage", "dies_at", "said"),
    [
        (0.00001, 0.0, None, "The edge survives twice the slippage"),
        (0.02, 0.0, "fees", "The edge dies of fees"),
        (0.00001, 0.02, "fees and slippage", "The edge dies of slippage"),
    ],
)
def test_the_verdict_says_where_the_edge_dies(
    frame: IndicatorFrame, runs: list[ChosenRun], fee_rate: float, slippage: float, dies_at: str | None, said: str
) -> None:
    ladder = ladder_of(frame, runs, fee_rate=fee_rate, slippage=slippage)
    assert ladder.dies_at == dies_at
    assert ladder.verdict.startswith(said)
    assert f"as set it costs up to {2e4 * (fee_rate + slippage):.1f} bps" in ladder.verdict
    assert "one bar late" in ladder.verdict


def test_an_edge_that_dies_when_slippage_doubles(frame: IndicatorFrame, runs: list[ChosenRun]) -> None:
    slippages = np.arange(0.0001, 0.01, 0.0001)
    found = [ladder_of(frame, runs, fee_rate=0.0, slippage=float(slippage)) for slippage in slippages]
    on_the_edge = [ladder for ladder in found if ladder.dies_at == "twice the slippage"]
    assert on_the_edge
    assert all(one.rung("fees and slippage").mean_r > 0 >= one.rung("twice the slippage").mean_r for one in on_the_edge)
    assert all("dies when slippage doubles" in ladder.verdict for ladder in on_the_edge)


def test_a_loser_has_no_edge_before_costs(runs: list[ChosenRun]) -> None:
    ladder = ladder_of(walk(1_200, 5, drift=-0.003), runs)
    assert ladder.dies_at == "no costs"
    assert ladder.break_even is not None
    assert ladder.break_even.fraction < 0
    assert ladder.verdict.startswith("No edge even before costs")


@pytest.mark.parametrize("runs", [[], [ChosenRun(BarRange(0, 500), None)]], ids=["no windows", "nothing chosen"])
def test_without_trades_nothing_is_claimed(frame: IndicatorFrame, runs: list[ChosenRun]) -> None:
    ladder = ladder_of(frame, runs)
    assert {(r.net_profit, r.mean_r, r.sharpe_ratio, r.n_trades) for r in ladder.rungs} == {(0.0, 0.0, 0.0, 0)}
    assert ladder.break_even is None
    assert ladder.verdict.startswith("No trades")
