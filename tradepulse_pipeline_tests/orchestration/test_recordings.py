"""Recordings on disk: whole files by day, nothing twice, and back again as they were; and the run that makes them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from tradepulse_pipeline.database.candles import coverage_of, load_candles
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.live.events import CandleClosed, DepthChanged, Level, Trade, TradesMade
from tradepulse_pipeline.market.live.recorder import Recorder
from tradepulse_pipeline.market.live.session import record_replay
from tradepulse_pipeline.market.series import MS_PER_DAY, Market, SeriesKey
from tradepulse_pipeline.orchestration.artifacts import ArtifactStore
from tradepulse_pipeline.orchestration.assets.recordings import RecordingConfig, recordings
from tradepulse_pipeline.orchestration.partitions import MARKETS_DIMENSION
from tradepulse_pipeline.orchestration.recordings import RecordingStore
from tradepulse_pipeline.orchestration.resources import ArtifactsResource, DatabaseResource
from tradepulse_pipeline.orchestration.schedules.recordings import keep_recording
from tradepulse_pipeline_tests.loopback import LoopbackExchange
from tradepulse_pipeline_tests.loopback.sockets import LoopbackSockets
from tradepulse_pipeline_tests.orchestration.conftest import ROOT

SERIES = SeriesKey.parse("binance:BTC-USDT:1m")
MARKET = SERIES.market
MIDNIGHT = 1_700_006_400_000

_RECORD = """
import asyncio, sys
from tradepulse_pipeline.market.live.feed import LiveFeed
from tradepulse_pipeline.market.live.recorder import Recorder, RecorderSettings
from tradepulse_pipeline.market.live.session import record_live
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.orchestration.artifacts import ArtifactStore
from tradepulse_pipeline.orchestration.recordings import RecordingStore
series = SeriesKey.parse("binance:BTC-USDT:1m")
feed = LiveFeed([series.market], series.timeframe, ("trades",), base_url=sys.argv[1])
recorder = Recorder(RecordingStore(ArtifactStore(sys.argv[2]), None), RecorderSettings(flush_seconds=0.01))
asyncio.run(record_live(feed, recorder, None, is_over=lambda: False))
"""


def made(first: int, n: int, start_ms: int = MIDNIGHT) -> list[Trade]:
    return [Trade(number, start_ms + 10 * number, 100.0 + number, 0.5, 1) for number in range(first, first + n)]


def said(trades: list[Trade], market: Market = MARKET) -> TradesMade:
    return TradesMade(market=market, trades=tuple(trades))


def numbers(store: RecordingStore) -> list[int]:
    return store.trades(MARKET, 0, 1 << 60).trade_id.tolist()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


@pytest.fixture
def store(folder: Path, database) -> RecordingStore:
    return RecordingStore(ArtifactStore(str(folder)), database)


@pytest.fixture
def sockets() -> Iterator[LoopbackSockets]:
    flat = np.full(1, 100.0)
    candles = Candles.from_arrays(SERIES.timeframe, np.array([MIDNIGHT]), flat, flat, flat, flat, flat)
    with LoopbackExchange({SERIES: candles}) as exchange, LoopbackSockets(exchange) as sockets:
        yield sockets


def test_files_are_cut_at_midnight_and_at_holes_and_named_by_their_numbers(store, folder):
    trades = made(1, 5, MIDNIGHT - 30)
    record_replay([said(trades), said(made(9, 2))], Recorder(store))
    base = folder / "recordings" / "binance" / "BTC-USDT" / "trades"
    files = sorted(str(path.relative_to(base)) for path in base.rglob("*.parquet"))
    assert files == [
        f"date=2023-11-14/id_{1:020d}-{2:020d}.parquet",
        f"date=2023-11-15/id_{3:020d}-{5:020d}.parquet",
        f"date=2023-11-15/id_{9:020d}-{10:020d}.parquet",
    ]
    assert numbers(store) == [1, 2, 3, 4, 5, 9, 10]
    assert store.trades(MARKET, MIDNIGHT, MIDNIGHT + MS_PER_DAY).time_ms[0] == MIDNIGHT


def test_what_is_there_is_not_stored_twice(store):
    record_replay([said(made(1, 50))], Recorder(store))
    again = Recorder(store)
    record_replay([said(made(30, 40))], again)
    assert numbers(store) == list(range(1, 70))
    assert (again.counters[MARKET].trades, again.counters[MARKET].repeated) == (19, 21)


def test_trades_without_numbers_are_told_by_the_time_of_the_former_recording(store):
    unnumbered = [trade._replace(trade_id=-1) for trade in made(1, 10)]
    record_replay([said(unnumbered)], Recorder(store))
    record_replay([said(unnumbered), said([trade._replace(trade_id=-1) for trade in made(11, 3)])], Recorder(store))
    assert len(numbers(store)) == 13


def test_liquidations_are_numbered_but_no_trades(store):
    trades = made(1, 5)
    trades[2] = trades[2]._replace(price=0.0, amount=0.0)
    recorder = Recorder(store)
    record_replay([said(trades)], recorder)
    assert recorder.counters[MARKET].breaks == 0
    assert numbers(store) == [1, 2, 4, 5]


def test_the_order_book_comes_back_as_it_was_told(store):
    def change(n: int, **more: object) -> DepthChanged:
        return DepthChanged(
            market=MARKET,
            time_ms=MIDNIGHT + n,
            bids=(Level(100.0, float(n)),),
            asks=(Level(101.0, 0.0), Level(102.0, 1.5)),
            first_id=10 * n,
            last_id=10 * n + 9,
            **more,
        )

    told = [change(1), change(2, is_snapshot=True), change(3), replace(change(4), bids=(), asks=()), change(5)]
    record_replay(told, Recorder(store))
    assert list(store.depth(MARKET, MIDNIGHT, MIDNIGHT + 10)) == told
    again = Recorder(store)
    record_replay(told, again)
    assert (again.counters[MARKET].depth_changes, again.counters[MARKET].repeated) == (0, 5)


def test_closed_candles_go_to_the_database_and_rows_that_are_none_do_not(store, database):
    series = SeriesKey.parse("binance:LIVE-USDT:1m")
    rows = [(MIDNIGHT + 60_000 * n, 10.0, 11.0, 9.0, 10.5, 3.0) for n in range(4)]
    rows[2] = (rows[2][0], 10.0, 1.0, 9.0, 10.5, 3.0)
    record_replay([CandleClosed(series=series, row=row) for row in rows], Recorder(store))
    assert load_candles(database, series).open_time_ms.tolist() == [rows[n][0] for n in (0, 1, 3)]
    found = coverage_of(database, series)
    assert found is not None
    assert found.sources == ("binance.live",)


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_killed_recorder_leaves_whole_files_and_the_next_one_goes_on(sockets, folder):
    store = RecordingStore(ArtifactStore(str(folder)), None)  # trades alone need no database

    def start() -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen([sys.executable, "-c", _RECORD, sockets.base_url, str(folder)], env=environment)

    first = start()
    try:
        sockets.wait_for_subscribers(SERIES, "trades")
        for trade in made(1, 60):
            sockets.trade(MARKET, trade)
        wait(lambda: any(folder.rglob("id_*.parquet")))
        saying = threading.Thread(target=lambda: [sockets.trade(MARKET, trade) for trade in made(61, 200)])
        saying.start()
        n_files = len(list(folder.rglob("id_*.parquet")))
        wait(lambda: len(list(folder.rglob("id_*.parquet"))) > n_files)
    finally:
        first.kill()
        first.wait()
    saying.join()
    kept = numbers(store)  # reads every file, each of which proves by its seal that it is whole
    assert kept == sorted(set(kept))
    second = start()
    try:
        wait(lambda: sockets.n_connections == 2)
        sockets.wait_for_subscribers(SERIES, "trades")
        for trade in made(261, 20):
            sockets.trade(MARKET, trade)
        wait(lambda: len(numbers(store)) == 280)
    finally:
        second.kill()
        second.wait()
    assert numbers(store) == list(range(1, 281))


def materialize(minutes: float) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(MARKETS_DIMENSION, [str(SERIES.market)])
        return dg.materialize(
            [recordings],
            partition_key=str(SERIES.market),
            instance=instance,
            resources={"database": DatabaseResource(), "artifacts": ArtifactsResource()},
            run_config=dg.RunConfig({"recordings": RecordingConfig(minutes=minutes, channels=["trades"])}),
            raise_on_error=False,
        )


@pytest.fixture
def at_loopback(sockets, folder, database, monkeypatch):
    monkeypatch.setenv("TRADEPULSE_EXCHANGE_URL", sockets.base_url)
    monkeypatch.setenv("TRADEPULSE_ARTIFACTS_URL", str(folder))


def test_a_run_records_for_its_minutes_and_reports_what_it_counted(at_loopback, sockets, folder):
    def say() -> None:
        sockets.wait_for_subscribers(SERIES, "trades")
        sockets.trade(MARKET, *made(1, 7))

    saying = threading.Thread(target=say)
    saying.start()
    result = materialize(minutes=0.05)
    saying.join()
    assert result.success
    metadata = result.asset_materializations_for_node("recordings")[0].metadata
    assert (metadata["trades"].value, metadata["breaks"].value, metadata["missing_trades"].value) == (7, 0, 0)
    assert numbers(RecordingStore(ArtifactStore(str(folder)), None)) == list(range(1, 8))


def test_a_run_that_is_terminated_keeps_what_it_took(at_loopback, sockets, folder):
    def say() -> None:
        sockets.wait_for_subscribers(SERIES, "trades")
        sockets.trade(MARKET, *made(1, 7))
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    saying = threading.Thread(target=say)
    saying.start()
    assert not materialize(minutes=10).success
    saying.join()
    assert numbers(RecordingStore(ArtifactStore(str(folder)), None)) == list(range(1, 8))


def test_minutes_out_of_range_are_refused_plainly(at_loopback):
    result = materialize(minutes=2_000)
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    description = failure.step_failure_data.user_failure_data.description
    assert description == "minutes: found 2000, expected a number above 0 and at most 1,380."


def test_the_schedule_goes_on_with_what_was_recorded_before():
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions(MARKETS_DIMENSION, [str(SERIES.market), "binance:ETH-USDT"])
        instance.report_runless_asset_event(dg.AssetMaterialization("recordings", partition=str(SERIES.market)))
        now = datetime(2024, 1, 1, 5, tzinfo=UTC)
        with dg.build_schedule_context(instance=instance, scheduled_execution_time=now) as context:
            requests = list(keep_recording(context))
    assert [(request.partition_key, request.run_key) for request in requests] == [
        (str(SERIES.market), f"{SERIES.market} 2024-01-01T05")
    ]
