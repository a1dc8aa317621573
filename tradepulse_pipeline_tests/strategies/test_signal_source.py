"""Whatever a strategy decides is looked at before the engine takes it: every decision, not a sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tradepulse_pipeline.errors import InvalidInputError, StrategyError
from tradepulse_pipeline.indicators.frame import Indicator, IndicatorFrame
from tradepulse_pipeline.strategies.base import Parameter, ParameterColumns, Parameters, SignalSource, Strategy
from tradepulse_pipeline.strategies.decisions import LONG, SHORT, Decisions, DecisionSets, Exits
from tradepulse_pipeline_tests.reference.markets import candles_of

FRAME = IndicatorFrame.compute(candles_of([(100.0, 101.0, 99.0, 100.5)] * 50), ())


class Fixed(Strategy):
    """Decides at bars 3 and 7 for every parameter set but the last, which decides what a test wants."""

    name = "FIXED"
    title = description = "Fixed"
    indicators = ()
    parameters = (
        Parameter(name="n", unit="", meaning="", kind="signal", grid=(0, 1, 2, 3), minimum=0, maximum=3),
        Parameter(name="stop", unit="", meaning="", kind="exit", grid=(1.0,), minimum=0, maximum=3),
    )

    def __init__(self, **last: Any) -> None:
        self._last = {"bar": [3, 7], "side": LONG, "stop_anchor": 99.0, "stop_unit": 1.0} | last

    def signals(self, frame: IndicatorFrame, parameters: Parameters) -> Decisions:
        given = self._last if parameters["n"] == 3 else {"bar": [3, 7], "stop_anchor": 99.0, "stop_unit": 1.0}
        bar = np.array(given["bar"])
        anchor, unit = (np.broadcast_to(given[name], len(bar)).astype(float) for name in ("stop_anchor", "stop_unit"))
        return Decisions.of(bar, given.get("side", LONG), anchor, unit)

    def exits(self, parameters: Parameters) -> Exits:
        return Exits(stop_multiple=parameters["stop"])


@pytest.mark.parametrize("side", ["long", "short", "both"])
@pytest.mark.parametrize(
    ("last", "message"),
    [
        ({"stop_anchor": [99.0, np.nan]}, "stop_anchor is nan in the decision at 2024-01-01T07:00Z, expected a finite"),
        ({"stop_anchor": [-np.inf, 99.0]}, "stop_anchor is -inf in the decision at 2024-01-01T03:00Z, expected"),
        ({"stop_unit": np.nan}, "stop_unit is nan in the decision at 2024-01-01T03:00Z, expected a finite price, 0 or"),
        ({"stop_unit": np.inf}, "stop_unit is inf in the decision at 2024-01-01T03:00Z, expected a finite price, 0 or"),
        ({"stop_unit": [1.0, -1.0]}, "stop_unit is -1.0 in the decision at 2024-01-01T07:00Z, expected a finite"),
        ({"side": SHORT}, "side is -1 in the decision at 2024-01-01T03:00Z, expected LONG"),
        ({"side": 0}, "side is 0 in the decision at 2024-01-01T03:00Z, expected LONG"),
        ({"bar": [-1, 7]}, "a decision at bar -1, expected one from 0 to 49"),
        ({"bar": [7, 50]}, "a decision at bar 50, expected one from 0 to 49"),
        ({"bar": [7, 3]}, r"signals, given n: Decisions: 'bar' must be ascending within"),
        ({"bar": [False, True]}, r"signals, given n \(.*_source.py, line \d+\): Decisions: 'bar' holds bool"),
        ({"bar": [3.0, 7.0]}, r"signals, .*: Decisions: 'bar' holds float64, expected the indices of bars as"),
        ({"stop_anchor": [1.0, 2.0, 3.0]}, r"signals, given n \(.*line \d+\): ValueError"),
    ],
)  # fmt: skip
def test_one_wrong_decision_of_one_set_is_refused(last: dict[str, Any], message: str, side: Any) -> None:
    source = SignalSource(Fixed(**last), FRAME, side)
    sound = source.decision_sets({"n": np.array([0.0, 1.0, 2.0])})
    assert np.diff(sound.offsets).tolist() == [4 if side == "both" else 2] * 3
    with pytest.raises(StrategyError, match=f"FIXED: {message}"):
        source.decision_sets({"n": np.arange(4.0)})


def test_what_are_no_decisions_is_refused() -> None:
    class Tuples(Fixed):
        def signals(self, frame: IndicatorFrame, parameters: Parameters) -> Any:
            return [3, 7], [99.0, 99.0]

    class OneTooFew(Fixed):
        def signals_of_sets(self, prepared: Any, columns: ParameterColumns) -> DecisionSets:
            return super().signals_of_sets(prepared, {"n": columns["n"][1:]})

    class NoSets(Fixed):
        def signals_of_sets(self, prepared: Any, columns: ParameterColumns) -> Any:
            return None

    for strategy, message in (
        (Tuples(), r"FIXED: signals returned \(\[3, 7\], \[99.0, 99.0\]\), expected Decisions"),
        (OneTooFew(), "FIXED: signals_of_sets returned 2 sets, expected 3 sets"),
        (NoSets(), "FIXED: signals_of_sets returned None, expected 3 sets"),
    ):
        with pytest.raises(StrategyError, match=message):
            SignalSource(strategy, FRAME).decision_sets({"n": np.arange(3.0)})


def test_sound_decisions_pass_and_so_do_none() -> None:
    assert len(SignalSource(Fixed(stop_unit=0.0), FRAME).decisions({"n": 3.0})) == 2
    assert len(SignalSource(Fixed(bar=[]), FRAME).decisions({"n": 3.0})) == 0


def test_a_strategy_that_fails_is_named_with_file_and_line() -> None:
    class Broken(Fixed):
        def prepare(self, frame: IndicatorFrame) -> Any:
            return frame["atr_14"]

    with pytest.raises(
        StrategyError, match=r"FIXED: prepare \(.*test_signal_source.py, line \d+\): KeyError: 'atr_14'"
    ):
        SignalSource(Broken(), FRAME)


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda candles: candles.close[1:], r"returned float64 of shape \(49,\), expected .* float64 of shape \(50,\)"),
        (lambda candles: candles.close.astype(np.float32), r"returned float32 of shape \(50,\), expected"),
        (lambda candles: candles.close.tolist(), "returned list, expected a NumPy array"),
        (lambda candles: candles.close[99], r"\(.*test_signal_source.py, line \d+\): IndexError"),
    ],
)
def test_an_indicator_that_is_no_column_is_refused(compute: Any, message: str) -> None:
    candles = candles_of([(100.0, 101.0, 99.0, 100.5)] * 50)
    with pytest.raises(StrategyError, match=f"Indicator 'wrong'.*{message}"):
        IndicatorFrame.compute(candles, [Indicator("wrong", "Wrong.", compute)])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"bar": np.array([1], dtype=np.int32)}, "column 'bar' holds int32, expected int64: Decisions.of converts"),
        ({"stop_unit": np.array([1])}, "column 'stop_unit' holds int64, expected float64: Decisions.of converts"),
        ({"exit_level": np.array([1.0, 2.0])}, r"'exit_level' has shape \(2,\), expected \(1,\) like 'bar': one"),
    ],
)  # fmt: skip
def test_columns_of_another_kind_are_refused(column: dict[str, Any], message: str) -> None:
    sound = Decisions.of(np.array([1]), LONG, np.array([1.0]), np.array([1.0]))
    columns = {name: getattr(sound, name) for name in Decisions.__dataclass_fields__}
    with pytest.raises(InvalidInputError, match=message):
        Decisions(**{**columns, **column})
