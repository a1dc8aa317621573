"""How often monitoring finds decay where there is none, and how soon where there is.

    python benchmarks/drift.py [--repetitions 200] [--seed 20260]

Trades are drawn: 55 % lose 1.1 R and 45 % win 1.9 R (stops and targets with costs), or normal results. A configuration
has so many out-of-sample trades; then its results go on as they were, or their mean falls by so many standard
deviations. Page-Hinkley with the threshold that the out-of-sample trades give (`monitoring/drift.py`) stands beside
ADWIN and KSWIN of river with their defaults. Then daily returns: how often records leave the band of equity
(`monitoring/band.py`), and how often their Sharpe ratio of 30 days is under half of its lifetime's.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from tradepulse_pipeline.market.candles import FloatArray
from tradepulse_pipeline.monitoring.band import predicted_band
from tradepulse_pipeline.monitoring.drift import detect_drift
from tradepulse_pipeline.monitoring.paper import ROLLING_DAYS, sharpe_ratio

USUAL, LOST, HORIZON = (50, 100, 200), (0.0, 0.5, 1.0), 100
SOON = 50
N_PATHS = 1_000

Draw = Callable[[Generator, int, float], FloatArray]
Detect = Callable[[FloatArray, FloatArray, int], float]


def normal(generator: Generator, n: int, lost: float) -> FloatArray:
    """Return results with a mean of 0.25 R and a deviation of 1.2 R, less what was lost."""
    return generator.normal(0.25, 1.2, n) - 1.2 * lost


def two_sided(generator: Generator, n: int, lost: float) -> FloatArray:
    """Return stops at -1.1 R and targets at 1.9 R; the win rate falls with what was lost."""
    deviation = 3.0 * math.sqrt(0.45 * 0.55)
    return np.where(generator.random(n) < 0.45 - deviation * lost / 3.0, 1.9, -1.1)


def page_hinkley(usual: FloatArray, results: FloatArray, seed: int) -> float:
    """Return the trade at which the alarm comes, infinity for none."""
    found = detect_drift(usual, results, seed=seed, n_paths=N_PATHS)
    assert found is not None
    return found.detected_at or math.inf


def adwin(usual: FloatArray, results: FloatArray, seed: int) -> float:
    """Return when river's ADWIN, over the usual trades and the new ones, finds that the mean has fallen."""
    from river.drift import ADWIN

    detector = ADWIN()
    for value in usual.tolist():
        detector.update(value)
    for number, value in enumerate(results.tolist(), start=1):
        before = detector.estimation
        detector.update(value)
        if detector.drift_detected and detector.estimation < before:
            return number
    return math.inf


def kswin(usual: FloatArray, results: FloatArray, seed: int) -> float:
    """Return when river's KSWIN, its window of 100 filled with the last usual trades, finds another distribution."""
    from river.drift import KSWIN

    detector = KSWIN(seed=seed)
    for value in usual[-detector.window_size :].tolist():
        detector.update(value)
    for number, value in enumerate(results.tolist(), start=1):
        detector.update(value)
        if detector.drift_detected:
            return number
    return math.inf


def alarms(detect: Detect, draw: Draw, n_usual: int, lost: float, repetitions: int, seed: int) -> FloatArray:
    """Return the trade of the alarm in each repetition."""
    generators = [np.random.default_rng(part) for part in np.random.SeedSequence([seed, n_usual]).spawn(repetitions)]
    return np.array(
        [
            detect(draw(generator, n_usual, 0.0), draw(generator, HORIZON, lost), number)
            for number, generator in enumerate(generators)
        ]
    )


def report_drift(repetitions: int, seed: int) -> None:
    """Print a table per detector: false alarms with most repetitions, what is found with fewer."""
    detectors: tuple[tuple[str, Detect, tuple[int, ...], int], ...] = (
        ("Page-Hinkley, calibrated by the configuration's own trades", page_hinkley, USUAL, repetitions),
        ("ADWIN with river's defaults", adwin, USUAL, repetitions),
        ("KSWIN with river's defaults", kswin, (100,), max(1, repetitions // 5)),
    )
    for name, detect, usual, most in detectors:
        print(f"\n{name}")
        print("| results | usual trades | mean falls by (sd) | repetitions | within 50 trades | within 100 | median |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for draw in (normal, two_sided):
            for n_usual in usual:
                for lost in LOST:
                    n = most if lost == 0 else max(1, most // 5)
                    found = alarms(detect, draw, n_usual, lost, n, seed)
                    median = float(np.median(found))
                    print(
                        f"| {draw.__name__} | {n_usual} | {lost:g} | {n} | {np.mean(found <= SOON):.1%} | "
                        f"{np.mean(found <= HORIZON):.1%} | {'–' if math.isinf(median) else f'{median:.0f}'} |",
                        flush=True,
                    )


def report_days(repetitions: int, seed: int) -> None:
    """Print how often paper records of a year leave the band below, and what their Sharpe ratio of 30 days does."""
    print("\nDaily returns of a year on paper; within 90 days / within 365")
    print(
        "| days | Sharpe before | on paper | repetitions | below the band | Sharpe under half | and under its floor |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for n_days in (120, 240):
        for before, after in ((2.0, 2.0), (2.0, 0.0), (2.0, -2.0), (2.0, -4.0)):
            n = repetitions if before == after else max(1, repetitions // 5)
            first = np.array([_first_days(n_days, before, after, (seed, number, n_days)) for number in range(n)])
            cells = [f"{np.mean(times < 90):.1%} / {np.mean(times < 365):.1%}" for times in first.T]
            print(f"| {n_days} | {before:g} | {after:g} | {n} | {' | '.join(cells)} |", flush=True)


def _first_days(n_days: int, before: float, after: float, seed: tuple[int, int, int]) -> tuple[float, float, float]:
    """Return the first day below the band, under half of the lifetime's Sharpe ratio, and under that and the floor."""
    generator = np.random.default_rng(seed)
    past = generator.normal(before / math.sqrt(365), 1.0, n_days) * 0.01
    paper = generator.normal(after / math.sqrt(365), 1.0, 365) * 0.01
    band = predicted_band(past, 365, seed=seed[1], n_paths=500)
    assert band is not None
    left = band.left_below(np.cumprod(1 + paper))
    days = range(ROLLING_DAYS, 366)
    rolling = np.array([sharpe_ratio(paper[day - ROLLING_DAYS : day]) for day in days])
    half = np.array([sharpe_ratio(np.concatenate([past, paper[:day]])) / 2 for day in days])
    is_under = rolling < half
    return math.inf if left is None else left, _first(is_under), _first(is_under & (rolling < band.sharpe_floor))


def _first(is_there: NDArray[np.bool_]) -> float:
    found = np.flatnonzero(is_there)
    return float(found[0]) + ROLLING_DAYS - 1 if len(found) else math.inf


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=20_260)
    arguments = parser.parse_args()
    report_drift(arguments.repetitions, arguments.seed)
    report_days(arguments.repetitions, arguments.seed)


if __name__ == "__main__":
    main()
