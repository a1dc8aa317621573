"""Monte Carlo over trades: what else the same trades could have come to, had chance dealt them otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.candles import FloatArray, IntArray
from tradepulse_pipeline.validation.paths import follow_paths

#: What the fan shows of equity, as shares of the paths that lie below.
FAN_LEVELS: Final = (0.05, 0.25, 0.5, 0.75, 0.95)

#: Numbers of trades at which the fan is drawn at most.
MOST_FAN_POINTS: Final = 201


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TradePaths:
    """Distributions over resampled trades. See ``resample_trades``.

    Attributes
    ----------
    net_profit : float64 array of shape (n_paths,)
        Quote currency.
    max_drawdown : float64 array of shape (n_paths,)
        From trade to trade, a fraction.
    longest_under_water : int64 array of shape (n_paths,)
        Most trades in a row after which equity was below its running maximum.
    probability_of_ruin : float
        Share of paths whose equity fell to the level of ruin.
    fan_trades : int64 array of shape (n_points,)
        Numbers of trades, from 0 to all.
    fan_equity : float64 array of shape (5, n_points)
        The 5, 25, 50, 75 and 95 % quantiles of equity after so many trades.
    """

    net_profit: FloatArray
    max_drawdown: FloatArray
    longest_under_water: IntArray
    probability_of_ruin: float
    fan_trades: IntArray
    fan_equity: FloatArray


def resample_trades(
    returns: FloatArray,
    *,
    initial_capital: float,
    seed: int,
    with_replacement: bool = True,
    n_paths: int = 5_000,
    ruin_share: float = 0.5,
) -> TradePaths | None:
    """Return what the trades come to when they are drawn anew, or come in another order.

    With replacement, each path draws as many trades as there are: other luck with the same edge. Without, it shuffles
    them: the same net profit by other ways. The trades are taken as independent, their returns as shares of the equity
    before them.

    Parameters
    ----------
    returns : float64 array of shape (n_trades,)
        Result of each trade as a fraction of the equity before it.
    initial_capital : float
        Equity before the first trade.
    seed : int
        Of the draws.
    with_replacement : bool
        Draw trades anew, or shuffle them.
    n_paths : int
        Number of paths.
    ruin_share : float
        Ruined is a path whose equity was at or below this share of the initial capital after a trade.

    Returns
    -------
    TradePaths or None
        None without trades.

    Raises
    ------
    InvalidInputError
        If a return is not finite or ``ruin_share`` is not between 0 and 1.
    """
    if not (np.isfinite(returns).all() and 0 < ruin_share < 1):
        raise InvalidInputError(
            f"Expected finite trade returns and a share of ruin between 0 and 1, found "
            f"{np.count_nonzero(~np.isfinite(returns))} returns that are not finite and ruin_share {ruin_share}."
        )
    n_trades = len(returns)
    if not n_trades:
        return None
    generator = np.random.default_rng(seed)

    def draw(n: int) -> IntArray:
        if with_replacement:
            return generator.integers(0, n_trades, size=(n, n_trades))
        return generator.permuted(np.tile(np.arange(n_trades), (n, 1)), axis=1)

    points = fan_points(n_trades)
    paths = follow_paths(returns, draw, n_paths, points)
    return TradePaths(
        net_profit=initial_capital * (paths.final - 1),
        max_drawdown=paths.max_drawdown,
        longest_under_water=paths.longest_under_water,
        probability_of_ruin=float(np.mean(paths.lowest <= ruin_share)),
        fan_trades=points,
        fan_equity=initial_capital * np.quantile(paths.seen, FAN_LEVELS, axis=0),
    )


def fan_points(n: int) -> IntArray:
    """Return the numbers from 0 to ``n`` at which a fan is drawn: both ends, and what is evenly spread between them."""
    return np.unique(np.linspace(0, n, min(n + 1, MOST_FAN_POINTS)).round().astype(np.int64))
