"""Parquet files in an object store: a stand-in for S3 on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Thread

import polars as pl
import pytest

from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.orchestration.artifacts import ArtifactError, ArtifactStore

s3fs = pytest.importorskip("s3fs", reason="artifacts on S3 need s3fs (pip install '.[test]')")
moto_server = pytest.importorskip("moto.server", reason="the stand-in for S3 is moto (pip install '.[test]')")

SERIES = SeriesKey.parse("binance:BTC-USDT:5m")
KEY = ("branch", "asset")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = moto_server.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def store(endpoint, monkeypatch) -> ArtifactStore:
    """A store in a bucket, known by the environment alone."""
    for name, value in (
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().makedirs("tradepulse", exist_ok=True)
    store = ArtifactStore("s3://tradepulse/artifacts")
    store.folder(KEY, SERIES).remove()
    return store


@pytest.fixture
def elsewhere(store) -> s3fs.S3FileSystem:
    """The bucket as another machine sees it."""
    return s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)


def table(n: int) -> pl.DataFrame:
    return pl.DataFrame({"a": range(n), "b": [0.1] * n})


def test_a_table_comes_back_as_it_was_and_is_replaced_as_a_whole(store):
    for n in (3, 2):
        written = store.write_parquet(KEY, SERIES, table(n), {"fingerprint": "f"})
        found, metadata, artifact = store.read_parquet(KEY, SERIES)
        assert found.equals(table(n))
        assert metadata == {"fingerprint": "f"}
        assert artifact == written


def test_what_another_machine_writes_and_removes_shows_at_once(store, elsewhere):
    folder = store.folder(KEY, SERIES, "trials")
    folder.write_parquet("0.parquet", table(1), {})
    assert folder.names() == ["0.parquet"]
    path = folder.url.removeprefix("s3://")
    elsewhere.copy(f"{path}/0.parquet", f"{path}/1.parquet")
    assert folder.names() == ["0.parquet", "1.parquet"]
    assert folder.scan_parquet(folder.names()).collect().height == 2
    elsewhere.rm(f"{path}/0.parquet")
    assert folder.names() == ["1.parquet"]
    assert folder.age().total_seconds() < 60
    folder.remove()
    assert folder.names() == []
    assert not elsewhere.exists(path)


def test_a_missing_and_a_damaged_file_are_told_as_on_a_disk(store, elsewhere):
    missing = SeriesKey.parse("binance:ETH-USDT:5m")
    with pytest.raises(ArtifactError, match=r"no file s3://.*/binance_ETH-USDT_5m\.parquet\. Materialize branch/asset"):
        store.read_parquet(KEY, missing)
    path = store.write_parquet(KEY, SERIES, table(3), {}).url.removeprefix("s3://")
    elsewhere.pipe_file(path, elsewhere.cat_file(path)[:-40])
    with pytest.raises(ArtifactError, match="is damaged"):
        store.read_parquet(KEY, SERIES)


def test_a_large_file_is_there_when_all_its_parts_are(store, elsewhere):
    """Above some size an object is sent in parts; readers see the former one until the last part is there."""
    old = store.write_parquet(KEY, SERIES, table(3), {})
    seen = []
    noise = pl.DataFrame({f"c{i}": pl.int_range(1_500_000, eager=True).hash(seed=i) for i in range(10)})
    writer = Thread(target=store.write_parquet, args=(KEY, SERIES, noise, {}))
    writer.start()
    while writer.is_alive():
        seen.append(store.read_parquet(KEY, SERIES)[2])
    writer.join()
    new = store.read_parquet(KEY, SERIES)[2]
    assert new.n_bytes > 100_000_000
    assert old in seen
    assert {artifact.sha256 for artifact in seen} <= {old.sha256, new.sha256}
