"""The statistics of a training from their definitions: one split, one path, one neighbour at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence


def overfitting_logits(sums: Sequence[Sequence[float]], squares: Sequence[Sequence[float]] | None) -> list[float]:
    """Return the logit of each split into halves: of the best trial in sample, and of ties the worst out of sample."""
    traded = [k for k, row in enumerate(sums) if any(row) or (squares is not None and any(squares[k]))]
    blocks = range(len(sums[0]))

    def performance(trial: int, chosen: Sequence[int]) -> float:
        total = sum(sums[trial][b] for b in chosen)
        if squares is None:
            return total
        square = sum(squares[trial][b] for b in chosen)
        return total / math.sqrt(square) if square else 0.0

    logits = []
    for inside in itertools.combinations(blocks, len(blocks) // 2):
        outside = [b for b in blocks if b not in inside]
        after = {trial: performance(trial, outside) for trial in traded}
        _, found = max((performance(trial, inside), -after[trial]) for trial in traded)
        below = sum(value < -found for value in after.values())
        equal = sum(value == -found for value in after.values())
        rank = (below + (equal + 1) / 2) / (len(traded) + 1)
        logits.append(math.log(rank / (1 - rank)))
    return logits


def equity_path(returns: Sequence[float]) -> list[float]:
    """Return equity after 0, 1, 2, … returns, from 1 on."""
    equity = [1.0]
    for value in returns:
        equity.append(equity[-1] * max(0.0, 1 + value))
    return equity


def max_drawdown(equity: Sequence[float]) -> float:
    """Return the largest fall from any earlier point, as a share of it."""
    return max(1 - later / earlier for k, earlier in enumerate(equity) if earlier for later in equity[k:])


def longest_under_water(equity: Sequence[float]) -> int:
    """Return the length of the longest run of points that lie below an earlier one."""
    below = [equity[k] < max(equity[: k + 1]) for k in range(len(equity))]
    return max((len(list(run)) for is_below, run in itertools.groupby(below) if is_below), default=0)


def grid_neighbours(combination: int, shape: Sequence[int]) -> list[int]:
    """Return the combinations that differ by one step on one axis; the last axis varies fastest."""
    points = list(itertools.product(*(range(size) for size in shape)))
    here = points[combination]
    return [k for k, there in enumerate(points) if sum(abs(a - b) for a, b in zip(here, there, strict=True)) == 1]
