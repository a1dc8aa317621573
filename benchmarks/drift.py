"""How soon drift of trade results is found, and how often it is found where there is none.

    python benchmarks/drift.py [--repetitions 1000]

Trades are drawn: two thirds lose 1.1 R or win 1.9 R (stops and targets with costs), or normal results. A configuration
has so many out-of-sample trades; then its results go on as they were, or their mean falls by so many standard
deviations. Compared are the three detectors of river: Page-Hinkley with the threshold that the out-of-sample trades
give (`monitoring/drift.py`), and ADWIN and KSWIN with the parameters that hold false alarms of 100 trades nearest
to, and below, 5 %, found on separate draws. The band of daily equity (`monitoring/band.py`) is measured beside them.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator

from tradepulse_pipeline.market.candles import FloatArray
from tradepulse_pipeline.monitoring.band import predicted_band
from tradepulse_pipeline.monitoring.drift import detect_drift

USUAL, LOST, HORIZON = (50, 100, 200), (0.0, 0.25, 0.5, 0.75, 1.0), 100
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


def adwin(delta: float) -> Detect:
    """Return river's ADWIN over the usual trades and the new ones; an alarm counts where the mean has fallen."""

    def detect(usual: FloatArray, results: FloatArray, seed: int) -> float:
        from river.drift import ADWIN

        detector = ADWIN(delta=delta, clock=1, grace_period=10)
        for value in usual.tolist():
            detector.update(value)
        for number, value in enumerate(results.tolist(), start=1):
            before = detector.estimation
            detector.update(value)
            if detector.drift_detected and detector.estimation < before:
                return number
        return math.inf

    return detect


def kswin(alpha: float) -> Detect:
    """Return river's KSWIN, its window filled with the last usual trades."""

    def detect(usual: FloatArray, results: FloatArray, seed: int) -> float:
        from river.drift import KSWIN

        window = usual[-100:]
        detector = KSWIN(alpha=alpha, window_size=len(window), stat_size=min(20, len(window) // 2 - 1), seed=seed)
        for value in window.tolist():
            detector.update(value)
        for number, value in enumerate(results.tolist(), start=1):
            detector.update(value)
            if detector.drift_detected:
                return number
        return math.inf

    return detect


def alarms(detect: Detect, draw: Draw, n_usual: int, lost: float, repetitions: int, seed: int) -> FloatArray:
    """Return the trade of the alarm in each repetition."""
    generators = [np.random.default_rng(part) for part in np.random.SeedSequence([seed, n_usual]).spawn(repetitions)]
    return np.array(
        [
            detect(draw(generator, n_usual, 0.0), draw(generator, HORIZON, lost), number)
            for number, generator in enumerate(generators)
        ]
    )


def calibrated(make: Callable[[float], Detect], values: Sequence[float], repetitions: int) -> tuple[float, Detect]:
    """Return the most sensitive parameter whose false alarms on draws of their own are below 5 % for every case."""
    for value in values:
        detect = make(value)
        rates = [
            np.mean(alarms(detect, draw, n_usual, 0.0, repetitions, seed=1) <= HORIZON)
            for draw in (normal, two_sided)
            for n_usual in USUAL
        ]
        if max(rates) < 0.05:
            break
    return value, detect


def report_drift(repetitions: int) -> None:
    """Print a table per detector."""
    detectors: list[tuple[str, Detect]] = [("Page-Hinkley, calibrated by the configuration's own trades", page_hinkley)]
    few = min(repetitions, 100)
    for name, make, values in (
        ("ADWIN", adwin, (0.2, 0.1, 0.05, 0.02, 0.01, 0.002)),
        ("KSWIN", kswin, (0.005, 0.001, 0.0005, 0.0001, 0.00001)),
    ):
        value, detect = calibrated(make, values, few)
        detectors.append((f"{name} ({value:g})", detect))
    for name, detect in detectors:
        n = repetitions if detect is page_hinkley else few
        print(f"\n{name}, {n} repetitions")
        print("| results | usual trades | mean falls by (sd) | alarm within 50 trades | within 100 | median delay |")
        print("| --- | --- | --- | --- | --- | --- |")
        for draw in (normal, two_sided):
            for n_usual in USUAL:
                for lost in LOST:
                    found = alarms(detect, draw, n_usual, lost, n, seed=2)
                    median = float(np.median(found))
                    print(
                        f"| {draw.__name__} | {n_usual} | {lost:g} | {np.mean(found <= SOON):.1%} | "
                        f"{np.mean(found <= HORIZON):.1%} | {'–' if math.isinf(median) else f'{median:.0f}'} |"
                    )


def report_band(repetitions: int) -> None:
    """Print how often paper records of a year leave the band below, and when."""
    print(f"\nBand of daily equity, {repetitions} repetitions, out-of-sample records of 120 and 240 days")
    print("| days | annual Sharpe before | on paper | below the band within 90 days | within 365 |")
    print("| --- | --- | --- | --- | --- |")
    for n_days in (120, 240):
        for before, after in ((2.0, 2.0), (0.5, 0.5), (2.0, 0.0), (2.0, -2.0), (2.0, -4.0)):
            left = []
            for number in range(repetitions):
                generator = np.random.default_rng([number, n_days])
                past = generator.normal(before / math.sqrt(365), 1.0, n_days) * 0.01
                paper = generator.normal(after / math.sqrt(365), 1.0, 365) * 0.01
                band = predicted_band(past, 365, seed=number, n_paths=500)
                assert band is not None
                day = band.left_below(np.cumprod(1 + paper))
                left.append(math.inf if day is None else day)
            within = [np.mean(np.array(left) < days) for days in (90, 365)]
            print(f"| {n_days} | {before:g} | {after:g} | {within[0]:.1%} | {within[1]:.1%} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=1_000)
    repetitions = parser.parse_args().repetitions
    report_drift(repetitions)
    report_band(min(repetitions, 400))


if __name__ == "__main__":
    main()
