"""Walk-forward on a market simple enough to be worked out by hand, through the real engine.

Daily candles open and close at 100. On an up day the high is 121, on a down day the low is 89. The strategy decides at
the close of every other day (``phase`` says which) with a stop at 90 and a target of 2 R, 120. A position that opens on
an up day earns 2 R that very day, one that opens on a down day loses 1 R; R is 1 % of equity and there are no costs, so
equity moves by +2 % or -1 % per trade.
"""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import replace
from typing import ClassVar

import numpy as np
import polars as pl
import pytest

from tradepulse_pipeline.backtest import evaluators
from tradepulse_pipeline.backtest.settings import AccountSettings, BarRange
from tradepulse_pipeline.errors import InsufficientHistoryError, InvalidInputError, SearchLimitError
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import MS_PER_DAY, Timeframe
from tradepulse_pipeline.optimizers.search import Trials
from tradepulse_pipeline.optimizers.settings import SearchSettings
from tradepulse_pipeline.strategies.base import Parameter, Strategy
from tradepulse_pipeline.strategies.decisions import LONG, Decisions, Exits
from tradepulse_pipeline.strategies.space import ParameterSpace
from tradepulse_pipeline.validation import trials as trials_module
from tradepulse_pipeline.validation import walk_forward
from tradepulse_pipeline.validation.plateau import neighbourhoods
from tradepulse_pipeline.validation.record import OutOfSampleRecord
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline.validation.trials import N_BEST, N_BLOCKS, NEIGHBOUR_COLUMNS, SearchResult, blocks_of_table
from tradepulse_pipeline.validation.walk_forward import LATEST, judge_windows, search_windows, train_windows
from tradepulse_pipeline.validation.windows import WindowSettings
from tradepulse_pipeline_tests.reference.trials import TrialsInMemory

DAY = Timeframe("1d")


def parameter(name, kind, *grid):
    return Parameter(name=name, unit="", meaning="", kind=kind, grid=grid, minimum=min(grid), maximum=max(grid))


class EveryOtherDay(Strategy):
    name: ClassVar[str] = "EVERY_OTHER_DAY"
    title = description = "Buys every other day."
    parameters = (parameter("phase", "signal", 0.0, 1.0), parameter("target_multiple", "exit", 2.0))
    indicators = ()

    def signals(self, prepared, parameters):
        bars = np.arange(int(parameters["phase"]), len(prepared), 2, dtype=np.int64)
        return Decisions.of(bars, LONG, prepared.close[bars], np.full(len(bars), 10.0))

    def exits(self, parameters):
        return Exits(stop_multiple=1.0, target="r", target_multiple=parameters["target_multiple"])


def frame_of(days):
    """Candles from a string with U for an up day, D for a down day and - for a day that hits nothing."""
    n = len(days)
    flat = np.full(n, 100.0)
    high = np.array([121.0 if day == "U" else 100.0 for day in days])
    low = np.array([89.0 if day == "D" else 100.0 for day in days])
    times = 19_723 * MS_PER_DAY + MS_PER_DAY * np.arange(n, dtype=np.int64)  # from 2024-01-01
    return IndicatorFrame.compute(Candles.from_arrays(DAY, times, flat, high, low, flat, np.ones(n)), ())


def settings_of(*, minimum_trades=1, reoptimise=True, max_runtime_seconds=0.0, method="grid", workers=1, **account):
    return TrainingSettings(
        account=AccountSettings(**{"fee_rate": 0.0, "slippage": 0.0, **account}),
        search=SearchSettings(
            method=method, minimum_trades=minimum_trades, max_runtime_seconds=max_runtime_seconds, workers=workers
        ),
        windows=WindowSettings(train_days=6, test_days=5, gap_days=1, step_days=5, reoptimise=reoptimise),
    )


#             0         1
#     days:   0123456789012345
BY_HAND = "DUDUDUUDUDUUDUUU"
# Window 0 trains on days 0-5. Phase 0 enters on days 1, 3, 5 (all up), phase 1 on 2, 4 (down): phase 0 is chosen.
#   It is tested on days 7-10: one trade, on day 9 (down): -1 %.
# Window 1 trains on days 5-10. Phase 0 enters on 7, 9 (down), phase 1 on 6, 8, 10 (up): phase 1 is chosen.
#   It is tested on days 12-15: one trade, on day 14 (up): +2 %.
# The latest train window is days 10-15. Phase 0 enters on 11, 13, 15 (up), phase 1 on 12 (down), 14 (up): phase 0.
STRATEGY = EveryOtherDay()


def trained(frame, settings):
    return judge_windows(frame, STRATEGY, settings, search_windows(frame, STRATEGY, settings))


def searched(frame, settings, strategy=STRATEGY):
    """What the searches came to, and the table of all trials."""
    keeper = TrialsInMemory(ParameterSpace(strategy.parameters))
    return search_windows(frame, strategy, settings, keeper=keeper), keeper.table()


def test_search_by_hand():
    result, trials = searched(frame_of(BY_HAND), settings_of())
    assert train_windows(frame_of(BY_HAND), settings_of().windows) == {LATEST: (10, 16), 1: (5, 11), 0: (0, 6)}
    assert (result.total_trials, result.invalid_trials, result.is_complete, result.not_searched) == (6, 0, True, ())
    found = trials.select("window", "trial", "combination", "phase", "target_multiple", "sample_size")
    assert found.rows() == [
        (-1, 0, 0, 0.0, 2.0, 3.0),
        (-1, 1, 1, 1.0, 2.0, 2.0),
        (0, 0, 0, 0.0, 2.0, 3.0),
        (0, 1, 1, 1.0, 2.0, 2.0),
        (1, 0, 0, 0.0, 2.0, 2.0),
        (1, 1, 1, 1.0, 2.0, 3.0),
    ]
    up_3, up_down, down_2 = 10_000 * (1.02**3 - 1), 10_000 * (1.02 * 0.99 - 1), 10_000 * (0.99**2 - 1)
    expected = [up_3, up_down, up_3, down_2, down_2, up_3]
    assert trials["objective"].to_list() == pytest.approx(expected, rel=1e-12)
    # A profit factor without any losing trade is infinite: null.
    assert trials["profit_factor"].is_null().to_list() == [True, False, True, False, False, True]


def test_record_by_hand():
    record = trained(frame_of(BY_HAND), settings_of())
    metrics = record.metrics
    assert metrics.net_profit == pytest.approx(98.0)
    assert metrics.total_return == pytest.approx(0.99 * 1.02 - 1)
    assert metrics.annualized_return == pytest.approx((0.99 * 1.02) ** (365 / 8) - 1)
    daily = [0.0, 0.0, -0.01, 0.0, 0.0, 0.0, 0.02, 0.0]
    assert metrics.sharpe_ratio == pytest.approx(statistics.mean(daily) / statistics.stdev(daily) * math.sqrt(365))
    assert metrics.max_drawdown == pytest.approx(0.01)
    assert (metrics.sample_size, metrics.win_rate, metrics.exposure) == (2, 0.5, 2 / 8)
    assert record.daily["daily_return"].to_list() == pytest.approx(daily)
    assert record.daily["equity"].to_list() == pytest.approx([10_000] * 2 + [9_900] * 4 + [10_098] * 2)
    assert [f"{date:%m-%d}" for date in record.daily["date"]] == [
        "01-08", "01-09", "01-10", "01-11", "01-13", "01-14", "01-15", "01-16",
    ]  # fmt: skip
    assert record.is_complete
    assert record.is_out_of_sample
    assert record.not_searched == ()
    assert (record.total_trials, record.latest_trials) == (6, 2)
    assert record.chosen_parameters == {"phase": 0.0, "target_multiple": 2.0}
    assert record.latest.in_sample.total_return == pytest.approx(1.02**3 - 1)
    assert record.in_sample.total_return == pytest.approx(1.02**3 - 1)
    assert math.isnan(record.in_sample.profit_factor)
    assert record.is_overfit is True
    in_sample_annual = 1.02 ** (3 * 365 / 6) - 1
    assert record.walk_forward_efficiency == pytest.approx(metrics.annualized_return / in_sample_annual)
    assert record.z_score == pytest.approx(0.005 / (statistics.stdev([-0.01, 0.02]) / math.sqrt(2)))
    assert record.cost_per_trade_r == pytest.approx(0.0)


def test_windows_and_trades_by_hand():
    record = trained(frame_of(BY_HAND), settings_of())
    first, second = record.windows
    assert (first.window, first.status, first.n_trials, first.chosen.parameters["phase"]) == (0, "judged", 2, 0.0)
    assert first.out_of_sample.net_profit == pytest.approx(-100.0)
    assert second.chosen.parameters["phase"] == 1.0
    assert second.out_of_sample.net_profit == pytest.approx(198.0)  # 2 % of the 9,900 that the first window left
    table = record.windows_table
    assert table["phase"].to_list() == [0.0, 1.0]
    assert table["out_of_sample_sample_size"].to_list() == [1, 1]
    assert f"{table['test_start'][0]:%Y-%m-%d %H:%M %Z}" == "2024-01-08 00:00 UTC"
    loss, win = record.trades.to_dicts()
    assert (loss["window"], loss["side"], loss["exit_reason"]) == (0, "long", "STOP_LOSS")
    assert [f"{loss[k]:%d}" for k in ("decision_time", "entry_time", "exit_time")] == ["09", "10", "10"]
    assert (loss["entry_price"], loss["exit_price"], loss["stop_price"], loss["target_price"]) == (100, 90, 90, 120)
    assert (win["window"], win["exit_reason"], f"{win['entry_time']:%d}") == (1, "TAKE_PROFIT", "15")
    assert [loss["pnl"], win["pnl"]] == pytest.approx([-100, 198])
    assert [loss["r_multiple"], win["r_multiple"]] == pytest.approx([-1, 2])
    assert [loss["trade_return"], win["trade_return"]] == pytest.approx([-0.01, 0.02])


def test_costs_per_trade_are_told_in_r():
    record = trained(frame_of(BY_HAND), settings_of(fee_rate=0.001, initial_capital=5_000.0))
    # 0.1 % of about 100 on both sides of each trade, of the 10 that are risked: (0.1 + 0.09) / 10, (0.1 + 0.12) / 10
    assert record.cost_per_trade_r == pytest.approx((0.019 + 0.022) / 2)
    assert record.daily["equity"][0] == 5_000.0


def test_a_window_without_a_valid_trial_stays_flat_and_counts():
    # Window 1 has no day that hits anything: its trades all end with the window and there is one of them each.
    frame = frame_of("DUDUDU-----UDUUU")
    record = trained(frame, settings_of(minimum_trades=2))
    assert [w.status for w in record.windows] == ["judged", "no valid trial"]
    flat = record.windows[1]
    assert (flat.n_trials, flat.chosen, flat.out_of_sample) == (2, None, None)
    assert record.daily.height == 8
    assert record.daily["equity"].to_list()[4:] == [record.daily["equity"][3]] * 4
    assert record.windows_table["phase"].to_list() == [0.0, None]
    assert record.is_complete


def test_nothing_that_qualifies_is_a_result_and_no_error():
    result = search_windows(frame_of(BY_HAND), STRATEGY, settings_of(minimum_trades=4))
    assert result.invalid_trials == 6
    record = judge_windows(frame_of(BY_HAND), STRATEGY, settings_of(minimum_trades=4), result)
    assert set(record.metrics) == {0.0}
    assert record.chosen_parameters is record.latest is record.in_sample is None
    assert (record.latest_trials, record.total_trials) == (2, 6)
    assert record.z_score is record.p_value is record.is_overfit is record.walk_forward_efficiency is None
    assert record.trades.height == 0
    assert record.daily["equity"].to_list() == [10_000.0] * 8
    assert [w.status for w in record.windows] == ["no valid trial"] * 2
    assert record.windows_table.schema["out_of_sample_net_profit"] == pl.Float64
    again = OutOfSampleRecord.from_json_dict(record.to_json_dict(), trades=record.trades, daily=record.daily)
    assert again.to_json_dict() == record.to_json_dict()


def test_fixed_parameters_run_everywhere_and_are_not_called_out_of_sample():
    frame, settings = frame_of(BY_HAND), settings_of(reoptimise=False)
    result = search_windows(frame, STRATEGY, settings)
    assert [search.window for search in result.searches] == [LATEST]
    record = judge_windows(frame, STRATEGY, settings, result)
    assert not record.is_out_of_sample
    assert record.is_complete
    assert [w.chosen.parameters["phase"] for w in record.windows] == [0.0, 0.0]
    # Phase 0 enters on day 9 (down) and on days 13 and 15 (up).
    assert record.metrics.total_return == pytest.approx(0.99 * 1.02**2 - 1)
    returns = [w.chosen.in_sample.total_return for w in record.windows]
    assert returns == pytest.approx([1.02**3 - 1, 0.99**2 - 1])
    assert record.latest.in_sample.total_return == pytest.approx(1.02**3 - 1)


class StoppedClock:
    """Stands in for the time: over after a number of looks at it."""

    def __init__(self, looks):
        self.looks = looks

    def __call__(self):
        self.looks -= 1
        return 0.0 if self.looks >= 0 else 1e9


@pytest.mark.parametrize(
    ("looks", "searched", "statuses"),
    [
        (1, [], ["not searched", "not searched"]),
        (2, [-1], ["not searched", "not searched"]),
        (4, [-1, 1], ["not searched", "judged"]),
        (7, [-1, 0, 1], ["judged", "judged"]),
    ],
)
def test_when_time_runs_out_the_latest_windows_are_there_and_the_rest_is_listed(monkeypatch, looks, searched, statuses):
    frame, settings = frame_of(BY_HAND), settings_of(max_runtime_seconds=60.0)
    clock = StoppedClock(looks)
    after = walk_forward.Deadline.after
    monkeypatch.setattr(walk_forward.Deadline, "after", lambda seconds: after(seconds, clock))
    result = search_windows(frame, STRATEGY, settings)
    assert [search.window for search in result.searches if search.n_trials] == searched
    assert result.is_complete == (searched == [-1, 0, 1])
    assert result.not_searched == tuple(index for index in (-1, 0, 1) if index not in searched)
    record = judge_windows(frame, STRATEGY, settings, result)
    assert [w.status for w in record.windows] == statuses
    assert record.is_complete == result.is_complete
    assert record.not_searched == tuple(index for index in (0, 1) if index not in searched)
    assert record.daily.height == 4 * statuses.count("judged")
    assert (record.latest is not None) == (LATEST in searched)
    if statuses == ["not searched", "judged"]:
        assert record.metrics.net_profit == pytest.approx(200.0)


def test_a_search_that_broke_off_within_a_window_is_incomplete_but_judged():
    frame, settings = frame_of(BY_HAND), settings_of()
    result = search_windows(frame, STRATEGY, settings)
    latest, broken_off, last = result.searches
    result = replace(result, searches=(latest, replace(broken_off, n_trials=1), last))
    record = judge_windows(frame, STRATEGY, settings, result)
    assert not record.is_complete
    assert [w.status for w in record.windows] == ["judged", "judged"]
    assert [w.n_trials for w in record.windows] == [1, 2]


def test_the_record_comes_back_from_json_and_tables(tmp_path):
    record = trained(frame_of("DUDUDU-----UDUUU"), settings_of(minimum_trades=2))
    text = json.dumps(record.to_json_dict(), allow_nan=False)
    record.trades.write_parquet(tmp_path / "trades.parquet")
    record.daily.write_parquet(tmp_path / "daily.parquet")
    again = OutOfSampleRecord.from_json_dict(
        json.loads(text),
        trades=pl.read_parquet(tmp_path / "trades.parquet"),
        daily=pl.read_parquet(tmp_path / "daily.parquet"),
    )
    assert again.to_json_dict() == record.to_json_dict()
    assert again.windows[0].chosen.parameters == record.windows[0].chosen.parameters
    assert again.metrics == record.metrics
    assert again.trades.equals(record.trades)
    assert again.daily.equals(record.daily)


def test_what_was_found_comes_back_from_json_and_parquet_with_the_same_record(tmp_path):
    frame, settings = frame_of(BY_HAND), settings_of()
    result = search_windows(frame, STRATEGY, settings)
    result.best.write_parquet(tmp_path / "best.parquet")
    text = json.dumps(result.to_json_dict(), allow_nan=False)
    again = SearchResult.from_json_dict(json.loads(text), best=pl.read_parquet(tmp_path / "best.parquet"))
    record = judge_windows(frame, STRATEGY, settings, again)
    assert record.to_json_dict() == trained(frame, settings).to_json_dict()


def test_trials_of_another_grid_are_refused():
    frame, settings = frame_of(BY_HAND), settings_of()
    result = search_windows(frame, STRATEGY, settings)
    with pytest.raises(InvalidInputError, match=r"Combination 0 .*'phase': 5\.0.* grid it is .*'phase': 0\.0"):
        judge_windows(frame, STRATEGY, settings, replace(result, best=result.best.with_columns(phase=5.0)))
    with pytest.raises(InvalidInputError, match=r"Combination 99 .*the grid has changed"):
        judge_windows(frame, STRATEGY, settings, replace(result, best=result.best.with_columns(combination=99)))


def test_trials_of_other_windows_are_refused():
    frame, settings = frame_of(BY_HAND), settings_of()
    result = search_windows(frame, STRATEGY, settings)
    strange = replace(result, searches=(*result.searches, replace(result.searches[0], window=7)))
    with pytest.raises(InvalidInputError, match=r"a window 7; .* have windows \[-1, 0, 1\]"):
        judge_windows(frame, STRATEGY, settings, strange)


def test_progress_runs_over_all_searches_with_the_best_of_all():
    told = []
    frame, settings = frame_of(BY_HAND), settings_of()
    result = search_windows(frame, STRATEGY, settings, told.append)
    assert [(p.phase, p.done, p.total, p.unit) for p in told] == [("search", n, 6, "trials") for n in (2, 4, 6)]
    assert told[-1].best == result.best["objective"].max()
    assert told[0].detail == "train window 1 of 3"
    told.clear()
    judge_windows(frame, STRATEGY, settings, result, told.append)
    assert [(p.phase, p.done, p.total, p.unit) for p in told] == [
        ("walk_forward", 1, 2, "windows"),
        ("walk_forward", 2, 2, "windows"),
    ]


def test_what_cannot_be_done_is_refused_before_anything_is_evaluated(monkeypatch):
    monkeypatch.setattr(evaluators, "TabledEvaluator", None)
    with pytest.raises(InsufficientHistoryError, match="10 days long; one walk_forward window needs 11 days"):
        search_windows(frame_of(BY_HAND[:10]), STRATEGY, settings_of())
    small = TrainingSettings(search=SearchSettings(method="grid", max_combinations=1))
    with pytest.raises(SearchLimitError, match="2 combinations; the limit max_combinations is 1"):
        search_windows(frame_of(BY_HAND), STRATEGY, small)


class ManyPhases(EveryOtherDay):
    """The same with enough parameter sets for the workers to share."""

    parameters = (
        parameter("phase", "signal", *(float(n) for n in range(20))),
        parameter("target_multiple", "exit", *(0.5 + n / 8 for n in range(16))),
    )


@pytest.mark.parametrize(
    ("method", "budget"), [("grid", None), ("random", 300), ("bayesian", 16), ("tpe", 40), ("genetic", 100)]
)
def test_the_number_of_workers_changes_nothing(method, budget):
    rng = np.random.default_rng(1)
    frame = frame_of(rng.choice(list("UD-"), size=120))
    strategy = ManyPhases()
    results = []
    for workers in (1, 4):
        search = SearchSettings(method=method, minimum_trades=5, workers=workers, budget=budget, seed=5)
        settings = TrainingSettings(search=search, windows=WindowSettings(train_days=60, test_days=40))
        result, trials = searched(frame, settings, strategy)
        results.append((trials, judge_windows(frame, strategy, settings, result).to_json_dict()))
    assert results[0][0].equals(results[1][0])
    assert results[0][1] == results[1][1]


def test_only_the_latest_train_window_is_searched_from_what_earlier_trainings_found():
    frame = frame_of(np.random.default_rng(3).choice(list("UD-"), size=150))
    initial = (319, 5)
    without = TrainingSettings(
        search=SearchSettings(method="genetic", budget=40, minimum_trades=1),
        windows=WindowSettings(train_days=60, test_days=40),
    )
    given = replace(without, initial=initial)
    first, second = (searched(frame, settings, ManyPhases())[1] for settings in (without, given))
    latest = second.filter(second["window"] == LATEST)
    assert latest["combination"].head(2).to_list() == list(initial)
    assert first.filter(first["window"] == LATEST)["combination"].to_list() != latest["combination"].to_list()
    earlier = [trials.filter(trials["window"] != LATEST) for trials in (first, second)]
    assert earlier[0].height == 80
    assert earlier[0].equals(earlier[1])


@pytest.mark.parametrize("n_best", [20, 1])
def test_several_objectives_mark_the_pareto_front_of_each_window(monkeypatch, n_best):
    monkeypatch.setattr(trials_module, "N_BEST", n_best)
    frame = frame_of(np.random.default_rng(6).choice(list("UD-"), size=150))
    search = SearchSettings(method="genetic", further_objectives=("drawdown",), budget=60, minimum_trades=20)
    settings = TrainingSettings(search=search, windows=WindowSettings(train_days=60, test_days=40))
    keeper = TrialsInMemory(ParameterSpace(ManyPhases.parameters))
    result = search_windows(frame, ManyPhases(), settings, keeper=keeper)
    assert 0 < result.invalid_trials < result.total_trials
    tables = result.best.partition_by("window")
    assert len(tables) == 3
    for table, every in zip(tables, keeper.table().partition_by("window"), strict=True):
        valid = every.filter(pl.col("objective").is_not_null()).sort("objective", "trial", descending=[True, False])
        points = list(zip(valid["net_profit"], -valid["max_drawdown"], strict=True))
        front = [
            combination
            for combination, (profit, drawdown) in zip(valid["combination"], points, strict=True)
            if not any(p >= profit and d >= drawdown and (p, d) != (profit, drawdown) for p, d in points)
        ]
        assert table.filter("on_pareto_front")["combination"].to_list() == front
        assert 1 < len(front) < valid.height
        ranked, beyond = table.head(n_best), table.slice(n_best)
        assert ranked["rank"].to_list() == list(range(1, len(ranked) + 1))
        assert ranked["trial"].to_list() == valid["trial"].head(n_best).to_list()
        assert beyond["rank"].is_null().all()
        assert beyond["on_pareto_front"].all()
    record = judge_windows(frame, ManyPhases(), settings, result)
    assert record.latest.in_sample.net_profit == tables[0]["objective"].max()
    for window, table in zip(record.windows, tables[1:], strict=True):
        assert window.chosen.in_sample.net_profit == table["objective"].max()


def test_windows_that_were_not_searched_leave_the_front_of_the_others(monkeypatch):
    search = SearchSettings(method="genetic", further_objectives=("drawdown",), minimum_trades=1, max_runtime_seconds=9)
    clock, after = StoppedClock(3), walk_forward.Deadline.after
    monkeypatch.setattr(walk_forward.Deadline, "after", lambda seconds: after(seconds, clock))
    result = search_windows(frame_of(BY_HAND), STRATEGY, replace(settings_of(), search=search))
    assert result.best["window"].to_list() == [LATEST, LATEST]
    # Phase 0 wins three times; phase 1 loses and wins: it earns less and it alone has a drawdown.
    assert result.best.sort("combination")["on_pareto_front"].to_list() == [True, False]


def test_a_single_objective_has_no_front():
    assert "on_pareto_front" not in search_windows(frame_of(BY_HAND), STRATEGY, settings_of()).best.columns


def test_a_random_search_draws_the_same_parameter_sets_in_every_window():
    rng = np.random.default_rng(2)
    settings = TrainingSettings(
        search=SearchSettings(budget=30, minimum_trades=1), windows=WindowSettings(train_days=60, test_days=40)
    )
    _, trials = searched(frame_of(rng.choice(list("UD-"), size=150)), settings, ManyPhases())
    draws = [table["combination"].to_list() for table in trials.partition_by("window")]
    assert len(draws) == 3
    assert draws[0] == draws[1] == draws[2]
    assert len(set(draws[0])) == 30


WINDOWS = WindowSettings(train_days=60, test_days=40)


def test_the_best_trials_are_the_highest_of_all_and_the_earlier_of_equal_ones():
    frame = frame_of(np.random.default_rng(6).choice(list("UD-"), size=150))
    settings = TrainingSettings(search=SearchSettings(method="grid", minimum_trades=25), windows=WINDOWS)
    result, trials = searched(frame, settings, ManyPhases())
    assert 0 < result.invalid_trials < result.total_trials == trials.height == 3 * 320
    valid = trials.filter(pl.col("objective").is_not_null())
    assert result.invalid_trials == trials.height - valid.height
    assert result.best_net_profit == valid["net_profit"].max()
    for search in result.searches:
        expected = (
            valid.filter(pl.col("window") == search.window)
            .sort("objective", "trial", descending=[True, False])
            .head(N_BEST)
        )
        best = result.best.filter(pl.col("window") == search.window)
        assert best["rank"].to_list() == list(range(1, N_BEST + 1))
        assert best.drop("rank", *NEIGHBOUR_COLUMNS).equals(expected)


#: How many days of ten a parameter set trades: a lone spike, a hill, and a corner that never trades.
LANDSCAPE = np.array(
    [
        [1, 1, 1, 1, 1, 1],
        [1, 9, 1, 1, 1, 1],
        [1, 1, 1, 6, 6, 6],
        [1, 1, 1, 6, 6, 6],
        [0, 1, 1, 6, 6, 6],
    ]
)
SPIKE, HILL = 1 * 6 + 1, 3 * 6 + 4


class OnALandscape(EveryOtherDay):
    """Buys on so many days of ten as the landscape says; where all days are up, each trade earns 2 R."""

    parameters = (
        parameter("row", "signal", *(float(n) for n in range(5))),
        parameter("column", "signal", *(float(n) for n in range(6))),
    )

    def signals(self, prepared, parameters):
        height = LANDSCAPE[int(parameters["row"]), int(parameters["column"])]
        bars = np.flatnonzero(np.arange(len(prepared)) % 10 < height)
        return Decisions.of(bars, LONG, prepared.close[bars], np.full(len(bars), 10.0))

    def exits(self, parameters):
        return Exits(stop_multiple=1.0, target="r", target_multiple=2.0)


def on_a_landscape(selection, **asked):
    """Frame, strategy and settings of a search whose windows all see the landscape."""
    search = SearchSettings(**{"method": "grid", "minimum_trades": 1, "selection": selection, **asked})
    return frame_of("U" * 150), OnALandscape(), TrainingSettings(search=search, windows=WINDOWS)


@pytest.mark.parametrize(("selection", "chosen", "kept"), [("best", SPIKE, 0.0), ("plateau", HILL, 1.0)])
@pytest.mark.parametrize("n_best", [20, 3])
def test_the_best_is_the_spike_and_the_plateau_the_hill(monkeypatch, n_best, selection, chosen, kept):
    monkeypatch.setattr(trials_module, "N_BEST", n_best)  # with 3, the top of the hill is not among the best
    frame, strategy, settings = on_a_landscape(selection)
    result, trials = searched(frame, settings, strategy)
    assert [search.n_valid for search in result.searches] == [29, 29, 29]
    for table, every in zip(result.best.partition_by("window"), trials.partition_by("window"), strict=True):
        assert table["rank"].to_list() == list(range(1, n_best + 1))
        assert table["trial"].to_list() == table["combination"].to_list()
        by_objective = every.sort("objective", "trial", descending=[True, False], nulls_last=True)["combination"]
        assert table["combination"].to_list() == [chosen, *(n for n in by_objective if n != chosen)][:n_best]
        assert table.drop("rank", *NEIGHBOUR_COLUMNS).head(1).equals(every.filter(pl.col("combination") == chosen))
        (first, *others) = table.select(NEIGHBOUR_COLUMNS).rows()
        around = every["objective"].gather([chosen, chosen - 6, chosen - 1, chosen + 1, chosen + 6])
        assert first == pytest.approx((around.mean(), around.min(), kept))
        assert set(others) == {(None, None, None)}
    record = judge_windows(frame, strategy, settings, result)
    assert [record.latest.combination, *(window.chosen.combination for window in record.windows)] == [chosen] * 3


def test_the_plateau_of_a_search_that_was_cut_off_is_that_of_the_trials_made(monkeypatch):
    clock, after = StoppedClock(2), walk_forward.Deadline.after
    monkeypatch.setattr(walk_forward.Deadline, "after", lambda seconds: after(seconds, clock))
    monkeypatch.setattr(walk_forward.Pace, "parts", lambda _, batch: np.split(batch, [18]))  # one row of the hill
    frame, strategy, settings = on_a_landscape("plateau", max_runtime_seconds=60.0)
    result, trials = searched(frame, settings, strategy)
    assert [search.n_trials for search in result.searches] == [18, 0, 0]
    objective = np.append(trials["objective"].to_numpy(), np.full(12, np.nan))
    expected = np.nanargmax(neighbourhoods(objective, LANDSCAPE.shape).mean)
    assert expected not in (SPIKE, HILL)
    first = result.best.row(0, named=True)
    assert (first["rank"], first["combination"]) == (1, expected)
    record = judge_windows(frame, strategy, settings, result)
    assert record.latest.combination == expected
    assert [window.status for window in record.windows] == ["not searched", "not searched"]


def test_a_plateau_where_no_trial_is_valid_chooses_nothing():
    frame, strategy, settings = on_a_landscape("plateau", minimum_trades=1_000)
    result = search_windows(frame, strategy, settings)
    assert result.best.height == 0
    assert {result.best.schema[name] for name in NEIGHBOUR_COLUMNS} == {pl.Float64}
    assert judge_windows(frame, strategy, settings, result).latest is None


def test_only_a_grid_knows_the_neighbours():
    best = search_windows(*on_a_landscape("best", method="random", budget=20)).best
    assert best["window"].unique(maintain_order=True).to_list() == [LATEST, 0, 1]
    assert best.select(pl.col(NEIGHBOUR_COLUMNS).is_null().all()).row(0) == (True, True, True)


def test_moments_by_block_of_every_parameter_set_are_those_of_its_daily_returns():
    frame = frame_of(np.random.default_rng(7).choice(list("UD-"), size=165))
    settings = TrainingSettings(search=SearchSettings(budget=30, minimum_trades=1), windows=WINDOWS)
    keeper = TrialsInMemory(ParameterSpace(ManyPhases.parameters))
    search_windows(frame, ManyPhases(), settings, keeper=keeper)
    blocks = keeper.blocks()
    assert blocks["combination"].to_list() == sorted(set(keeper.table()["combination"]))
    evaluator = evaluators.PlainEvaluator(frame, ManyPhases())
    for combination, sums, squares in zip(*blocks_of_table(blocks), strict=True):
        equity = evaluator.run(combination, BarRange(0, len(frame))).equity
        returns = np.diff(equity, prepend=settings.account.initial_capital)
        returns /= np.concatenate([[settings.account.initial_capital], equity[:-1]])
        by_block = [returns[np.arange(len(frame)) * N_BLOCKS // len(frame) == k] for k in range(N_BLOCKS)]
        assert sums == pytest.approx([part.sum() for part in by_block], rel=1e-9, abs=1e-12)
        assert squares == pytest.approx([(part**2).sum() for part in by_block], rel=1e-9, abs=1e-12)


class Killed(BaseException):
    """What ends a process."""


class KilledAfter(TrialsInMemory):
    """Keeps trials until so many are kept."""

    def __init__(self, space, most):
        super().__init__(space)
        self.most = most

    def keep(self, window, trials):
        n_kept = sum(len(part) for parts in self._trials.values() for part in parts)
        if n_kept + len(trials) > self.most:
            super().keep(window, trials.take(slice(self.most - n_kept)))
            raise Killed
        super().keep(window, trials)


@pytest.mark.parametrize(
    "asked",
    [
        {"method": "grid"},
        {"method": "grid", "selection": "plateau"},
        {"method": "random", "budget": 300},
        {"method": "tpe", "budget": 40},
        {"method": "genetic", "budget": 100},
        {"method": "genetic", "budget": 100, "further_objectives": ("drawdown", "sharpe")},
    ],
)
@pytest.mark.parametrize("share", [0.0, 0.1, 1 / 3, 0.5, 0.9])
def test_a_killed_search_goes_on_where_it_was_and_ends_with_the_same_result(asked, share):
    frame = frame_of(np.random.default_rng(8).choice(list("UD-"), size=150))
    settings = TrainingSettings(search=SearchSettings(minimum_trades=5, **asked), windows=WINDOWS)
    whole, trials = searched(frame, settings, ManyPhases())
    keeper = KilledAfter(ParameterSpace(ManyPhases.parameters), round(share * trials.height))
    with pytest.raises(Killed):
        search_windows(frame, ManyPhases(), settings, keeper=keeper)
    n_known, keeper.most = round(share * trials.height), math.inf
    told = []
    again = search_windows(frame, ManyPhases(), settings, told.append, keeper=keeper)
    assert keeper.table().equals(trials)
    assert again.best.equals(whole.best)
    assert again.to_json_dict() == whole.to_json_dict()
    assert told[-1].done == told[-1].total == trials.height > n_known


def test_recalled_trials_of_other_combinations_are_refused():
    frame, settings = frame_of(BY_HAND), settings_of()
    space = ParameterSpace(STRATEGY.parameters)
    keeper = TrialsInMemory(space)
    keeper.keep(LATEST, Trials(combination=np.array([1]), metrics=np.zeros((1, 18)), objective=np.zeros(1)))
    with pytest.raises(InvalidInputError, match="of other combinations than this search asks for"):
        search_windows(frame, STRATEGY, settings, keeper=keeper)
