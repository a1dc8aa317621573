"""Many histories from one: returns in other orders, and what each order comes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from tradepulse_pipeline.compiled import njit
from tradepulse_pipeline.market.candles import FloatArray, IntArray

#: Numbers that are drawn at once: bounds the memory.
_DRAWN_AT_ONCE: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Paths:
    """What each of many paths of equity came to; the start is 1.

    Attributes
    ----------
    final : float64 array of shape (n_paths,)
        Last equity. Equity that is spent stays 0.
    max_drawdown : float64 array of shape (n_paths,)
        Largest fall below the running maximum, as a fraction of it; the start counts as a maximum.
    longest_under_water : int64 array of shape (n_paths,)
        Most returns in a row that left equity below its running maximum.
    lowest : float64 array of shape (n_paths,)
        Lowest equity.
    seen : float64 array of shape (n_paths, n_points)
        Equity after so many returns as were asked for.
    """

    final: FloatArray
    max_drawdown: FloatArray
    longest_under_water: IntArray
    lowest: FloatArray
    seen: FloatArray


def follow_paths(
    returns: FloatArray, draw: Callable[[int], IntArray], n_paths: int, points: IntArray | None = None
) -> Paths:
    """Return what becomes of equity when the returns come in other orders.

    Parameters
    ----------
    returns : float64 array of shape (n,)
        Simple returns.
    draw : callable
        Returns the orders of so many paths as it is asked for: positions among the returns, (n_paths, length).
    n_paths : int
        Number of paths.
    points : int64 array of shape (n_points,), optional
        Numbers of returns, ascending, after which equity is to be seen; 0 is the start.
    """
    at = np.empty(0, dtype=np.int64) if points is None else points
    returns = np.ascontiguousarray(returns, dtype=np.float64)
    paths = Paths(
        final=np.empty(n_paths),
        max_drawdown=np.empty(n_paths),
        longest_under_water=np.empty(n_paths, dtype=np.int64),
        lowest=np.empty(n_paths),
        seen=np.empty((n_paths, len(at))),
    )
    n_at_once = max(1, _DRAWN_AT_ONCE // max(1, len(returns)))
    for first in range(0, n_paths, n_at_once):
        part = slice(first, min(n_paths, first + n_at_once))
        _follow(
            returns,
            draw(part.stop - first),
            at,
            paths.final[part],
            paths.max_drawdown[part],
            paths.longest_under_water[part],
            paths.lowest[part],
            paths.seen[part],
        )
    return paths


@njit(cache=True, nogil=True)
def _follow(
    returns: FloatArray,
    orders: IntArray,
    points: IntArray,
    final: FloatArray,
    max_drawdown: FloatArray,
    longest_under_water: IntArray,
    lowest: FloatArray,
    seen: FloatArray,
) -> None:
    n_points = points.shape[0]
    for path in range(orders.shape[0]):
        equity, peak, low, fall, under, longest, point = 1.0, 1.0, 1.0, 0.0, 0, 0, 0
        for k in range(orders.shape[1] + 1):
            if k > 0:
                equity *= max(0.0, 1.0 + returns[orders[path, k - 1]])
            if equity < peak:
                under += 1
                longest = max(longest, under)
                fall = max(fall, 1.0 - equity / peak)
                low = min(low, equity)
            else:
                peak, under = equity, 0
            while point < n_points and points[point] == k:
                seen[path, point] = equity
                point += 1
        final[path], max_drawdown[path], lowest[path], longest_under_water[path] = equity, fall, low, longest
