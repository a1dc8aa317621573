"""Candles that leave the path of the price, and whether that was the market or a mistake."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np

from tradepulse_pipeline.market.candles import Candles, FloatArray, IntArray
from tradepulse_pipeline.market.quality.surroundings import Neighbours
from tradepulse_pipeline.market.series import MS_PER_DAY

Judgement = Literal["likely true", "undecided", "likely error"]
OutlierKind = Literal["spike", "jump"]

#: Neighbouring closes on each side whose median is the level of the price: up to three wrong ones do not move it.
LEVEL_CANDLES: Final = 7
#: Candles around one that tell how volatile and how liquid the market is there.
LOCAL_CANDLES: Final = 101
#: The standard deviation of a normal distribution over its median absolute deviation.
MAD_TO_SIGMA: Final = 1.4826
#: The local volatility is taken to be at least this share of the whole series', and this return.
LEAST_SHARE_OF_SIGMA, LEAST_SIGMA = 0.25, 1e-4

#: What is extreme: this many local standard deviations, and a move that costs take no note of.
EXTREME_SIGMAS: Final = 20.0
EXTREME_MOVE: Final = math.log(1.05)

#: A mistake by itself: no liquid market goes this far and comes back at once on ordinary volume.
IMPOSSIBLE_MOVE: Final = math.log(2.5)
#: A mistake where the same asset stood still elsewhere. A large order alone moved one exchange by 26 % on twice the
#: usual volume (Kraken ETH/USD, 2018-04-03): true wicks beyond that came with many times the usual volume.
UNCONFIRMED_MOVE: Final = math.log(1.30)

#: Volume that confirms a move: multiples of the local median, in the candle itself and right beside it, and more than
#: all but this percentage of the candles around have, for in some markets four times the median is nothing.
CONFIRMING_VOLUME, CONFIRMING_VOLUME_BESIDE = 4.0, 8.0
CONFIRMING_PERCENTILE: Final = 95
#: A difference between the levels before and after, in local standard deviations, that is a move of the market.
MOVED_ON_SIGMAS: Final = 10.0
#: A neighbour confirms with this many of its own standard deviations, or with this share of the move.
CONFIRMING_SIGMAS, CONFIRMING_SHARE = 10.0, 1 / 3
#: A neighbour did not move if it made less than this share of the move.
QUIET_SHARE: Final = 0.2
#: Candles in which the market must have traded, around one that is called a mistake.
LIQUID_SHARE: Final = 0.5
#: The first days of a series are the wild ones of a listing.
SETTLING_MS: Final = 7 * MS_PER_DAY
#: How near the logarithm of a slipped decimal point must be to a whole number.
DECIMAL_TOLERANCE: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlier:
    """A candle that is extreme for its series.

    ``move`` is the simple return from the level of the price around it to its high or low (a spike), or from the close
    before to its own (a jump); ``volume_ratio`` is its volume over the local median, None
    where that is 0.
    """

    open_time_ms: int
    kind: OutlierKind
    move: float
    open: float
    high: float
    low: float
    close: float
    volume: float
    volume_ratio: float | None
    judgement: Judgement
    reason: str
    is_confirmed: bool = False

    @property
    def is_error(self) -> bool:
        """Whether it is likely a mistake that no person has called true."""
        return self.judgement == "likely error" and not self.is_confirmed


class _Path(NamedTuple):
    """The path of a price in logarithms, per candle: level before and after, volatility, usual and large volume."""

    before: FloatArray
    after: FloatArray
    sigma: FloatArray
    volume: FloatArray
    large_volume: FloatArray


def find_outliers(
    candles: Candles, pairs: Neighbours, venues: Neighbours, confirmed_ms: Collection[int] = ()
) -> tuple[Outlier, ...]:
    """Return the extreme candles in time order, each judged.

    A candle is a **spike** where its high is above, or its low below, the medians of the seven closes before and of
    the seven after by more than 20 local standard deviations and 5 %. It is a **jump** where its close is that far
    from the close before and the level stays away. The local standard deviation is 1.4826 times the median absolute
    log return of 101 candles, which outliers do not inflate: the identifier of Hampel (1974), Journal of the American
    Statistical Association 69(346), over a moving window as in Brownlees and Gallo (2006), Computational Statistics &
    Data Analysis 51(4).

    A jump is likely true, as the market goes on from there, unless it is one by a power of ten. So is a spike that
    came with volume, after which the market was elsewhere, or that another pair or another exchange shows at the same
    time. What is left is likely an error if it went further than a factor of 2.5 and back, or by 30 % while the same
    asset stood still on another exchange; never in the first week of a series, in a market that trades in less than
    half of its candles, or in the last candle, whose successor would tell. Then it is undecided.

    Neighbours are asked only about spikes that nothing else explains.
    """
    if len(candles) <= LEVEL_CANDLES:
        return ()
    path, close = _path(candles), np.log(candles.close)
    threshold = np.maximum(EXTREME_SIGMAS * path.sigma, EXTREME_MOVE)
    up = np.log(candles.high) - np.maximum(path.before, path.after)
    down = np.minimum(path.before, path.after) - np.log(candles.low)
    spikes = np.flatnonzero(np.maximum(up, down) > threshold)
    from_here = np.append(path.after[:-1], close[-1])
    returns = np.diff(close, prepend=close[0])
    is_jump = (np.abs(returns) > threshold) & (np.abs(from_here - path.before) > threshold / 2)
    is_jump[spikes] = False
    moves = np.where(up >= down, up, -down)
    judged = _judge(candles, path, spikes, moves[spikes], pairs, venues)
    judged |= {at: _judged_jump(float(returns[at])) for at in np.flatnonzero(is_jump).tolist()}
    return tuple(
        Outlier(
            open_time_ms=int(candles.open_time_ms[at]),
            kind="jump" if is_jump[at] else "spike",
            move=math.expm1(returns[at] if is_jump[at] else moves[at]),
            open=float(candles.open[at]),
            high=float(candles.high[at]),
            low=float(candles.low[at]),
            close=float(candles.close[at]),
            volume=float(candles.volume[at]),
            volume_ratio=float(candles.volume[at] / path.volume[at]) if path.volume[at] > 0 else None,
            judgement=judgement,
            reason=reason,
            is_confirmed=int(candles.open_time_ms[at]) in confirmed_ms,
        )
        for at, (judgement, reason) in sorted(judged.items())
    )


def slipped_decimals(log_ratio: float) -> int:
    """Return by how many places a decimal point slipped, if that explains a ratio of prices; else 0.

    Examples
    --------
    >>> slipped_decimals(math.log(9.8)), slipped_decimals(math.log(0.0102)), slipped_decimals(math.log(8.0))
    (1, -2, 0)
    """
    places = log_ratio / math.log(10)
    return round(places) if abs(places - round(places)) <= DECIMAL_TOLERANCE else 0


def _path(candles: Candles) -> _Path:
    from scipy.ndimage import median_filter, percentile_filter

    close, half = np.log(candles.close), LEVEL_CANDLES // 2
    level = median_filter(close, LEVEL_CANDLES, mode="nearest")
    before, after = np.empty_like(close), np.empty_like(close)
    before[half + 1 :], after[: -half - 1] = level[: -half - 1], level[half + 1 :]
    # At both ends there are fewer closes than the filter wants, and it would repeat the outermost one.
    for at in range(LEVEL_CANDLES):
        before[at] = np.median(close[:at]) if at else np.median(close[1 : LEVEL_CANDLES + 1])
        after[-1 - at] = np.median(close[-at:]) if at else np.median(close[-LEVEL_CANDLES - 1 : -1])
    returns = np.abs(np.diff(close))
    local = median_filter(returns, LOCAL_CANDLES, mode="mirror")
    floor = max(MAD_TO_SIGMA * LEAST_SHARE_OF_SIGMA * float(np.median(returns)), LEAST_SIGMA)
    sigma = np.maximum(MAD_TO_SIGMA * np.append(local[:1], local), floor)
    usual = median_filter(candles.volume, LOCAL_CANDLES, mode="mirror")
    large = percentile_filter(candles.volume, CONFIRMING_PERCENTILE, LOCAL_CANDLES, mode="mirror")
    return _Path(before, after, sigma, usual, large)


def _judge(
    candles: Candles, path: _Path, spikes: IntArray, moves: FloatArray, pairs: Neighbours, venues: Neighbours
) -> dict[int, tuple[Judgement, str]]:
    """Return judgement and reason by the index of the candle."""
    judged: dict[int, tuple[Judgement, str]] = {}
    open_questions: list[int] = []
    by_index = dict(zip(spikes.tolist(), moves.tolist(), strict=True))
    for at in by_index:
        reason = _explained_by_itself(candles, path, at)
        if reason:
            judged[at] = ("likely true", reason)
        else:
            open_questions.append(at)
    quiet: dict[int, str] = {}
    for name, load in (*venues.items(), *pairs.items()):
        if not open_questions:
            break
        moves_asked = [by_index[at] for at in open_questions]
        is_confirmed, is_quiet = _witness(load(), candles.open_time_ms[open_questions], moves_asked)
        for at, confirmed, still in zip(open_questions, is_confirmed, is_quiet, strict=True):
            if confirmed:
                judged[at] = ("likely true", f"{name} moved at the same time")
            elif still and name in venues:
                quiet.setdefault(at, name)
        open_questions = [at for at in open_questions if at not in judged]
    for at in open_questions:
        judged[at] = _unexplained(candles, path, at, by_index[at], quiet.get(at))
    return judged


def _judged_jump(log_return: float) -> tuple[Judgement, str]:
    places = slipped_decimals(log_return)
    if places:
        return "undecided", f"near a factor of 10^{places}: a slipped decimal point, or a unit that changed"
    return "likely true", "the candles after it go on from there"


def _explained_by_itself(candles: Candles, path: _Path, at: int) -> str | None:
    """Return what the series itself says in favour of a spike."""
    usual, large = path.volume[at], path.large_volume[at]
    if usual > 0:
        own = candles.volume[at]
        if own >= max(CONFIRMING_VOLUME * usual, large):
            return f"it has {own / usual:.1f} times the usual volume"
        beside = max(candles.volume[max(at - 1, 0)], candles.volume[min(at + 1, len(candles) - 1)])
        if beside >= max(CONFIRMING_VOLUME_BESIDE * usual, large):
            return f"the candle beside it has {beside / usual:.1f} times the usual volume"
    if abs(path.after[at] - path.before[at]) >= MOVED_ON_SIGMAS * path.sigma[at]:
        return "the market was elsewhere after it"
    return None


def _witness(other: Candles, times_ms: IntArray, moves: list[float]) -> tuple[list[bool], list[bool]]:
    """Return for each time whether ``other`` moved the same way, and whether it was there and did not."""
    if len(other) <= LEVEL_CANDLES:
        return [False] * len(moves), [False] * len(moves)
    path, move = _path(other), np.array(moves)
    at = np.minimum(np.searchsorted(other.open_time_ms, times_ms), len(other) - 1)
    is_there = (other.open_time_ms[at] == times_ms) & (other.volume[at] > 0)
    up, down = np.log(other.high[at]) - path.before[at], path.before[at] - np.log(other.low[at])
    made = np.where(move > 0, up, down)
    is_wild = made >= CONFIRMING_SIGMAS * path.sigma[at]
    confirms = is_there & (is_wild & (made >= EXTREME_MOVE / 2) | (made >= CONFIRMING_SHARE * np.abs(move)))
    is_quiet = is_there & ~is_wild & (made < QUIET_SHARE * np.abs(move))
    return confirms.tolist(), is_quiet.tolist()


def _unexplained(candles: Candles, path: _Path, at: int, move: float, quiet_venue: str | None) -> tuple[Judgement, str]:
    times, n, half = candles.open_time_ms, len(candles), LOCAL_CANDLES // 2
    around = slice(max(at - half, 0), min(at + half + 1, n))
    n_places = (times[around][-1] - times[around][0]) // candles.timeframe.milliseconds + 1
    usual = path.volume[at]
    if usual == 0 or (candles.volume[around] > 0).sum() < LIQUID_SHARE * n_places:
        return "undecided", "the market hardly trades there: any price is possible"
    if times[at] - times[0] < SETTLING_MS:
        return "undecided", "the first days of a series are often wild"
    if at == n - 1:
        return "undecided", "it is the last candle: the next ones tell"
    told = f"the price came back at once, with {candles.volume[at] / usual:.1f} times the usual volume"
    if quiet_venue is not None:
        told += f", and {quiet_venue} did not move"
    places = slipped_decimals(move)
    if places:
        told += f": near a factor of 10^{places}, a slipped decimal point"
    is_error = abs(move) >= IMPOSSIBLE_MOVE or (quiet_venue is not None and abs(move) >= UNCONFIRMED_MOVE)
    return ("likely error" if is_error else "undecided"), told
