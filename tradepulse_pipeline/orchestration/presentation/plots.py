"""Plots on the pages of assets: small images that read on Dagster's light and on its dark theme.

Every plot is drawn by matplotlib as SVG without a background, in colours that have contrast on white as on black and
that colour-blind people tell apart. The same input gives the same bytes. Long lines are thinned out, counts binned and
heat maps rasterised, so that an image stays below ``MAX_IMAGE_BYTES`` whatever it shows. Where there is nothing to
draw, a sentence says so.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Final, Literal, ParamSpec

import dagster as dg
import numpy as np

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.candles import FloatArray, IntArray

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")

#: Limit of an image as metadata holds it: it is stored with every event and read with every page.
MAX_IMAGE_BYTES: Final = 60_000

#: Contrast of at least 3.5 on white and on the dark theme; the colour-blind tell blue and orange apart, too.
_GREY, _BLUE, _ORANGE = "#7d828c", "#3d85d6", "#d5661a"
_COLOUR_MAP: Final = "viridis"
_STYLE: Final = {
    "svg.hashsalt": "tradepulse",
    "svg.fonttype": "none",
    "font.sans-serif": ["DejaVu Sans"],  # matplotlib's own; a browser without it takes its plain one
    "text.parse_math": False,
    "axes.unicode_minus": False,
    "font.size": 9,
    "axes.titlesize": 10,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": _GREY,
    "grid.alpha": 0.25,
    "lines.linewidth": 1.2,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _GREY),
}
#: Inches; 7.5 of them are 720 pixels, about the width of the window in which Dagster opens an image.
_WIDTH, _HEIGHT, _LOW = 7.5, 3.2, 2.2

#: Points of a line, of all thin lines together, bars of a histogram.
_POINTS: Final = 320
_THIN_POINTS: Final = 400
_BINS: Final = 80
#: Beyond so many windows their borders would be a blur.
_MOST_WINDOWS: Final = 100
#: Bars beside each other; the groups with the most trades are drawn.
_MOST_BARS: Final = 40
#: Values of a parameter on an axis; with more, neighbours share a cell. Figures are written into so many cells.
_MOST_VALUES: Final = 48
_MOST_WRITTEN: Final = 120
_MOST_TICKS: Final = 16

Statistic = Literal["best", "mean"]


class _NothingToDrawError(Exception):
    """There is nothing to draw; the message is what the plot would have been called."""


def _image(draw: Callable[P, Figure]) -> Callable[P, dg.MarkdownMetadataValue]:
    """Turn a function that draws a figure into one that returns it as an image in Markdown."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> dg.MarkdownMetadataValue:
        from matplotlib import style

        svg = io.BytesIO()
        with style.context(_STYLE, after_reset=True):
            try:
                figure = draw(*args, **kwargs)
            except _NothingToDrawError as nothing:
                return dg.MetadataValue.md(f"{nothing}: nothing to draw.")
            # Without a block of metadata, which would hold the date.
            figure.savefig(svg, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        title = re.sub(r"[\[\]\\\s]+", " ", figure.axes[0].get_title("left"))
        content = base64.b64encode(_compact(svg.getvalue())).decode()
        return dg.MetadataValue.md(f"![{title}](data:image/svg+xml;base64,{content})")

    return drawn


def _compact(svg: bytes) -> bytes:
    """Return a drawing without blanks between its elements, its paths to a tenth of a point."""
    paths = re.sub(rb' d="[^"]*"', lambda path: re.sub(rb"(\.\d)\d+", rb"\1", path[0]).replace(b"\n", b""), svg)
    return re.sub(rb">\s+<", b"><", paths)


def joined(images: Iterable[dg.MarkdownMetadataValue]) -> dg.MarkdownMetadataValue:
    """Return several images one below the other, for one click to open."""
    return dg.MetadataValue.md("\n\n".join(image.md_str or "" for image in images))


@_image
def line_chart(title: str, time_ms: IntArray, values: FloatArray) -> Figure:
    """Return a line over time; times and values of shape (n,).

    Of many points, the lowest and highest of each stretch are drawn; what is NaN is not.
    """
    time_ms, (values,) = _finite(title, time_ms, values)
    extent = f"{values[-1]:,.6g} at the end, {values.min():,.6g} to {values.max():,.6g}"
    figure, axes = _figure(f"{title}: {extent}", height=_LOW)
    kept = _extremes(values)
    axes.plot(_dates(time_ms[kept]), values[kept], color=_BLUE)
    _time_axis(axes)
    return figure


@_image
def equity_curve(
    title: str,
    time_ms: IntArray,
    equity: FloatArray,
    *,
    initial_capital: float,
    windows: Sequence[tuple[int, int]] = (),
    band: tuple[FloatArray, FloatArray] | None = None,
    in_sample: Sequence[tuple[IntArray, FloatArray]] = (),
) -> Figure:
    """Return equity over time, and below it the drawdown from the highest equity before.

    Parameters
    ----------
    title : str
        Says whether the equity is out-of-sample.
    time_ms, equity : arrays of shape (n,)
        UTC milliseconds and quote currency; what is NaN is not drawn.
    initial_capital : float
        Equity before the first point: the first peak.
    windows : sequence of (start, end)
        Test windows in UTC milliseconds, every other one of which is shaded.
    band : pair of arrays of shape (n,), optional
        Lower and upper end of the 95 % interval of equity.
    in_sample : sequence of (time_ms, equity)
        Equity of each window's parameters on its train part.
    """
    from matplotlib.dates import date2num
    from matplotlib.patches import StepPatch

    time_ms, (equity, *ends) = _finite(title, time_ms, equity, *(band or ()))
    peaks = np.maximum.accumulate(np.maximum(equity, initial_capital))
    drawdown = equity / peaks - 1
    kept = _extremes(equity)
    dates = _dates(time_ms[kept])

    figure, (upper, lower) = _panels(title, height=_HEIGHT + 0.8, ratios=(3, 1))
    if 0 < len(windows) <= _MOST_WINDOWS:
        borders = date2num(_dates(np.array(windows[::2]).ravel()))  # type: ignore[no-untyped-call]
        is_shaded = np.arange(len(borders) - 1) % 2 == 0
        for panel in (upper, lower):
            whole_height = panel.get_xaxis_transform()
            panel.add_patch(
                StepPatch(is_shaded, borders, fill=True, color=_GREY, alpha=0.12, linewidth=0, transform=whole_height)
            )
    if in_sample:
        share = max(2, _THIN_POINTS // len(in_sample))
        parts = [(times[kept_], values[kept_]) for times, values in in_sample for kept_ in [_extremes(values, share)]]
        times = np.concatenate([np.append(times, times[-1:]) for times, _ in parts])
        values = np.concatenate([np.append(values, np.nan) for _, values in parts])
        upper.plot(_dates(times), values, color=_GREY, linewidth=0.7, label="in-sample, each train window")
    if band is not None:
        low, high = (end[kept] for end in ends)
        upper.fill_between(dates, low, high, color=_BLUE, alpha=0.2, linewidth=0, label="95 % interval")
    upper.plot(dates, equity[kept], color=_BLUE, label="test windows")
    upper.axhline(initial_capital, color=_GREY, linewidth=0.8, linestyle="--", label="initial capital")
    outline = np.concatenate([dates[:1], dates, dates[-1:]]), np.concatenate([[0.0], drawdown[kept], [0.0]])
    lower.fill(*outline, color=_ORANGE, alpha=0.6, linewidth=0)
    upper.set_ylabel("equity")
    lower.set_ylabel("drawdown")
    _percent_axis(lower)
    _time_axis(lower)
    _legend(figure, upper)
    return figure


@_image
def band_chart(
    title: str, time_ms: IntArray, equity: FloatArray, *, band: tuple[FloatArray, FloatArray] | None, promise: str
) -> Figure:
    """Return equity against the band that was predicted for it.

    Parameters
    ----------
    time_ms, equity : arrays of shape (n,)
        UTC milliseconds, and multiples of the equity at the start.
    band : pair of arrays of shape (n,), or None
        Lower and upper end of what was predicted.
    promise : str
        What the band is, for the legend.
    """
    time_ms, (equity, *ends) = _finite(title, time_ms, equity, *(band or ()))
    kept = _extremes(equity)
    dates = _dates(time_ms[kept])
    figure, axes = _figure(title, height=_HEIGHT)
    if band is not None:
        low, high = (end[kept] for end in ends)
        axes.fill_between(dates, low, high, color=_BLUE, alpha=0.2, linewidth=0, label=promise)
    axes.plot(dates, equity[kept], color=_ORANGE, label="paper record")
    axes.axhline(1.0, color=_GREY, linewidth=0.8, linestyle="--")
    axes.set_ylabel("equity, start = 1")
    _time_axis(axes)
    _legend(figure, axes)
    return figure


@_image
def trainings_chart(
    versions: Sequence[str], sharpe_ratio: FloatArray, in_sample: FloatArray, stages: Sequence[str]
) -> Figure:
    """Return how the trainings of a series followed each other; arrays of shape (n_trainings,), NaN where undefined.

    Parameters
    ----------
    versions : sequence of str
        What the trainings are called, the first one first.
    sharpe_ratio, in_sample : float64 arrays
        Sharpe ratios of the out-of-sample record, and the mean of those that its searches promised.
    stages : sequence of str
        The lifecycle stage of each; written where it is another than before.
    """
    title = "Sharpe ratio from training to training"
    if not np.isfinite(sharpe_ratio).any():
        raise _NothingToDrawError(title)
    figure, axes = _figure(title, height=_LOW + 0.5)
    numbers = np.arange(len(versions))
    axes.plot(numbers, in_sample, color=_GREY, marker="o", markersize=3, linestyle=":", label="in-sample, mean")
    axes.plot(numbers, sharpe_ratio, color=_BLUE, marker="o", markersize=5, label="out-of-sample")
    axes.axhline(0.0, color=_GREY, linewidth=0.8)
    for number, value, stage, before in zip(numbers, sharpe_ratio, stages, ["", *stages[:-1]], strict=True):
        if np.isfinite(value) and stage != before:
            axes.annotate(
                stage, (number, value), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=7, color=_BLUE
            )
    axes.set_xticks(numbers, versions)
    axes.margins(x=0.08, y=0.2)
    _legend(figure, axes)
    return figure


@_image
def fan_chart(
    title: str,
    steps: IntArray,
    quantiles: FloatArray,
    own: tuple[IntArray, FloatArray],
    *,
    unit: str,
    own_is: str,
    ruin_level: float,
    probability_of_ruin: float,
) -> Figure:
    """Return what equity could have come to by number of trades or days, and what it did come to.

    Parameters
    ----------
    title : str
        Says what was drawn anew.
    steps : int64 array of shape (n_points,)
        Numbers of trades or days, from 0.
    quantiles : float64 array of shape (5, n_points)
        The 5, 25, 50, 75 and 95 % quantiles of equity after so many, quote currency.
    own : pair of arrays of shape (n,)
        Numbers of trades or days, and what equity did come to after so many.
    unit : str
        What is counted.
    own_is : str
        What ``own`` is of.
    ruin_level : float
        Equity at which an account counts as ruined.
    probability_of_ruin : float
        Share of the paths that fell to it.
    """
    title = f"{title}: probability of ruin {probability_of_ruin:.1%}"
    steps, fan = _finite(title, steps, *quantiles)
    figure, axes = _figure(title, height=_HEIGHT)
    kept = _extremes(fan[2])
    steps, fan = steps[kept], [quantile[kept] for quantile in fan]
    for low, high, alpha, label in ((0, 4, 0.18, "90 % of the paths"), (1, 3, 0.35, "50 % of the paths")):
        axes.fill_between(steps, fan[low], fan[high], color=_BLUE, alpha=alpha, linewidth=0, label=label)
    axes.plot(steps, fan[2], color=_BLUE, label="median path")
    own_steps, own_equity = own
    kept = _extremes(own_equity)
    axes.plot(own_steps[kept], own_equity[kept], color=_ORANGE, label=own_is)
    axes.axhline(ruin_level, color=_GREY, linestyle="--", label=f"ruin: {ruin_level:,.6g}")
    axes.set_xlabel(unit)
    axes.set_ylabel("equity")
    _legend(figure, axes)
    return figure


@_image
def trials_histogram(
    values: FloatArray,
    *,
    name: str,
    chosen: float | None = None,
    chosen_is: str = "the chosen one",
    luck_ceiling: float | None = None,
    n_trials: int | None = None,
    over: str = "in-sample",
) -> Figure:
    """Return how a figure of all trials is distributed, where the chosen trial is, and how far luck alone reaches.

    Parameters
    ----------
    values : float64 array of shape (n,)
        One per trial, in-sample; NaN for one that did not qualify. Few exceptionally low ones join the lowest bar.
    name : str
        What the figure is called.
    chosen : float, optional
        That of the trial that was chosen, or of what ``chosen_is`` says.
    luck_ceiling : float, optional
        What the best of ``n_trials`` trials without skill reaches in the mean.
    n_trials : int, optional
        Trials that were made, without one all of ``values``.
    over : str
        What the figures are over.
    """
    from matplotlib.ticker import MaxNLocator

    n_trials = len(values) if n_trials is None else n_trials
    values = values[np.isfinite(values)]
    if not len(values):
        raise _NothingToDrawError(f"{name} of the trials")
    marks = [mark for mark in (chosen, luck_ceiling) if mark is not None and np.isfinite(mark)]
    # A handful of absurd losers would leave all others in one bar.
    low = float(np.partition(values, len(values) // 1_000)[len(values) // 1_000])
    low, high = min([low, *marks]), max([float(values.max()), *marks])
    if low == high:
        low, high = low - 0.5, high + 0.5
    n_bins = int(np.clip(2 * np.cbrt(len(values)), 10, _BINS))  # the rule of Rice
    counts, edges = np.histogram(np.maximum(values, low), n_bins, (low, high))

    valid = "" if n_trials == len(values) else f"{len(values):,} valid ones of "
    figure, axes = _figure(f"{name} of {valid}{n_trials:,} trials, {over}", height=_HEIGHT)
    axes.stairs(counts, edges, fill=True, color=_BLUE, alpha=0.6, label="trials")
    if chosen is not None:
        axes.axvline(chosen, color=_ORANGE, linewidth=1.8, label=f"{chosen_is}: {chosen:,.4g}")
    if luck_ceiling is not None:
        reach = f"luck ceiling: {luck_ceiling:,.4g}, what the best of {n_trials:,} trials without skill reaches"
        axes.axvline(luck_ceiling, color=_GREY, linewidth=1.8, linestyle="--", label=reach)
    axes.set_xlabel(name)
    axes.set_ylabel("trials")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(_plain)
    _legend(figure, axes)
    return figure


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ParameterGrid:
    """An objective by the values of two parameters: ``objective[j, i]`` is that of ``x_values[i]`` and ``y_values[j]``.

    It is the best or the mean of all trials that have the two values, NaN where there is none. Of parameters with more
    values than a heat map shows, neighbours are put together under the lowest of them.
    """

    x: str
    y: str
    x_values: FloatArray
    y_values: FloatArray
    objective: FloatArray
    statistic: Statistic


def parameter_grid(
    trials: pl.DataFrame,
    parameters: Sequence[str],
    *,
    objective: str = "objective",
    axes: tuple[str, str] | None = None,
    statistic: Statistic = "best",
) -> ParameterGrid | None:
    """Return the objective of trials by two parameters: the best or the mean over all other parameters.

    Parameters
    ----------
    trials : polars.DataFrame
        One row per trial with a column per parameter and ``objective``, null or NaN for an invalid trial.
    parameters : sequence of str
        Columns to choose from.
    axes : pair of str, optional
        The two parameters. Without them those two that move the objective most: whose values' mean objectives have
        the largest variance over the trials.

    Returns
    -------
    ParameterGrid or None
        None without a valid trial, or when fewer than two parameters vary.

    Raises
    ------
    InvalidInputError
        If ``axes`` are not two different columns of ``parameters``.
    """
    import polars as pl

    if axes is not None and (len(set(axes)) != 2 or not set(axes) <= set(parameters)):
        raise InvalidInputError(f"axes: found {axes}, expected two different ones of {', '.join(parameters)}.")
    valid = trials.lazy().filter(pl.col(objective).is_finite()).select(*parameters, objective).collect()
    if axes is None:
        means = {name: valid.group_by(name).agg(pl.mean(objective), pl.len()) for name in parameters}
        effects = {
            name: _variance(table[objective].to_numpy(), table["len"].to_numpy())
            for name, table in means.items()
            if table.height > 1
        }
        if len(effects) < 2:
            return None
        x, y = sorted(effects, key=lambda name: -effects[name])[:2]
    else:
        x, y = axes
    for name in (x, y):
        values = valid[name].unique().sort().to_numpy()
        if len(values) > _MOST_VALUES:  # neighbours share a cell, which has the name of the lowest
            lowest = values[np.arange(_MOST_VALUES) * len(values) // _MOST_VALUES]
            cell = np.searchsorted(lowest, valid[name].to_numpy(), side="right") - 1
            valid = valid.with_columns(pl.Series(name, lowest[cell]))
    value = pl.max(objective) if statistic == "best" else pl.mean(objective)
    cells = valid.group_by(x, y).agg(value)
    if not cells.height:
        return None
    (x_values, column), (y_values, row) = (np.unique(cells[name].to_numpy(), return_inverse=True) for name in (x, y))
    grid = np.full((len(y_values), len(x_values)), np.nan)
    grid[row, column] = cells[objective].to_numpy()
    return ParameterGrid(x=x, y=y, x_values=x_values, y_values=y_values, objective=grid, statistic=statistic)


@_image
def parameter_heat_map(grid: ParameterGrid | None, *, name: str, chosen: Mapping[str, float] | None = None) -> Figure:
    """Return the objective by two parameters as colours; cells without a trial stay blank.

    Parameters
    ----------
    grid : ParameterGrid or None
        What ``parameter_grid`` found.
    name : str
        What the objective is called.
    chosen : mapping, optional
        The parameter set whose cell is marked.
    """
    from matplotlib.patches import Rectangle

    if grid is None:
        raise _NothingToDrawError(f"{name} by two parameters")
    cells, x, y = grid.objective, grid.x.replace("_", " "), grid.y.replace("_", " ")
    figure, axes = _figure(f"{grid.statistic.capitalize()} {name} by {x} and {y}, in-sample", height=_HEIGHT)
    axes.grid(visible=False)
    image = axes.imshow(cells, cmap=_COLOUR_MAP, origin="lower", aspect="auto", interpolation="none")
    figure.colorbar(image, ax=axes, format=_plain)
    if cells.size <= _MOST_WRITTEN:
        middle = np.nanmin(cells) / 2 + np.nanmax(cells) / 2
        for (row, column), value in np.ndenumerate(cells):
            if np.isfinite(value):
                colour = "black" if value > middle else "white"
                written = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
                axes.text(column, row, written, ha="center", va="center", color=colour, fontsize=7)
    for axis, label, values in ((axes.xaxis, x, grid.x_values), (axes.yaxis, y, grid.y_values)):
        shown = np.arange(0, len(values), -(-len(values) // _MOST_TICKS))
        axis.set_ticks(shown, [f"{value:g}" for value in values[shown]])
        axis.set_label_text(label)
    if chosen is not None:
        column, row = (
            int(np.searchsorted(values, chosen[one], side="right")) - 1
            for one, values in ((grid.x, grid.x_values), (grid.y, grid.y_values))
        )
        axes.add_patch(
            Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=_ORANGE, linewidth=2.5, label="chosen")
        )
        _legend(figure, axes)
    axes.spines[:].set_visible(False)
    return figure


@_image
def bars_with_intervals(
    title: str,
    groups: Sequence[str],
    mean_r: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    n_trades: IntArray,
    *,
    few: int = 30,
) -> Figure:
    """Return the mean result of groups of trades as bars with their intervals, and the number of trades under each.

    Arrays have shape (n_groups,), results are in R. Groups of fewer than ``few`` trades are pale: they prove little.
    """
    is_drawn = np.isfinite(mean_r) & (n_trades > 0)
    if np.count_nonzero(is_drawn) > _MOST_BARS:
        is_drawn &= n_trades >= np.partition(n_trades[is_drawn], -_MOST_BARS)[-_MOST_BARS]
    shown = np.flatnonzero(is_drawn)[:_MOST_BARS]
    if not len(shown):
        raise _NothingToDrawError(title)
    place = np.arange(len(shown))
    figure, axes = _figure(title, height=_HEIGHT)
    bars = axes.bar(place, mean_r[shown], color=_by_sign(mean_r[shown]), width=0.7)
    for bar, n in zip(bars, n_trades[shown], strict=True):
        bar.set_alpha(0.3 if n < few else 0.8)
    axes.vlines(place, lower[shown], upper[shown], color=_GREY, linewidth=1.5)
    axes.axhline(0.0, color=_GREY, linewidth=0.8)
    axes.set_xticks(place, [f"{groups[k]}\n{n_trades[k]:,}" for k in shown], fontsize=8 if len(shown) <= 16 else 7)
    axes.set_xlabel(f"trades under each group; pale: fewer than {few}; lines: 95 % intervals")
    axes.set_ylabel("mean result (R)")
    return figure


@_image
def ladder(title: str, rungs: Sequence[str], net_profit: FloatArray) -> Figure:
    """Return the net result under rising costs as bars, one per rung of shape (n_rungs,), with the line of zero."""
    if not len(rungs) or not np.isfinite(net_profit).all():
        raise _NothingToDrawError(title)
    figure, axes = _figure(title, height=_HEIGHT)
    bars = axes.bar(np.arange(len(rungs)), net_profit, color=_by_sign(net_profit), alpha=0.8, width=0.6)
    axes.bar_label(bars, [f"{value:+,.0f}" for value in net_profit], padding=2, fontsize=8)
    axes.margins(y=0.12)
    axes.axhline(0.0, color=_GREY, linewidth=1.2)
    axes.set_xticks(np.arange(len(rungs)), [rung.replace(" ", "\n", 1) if len(rung) > 14 else rung for rung in rungs])
    axes.set_ylabel("net result")
    return figure


@_image
def decay_curve(title: str, horizons: IntArray, mean: FloatArray, lower: FloatArray, upper: FloatArray) -> Figure:
    """Return the mean forward return, in ATR, by the number of bars after the decision, with its 95 % interval."""
    horizons, (mean, lower, upper) = _finite(title, horizons, mean, lower, upper)
    kept = _extremes(mean)
    figure, axes = _figure(title, height=_HEIGHT)
    axes.fill_between(
        horizons[kept], lower[kept], upper[kept], color=_BLUE, alpha=0.2, linewidth=0, label="95 % interval"
    )
    axes.plot(
        horizons[kept], mean[kept], color=_BLUE, marker="o" if len(kept) <= 60 else "", markersize=3, label="mean"
    )
    axes.axhline(0.0, color=_GREY, linewidth=0.8)
    axes.set_xlabel("bars after the decision")
    axes.set_ylabel("forward return (ATR)")
    _legend(figure, axes)
    return figure


@_image
def overfitting_histogram(edges: FloatArray, counts: IntArray, *, probability: float) -> Figure:
    """Return where the best of one half of the days came in the other half, over all splits.

    Parameters
    ----------
    edges : float64 array of shape (n_bins + 1,)
        Logits of its relative rank, 0 being the median trial and the edge in the middle.
    counts : int64 array of shape (n_bins,)
        Splits in each bin; the median belongs to the lower half, which is shaded.
    probability : float
        The share of that half: the probability of backtest overfitting.
    """
    if not np.sum(counts):
        raise _NothingToDrawError("Probability of backtest overfitting")
    half = len(counts) // 2
    figure, axes = _figure(f"Probability of backtest overfitting: {probability:.1%}", height=_HEIGHT)
    axes.stairs(counts[:half], edges[: half + 1], fill=True, color=_ORANGE, alpha=0.7, label="at the median or below")
    axes.stairs(counts[half:], edges[half:], fill=True, color=_BLUE, alpha=0.6, label="above the median")
    axes.axvline(0.0, color=_GREY, linewidth=1.0)
    axes.set_xlabel("rank on the days that it was not chosen on: worst to the left, best to the right (logit)")
    axes.set_ylabel("splits")
    _legend(figure, axes)
    return figure


def _figure(title: str, *, height: float) -> tuple[Figure, Axes]:
    figure, (axes,) = _panels(title, height=height, ratios=(1,))
    return figure, axes


def _panels(title: str, *, height: float, ratios: Sequence[float]) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels from top to bottom, which share the horizontal axis."""
    from matplotlib.figure import Figure

    figure = Figure((_WIDTH, height), layout="constrained")
    panels = list(figure.subplots(len(ratios), sharex=True, squeeze=False, height_ratios=ratios).flat)
    panels[0].set_title(title, loc="left")
    for axes in panels:
        axes.grid(visible=True, axis="y")
        axes.yaxis.set_major_formatter(_plain)
    return figure, panels


def _legend(figure: Figure, axes: Axes) -> None:
    """Put the legend below the axes, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)


def _time_axis(axes: Axes) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=4, maxticks=10)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def _percent_axis(axes: Axes) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _plain(value: float, _: float | None = None) -> str:
    return f"{value:,.6g}"


def _dates(time_ms: IntArray) -> np.ndarray[tuple[int], np.dtype[np.datetime64]]:
    return time_ms.astype("datetime64[ms]")


def _by_sign(values: FloatArray) -> list[str]:
    return [_BLUE if value >= 0 else _ORANGE for value in values]


def _variance(means: FloatArray, counts: IntArray) -> float:
    return float(np.average((means - np.average(means, weights=counts)) ** 2, weights=counts))


def _finite(title: str, first: IntArray, *others: FloatArray) -> tuple[IntArray, list[FloatArray]]:
    """Return the points at which all arrays are finite, two at least."""
    is_there = np.isfinite(others).all(axis=0)
    if np.count_nonzero(is_there) < 2:
        raise _NothingToDrawError(title)
    return first[is_there], [values[is_there] for values in others]


def _extremes(values: FloatArray, most: int = _POINTS) -> IntArray:
    """Return the indices of the first, the last, and of each stretch the lowest and the highest value."""
    if len(values) <= most:
        return np.arange(len(values))
    stretches = np.array_split(np.arange(len(values)), max(1, most // 2 - 1))
    kept = {0, len(values) - 1}
    for stretch in stretches:
        kept |= {int(stretch[values[stretch].argmin()]), int(stretch[values[stretch].argmax()])}
    return np.array(sorted(kept))
