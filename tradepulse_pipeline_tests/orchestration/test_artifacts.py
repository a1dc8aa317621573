"""Parquet files between assets: whole or not there, and damaged ones are noticed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import polars as pl
import pytest

from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.orchestration.artifacts import ArtifactError, ArtifactStore

SERIES = SeriesKey.parse("binance:BTC-USDT:5m")
TABLE = pl.DataFrame({"a": [1, 2, 3], "b": [0.1, None, float("nan")]})
KEY = ("branch", "asset")


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(str(tmp_path / "artifacts"))


@pytest.mark.parametrize("base", ["{tmp}/artifacts", "file://{tmp}/artifacts", "memory://{tmp}"])
def test_a_table_comes_back_as_it_was_with_its_metadata(tmp_path, base):
    store = ArtifactStore(base.format(tmp=tmp_path))
    written = store.write_parquet(KEY, SERIES, TABLE, {"fingerprint": "f"})
    table, metadata, found = store.read_parquet(KEY, SERIES)
    assert table.equals(TABLE)
    assert metadata == {"fingerprint": "f"}
    assert found == written
    assert written.url.endswith("/branch/asset/binance_BTC-USDT_5m.parquet")
    assert written.n_rows == 3


def test_the_hash_is_that_of_the_files_bytes(store):
    written = store.write_parquet(KEY, SERIES, TABLE, {})
    content = Path(written.url).read_bytes()
    assert (hashlib.sha256(content).hexdigest(), len(content)) == (written.sha256, written.n_bytes)


def test_other_tools_can_read_the_file(store):
    written = store.write_parquet(KEY, SERIES, TABLE, {"fingerprint": "f"})
    assert pl.read_parquet(written.url).equals(TABLE)


def test_a_flipped_byte_is_noticed_wherever_it_is(store):
    path = Path(store.write_parquet(KEY, SERIES, TABLE, {"fingerprint": "f"}).url)
    content = path.read_bytes()
    for position in range(0, len(content), 5):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(ArtifactError, match=r"is damaged.* Materialize branch/asset for binance:BTC-USDT:5m again"):
            store.read_parquet(KEY, SERIES)


@pytest.mark.parametrize("length", [0, 4, 400])
def test_a_truncated_file_is_noticed(store, length):
    path = Path(store.write_parquet(KEY, SERIES, TABLE, {}).url)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ArtifactError, match="is damaged"):
        store.read_parquet(KEY, SERIES)


def test_a_file_that_is_not_there_says_what_to_materialize(store):
    with pytest.raises(ArtifactError, match=r"no file .*5m\.parquet\. Materialize branch/asset for .* first"):
        store.read_parquet(KEY, SERIES)


@pytest.mark.parametrize("fails_at", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_whole_and_nothing_else(store, monkeypatch, fails_at):
    written = store.write_parquet(KEY, SERIES, TABLE, {})

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os if fails_at == "fsync" else Path, fails_at, fail)
        with pytest.raises(ArtifactError, match="No space left on device"):
            store.write_parquet(KEY, SERIES, TABLE.head(1), {})
    assert store.read_parquet(KEY, SERIES)[2] == written
    assert [path.name for path in Path(written.url).parent.iterdir()] == ["binance_BTC-USDT_5m.parquet"]
