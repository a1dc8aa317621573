"""The check against look-ahead catches strategies that cheat, each in a way of its own, and lets honest ones pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest

from tradepulse_pipeline.errors import LookAheadError, StrategyError
from tradepulse_pipeline.indicators.frame import Indicator, IndicatorFrame
from tradepulse_pipeline.indicators.volatility import ATR
from tradepulse_pipeline.market.candles import BoolArray, Candles, FloatArray
from tradepulse_pipeline.market.series import MS_PER_DAY, Market, Timeframe
from tradepulse_pipeline.market.sources.simulated import ORIGIN_MS, SimulatedMarketSettings, simulate
from tradepulse_pipeline.strategies.base import Parameter, ParameterColumns, Parameters, Strategy
from tradepulse_pipeline.strategies.causality import check_causality
from tradepulse_pipeline.strategies.decisions import LONG, Decisions, DecisionSets, Exits
from tradepulse_pipeline.strategies.registry import get_strategy, strategy_names


@pytest.fixture(scope="module")
def candles() -> Candles:
    market, settings = Market("simulated", "BTC", "USDT"), SimulatedMarketSettings(edge=5.0)
    return simulate(market, Timeframe("5m"), ORIGIN_MS, ORIGIN_MS + 30 * MS_PER_DAY, settings).filled_forward()


def is_above_mean(frame: IndicatorFrame, n: int) -> BoolArray:
    """Return where the close is clearly above the mean of the n latest closes, the bar's own among them."""
    means = np.full(len(frame), np.nan)
    means[n - 1 :] = np.lib.stride_tricks.sliding_window_view(frame.close, n).mean(axis=1)
    return frame.sign * (frame.close / means - 1) > 0.002


class Honest(Strategy):
    """Buys a bar whose close has just come to lie above the mean; cheats derive from it."""

    name: ClassVar[str] = "HONEST"
    title = "Honest"
    description = "Close above the mean."
    indicators: ClassVar[tuple[Indicator, ...]] = (ATR,)
    parameters = (
        Parameter(name="n", unit="bars", meaning="Mean.", kind="signal", grid=(10, 20, 40), minimum=2, maximum=99),
        Parameter(name="stop", unit="ATR", meaning="Stop.", kind="exit", grid=(1.0, 2.0), minimum=0.1, maximum=9),
    )

    def is_decision(self, frame: IndicatorFrame, n: int) -> BoolArray:
        return is_above_mean(frame, n)

    def anchor(self, frame: IndicatorFrame) -> FloatArray:
        return frame.close

    def signals(self, frame: IndicatorFrame, parameters: Parameters) -> Decisions:
        wanted = self.is_decision(frame, int(parameters["n"])) & ~np.isnan(frame[ATR.name])
        bar = 1 + np.flatnonzero(wanted[1:] & ~wanted[:-1])
        return Decisions.of(bar, LONG, self.anchor(frame)[bar], frame[ATR.name][bar])

    def exits(self, parameters: Parameters) -> Exits:
        return Exits(stop_multiple=parameters["stop"], target="r", target_multiple=2.0)


def cheat(is_decision: Callable[[IndicatorFrame, int], Any]) -> type[Honest]:
    """Return the strategy whose decisions ``is_decision`` marks."""
    return type("Cheat", (Honest,), {"name": "CHEAT", "is_decision": lambda self, frame, n: is_decision(frame, n)})


def shifted(values: FloatArray, n: int) -> FloatArray:
    """Return pandas' shift(-n)."""
    return np.append(values[n:], np.full(n, np.nan))


def centred_mean(values: FloatArray, n: int) -> FloatArray:
    means = np.full(len(values), np.nan)
    means[n // 2 : n // 2 + len(values) - n + 1] = np.convolve(values, np.ones(n) / n, mode="valid")
    return means


def filled_backwards(values: FloatArray) -> FloatArray:
    known = np.append(np.flatnonzero(~np.isnan(values)), len(values) - 1)
    return values[known[np.searchsorted(known, np.arange(len(values))).clip(max=len(known) - 1)]]


CHEATS = {
    "shift(-1)": cheat(lambda frame, n: shifted(frame.close, 1) > frame.close * 1.002),
    "shift(-20)": cheat(lambda frame, n: is_above_mean(frame, n) & (shifted(frame.close, 20) > frame.close)),
    "roll": cheat(lambda frame, n: is_above_mean(frame, n) & (np.roll(frame.volume, -1) > frame.volume)),
    "centred mean": cheat(lambda frame, n: frame.close > 1.002 * centred_mean(frame.close, n)),
    "share of the highest": cheat(lambda frame, n: frame.close > 0.95 * frame.high.max()),
    "share of the lowest": cheat(lambda frame, n: frame.close < 1.05 * frame.low.min()),
    "z-score of the series": cheat(lambda frame, n: frame.close - frame.close.mean() > 0.1 * frame.close.std()),
    "rank in the series": cheat(lambda frame, n: frame.volume.argsort().argsort() > 0.9 * len(frame)),
    "quantile of the series": cheat(lambda frame, n: frame.volume > np.quantile(frame.volume, 0.9)),
    "below the last close": cheat(lambda frame, n: is_above_mean(frame, n) & (frame.close < frame.close[-1])),
    "swing low not yet confirmed": cheat(
        lambda frame, n: (frame.low < np.roll(frame.low, 1)) & (frame.low < np.roll(frame.low, -1))
    ),
    "filled backwards": cheat(
        lambda frame, n: (
            is_above_mean(frame, n)
            & (filled_backwards(np.where(np.arange(len(frame)) % 5 == 4, frame.close, np.nan)) > frame.close)
        )
    ),
    "only before an absurd rise": cheat(
        lambda frame, n: is_above_mean(frame, n) & ~(shifted(frame.close, 1) > 100 * frame.close)
    ),
    "only before an absurd fall": cheat(
        lambda frame, n: is_above_mean(frame, n) & ~(shifted(frame.close, 1) < 0.01 * frame.close)
    ),
    "number of bars": cheat(
        lambda frame, n: is_above_mean(frame, n) & (np.arange(len(frame)) % (len(frame) % 7 + 2) > 0)
    ),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("strategy", CHEATS.values(), ids=CHEATS)
def test_a_decision_that_depends_on_the_future_is_caught(candles: Candles, strategy: type[Honest], seed: int) -> None:
    message = r"CHEAT looks ahead: with n=(10|20|40), .* decision at 20.*Z is .* when the candles after 20.*Z are "
    with pytest.raises(LookAheadError, match=message):
        check_causality(strategy(), candles, seed=seed)


@pytest.mark.parametrize("seed", range(3))
def test_a_price_that_depends_on_the_future_is_caught(candles: Candles, seed: int) -> None:
    class StopAtTheLast(Honest):
        def anchor(self, frame: IndicatorFrame) -> FloatArray:
            return np.full(len(frame), frame.close[-1])

    with pytest.raises(LookAheadError, match=r"stop_anchor of the long decision at .*Z is [\d.]+, and [\d.]+ when"):
        check_causality(StopAtTheLast(), candles, seed=seed)


@pytest.mark.parametrize("seed", range(3))
def test_an_indicator_that_depends_on_the_future_is_caught(candles: Candles, seed: int) -> None:
    class Centred(Honest):
        name = "CENTRED"
        indicators = (ATR, Indicator("centred", "Centred mean.", lambda candles: centred_mean(candles.close, 5)))

    message = r"CENTRED looks ahead: indicator 'centred' at .*Z is [\d.]+, and (nan|[\d.]+) when the candles after"
    with pytest.raises(LookAheadError, match=message):
        check_causality(Centred(), candles, seed=seed)


def test_looking_ahead_in_the_preparation_and_on_one_side_alone_is_caught(candles: Candles) -> None:
    class Prepared(Honest):
        def prepare(self, frame: IndicatorFrame) -> Any:
            return frame, frame.sign < 0 and bool(frame.close[-1] > frame.close[0])

        def signals(self, prepared: Any, parameters: Parameters) -> Decisions:
            frame, is_rising = prepared
            return super().signals(frame, {"n": 10 if is_rising else 40})

    assert check_causality(Prepared(), candles, "long").n_decisions > 0
    with pytest.raises(LookAheadError, match="the short decision at"):
        check_causality(Prepared(), candles, "both")


def test_a_strategy_that_fails_without_the_next_bar_is_told_so(candles: Candles) -> None:
    class NextOpen(Honest):
        def signals(self, frame: IndicatorFrame, parameters: Parameters) -> Decisions:
            bar = super().signals(frame, parameters).bar
            return Decisions.of(bar, LONG, frame.open[bar + 1], frame[ATR.name][bar])

    with pytest.raises(StrategyError, match=r"(?s)HONEST: signals, given n .*IndexError.*fails when the candles after"):
        check_causality(NextOpen(), candles)


@pytest.mark.parametrize("name", strategy_names())
def test_the_strategies_that_come_with_tradepulse_pass(candles: Candles, name: str) -> None:
    report = check_causality(get_strategy(name), candles, "both", n_cuts=30)
    assert report.n_decisions > 0
    assert (report.n_candles, report.n_sets) == (8_640, 4)
    assert 20 <= report.n_cuts <= 30
    assert report.verdict.startswith(f"No look-ahead found: the {report.n_decisions:,} decisions of 4 random parameter")


@pytest.mark.parametrize("side", ["long", "short", "both"])
def test_an_honest_strategy_passes(candles: Candles, side: Any) -> None:
    report = check_causality(Honest(), candles, side, n_candles=4_000, n_cuts=60)
    assert (report.n_candles, report.n_sets) == (4_000, 3)
    assert report.n_decisions > 100


def test_the_last_digits_may_depend_on_the_length_of_the_series(candles: Candles) -> None:
    def smooth(candles: Candles) -> FloatArray:
        n = 2 * len(candles)
        window = np.ones(9) / 9
        return np.fft.irfft(np.fft.rfft(candles.close, n) * np.fft.rfft(window, n), n)[: len(candles)]

    class Fourier(Honest):
        indicators = (ATR, Indicator("smooth", "A mean by Fourier transforms.", smooth))

    part = candles.slice(0, 5_000)
    assert (smooth(candles)[:5_000] != smooth(part)).any()
    assert check_causality(Fourier(), candles).n_decisions > 0


def test_a_strategy_that_decides_nothing_proves_nothing(candles: Candles) -> None:
    report = check_causality(cheat(lambda frame, n: np.zeros(len(frame), dtype=bool))(), candles)
    assert report.n_decisions == 0
    assert report.verdict.startswith("Nothing is proved about look-ahead")


def test_a_strategy_that_draws_anew_each_time_is_refused(candles: Candles) -> None:
    rng = np.random.default_rng(1)
    with pytest.raises(StrategyError, match=r"CHEAT is not repeatable: with n=.*the second time. Seed what is drawn"):
        check_causality(cheat(lambda frame, n: rng.random(len(frame)) < 0.05)(), candles)


def test_many_sets_at_once_must_decide_what_each_does_alone(candles: Candles) -> None:
    class Hasty(Honest):
        name = "HASTY"

        def signals_of_sets(self, prepared: Any, columns: ParameterColumns) -> DecisionSets:
            return super().signals_of_sets(prepared, {"n": np.sort(columns["n"])})

    with pytest.raises(StrategyError, match="HASTY: signals_of_sets does not decide what signals does: with n="):
        check_causality(Hasty(), candles)


@pytest.mark.parametrize(
    ("exits", "message"),
    [
        (lambda parameters: {"stop": 1}, r"exits returned \{'stop': 1\}, expected Exits"),
        (lambda parameters: Exits(stop_multiple=parameters["n"]), r"exits, given stop .*: KeyError: 'n'"),
        (lambda parameters: Exits(stop_multiple=np.nan), "exits, given stop .*stop_multiple is nan, expected a number"),
        (lambda parameters: Exits(target="price"), r"target='price', but target_anchor is not finite in (\d+) of \1"),
        (lambda parameters: Exits(trail_activation=1.0), r"a trailing stop, but trail_unit is not finite in \d+ of"),
        (lambda parameters: Exits(target="x"), "exits, given stop .*target is 'x', expected one of r, price, none"),
        (lambda parameters: Exits(max_holding_bars=1.5), "max_holding_bars is 1.5, expected a whole number, 0 or more"),
    ],
)
def test_exits_that_cannot_be_are_refused(candles: Candles, exits: Any, message: str) -> None:
    strategy = type("Wrong", (Honest,), {"exits": lambda self, parameters: exits(parameters)})()
    with pytest.raises(StrategyError, match=message):
        check_causality(strategy, candles)


def test_a_strategy_is_not_blamed_for_a_series_that_is_too_short_for_it(candles: Candles) -> None:
    part = candles.slice(0, 60)
    assert check_causality(Honest(), part).n_candles == 60
    with pytest.raises(StrategyError, match="window shape cannot be larger"):
        check_causality(Honest(), part.slice(0, 30))
    with pytest.raises(LookAheadError):
        check_causality(CHEATS["shift(-1)"](), part)
