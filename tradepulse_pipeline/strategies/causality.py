"""The proof against look-ahead: what is decided stays as it is when the future is cut off or poisoned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Final, NamedTuple

import numpy as np

from tradepulse_pipeline.errors import LookAheadError, StrategyError, blamed_on
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import BoolArray, Candles, FloatArray, IntArray
from tradepulse_pipeline.market.sources.times import iso_utc
from tradepulse_pipeline.strategies.base import Parameters, SignalSource, Strategy
from tradepulse_pipeline.strategies.decisions import LONG, Decisions, Exits, Side

#: Parameter sets that are drawn, to find some that decide at all.
N_DRAWN: Final = 64

#: Values count as equal up to this share of them: how a library sums may depend on the length of the series.
TOLERANCE: Final = 1e-9

#: Absurd futures: the factor on all prices, and the volume.
_POISONS: Final = ((1e3, 1e12), (1e-3, 0.0))

_ADVICE: Final = (
    "What is known at the close of a bar are that bar and those before it. Look for shift(-1), centred windows, the "
    "maximum or mean of the whole series, its last bar."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CausalityReport:
    """What was looked at, without finding a fault; ``n_decisions`` are those of all parameter sets together."""

    n_candles: int
    n_sets: int
    n_cuts: int
    n_decisions: int

    @property
    def verdict(self) -> str:
        """What that proves, in words."""
        if not self.n_decisions:
            return (
                "Nothing is proved about look-ahead: no parameter set that was drawn decides anything in the latest "
                f"{self.n_candles:,} candles."
            )
        return (
            f"No look-ahead found: the {self.n_decisions:,} decisions of {self.n_sets} random parameter sets in the "
            f"latest {self.n_candles:,} candles stay as they are when the future is cut off or poisoned, at "
            f"{self.n_cuts} bars."
        )


class _Seen(NamedTuple):
    """What a strategy makes of a series: indicators, and the decisions of each parameter set."""

    frame: IndicatorFrame
    decisions: list[Decisions]


def check_causality(
    strategy: Strategy,
    candles: Candles,
    side: Side = "long",
    *,
    n_candles: int = 10_000,
    n_sets: int = 4,
    n_cuts: int = 12,
    seed: int = 0,
) -> CausalityReport:
    """Look for indicators and decisions that depend on candles after them, and for decisions that cannot be.

    Draws parameter sets from the grid, of those that decide more than others, and bars t in the later half of the
    latest candles: at decisions, right before them, anywhere. Indicators and decisions up to t must be the same on the
    whole series, on the series up to t, and on two with absurd prices and volumes after t. What a sample does not show
    may still be there; what it shows is a fault.

    Parameters
    ----------
    candles : Candles
        As a training sees them, with short gaps filled; the latest ``n_candles`` are looked at.

    Raises
    ------
    LookAheadError
        If a value or decision depends on later candles: names it, its time, and the parameter set.
    StrategyError
        If the strategy fails, decides something else the second time, decides something else for many sets at once
        than for each alone, or leaves out a price that its exits need.
    """
    rng = np.random.default_rng(seed)
    latest = candles.slice(max(0, len(candles) - n_candles), len(candles))
    drawn = _drawn(strategy, "signal", rng)
    seen = _see(strategy, latest, side, drawn)
    deciding = sorted((k for k in range(len(drawn)) if len(seen.decisions[k])), key=lambda k: -len(seen.decisions[k]))
    busier = deciding[: max(n_sets, len(drawn) // 2)] or [0]
    chosen = rng.permutation(busier)[:n_sets].tolist()
    sets, whole = [drawn[k] for k in chosen], _Seen(seen.frame, [seen.decisions[k] for k in chosen])
    for parameters in _drawn(strategy, "exit", rng):
        _check_exits(strategy, parameters, whole.decisions)
    _check_sets_at_once(strategy, whole.frame, side, sets)
    change = _first_change(strategy, whole, _see(strategy, latest, side, sets), len(latest) - 1, sets)
    if change is not None:
        raise StrategyError(f"{strategy.name} is not repeatable: {change} the second time. Seed what is drawn.")
    cuts = _cuts(whole.decisions, len(latest), n_cuts, rng)
    for t in cuts.tolist():
        for changed, how in _other_futures(latest, t):
            when = f"when the candles after {iso_utc(int(latest.open_time_ms[t]))} {how}"
            try:
                found = _see(strategy, changed, side, sets)
            except StrategyError as error:
                if _is_too_short(strategy, latest, len(changed), side, sets):
                    continue
                raise StrategyError(f"{error}\nIt fails {when}, and not as they are. {_ADVICE}") from error
            change = _first_change(strategy, whole, found, t, sets)
            if change is not None:
                raise LookAheadError(f"{strategy.name} looks ahead: {change} {when}. {_ADVICE}")
    return CausalityReport(
        n_candles=len(latest), n_sets=len(sets), n_cuts=len(cuts), n_decisions=sum(map(len, whole.decisions))
    )


def _drawn(strategy: Strategy, kind: str, rng: np.random.Generator) -> list[dict[str, float]]:
    """Draw different sets of the parameters of one kind from the grid, at most ``N_DRAWN``."""
    parameters = [p for p in strategy.parameters if p.kind == kind]
    draws = zip(*(rng.choice(p.grid, N_DRAWN).tolist() for p in parameters), strict=True)
    return [dict(zip([p.name for p in parameters], draw, strict=True)) for draw in dict.fromkeys(draws)]


def _see(strategy: Strategy, candles: Candles, side: Side, sets: list[dict[str, float]]) -> _Seen:
    frame = IndicatorFrame.compute(candles, strategy.indicators)
    source = SignalSource(strategy, frame, side)
    return _Seen(frame, [source.decisions(values) for values in sets])


def _is_too_short(strategy: Strategy, candles: Candles, length: int, side: Side, sets: list[dict[str, float]]) -> bool:
    """Return whether the strategy fails on the latest ``length`` of ``candles`` too, where nothing is cut off."""
    if length == len(candles):
        return False
    try:
        _see(strategy, candles.slice(len(candles) - length, len(candles)), side, sets)
    except StrategyError:
        return True
    return False


def _check_exits(strategy: Strategy, parameters: Parameters, decisions: list[Decisions]) -> None:
    """Refuse exits that are none, and decisions without the prices that they need."""
    with blamed_on(f"{strategy.name}: exits, given {', '.join(parameters)}"):
        exits = strategy.exits(parameters)
    if not isinstance(exits, Exits):
        raise StrategyError(f"{strategy.name}: exits returned {exits!r}, expected Exits.")
    needed = ["target_anchor", "target_unit"] if exits.target == "price" else []
    needed += ["trail_unit"] if exits.trail_activation > 0 else []
    for name in needed:
        values = np.concatenate([getattr(found, name) for found in decisions])
        if not np.isfinite(values).all():
            reason = "target='price'" if name.startswith("target") else "a trailing stop"
            raise StrategyError(
                f"{strategy.name}: its exits have {reason}, but {name} is not finite in {(~np.isfinite(values)).sum()} "
                f"of {len(values)} decisions. Give {name} to Decisions.of, and decide nothing where it is undefined."
            )


def _check_sets_at_once(strategy: Strategy, frame: IndicatorFrame, side: Side, sets: list[dict[str, float]]) -> None:
    """Refuse a strategy whose way to decide for many sets at once does not say what each alone does."""
    if type(strategy).signals_of_sets is Strategy.signals_of_sets:
        return
    columns = {name: np.array([values[name] for values in sets]) for name in sets[0]}
    for seen in ([frame] if side != "short" else []) + ([frame.mirrored()] if side != "long" else []):
        with blamed_on(f"{strategy.name}: signals and signals_of_sets"):
            prepared = strategy.prepare(seen)
            together = strategy.signals_of_sets(prepared, columns)
            alone = Strategy.signals_of_sets(strategy, prepared, columns)
        for k, values in enumerate(sets):
            difference = _difference(alone[k], together[k], len(frame) - 1, frame.open_time_ms)
            if difference is not None:
                raise StrategyError(
                    f"{strategy.name}: signals_of_sets does not decide what signals does: {_with(values)}, "
                    f"{difference} for many sets at once."
                )


def _cuts(decisions: list[Decisions], n_candles: int, n_cuts: int, rng: np.random.Generator) -> IntArray:
    """Draw bars, but the last, of the later half: a third at decisions, a third right before them, others anywhere."""
    first, last = n_candles // 2, n_candles - 1
    bars = np.unique(np.concatenate([found.bar for found in decisions]))
    at = rng.permutation(bars[(bars > first) & (bars < last)])[: n_cuts // 3]
    anywhere = rng.integers(first, max(last, first + 1), n_cuts - 2 * len(at))
    return rng.permutation(np.unique(np.concatenate([at, at - 1, anywhere])))


def _other_futures(candles: Candles, t: int) -> Iterator[tuple[Candles, str]]:
    """Yield the candles with another future after bar t, and what has become of it."""
    yield candles.slice(0, t + 1), "are cut off"
    is_future = np.arange(len(candles)) > t
    for factor, volume in _POISONS:
        scale = np.where(is_future, factor, 1.0)
        prices = {name: getattr(candles, name) * scale for name in ("open", "high", "low", "close")}
        absurd = replace(candles, **prices, volume=np.where(is_future, volume, candles.volume))
        yield absurd, f"are absurd (prices times {factor:g}, volume {volume:g})"


def _first_change(strategy: Strategy, before: _Seen, after: _Seen, t: int, sets: list[dict[str, float]]) -> str | None:
    """Say which indicator or decision at a bar up to t has changed, None if none has."""
    times = before.frame.open_time_ms
    for indicator in strategy.indicators:
        old, new = before.frame[indicator.name][: t + 1], after.frame[indicator.name][: t + 1]
        is_same = _is_same(old, new)
        if not is_same.all():
            bar = int(np.argmin(is_same))
            return f"indicator {indicator.name!r} at {iso_utc(int(times[bar]))} is {old[bar]}, and {new[bar]}"
    for values, first, second in zip(sets, before.decisions, after.decisions, strict=True):
        difference = _difference(first, second, t, times)
        if difference is not None:
            return f"{_with(values)}, {difference}"
    return None


def _difference(first: Decisions, second: Decisions, t: int, times: IntArray) -> str | None:
    """Say what the first difference between the decisions at bars up to t is, None if they are the same."""
    first, second = first.take(np.flatnonzero(first.bar <= t)), second.take(np.flatnonzero(second.bar <= t))
    n = min(len(first), len(second))
    differs = {f.name: ~_is_same(getattr(first, f.name)[:n], getattr(second, f.name)[:n]) for f in fields(Decisions)}
    anywhere = np.append(np.logical_or.reduce(list(differs.values())), len(first) != len(second))
    if not anywhere.any():
        return None
    i = int(np.argmax(anywhere))
    is_gone = i >= len(second) or (i < n and first.bar[i] < second.bar[i])
    is_new = i >= len(first) or (i < n and first.bar[i] > second.bar[i])
    owner = second if is_new else first
    decision = f"{'long' if owner.side[i] == LONG else 'short'} decision at {iso_utc(int(times[owner.bar[i]]))}"
    if is_gone or is_new:
        return f"the {decision} is {'gone' if is_gone else 'made only'}"
    name = next(name for name, column in differs.items() if column[i])
    return f"{name} of the {decision} is {getattr(first, name)[i]}, and {getattr(second, name)[i]}"


def _is_same(first: FloatArray | IntArray, second: FloatArray | IntArray) -> BoolArray:
    is_same: BoolArray = (first == second) | ((first != first) & (second != second))
    if not is_same.all():
        is_same |= np.isclose(first, second, rtol=TOLERANCE, atol=0.0)
    return is_same


def _with(values: Parameters) -> str:
    return "with " + ", ".join(f"{name}={value:g}" for name, value in values.items())
