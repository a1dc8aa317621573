"""Plots: values are where they belong, images are small and repeatable, and nothing is drawn of nothing."""

from __future__ import annotations

import base64
import math
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.orchestration.presentation import (
    bars_with_intervals,
    decay_curve,
    equity_curve,
    fan_chart,
    ladder,
    line_chart,
    overfitting_histogram,
    parameter_grid,
    parameter_heat_map,
    trainings_chart,
    trials_histogram,
)
from tradepulse_pipeline.orchestration.presentation.plots import MAX_IMAGE_BYTES, ParameterGrid

DAY = 86_400_000
SVG = "{http://www.w3.org/2000/svg}"
OF_TRADES = {"unit": "trades", "own_is": "this record"}


def drawing(markdown):
    return ElementTree.fromstring(base64.b64decode(re.search(r"base64,(.*)\)", markdown.value)[1]))


def words(markdown):
    return " ".join("".join(text.itertext()) for text in drawing(markdown).iter(f"{SVG}text"))


def figure(plot, *args, **kwargs):
    """What is drawn, before it becomes an image."""
    return plot.__wrapped__(*args, **kwargs)


def labels(axes):
    return [str(handle.get_label()) for handle in axes.get_legend_handles_labels()[0]]


def line(axes, label):
    (found,) = [one for one in axes.lines if one.get_label() == label]
    return found


def days(n):
    return 1_735_689_600_000 + np.arange(n) * DAY


def a_fan(quantiles):
    """Steps, quantiles (5, n) and an own path that stays where it is."""
    steps = np.arange(quantiles.shape[1])
    return steps, quantiles, (steps, np.ones(len(steps)))


def a_noisy_grid(n_values):
    x, y = np.meshgrid(np.arange(float(n_values)), np.arange(float(n_values)))
    noise = np.random.default_rng(2).normal(size=x.size)
    return parameter_grid(pl.DataFrame({"x": x.ravel(), "y": y.ravel(), "objective": noise}), ["x", "y"])


def the_largest():
    """Every plot with more in it than a training can bring, and the least regular values."""
    rng = np.random.default_rng(1)
    n = 5_000
    noise = rng.normal(size=n)
    equity = 10_000 * np.exp(0.05 * noise)
    walks = [(days(n)[k * 40 : k * 40 + 90], equity[k * 40 : k * 40 + 90]) for k in range(100)]
    windows = [(int(days(n)[k * 40]), int(days(n)[k * 40 + 40])) for k in range(100)]
    yield "line_chart", line_chart, ("Close", days(n), noise), {}
    yield (
        "equity_curve",
        equity_curve,
        ("Equity", days(n), equity),
        {
            "initial_capital": 10_000.0,
            "windows": windows,
            "band": (equity * (1 - abs(noise) / 9), equity * (1 + abs(noise) / 9)),
            "in_sample": walks,
        },
    )
    fan = np.sort(rng.normal(10_000, 900, (5, n)), axis=0)
    yield (
        "fan_chart",
        fan_chart,
        ("Fan", np.arange(n), fan, (np.arange(n), equity)),
        OF_TRADES | {"ruin_level": 5_000.0, "probability_of_ruin": 0.1},
    )
    yield "trials_histogram", trials_histogram, (rng.normal(size=200_000),), {"name": "Sharpe ratio", "chosen": 4.0}
    yield "parameter_heat_map", parameter_heat_map, (a_noisy_grid(200),), {"name": "profit", "chosen": {"x": 9, "y": 7}}
    names = [f"group {k}" for k in range(200)]
    bars = (noise[:200], noise[:200] - 1, noise[:200] + 1, np.arange(200) + 1)
    yield "bars_with_intervals", bars_with_intervals, ("By group", names, *bars), {}
    yield "ladder", ladder, ("Costs", names[:8], 1_000 * noise[:8]), {}
    yield "decay_curve", decay_curve, ("Decay", np.arange(n), noise, noise - 1, noise + 1), {}
    yield "overfitting_histogram", overfitting_histogram, (np.linspace(-9, 9, 41), np.arange(40)), {"probability": 0.3}
    stages = ["PAPER", "MATURE"] * 10
    names = [f"v{k}" for k in range(20)]
    yield "trainings", trainings_chart, (names, np.sin(np.arange(20.0)), np.cos(np.arange(20.0)), stages), {}


LARGEST = [pytest.param(*values, id=name) for name, *values in the_largest()]


@pytest.mark.parametrize(("plot", "args", "kwargs"), LARGEST)
def test_every_plot_is_small_and_the_same_again(plot, args, kwargs):
    image = plot(*args, **kwargs)
    assert len(image.value) < MAX_IMAGE_BYTES
    assert plot(*args, **kwargs).value == image.value
    assert drawing(image).get("width") == "540pt"


@pytest.mark.parametrize(("plot", "args", "kwargs"), LARGEST)
def test_no_plot_has_a_background_or_black_text(plot, args, kwargs):
    image = drawing(plot(*args, **kwargs))
    assert "fill: none" in next(image.iter(f"{SVG}path")).get("style")
    outside_cells = [text for text in image.iter(f"{SVG}text") if "7px" not in text.get("style")]
    assert {re.search(r"fill: (#\w+)", text.get("style"))[1] for text in outside_cells} == {"#7d828c"}


def test_plots_need_no_display_and_leave_matplotlib_as_it_was():
    script = (
        "import matplotlib, sys, numpy as np\n"
        "from tradepulse_pipeline.orchestration.presentation import line_chart\n"
        "matplotlib.rcParams['font.size'] = 31.0\n"
        "image = line_chart('Close', np.arange(3), np.arange(3.0)).value\n"
        "kept = matplotlib.rcParams['font.size'], matplotlib.rcParams['svg.hashsalt']\n"
        "print('matplotlib.pyplot' in sys.modules, *kept, len(image))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    plain = line_chart("Close", np.arange(3), np.arange(3.0)).value
    assert done.stdout.split() == ["False", "31.0", "None", str(len(plain))]


def test_a_long_line_keeps_its_extremes():
    values = np.sin(np.arange(100_000) / 700)
    values[12_345], values[54_321] = 9.0, -7.0
    arguments = ("ATR", np.arange(100_000) * 300_000, values)
    (axes,) = figure(line_chart, *arguments).axes
    drawn = axes.lines[0].get_ydata()
    assert len(drawn) < 500
    assert (drawn.max(), drawn.min(), drawn[0], drawn[-1]) == (9.0, -7.0, values[0], values[-1])
    image = line_chart(*arguments)
    assert len(image.value) < 20_000
    assert "-7 to 9" in words(image)


@pytest.mark.parametrize("values", [[1.0, 2.0], [math.nan, 1.0, math.nan, 2.0], [3.0, 3.0, 3.0]])
def test_what_is_undefined_is_not_drawn(values):
    (axes,) = figure(line_chart, "ATR", days(len(values)), np.array(values)).axes
    drawn = axes.lines[0].get_ydata()
    assert drawn.tolist() == [value for value in values if math.isfinite(value)]


def test_titles_cannot_break_the_drawing():
    image = line_chart("<b> & [more] $x$ $y$", np.array([0, DAY]), np.ones(2))
    assert "<b> & [more] $x$ $y$" in words(image)
    assert image.value.startswith("![<b> & more $x$ $y$")


def test_equity_has_its_drawdown_below_and_every_other_window_shaded():
    equity = np.array([9_000.0, 12_000.0, 9_000.0, 12_000.0, 15_000.0])
    time_ms = days(5)
    windows = [(int(time_ms[k]), int(time_ms[k]) + DAY) for k in range(4)]
    drawn = figure(
        equity_curve,
        "Equity",
        time_ms,
        equity,
        initial_capital=10_000.0,
        windows=windows,
        band=(equity - 500, equity + 500),
        in_sample=[(time_ms[:2], equity[:2]), (time_ms[2:4], equity[2:4])],
    )
    upper, lower = drawn.axes
    assert line(upper, "test windows").get_ydata().tolist() == equity.tolist()
    # The initial capital is the first peak.
    filled = lower.patches[1].get_xy()[:, 1]
    np.testing.assert_allclose(filled[1:6], [-0.1, 0.0, -0.25, 0.0, 0.0])
    for panel in (upper, lower):
        shaded, borders, _ = panel.patches[0].get_data()
        assert shaded.tolist() == [True, False, True]  # the first and the third window
        assert (borders * DAY).tolist() == [*windows[0], *windows[2]]
    assert upper.get_ylim()[0] > 5_000
    assert labels(upper) == ["in-sample, each train window", "95 % interval", "test windows", "initial capital"]
    thin = line(upper, "in-sample, each train window").get_ydata()
    assert np.isnan(thin).sum() == 2  # a gap after each window
    assert [value for value in thin if math.isfinite(value)] == equity[:4].tolist()


def test_a_fan_has_its_quantiles_the_own_path_and_ruin():
    trades = np.array([0, 5, 10])
    fan = np.array([[100.0, 60, 40], [100, 80, 70], [100, 105, 110], [100, 130, 150], [100, 150, 200]])
    own = np.linspace(100, 140, 11)
    drawn = figure(
        fan_chart,
        "Fan",
        trades,
        fan,
        (np.arange(11), own),
        **OF_TRADES,
        ruin_level=50.0,
        probability_of_ruin=0.123,
    )
    (axes,) = drawn.axes
    assert axes.get_title("left") == "Fan: probability of ruin 12.3%"
    assert axes.get_xlabel() == "trades"
    reach = [
        (path.vertices[:, 1].min(), path.vertices[:, 1].max()) for one in axes.collections for path in one.get_paths()
    ]
    assert reach == [(40.0, 200.0), (70.0, 150.0)]
    assert line(axes, "median path").get_ydata().tolist() == fan[2].tolist()
    assert line(axes, "this record").get_xdata().tolist() == list(range(11))
    assert set(line(axes, "ruin: 50").get_ydata()) == {50.0}


def test_trials_are_all_counted_and_absurd_losers_join_the_lowest_bar():
    values = np.concatenate([np.random.default_rng(3).normal(size=10_000), [-1e9, math.nan]])
    drawn = figure(trials_histogram, values, name="Sharpe ratio", chosen=3.0, luck_ceiling=4.5, n_trials=20_000)
    (axes,) = drawn.axes
    counts, edges, _ = axes.patches[0].get_data()
    assert counts.sum() == 10_001
    assert -5.0 < edges[0] < edges[-1] == 4.5
    assert [one.get_xdata()[0] for one in axes.lines] == [3.0, 4.5]
    assert axes.get_title("left") == "Sharpe ratio of 10,001 valid ones of 20,000 trials, in-sample"
    assert labels(axes)[1:] == [
        "the chosen one: 3",
        "luck ceiling: 4.5, what the best of 20,000 trials without skill reaches",
    ]


def some_trials():
    """Two parameters move the objective, one a little, one not at all, one is always the same."""
    a, b, c, d = (axis.ravel().astype(float) for axis in np.meshgrid([1, 2, 4], [10, 20], [0, 5], [7, 8]))
    objective = 10 * a - b + c / 100
    return pl.DataFrame({"c": c, "d": d, "b": b, "e": np.ones(len(a)), "a": a, "objective": objective})


def test_a_grid_takes_the_two_parameters_that_move_the_objective_most():
    trials = some_trials().with_columns(
        objective=pl.when((pl.col("a") == 2) & (pl.col("b") == 20)).then(None).otherwise("objective")
    )
    grid = parameter_grid(trials, ["c", "d", "b", "e", "a"])
    assert (grid.x, grid.y) == ("a", "b")
    assert (grid.x_values.tolist(), grid.y_values.tolist()) == ([1.0, 2.0, 4.0], [10.0, 20.0])
    np.testing.assert_allclose(grid.objective, [[0.05, 10.05, 30.05], [-9.95, math.nan, 20.05]])
    mean = parameter_grid(trials, ["a", "b", "c"], axes=("c", "b"), statistic="mean")
    np.testing.assert_allclose(mean.objective, [[40 / 3, 40 / 3 + 0.05], [5.0, 5.05]])


def test_neighbours_share_a_cell_where_there_are_too_many():
    values = np.arange(1_000.0)
    trials = pl.DataFrame({"x": values, "y": values % 2, "objective": values})
    grid = parameter_grid(trials, ["x", "y"])
    assert grid.objective.shape == (2, 48)
    assert grid.x_values[:2].tolist() == [0.0, 20.0]
    assert grid.objective[:, 0].tolist() == [18.0, 19.0]
    assert np.nanmax(grid.objective) == 999.0


def test_a_grid_asks_for_two_different_parameters():
    with pytest.raises(InvalidInputError, match=r"axes: found \('a', 'a'\), expected two different ones of a, b"):
        parameter_grid(some_trials(), ["a", "b"], axes=("a", "a"))


def test_a_heat_map_marks_the_chosen_set_and_leaves_cells_blank():
    grid = ParameterGrid(
        x="lookback_bars",
        y="stop",
        x_values=np.array([10.0, 50.0, 200.0]),
        y_values=np.array([0.5, 1.5]),
        objective=np.array([[1.0, math.nan, 3.0], [4.0, 5.0, -6.0]]),
        statistic="best",
    )
    drawn = figure(parameter_heat_map, grid, name="net profit", chosen={"lookback_bars": 50.0, "stop": 1.5, "other": 1})
    axes = drawn.axes[0]
    assert axes.get_title("left") == "Best net profit by lookback bars and stop, in-sample"
    assert np.array_equal(axes.images[0].get_array().mask, np.isnan(grid.objective))
    assert [text.get_text() for text in axes.texts] == ["1", "3", "4", "5", "-6"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10", "50", "200"]
    assert axes.patches[0].get_xy() == (0.5, 0.5)


def test_groups_have_their_interval_and_their_number_of_trades():
    mean, n = np.array([0.5, -0.2, math.nan, 0.1]), np.array([120, 12, 5, 0])
    drawn = figure(bars_with_intervals, "By side", ["long", "short", "gone", "never"], mean, mean - 1, mean + 2, n)
    (axes,) = drawn.axes
    assert [bar.get_height() for bar in axes.patches] == [0.5, -0.2]
    assert axes.patches[1].get_alpha() < axes.patches[0].get_alpha()  # few trades
    assert axes.patches[0].get_facecolor()[:3] != axes.patches[1].get_facecolor()[:3]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["long\n120", "short\n12"]
    ends = [path.vertices[:, 1].tolist() for path in axes.collections[0].get_paths()]
    assert ends == [[-0.5, 2.5], [-1.2, 1.8]]


def test_of_too_many_groups_those_with_the_most_trades_are_drawn():
    n = np.arange(100)
    drawn = figure(bars_with_intervals, "By group", [str(k) for k in n], *np.ones((3, 100)), n)
    shown = [label.get_text().split("\n")[0] for label in drawn.axes[0].get_xticklabels()]
    assert shown == [str(k) for k in range(60, 100)]


def test_a_ladder_has_a_bar_for_each_rung():
    drawn = figure(ladder, "Costs", ["none", "fees and slippage"], np.array([1_200.4, -300.0]))
    (axes,) = drawn.axes
    assert [bar.get_height() for bar in axes.patches] == [1_200.4, -300.0]
    assert [text.get_text() for text in axes.texts] == ["+1,200", "-300"]
    low, high = axes.get_ylim()
    assert low < -300 < 0 < 1_200.4 < high


def test_decay_is_drawn_where_it_is_known():
    mean = np.array([0.02, 0.01, math.nan])
    (axes,) = figure(decay_curve, "Decay", np.array([1, 5, 9]), mean, mean - 0.01, mean + 0.01).axes
    assert line(axes, "mean").get_xdata().tolist() == [1, 5]
    assert axes.collections[0].get_paths()[0].vertices[:, 1].max() == pytest.approx(0.03)


def test_trainings_follow_each_other_and_stages_are_written_where_they_change():
    sharpe, in_sample = np.array([1.0, math.nan, 0.4, 2.0]), np.array([3.0, 2.5, 2.0, 2.2])
    stages = ["DISCOVERY", "PAPER", "PAPER", "MATURE"]
    (axes,) = figure(trainings_chart, ["v1", "v2", "v3", "v4"], sharpe, in_sample, stages).axes
    np.testing.assert_array_equal(line(axes, "out-of-sample").get_ydata(), sharpe)
    np.testing.assert_array_equal(line(axes, "in-sample, mean").get_ydata(), in_sample)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["v1", "v2", "v3", "v4"]
    assert [(text.xy[0], text.get_text()) for text in axes.texts] == [(0, "DISCOVERY"), (3, "MATURE")]


def test_the_lower_half_of_the_ranks_is_told_apart():
    drawn = figure(overfitting_histogram, np.linspace(-2, 2, 5), np.array([1, 3, 1, 0]), probability=0.8)
    (axes,) = drawn.axes
    assert axes.get_title("left") == "Probability of backtest overfitting: 80.0%"
    below, above = (patch.get_data() for patch in axes.patches)
    assert (below.values.sum(), above.values.sum()) == (4, 1)
    assert below.edges[-1] == above.edges[0] == 0.0


NAN = np.full(3, math.nan)
NONE = np.empty(0)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (line_chart("Close", days(0), NONE), "Close: nothing to draw."),
        (line_chart("Close", days(1), np.ones(1)), "Close: nothing to draw."),
        (line_chart("Close", days(3), NAN), "Close: nothing to draw."),
        (equity_curve("Equity", days(1), np.ones(1), initial_capital=1.0), "Equity: nothing to draw."),
        (equity_curve("Equity", days(3), NAN, initial_capital=1.0), "Equity: nothing to draw."),
        (
            fan_chart("Fan", *a_fan(np.full((5, 3), math.nan)), **OF_TRADES, ruin_level=1.0, probability_of_ruin=0.0),
            "Fan: probability of ruin 0.0%: nothing to draw.",
        ),
        (trainings_chart([], NONE, NONE, []), "Sharpe ratio from training to training: nothing to draw."),
        (trials_histogram(NAN, name="Sharpe ratio"), "Sharpe ratio of the trials: nothing to draw."),
        (parameter_heat_map(None, name="profit"), "profit by two parameters: nothing to draw."),
        (bars_with_intervals("By side", ["long"], *np.ones((3, 1)), np.zeros(1, int)), "By side: nothing to draw."),
        (ladder("Costs", [], NONE), "Costs: nothing to draw."),
        (decay_curve("Decay", np.arange(3), NAN, NAN, NAN), "Decay: nothing to draw."),
        (overfitting_histogram(NONE, NONE, probability=0.5), "Probability of backtest overfitting: nothing to draw."),
    ],
)
def test_of_nothing_a_sentence_says_so(image, sentence):
    assert image.value == sentence


@pytest.mark.parametrize(
    "image",
    [
        equity_curve("Equity", days(3), np.full(3, 100.0), initial_capital=100.0),
        fan_chart("Fan", *a_fan(np.ones((5, 2))), **OF_TRADES, ruin_level=0.5, probability_of_ruin=0.0),
        trainings_chart(["v1"], np.ones(1), np.full(1, math.nan), ["PAPER"]),
        trials_histogram(np.ones(1), name="Sharpe ratio", chosen=1.0),
        trials_histogram(np.full(50, -3.0), name="Sharpe ratio"),
        ladder("Costs", ["none"], np.zeros(1)),
        bars_with_intervals("By side", ["long"], np.zeros(1), NAN[:1], NAN[:1], np.ones(1, int)),
        decay_curve("Decay", np.arange(2), np.zeros(2), np.zeros(2), np.zeros(2)),
        overfitting_histogram(np.array([-1.0, 0.0, 1.0]), np.array([3, 0]), probability=1.0),
        parameter_heat_map(a_noisy_grid(2), name="profit"),
    ],
)
def test_what_does_not_vary_is_drawn_all_the_same(image):
    assert drawing(image) is not None


@pytest.mark.parametrize("trials", [some_trials().head(0), some_trials().select("a", "e", "objective")])
def test_without_two_parameters_that_vary_there_is_no_grid(trials):
    names = [name for name in trials.columns if name != "objective"]
    assert parameter_grid(trials, names) is None
