from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradepulse_pipeline.backtest.result import METRIC_NAMES
from tradepulse_pipeline.backtest.settings import BarRange
from tradepulse_pipeline.errors import InvalidInputError, SearchLimitError
from tradepulse_pipeline.optimizers import grid
from tradepulse_pipeline.optimizers.base import NO_MORE
from tradepulse_pipeline.optimizers.bayesian import costs_of
from tradepulse_pipeline.optimizers.deadline import Deadline
from tradepulse_pipeline.optimizers.genetic import MOST_GIVEN, POPULATION, initial_combinations
from tradepulse_pipeline.optimizers.objective import pareto_front
from tradepulse_pipeline.optimizers.pace import LONGEST_S, SHORTEST_S, Pace
from tradepulse_pipeline.optimizers.search import make_optimizer, search, search_batches
from tradepulse_pipeline.optimizers.settings import METHODS, SearchSettings
from tradepulse_pipeline.progress import ignore_progress
from tradepulse_pipeline.strategies.base import Parameter
from tradepulse_pipeline.strategies.space import ParameterSpace

WINDOW = BarRange(10, 90)
SETTLED_METHODS = tuple(method for method in METHODS if method != "auto")
NEVER = Deadline()


def space_of(*shape):
    return ParameterSpace(
        tuple(
            Parameter(
                name=f"p{k}",
                unit="",
                meaning="",
                kind="signal",
                grid=tuple(float(v) for v in range(n)),
                minimum=0.0,
                maximum=float(n),
            )
            for k, n in enumerate(shape)
        )
    )


class FakeEvaluator:
    """Scores combinations by functions of their grid indices; NaN scores have no trades."""

    def __init__(self, space, score, drawdown=lambda *index: 0.0):
        self.space = space
        self.score = score
        self.drawdown = drawdown
        self.batches = []

    def evaluate(self, combinations, window):
        assert window == WINDOW
        self.batches.append(combinations.tolist())
        indices = self.space.indices(combinations).tolist()
        scores = np.array([self.score(*index) for index in indices], dtype=np.float64)
        metrics = np.zeros((len(combinations), len(METRIC_NAMES)))
        metrics[:, METRIC_NAMES.index("net_profit")] = np.nan_to_num(scores, nan=1e9)
        metrics[:, METRIC_NAMES.index("max_drawdown")] = [self.drawdown(*index) for index in indices]
        metrics[:, METRIC_NAMES.index("sample_size")] = np.where(np.isnan(scores), 0, 50)
        return metrics


def bowl(*index):
    """Highest, at 0, where every index is 2."""
    return -sum((i - 2) ** 2 for i in index)


def away(*index):
    """Lowest, at 0, where every index is 9."""
    return sum((i - 9) ** 2 for i in index)


#: Profit against drawdown.
BOTH = {"method": "genetic", "further_objectives": ("drawdown",)}


def run(
    evaluator, method, *, budget=None, seed=0, deadline=NEVER, on_progress=ignore_progress, initial=NO_MORE, **more
):
    chosen = SearchSettings(method=method, budget=budget, seed=seed, **more)
    return search(evaluator, WINDOW, chosen, deadline=deadline, on_progress=on_progress, initial=initial)


@pytest.mark.parametrize("method", SETTLED_METHODS)
def test_a_budget_of_the_whole_space_tries_every_combination_once(method):
    space = space_of(3, 1, 4)
    trials = run(FakeEvaluator(space, bowl), method, budget=100)
    assert sorted(trials.combination.tolist()) == list(range(12))
    assert space.indices(trials.combination)[trials.best].tolist() == [2, 0, 2]


@pytest.mark.parametrize("method", SETTLED_METHODS)
def test_a_space_of_one_combination(method):
    trials = run(FakeEvaluator(space_of(1, 1), bowl), method)
    assert trials.combination.tolist() == [0]
    assert trials.best == 0


@pytest.mark.parametrize(("method", "budget"), [("random", 200), ("bayesian", 20), ("tpe", 60), ("genetic", 130)])
def test_trials_are_distinct_counted_and_reproducible(method, budget):
    space = space_of(6, 5, 7)
    first, second, other = (run(FakeEvaluator(space, bowl), method, budget=budget, seed=seed) for seed in (3, 3, 4))
    assert len(first) == len(set(first.combination.tolist())) == budget
    assert first.combination.min() >= 0
    assert first.combination.max() < space.size
    np.testing.assert_array_equal(first.combination, second.combination)
    np.testing.assert_array_equal(first.metrics, second.metrics)
    assert first.combination.tolist() != other.combination.tolist()


@pytest.mark.parametrize(
    ("method", "budget"), [("grid", None), ("random", 600), ("bayesian", 16), ("tpe", 40), ("genetic", 100)]
)
def test_workers_change_no_batch(method, budget):
    space = space_of(10, 10, 30)
    one, many = FakeEvaluator(space, bowl), FakeEvaluator(space, bowl)
    run(one, method, budget=budget, workers=1)
    run(many, method, budget=budget, workers=16)
    assert one.batches == many.batches


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("method", "budget"), [("bayesian", 40), ("tpe", 200), ("genetic", 300)])
def test_methods_that_learn_find_the_optimum_of_a_bowl(method, budget, seed):
    space = space_of(12, 13, 14)
    trials = run(FakeEvaluator(space, bowl), method, budget=budget, seed=seed)
    assert trials.objective[trials.best] >= -1  # the optimum or a direct neighbour: 7 of 2,184 combinations
    assert np.median(trials.objective[-10:]) > np.median(trials.objective[:10])


@pytest.mark.parametrize(("method", "budget"), [("bayesian", 30), ("tpe", 150), ("genetic", 150)])
def test_methods_that_learn_are_not_misled_by_an_invalid_region(method, budget):
    space = space_of(8, 8, 8)
    evaluator = FakeEvaluator(space, lambda a, b, c: math.nan if a < 2 else bowl(a, b, c))
    trials = run(evaluator, method, budget=budget)
    assert np.isnan(trials.objective).any()
    assert trials.objective[trials.best] >= -1


@pytest.mark.parametrize(
    ("method", "budget"), [("grid", None), ("random", 30), ("bayesian", 20), ("tpe", 30), ("genetic", 70)]
)
def test_without_a_valid_trial_there_is_no_best_one(method, budget):
    trials = run(FakeEvaluator(space_of(4, 4, 4), lambda *index: math.nan), method, budget=budget)
    assert trials.best is None
    assert np.isnan(trials.objective).all()
    assert len(trials) == min(budget or 64, 64)


@settings(max_examples=60)
@given(
    scores=st.lists(st.one_of(st.just(math.nan), st.integers(-3, 3)), min_size=24, max_size=24),
    method=st.sampled_from(["grid", "random"]),
    budget=st.integers(1, 30),
)
def test_the_winner_is_the_best_valid_trial_that_was_tried(scores, method, budget):
    table = np.array(scores, dtype=np.float64).reshape(2, 3, 4)
    space = space_of(2, 3, 4)
    trials = run(FakeEvaluator(space, lambda *index: table[index]), method, budget=budget)
    tried = [table.flat[c] for c in trials.combination]
    valid = [value for value in tried if not math.isnan(value)]
    assert (trials.best is None) == (not valid)
    if valid:
        assert tried[trials.best] == max(valid)
        assert trials.best == tried.index(max(valid))


@settings(max_examples=5)
@given(scores=st.lists(st.one_of(st.just(math.nan), st.floats(-1e6, 1e6)), min_size=36, max_size=36))
@pytest.mark.parametrize("method", ["bayesian", "tpe", "genetic"])
def test_methods_that_learn_take_any_scores_and_never_choose_an_invalid_trial(method, scores):
    table = np.array(scores).reshape(3, 3, 4)
    budget = 33 if method == "genetic" else 14  # beyond the genetic search's first, random generation
    trials = run(FakeEvaluator(space_of(3, 3, 4), lambda *index: table[index]), method, budget=budget)
    assert len(set(trials.combination.tolist())) == budget
    if trials.best is not None:
        assert table.flat[trials.combination[trials.best]] == np.nanmax(trials.objective)


def test_evolution_beats_random_draws_on_a_rugged_landscape():
    space = space_of(8, 8, 8, 8, 8)
    rng = np.random.default_rng(4)
    single, pair = rng.normal(size=(5, 8)), rng.normal(size=(8, 8))

    def score(*index):
        invalid = index[4] % 4 == 0
        return math.nan if invalid else sum(single[k, i] for k, i in enumerate(index)) + pair[index[0], index[1]]

    best = {
        method: [
            trials.objective[trials.best]
            for trials in (run(FakeEvaluator(space, score), method, budget=300, seed=seed) for seed in range(8))
        ]
        for method in ("random", "genetic")
    }
    assert np.mean(best["genetic"]) > np.mean(best["random"]) + np.std(best["random"])


def test_a_generation_is_a_population_of_valid_trials():
    evaluator = FakeEvaluator(space_of(8, 8, 8), lambda a, b, c: math.nan if a < 2 else bowl(a, b, c))
    trials = run(evaluator, "genetic", budget=200)
    n_valid = 0
    for batch in evaluator.batches[:-1]:
        assert len(batch) == POPULATION - n_valid % POPULATION
        n_valid += sum(combination >= 2 * 64 for combination in batch)
    assert sum(map(len, evaluator.batches)) == len(trials) == 200
    assert n_valid > 2 * POPULATION


def test_a_genetic_search_starts_from_what_it_is_given():
    space = space_of(20, 20, 20, 20)
    best = int(space.combinations(np.array([[2, 2, 2, 2]]))[0])
    initial = np.array([7, best, 7, 100_000])
    trials, again, without = (
        run(FakeEvaluator(space, bowl), "genetic", budget=100, initial=given) for given in (initial, initial, NO_MORE)
    )
    assert trials.combination[[0, 1, 3]].tolist() == [7, best, 100_000]
    assert len(set(trials.combination.tolist())) == 100
    assert trials.best == 1
    np.testing.assert_array_equal(trials.combination, again.combination)
    assert np.median(trials.objective[POPULATION:]) > np.median(without.objective[POPULATION:])


def test_a_search_for_several_objectives_is_distinct_counted_and_reproducible():
    space = space_of(6, 6, 7)
    first, second, other = (run(FakeEvaluator(space, bowl, away), **BOTH, budget=130, seed=seed) for seed in (3, 3, 4))
    assert len(first) == len(set(first.combination.tolist())) == 130
    assert first.objective.tolist() == [bowl(*index) for index in space.indices(first.combination).tolist()]
    np.testing.assert_array_equal(first.combination, second.combination)
    assert first.combination.tolist() != other.combination.tolist()
    assert first.best == first.objective.argmax()


def test_a_search_for_several_objectives_finds_what_one_objective_passes_by():
    space = space_of(12, 12, 12)
    indices = space.indices(np.arange(space.size)).tolist()
    front = np.flatnonzero(pareto_front(np.array([[bowl(*index), -away(*index)] for index in indices])))

    def share_found(**more):
        trials = [run(FakeEvaluator(space, bowl, away), budget=300, seed=seed, **more) for seed in range(4)]
        return np.mean([np.isin(front, one.combination).mean() for one in trials])

    both, one, random = share_found(**BOTH), share_found(method="genetic"), share_found(method="random")
    assert both > 1.3 * one
    assert both > 1.3 * random


def test_a_search_for_several_objectives_starts_from_what_it_is_given():
    space = space_of(20, 20, 20, 20)
    best = int(space.combinations(np.array([[2, 2, 2, 2]]))[0])
    trials = run(FakeEvaluator(space, bowl, away), **BOTH, budget=70, initial=np.array([7, best]))
    assert trials.combination[:2].tolist() == [7, best]
    assert len(set(trials.combination.tolist())) == 70
    assert trials.best == 1


def test_a_trial_that_is_invalid_in_a_further_objective_neither_wins_nor_counts_as_bred():
    space = space_of(8, 8, 8)
    evaluator = FakeEvaluator(space, bowl, lambda a, b, c: math.nan if a == 2 else away(a, b, c))
    trials = run(evaluator, **BOTH, budget=200)
    invalid = space.indices(trials.combination)[:, 0] == 2
    assert invalid.any()
    np.testing.assert_array_equal(np.isnan(trials.objective), invalid)
    assert trials.objective[trials.best] == trials.objective[~invalid].max()
    n_valid = 0
    for batch in evaluator.batches[:-1]:
        assert len(batch) == POPULATION - n_valid % POPULATION
        n_valid += np.count_nonzero(space.indices(np.array(batch))[:, 0] != 2)
    assert n_valid > 2 * POPULATION


@pytest.mark.parametrize("strange", [-1, 125])
def test_a_genetic_search_refuses_a_start_that_is_not_on_the_grid(strange):
    with pytest.raises(InvalidInputError, match=rf"found combinations \[{strange}\], the grid has 0 to 124"):
        run(FakeEvaluator(space_of(5, 5, 5), bowl), "genetic", initial=np.array([3, strange]))


def test_initial_combinations_are_the_first_different_parameter_sets_on_the_grid():
    space = space_of(5, 10)
    sets = [{"p0": 1, "p1": 2.0}, {"p0": 1.5, "p1": 2.0}, {"p0": 1.0}, {"p0": 0.0, "p1": 9.0}, {"p0": 1.0, "p1": 2.0}]
    assert initial_combinations(space, sets) == (12, 9)
    assert initial_combinations(space, map(space.values, range(50))) == tuple(range(MOST_GIVEN))


def test_the_grid_is_walked_lazily_and_in_order():
    optimizer = make_optimizer(space_of(10**4, 10**4, 10**4), SearchSettings(method="grid"))
    batches = [optimizer.ask() for _ in range(3)]
    assert [len(batch) for batch in batches] == [grid.CHUNK] * 3
    np.testing.assert_array_equal(np.concatenate(batches), np.arange(3 * grid.CHUNK))


def test_a_search_beyond_the_limit_is_refused_before_it_starts():
    evaluator = FakeEvaluator(space_of(10**4, 10**4, 10**4), bowl)
    with pytest.raises(SearchLimitError, match=r"1,000,000,000,000 combinations; .*max_combinations is 5,000,000"):
        run(evaluator, "grid")
    with pytest.raises(SearchLimitError, match=r"101 combinations; .*is 100"):
        run(evaluator, "random", budget=101, max_combinations=100)
    assert evaluator.batches == []


@pytest.mark.parametrize("method", ["random", "bayesian", "tpe", "genetic"])
def test_a_huge_space_is_no_obstacle_to_methods_with_a_budget(method):
    trials = run(FakeEvaluator(space_of(10**4, 10**4, 10**4), bowl), method, budget=12)
    assert len(set(trials.combination.tolist())) == 12


def ticking():
    """A clock that is one second further every time it is read."""
    seconds = itertools.count()
    return lambda: float(next(seconds))


def test_the_deadline_ends_a_search_between_batches():
    evaluator = FakeEvaluator(space_of(10, 10, 100), bowl)
    trials = run(evaluator, "random", budget=1_000, deadline=Deadline.after(3.0, ticking()))
    assert [len(batch) for batch in evaluator.batches] == [256, 256]
    assert len(trials) == 512
    assert trials.best is not None


class SlowClock:
    """Time passes by what is evaluated alone: so many seconds for each combination."""

    def __init__(self, seconds_each):
        self.now = 0.0
        self.seconds_each = seconds_each

    def __call__(self):
        return self.now


@pytest.mark.parametrize("seconds_each", [1e-6, 1e-4, 1e-3, 1e-2])
def test_a_pace_adapts_to_the_evaluations_and_leaves_nothing_out(seconds_each):
    clock = SlowClock(seconds_each)
    pace, seen, times = Pace(clock), [], []
    for first in range(0, 1_000_000, 250_000):
        for part in pace.parts(np.arange(first, first + 250_000)):
            clock.now += len(part) * seconds_each
            seen.append(part)
            times.append(len(part) * seconds_each)
    np.testing.assert_array_equal(np.concatenate(seen), np.arange(1_000_000))
    settled = sorted(times[10:])
    assert max(settled, default=0.0) <= LONGEST_S
    if seconds_each > 1e-6:  # else whole batches are quick
        assert settled[len(settled) // 2] >= SHORTEST_S / 2


def test_the_deadline_ends_a_search_within_a_batch():
    clock = SlowClock(1e-3)
    evaluator = FakeEvaluator(space_of(40, 50, 50), bowl)
    evaluate = evaluator.evaluate

    def slow(combinations, window):
        clock.now += len(combinations) * clock.seconds_each
        return evaluate(combinations, window)

    evaluator.evaluate = slow
    chosen = SearchSettings(method="grid")
    made = list(search_batches(evaluator, WINDOW, chosen, deadline=Deadline.after(20.0, clock), pace=Pace(clock)))
    assert 20_000 <= sum(map(len, made)) <= 21_000


def test_a_deadline_that_has_passed_leaves_no_trials():
    trials = run(FakeEvaluator(space_of(5, 5), bowl), "grid", deadline=Deadline(at=-math.inf))
    assert (len(trials), trials.best) == (0, None)
    assert trials.metrics.shape == (0, len(METRIC_NAMES))


def test_a_search_that_ends_with_the_time_is_complete():
    trials = run(FakeEvaluator(space_of(5, 5), bowl), "grid", deadline=Deadline.after(2.0, ticking()))
    assert len(trials) == 25


def test_no_limit_of_time_never_passes():
    assert Deadline.after(0.0, lambda: 1e300).at == math.inf
    assert not Deadline.after(0.0).has_passed


def test_progress_counts_trials_up_to_the_budget_with_the_best_so_far():
    told = []
    scores = np.random.default_rng(1).permutation(np.arange(1_000.0)).reshape(10, 10, 10)
    evaluator = FakeEvaluator(space_of(10, 10, 10), lambda *index: scores[index])
    trials = run(evaluator, "random", budget=700, on_progress=told.append)
    assert [progress.done for progress in told] == [256, 512, 700]
    assert {(progress.phase, progress.total, progress.unit) for progress in told} == {("search", 700, "trials")}
    assert [progress.best for progress in told] == [trials.objective[:done].max() for done in (256, 512, 700)]
    assert trials.best < 512  # so that the last batch has a lower best of its own


def test_progress_without_a_valid_trial_has_no_best():
    told = []
    run(FakeEvaluator(space_of(3, 3), lambda *index: math.nan), "grid", on_progress=told.append)
    assert [progress.best for progress in told] == [None]


@given(st.lists(st.one_of(st.just(math.nan), st.floats(-1e9, 1e9)), min_size=1, max_size=20))
def test_costs_are_finite_and_an_invalid_trial_costs_more_than_any_valid_one(objective):
    values = np.array(objective)
    costs, invalid = costs_of(values), np.isnan(values)
    assert np.isfinite(costs).all()
    np.testing.assert_array_equal(costs[~invalid], -values[~invalid])
    if invalid.any() and not invalid.all():
        assert costs[invalid].min() > costs[~invalid].max()
