"""Signal accuracy: precision against the base rate, decay with robust errors, rank correlation by month."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import polars as pl
import pytest
from scipy import stats

from tradepulse_pipeline.backtest.settings import BarRange
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.indicators.volatility import ATR
from tradepulse_pipeline.market.candles import FloatArray, IntArray
from tradepulse_pipeline.strategies.base import Parameter, Strategy
from tradepulse_pipeline.strategies.decisions import LONG, SHORT, Decisions, Exits
from tradepulse_pipeline.validation.chosen import ChosenRun
from tradepulse_pipeline.validation.regimes import atr_of, volume_multiple
from tradepulse_pipeline.validation.signal_accuracy import (
    AccuracySettings,
    SignalAccuracy,
    signal_accuracy,
    signal_decay,
)
from tradepulse_pipeline_tests.reference.barriers import first_barrier, purged_train
from tradepulse_pipeline_tests.reference.comparison import plain_candles
from tradepulse_pipeline_tests.reference.markets import candles_of, frame_of

MULTIPLE = 1.5


class LoudBars(Strategy):
    """Buys at the close of bars with much volume; 'stops' stops at each, the further one first."""

    name: ClassVar[str] = "LOUD_BARS"
    title = description = "Buys after loud bars."
    parameters = (
        Parameter(name="least_volume", unit="", meaning="", kind="signal", grid=(1.5, 3.0), minimum=0, maximum=99),
        Parameter(name="stops", unit="", meaning="", kind="signal", grid=(1.0, 2.0), minimum=1, maximum=2),
        Parameter(name="stop", unit="ATR", meaning="", kind="exit", grid=(0.5, 2.0), minimum=0.1, maximum=9),
    )
    indicators = (ATR,)

    def signals(self, prepared, parameters):
        loud = np.flatnonzero((prepared.volume > parameters["least_volume"]) & ~np.isnan(prepared[ATR.name]))
        bars = np.repeat(loud, int(parameters["stops"]))
        nearness = np.where(np.diff(bars, prepend=-1) == 0, 1.0, parameters["stops"])
        return Decisions.of(bars, LONG, prepared.close[bars], nearness * prepared[ATR.name][bars])

    def exits(self, parameters):
        return Exits(stop_multiple=parameters["stop"], target="r", target_multiple=1.0)


STRATEGY = LoudBars()


def market(n: int, seed: int, edge: float = 0.0, missing: tuple[int, ...] = ()) -> IndicatorFrame:
    """A walk in which ``edge`` is the drift, in deviations, of each of the three bars after a loud one."""
    rng = np.random.default_rng(seed)
    volume = np.exp(rng.standard_normal(n))
    drift = np.convolve(volume > 3.0, [0, 1, 1, 1])[:n] * edge
    close = 100 * np.exp(np.cumsum(0.004 * (rng.standard_normal(n) + drift)))
    open_ = np.append(100.0, close[:-1])
    up, down = np.exp(0.002 * rng.random((2, n)))
    rows = zip(open_, np.maximum(open_, close) * up, np.minimum(open_, close) / down, close, strict=True)
    return frame_of(candles_of(list(rows), volume=volume.tolist(), missing=missing))


@pytest.fixture(scope="module")
def frame() -> IndicatorFrame:
    return market(2_500, 4, missing=(700, 701, 702, 703, 704, 990))


RUNS = [ChosenRun(BarRange(200, 900), 0), ChosenRun(BarRange(900, 1_000), None), ChosenRun(BarRange(1_100, 2_500), 7)]


def accuracy_of(frame: IndicatorFrame, runs: list[ChosenRun] = RUNS, side: str = "long", **settings) -> SignalAccuracy:
    return signal_accuracy(frame, STRATEGY, side, runs, AccuracySettings(**{"horizon": 20, "embargo": 5, **settings}))


def loud_bars(frame: IndicatorFrame) -> list[tuple[int, float, range]]:
    """Decision bars of the runs by hand, with the nearest stop's distance from the close in ATR, and their window."""
    first = [(j, 0.5, range(200, 900)) for j in range(200, 900) if frame.volume[j] > 1.5]
    return first + [(j, 2.0, range(1_100, 2_500)) for j in range(1_100, 2_500) if frame.volume[j] > 3.0]


@pytest.mark.parametrize("atr_multiple", [MULTIPLE, None], ids=["ATR", "own stop"])
def test_counts_agree_with_the_slow_reference(frame: IndicatorFrame, atr_multiple: float | None) -> None:
    found = accuracy_of(frame, atr_multiple=atr_multiple)
    candles, atr, step = plain_candles(frame), atr_of(frame), frame.timeframe.milliseconds
    decisions = loud_bars(frame)
    labels = []
    for j, stop, _ in decisions:
        own = candles[j + 1].open - (candles[j].close - stop * atr[j]) if j + 1 < len(candles) else 0.0
        distance = own if atr_multiple is None else atr_multiple * atr[j]
        labels.append(first_barrier(candles, step, j, 1, distance, 20)[0])
    assert found.n_decisions == len(decisions)
    assert found.hits.n == len(labels) - labels.count("unlabelled") > 300
    assert found.hits.target_first == labels.count("target")
    assert found.hits.stop_first == labels.count("stop")
    assert found.hits.timeout == labels.count("timeout") > 0
    assert found.hits.precision == pytest.approx(labels.count("target") / found.hits.n)
    low, high = found.interval
    assert low < found.hits.precision < high


def test_the_base_rate_is_that_of_all_bars_of_the_windows(frame: IndicatorFrame) -> None:
    candles, atr, step = plain_candles(frame), atr_of(frame), frame.timeframe.milliseconds
    decisions = loud_bars(frame)
    expected = []
    for window in (range(200, 900), range(1_100, 2_500)):
        labels = [first_barrier(candles, step, j, 1, MULTIPLE * atr[j], 20)[0] for j in window]
        n, known = sum(d[2] == window for d in decisions), len(labels) - labels.count("unlabelled")
        expected += [(n, labels.count("target") / known, labels.count("stop") / known)]
    weights, precision, false_positives = zip(*expected, strict=True)
    found = accuracy_of(frame, atr_multiple=MULTIPLE)
    assert found.base_precision == pytest.approx(np.average(precision, weights=weights))
    assert found.base_false_positive_share == pytest.approx(np.average(false_positives, weights=weights))


def test_folds_test_each_decision_once_and_learn_from_none_that_overlaps(frame: IndicatorFrame) -> None:
    found = accuracy_of(frame, atr_multiple=MULTIPLE)
    candles, atr, step = plain_candles(frame), atr_of(frame), frame.timeframe.milliseconds
    labels = [(j, *first_barrier(candles, step, j, 1, MULTIPLE * atr[j], 20)) for j, _, _ in loud_bars(frame)]
    known = [label for label in labels if label[1] != "unlabelled"]
    start, end = [j for j, _, _ in known], [k for _, _, k in known]
    folds = np.array_split(np.arange(len(known)), 5)
    assert len(found.folds) == 5
    for fold, test in zip(found.folds, folds, strict=True):
        train = purged_train(start, end, test.tolist(), 5)
        assert fold.test.n == len(test)
        assert fold.test.target_first == sum(known[i][1] == "target" for i in test)
        assert fold.n_train == len(train) < len(known) - len(test)
        assert fold.train_precision == pytest.approx(np.mean([known[i][1] == "target" for i in train]))


def test_an_edge_is_told_from_none() -> None:
    runs = [ChosenRun(BarRange(0, 4_000), 2)]
    none, some = (accuracy_of(market(4_000, 6, edge=edge), runs) for edge in (0.0, 0.5))
    assert none.interval[0] < none.base_precision < none.interval[1]
    assert "not told from" in none.verdict
    assert some.interval[0] > some.base_precision
    assert f"above the {some.base_precision:.1%} of any bar" in some.verdict


def test_results_depend_on_the_seed_alone(frame: IndicatorFrame) -> None:
    one, again, other = (accuracy_of(frame, seed=seed, atr_multiple=None) for seed in (1, 1, 2))
    assert (one.interval, one.base_precision, one.folds) == (again.interval, again.base_precision, again.folds)
    assert one.decay.equals(again.decay)
    assert one.hits == other.hits
    assert one.folds != other.folds


def test_the_short_side_is_the_mirror_image() -> None:
    frame = market(900, 9)
    upside_down = IndicatorFrame.compute(
        candles_of(
            [(1_000 - o, 1_000 - low, 1_000 - h, 1_000 - c) for o, h, low, c in _rows(frame)],
            volume=frame.volume.tolist(),
        ),
        (ATR,),
    )
    runs = [ChosenRun(BarRange(0, 900), 0)]
    long, short = accuracy_of(frame, runs), accuracy_of(upside_down, runs, "short")
    assert long.hits == short.hits
    assert long.base_precision == short.base_precision


def _rows(frame: IndicatorFrame) -> list[tuple[float, ...]]:
    return list(zip(*(c.tolist() for c in (frame.open, frame.high, frame.low, frame.close)), strict=True))


def test_few_hits_make_no_certainty() -> None:
    """All of three decisions right: the bootstrap alone would call that 100 % for sure."""
    frame = market(300, 2)
    bars = np.flatnonzero((frame.volume > 1.5) & (np.arange(300) > 14))
    windows = [BarRange(int(bars[k]), int(bars[k + 2]) + 1) for k in range(len(bars) - 2)]
    found = [accuracy_of(frame, [ChosenRun(window, 0)]) for window in windows]
    sure = [one for one in found if one.hits.n == one.hits.target_first == 3]
    assert sure
    for one in sure:
        assert one.interval == (pytest.approx(stats.binomtest(3, 3).proportion_ci(method="wilson").low), 1.0)


def test_without_decisions_nothing_is_claimed(frame: IndicatorFrame) -> None:
    found = accuracy_of(frame, [ChosenRun(BarRange(200, 900), None)])
    assert (found.n_decisions, found.hits.n, found.hits.precision, found.base_precision) == (0, 0, 0.0, 0.0)
    assert found.interval == (0.0, 1.0)
    assert found.folds == ()
    assert found.decay["n"].to_list() == [0] * 6
    assert found.decay["mean"].null_count() == 6
    assert found.verdict.startswith("No decision")


def overlap_robust_error(bar: IntArray, moves: FloatArray, horizon: int) -> float:
    """Sum the products of pairs of decisions that share bars: all alike, and weighted by how much they share."""
    n, deviations = len(bar), moves - np.mean(moves)
    equal = falling = 0.0
    for i in range(n):
        for k in range(n):
            lag = abs(int(bar[i] - bar[k]))
            if lag < horizon:
                equal += deviations[i] * deviations[k]
                falling += (1 - lag / horizon) * deviations[i] * deviations[k]
    return float((max(equal, falling) / (n * (n - 1))) ** 0.5)


def test_decay_agrees_with_its_definition(frame: IndicatorFrame) -> None:
    rng, atr = np.random.default_rng(3), atr_of(frame)
    bar = np.sort(rng.choice(np.arange(20, 2_495), 150, replace=False))
    side = rng.choice([LONG, SHORT], 150)
    strength = volume_multiple(frame)[bar]
    table = signal_decay(frame, bar, side, strength, (1, 3, 20))
    step = frame.timeframe.milliseconds
    for row in table.to_dicts():
        h = row["horizon"]
        kept = [
            i
            for i, j in enumerate(bar)
            if j + h < len(frame)
            and frame.open_time_ms[j + 1] - frame.open_time_ms[j] == step
            and not frame.is_filled[j]
            and not frame.is_filled[j + 1]
        ]
        j = bar[kept]
        moves = side[kept] * (np.log(frame.close[j + h]) - np.log(frame.open[j + 1])) / (atr[j] / frame.close[j])
        assert row["n"] == len(kept) > 130
        assert row["mean"] == pytest.approx(moves.mean())
        assert row["standard_error"] == pytest.approx(overlap_robust_error(j, moves, h))
        assert row["t_value"] == pytest.approx(row["mean"] / row["standard_error"])
        assert row["information_coefficient"] == pytest.approx(_spearman(strength[kept], moves))
        months = frame.open_time_ms[j].astype("datetime64[ms]").astype("datetime64[M]")
        monthly = [_spearman(strength[kept][months == m], moves[months == m]) for m in np.unique(months)]
        assert row["n_months"] == len(monthly) == 4
        assert row["information_ratio"] == pytest.approx(np.mean(monthly) / np.std(monthly, ddof=1))
    assert table["n"][0] > table["n"][2]
    # Without overlap, the ordinary error of a mean.
    assert table["standard_error"][0] == pytest.approx(stats.sem(_first_moves(frame, bar, side, atr)))


def _first_moves(frame: IndicatorFrame, bar: IntArray, side: IntArray, atr: FloatArray) -> FloatArray:
    is_next = frame.open_time_ms[bar + 1] - frame.open_time_ms[bar] == frame.timeframe.milliseconds
    is_next &= ~(frame.is_filled[bar] | frame.is_filled[bar + 1])
    j = bar[is_next]
    return side[is_next] * np.log(frame.close[j + 1] / frame.open[j + 1]) * frame.close[j] / atr[j]


def _spearman(first: FloatArray, second: FloatArray) -> float:
    """Pearson's correlation of ranks; there are no ties."""
    ranks = [np.argsort(np.argsort(values)) for values in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1])


def test_the_error_holds_where_decisions_overlap() -> None:
    """Every bar decides, 20 bars ahead, on walks: a naive t would cry wolf in most of them, this one in about 5 %."""
    cries, n_markets = 0, 200
    for seed in range(n_markets):
        rng = np.random.default_rng((5, seed))
        close = 100 * np.exp(np.cumsum(0.005 * rng.standard_normal(1_000)))
        open_ = np.append(100.0, close[:-1])
        high, low = np.maximum(open_, close), np.minimum(open_, close)
        frame = IndicatorFrame.compute(candles_of(list(zip(open_, high, low, close, strict=True))), ())
        bar = np.arange(20, 979)
        row = signal_decay(frame, bar, np.ones(len(bar), np.int64), np.ones(len(bar)), (20,)).row(0, named=True)
        assert row["information_coefficient"] is None  # a strength that does not vary orders nothing
        cries += abs(row["t_value"]) > 1.96
    # Twenty times fewer independent returns than decisions leave the error a little low.
    assert cries / n_markets < 0.12


def test_a_month_needs_five_decisions() -> None:
    frame = market(24 * 80, 3)
    bar = np.sort(np.append(np.arange(100, 500, 20), [24 * 40 + k for k in (0, 50, 100, 150)]))
    strength = np.arange(len(bar), dtype=np.float64)
    row = signal_decay(frame, bar, np.ones(len(bar), np.int64), strength, (5,)).row(0, named=True)
    assert (row["n_months"], row["information_ratio"]) == (1, None)


def test_the_default_is_one_atr_and_five_folds(frame: IndicatorFrame) -> None:
    found = signal_accuracy(frame, STRATEGY, "both", RUNS)
    assert found.hits == accuracy_of(frame, RUNS, "both", horizon=50, atr_multiple=1.0).hits
    assert len(found.folds) == 5
    assert isinstance(found.decay, pl.DataFrame)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon": 0}, r"horizon: found 0, expected at least 1"),
        ({"n_folds": 1}, r"n_folds: found 1, expected at least 2"),
        ({"embargo": -1}, r"embargo: found -1"),
        ({"n_resamples": 10}, r"n_resamples: found 10"),
        ({"atr_multiple": 0.0}, r"atr_multiple: found 0\.0, expected a number above 0"),
        ({"confidence": 95.0}, r"confidence: found 95\.0, expected a fraction"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        AccuracySettings(**changes)
