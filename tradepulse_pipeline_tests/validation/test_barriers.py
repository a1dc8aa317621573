"""Triple barriers against the slow reference, and by hand."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.strategies.decisions import LONG, SHORT
from tradepulse_pipeline.validation.barriers import (
    STOP_FIRST,
    TARGET_FIRST,
    TIMEOUT,
    UNLABELLED,
    _label,
    triple_barrier,
)
from tradepulse_pipeline_tests.reference.barriers import first_barrier
from tradepulse_pipeline_tests.reference.comparison import plain_candles
from tradepulse_pipeline_tests.reference.markets import candles_of, cases, frame_of, random_markets

NAMES = {STOP_FIRST: "stop", TARGET_FIRST: "target", TIMEOUT: "timeout", UNLABELLED: "unlabelled"}


@settings(max_examples=cases(150))
@given(data=st.data(), candles=random_markets(min_bars=8), horizon=st.integers(1, 12))
def test_labels_agree_with_reference(data: st.DataObject, candles, horizon: int) -> None:
    frame = frame_of(candles)
    bar = np.arange(len(frame), dtype=np.int64)
    side = np.array(data.draw(st.lists(st.sampled_from([LONG, SHORT]), min_size=len(bar), max_size=len(bar))))
    share = data.draw(st.sampled_from([0.0, 0.002, 0.01, 0.03, float("nan")]))
    # Round distances on a market with ticks, so that barriers are just touched.
    distance = np.where(bar % 3 == 0, 1.0, share * frame.close)
    found = triple_barrier(frame, bar, side, distance, horizon)
    plain = plain_candles(frame)
    expected = [
        first_barrier(plain, frame.timeframe.milliseconds, j, int(side[j]), float(distance[j]), horizon) for j in bar
    ]
    assert [
        (NAMES[label], end) for label, end in zip(found.label.tolist(), found.end.tolist(), strict=True)
    ] == expected


def labelled(rows, horizon: int = 3, side: int = LONG, **kwargs) -> tuple[str, int]:
    frame = IndicatorFrame.compute(candles_of([(100, 100, 100, 100), *rows], **kwargs), ())
    found = triple_barrier(frame, np.array([0]), np.array([side]), np.array([2.0]), horizon)
    return NAMES[int(found.label[0])], int(found.end[0])


def test_barriers_by_hand() -> None:
    flat, up, down, both = (100, 101, 99, 100), (100, 102, 99, 101), (100, 101, 98, 99), (100, 103, 97, 100)
    assert labelled([flat, up]) == ("target", 2)
    assert labelled([flat, down]) == ("stop", 2)
    assert labelled([flat, up], side=SHORT) == ("stop", 2)
    assert labelled([both]) == labelled([both], side=SHORT) == ("stop", 1)
    assert labelled([flat, flat, flat, up]) == ("timeout", 3)
    assert labelled([flat, flat]) == ("unlabelled", 0)
    # Opened beyond the target: what the candle did later does not count.
    assert labelled([flat, (103, 104, 97, 100)]) == ("target", 2)
    assert labelled([up], missing=(1,)) == ("unlabelled", 0)


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled: NUMBA_DISABLE_JIT is set")
def test_the_kernel_is_compiled_once() -> None:
    frame = IndicatorFrame.compute(candles_of([(100, 101, 99, 100)] * 9), ())
    whole, bars = np.arange(8), np.arange(8, dtype=np.int32)
    for one in (whole, bars, whole[::2]):
        triple_barrier(frame, one, np.ones_like(one), np.ones(len(one), np.float32), 3)
    assert len(_label.signatures) == 1
