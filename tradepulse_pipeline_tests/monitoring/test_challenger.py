from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from tradepulse_pipeline.backtest.result import Trades
from tradepulse_pipeline.market.series import MS_PER_DAY
from tradepulse_pipeline.monitoring import challenger as module
from tradepulse_pipeline.monitoring.challenger import FALSE_CHALLENGERS, find_challenger, look_due
from tradepulse_pipeline.monitoring.paper import Record, frame_of, paper_record
from tradepulse_pipeline.strategies.base import SignalSource
from tradepulse_pipeline_tests.monitoring.conftest import (
    N_TRAINED,
    SETTINGS,
    STRATEGY,
    candles,
    trained,
    with_parameters,
)

N_DAYS = N_TRAINED + 122
FIRST_DAY = trained()[2].data_end_ms // MS_PER_DAY


@cache
def frame():
    return frame_of(candles(N_DAYS), STRATEGY)


def made_up(daily_return, *, trades_per_day=1):
    """Return a record with these daily returns, and so many trades closed at noon of each day."""
    n_days = len(daily_return)
    start = int(np.searchsorted(frame().open_time_ms, FIRST_DAY * MS_PER_DAY))
    exits = np.repeat(start + 288 * np.arange(n_days) + 144, trades_per_day)
    whole = paper_record(frame(), SignalSource(STRATEGY, frame(), SETTINGS.side), trained()[2])
    one = {name: np.repeat(getattr(whole.trades, name)[:1], len(exits)) for name in Trades.__slots__}
    return Record(
        trades=Trades(**{**one, "exit_bar": exits}),
        open_trade=Trades.concatenated([]),
        day=FIRST_DAY + np.arange(n_days),
        daily_return=np.asarray(daily_return, dtype=np.float64),
    )


@pytest.fixture
def asked(monkeypatch):
    """Ask for a challenger among made-up records."""
    monkeypatch.setattr(module, "_N_RESAMPLES", 300)
    names = [one.name for one in STRATEGY.parameters]
    grid = {one.name: one.grid for one in STRATEGY.parameters}
    varied = next(name for name in names if len(grid[name]) > 3)

    def ask(own, rivals, *, seed=0):
        active = with_parameters(trained()[2], **{varied: grid[varied][0]})
        trials = [{**active.parameters, varied: value} for value in grid[varied][1 : len(rivals) + 1]]
        records = {trial[varied]: record for trial, record in zip(trials, rivals, strict=True)}
        monkeypatch.setattr(module, "run_parameters", lambda *args: records[args[3][varied]])
        found = find_challenger(frame(), None, active, own, trials, seed=seed)
        return None if found is None else ([trial == found.parameters for trial in trials].index(True), found)

    return ask


def returns(seed, n_days, mean=0.0):
    return np.random.default_rng(seed).normal(mean, 0.01, n_days)


def test_looks_double_and_spend_no_more_than_the_rate():
    assert [look_due(n) for n in (0, 29)] == [None, None]
    assert [look_due(n)[0] for n in (30, 59, 60, 119, 120, 240, 500)] == [30, 30, 60, 60, 120, 240, 480]
    spent = [look_due(30 * 2**k)[1] for k in range(9)]
    assert spent == sorted(spent, reverse=True)
    assert sum(spent) == pytest.approx(FALSE_CHALLENGERS * 0.9)
    assert spent[-1] > 1 / (module._N_RESAMPLES + 1)


def test_a_planted_better_trial_is_found(asked):
    own = made_up(returns(1, 70))
    rivals = [made_up(returns(2, 70)), made_up(own.daily_return + returns(3, 70, 0.01)), made_up(returns(4, 70))]
    place, found = asked(own, rivals)
    assert (place, found.n_days, found.n_trades) == (1, 60, 60)
    assert found.p_value < look_due(70)[1]
    assert "Over the first 60 days after the training another of the 3 best trials of its search" in found.sentence
    assert f"{np.prod(1 + rivals[1].daily_return[:60]) - 1:+.1%} in 60 trades" in found.sentence
    assert found.to_json_dict()["parameters"] == found.parameters


def test_between_two_looks_the_earlier_one_stands(asked):
    """What came after it is not looked at: asking each day is asking once."""
    own, better = returns(1, 119), returns(3, 119, 0.01)
    better[60:] -= 0.5
    answers = [asked(made_up(own[:n]), [made_up((own + better)[:n])]) for n in (60, 61, 90, 119)]
    assert answers[0] is not None
    assert all(one == answers[0] for one in answers)


def test_too_few_days_or_trades(asked):
    own, better = returns(1, 60), returns(1, 60) + returns(3, 60, 0.01)
    assert asked(made_up(own), [made_up(better)]) is not None
    assert asked(made_up(own[:29]), [made_up(better[:29])]) is None
    few = made_up(better)
    few = replace(few, trades=Trades(*(getattr(few.trades, name)[:29] for name in Trades.__slots__)))
    assert asked(made_up(own), [few]) is None
    assert asked(made_up(own), []) is None
    assert asked(made_up(own - 0.05), [made_up(better - 0.05)]) is None  # better, and yet it loses


def test_without_a_better_one_challengers_are_as_rare_as_stated(asked):
    """All are alike, watched for 120 days: three looks, which may spend 3.75 % together. Seeded."""
    n, found = 25, 0
    for seed in range(n):
        own, *others = (returns((seed, k), 120) for k in range(4))
        watched = [[made_up(one[:days]) for one in (own, *others)] for days in (30, 60, 120)]
        found += any(asked(first, rest, seed=seed) is not None for first, *rest in watched)
    assert found <= 3  # more in less than 2 % of such simulations


def test_on_candles_the_set_that_the_market_pays_beats_one_that_costs_eat():
    wide = {
        "pierce_depth": 0.003, "rejection_candles": 5.0, "volume_spike_threshold": 2.0, "reversal_candle_size": 0.75,
        "key_level_lookback": 100.0, "stop_distance": 2.0, "target_multiple": 3.5,
    }  # fmt: skip
    narrow = with_parameters(trained()[2], **{**wide, "stop_distance": 0.5})
    source = SignalSource(STRATEGY, frame(), SETTINGS.side)
    own = paper_record(frame(), source, narrow)
    found = find_challenger(frame(), source, narrow, own, [narrow.parameters, wide], seed=0)
    assert found.parameters.items() >= wide.items()
    assert (found.n_days, found.p_value < look_due(120)[1]) == (120, True)
    other_way = with_parameters(narrow, **wide)
    own = paper_record(frame(), source, other_way)
    assert find_challenger(frame(), source, other_way, own, [narrow.parameters, wide], seed=0) is None
