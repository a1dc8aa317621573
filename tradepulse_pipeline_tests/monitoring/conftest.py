"""A configuration of a strategy on made-up candles, with an out-of-sample record of its own."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from tradepulse_pipeline.backtest.settings import AccountSettings
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import MS_PER_DAY, SeriesKey
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate
from tradepulse_pipeline.monitoring.paper import Subject
from tradepulse_pipeline.optimizers.settings import SearchSettings
from tradepulse_pipeline.strategies.registry import get_strategy
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline.validation.walk_forward import judge_windows, search_windows
from tradepulse_pipeline.validation.windows import WindowSettings

SERIES = SeriesKey.parse("binance:BTC-USDT:5m")
START = 1_704_067_200_000
N_TRAINED = 28
STRATEGY = get_strategy("LIQUIDITY_SWEEP_V3")
SETTINGS = TrainingSettings(
    account=AccountSettings(),
    search=SearchSettings(method="random", budget=20, minimum_trades=3, seed=3),
    windows=WindowSettings(train_days=10, test_days=6, gap_days=1),
)


@cache
def candles(n_days: int = 45, edge: float = 2.0, seed: int = 0) -> Candles:
    market = SimulatedMarketSettings(edge=edge, seed=seed, outages_per_year=0)
    return simulate(SERIES.market, SERIES.timeframe, START, START + n_days * MS_PER_DAY, market)


@cache
def trained():
    """Return the frame of the training, its record, and the subject that monitoring sees."""
    from tradepulse_pipeline.monitoring.paper import frame_of

    known = candles().between(None, START + N_TRAINED * MS_PER_DAY)
    frame = frame_of(known, STRATEGY)
    found = search_windows(frame, STRATEGY, SETTINGS)
    record = judge_windows(frame, STRATEGY, SETTINGS, found)
    assert record.latest is not None
    subject = Subject.of(
        STRATEGY,
        parameters=record.latest.parameters,
        settings=SETTINGS.to_json_dict(),
        windows=[window.to_json_dict() for window in record.windows],
        data_end_ms=known.end_ms,
    )
    return frame, record, subject


def with_parameters(subject: Subject, **changed: float) -> Subject:
    return replace(subject, parameters={**subject.parameters, **changed})
