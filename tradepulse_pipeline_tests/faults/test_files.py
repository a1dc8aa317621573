"""Files that are damaged, half-written or without room: noticed, named, and the old ones stay whole."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import time
from pathlib import Path

import numba
import numpy as np
import polars as pl
import pytest

from tradepulse_pipeline import compiled
from tradepulse_pipeline.compiled import source_stamp
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.orchestration.artifacts import ArtifactError, ArtifactStore
from tradepulse_pipeline.orchestration.tables import read_frame, read_record, read_search
from tradepulse_pipeline.orchestration.trial_files import read_blocks
from tradepulse_pipeline.strategies.registry import get_strategy
from tradepulse_pipeline_tests.faults.children import STRATEGY
from tradepulse_pipeline_tests.faults.conftest import SERIES

BRANCH = STRATEGY.lower()


@pytest.fixture
def store(project_dir):
    return ArtifactStore(str(project_dir / ".tradepulse" / "artifacts"))


def read_everything(store):
    """Read every file of a training as the assets do that need it."""
    strategy, frame = get_strategy(STRATEGY), read_frame(store, SERIES)
    trials = read_search(store, SERIES, strategy, frame.fingerprint)
    folder = store.folder((BRANCH, "optimization_results"), SERIES, trials.folder.name)
    for name in folder.folder("trials").names():
        folder.folder("trials").read_parquet(name)
    read_blocks(folder)
    read_record(store, SERIES, strategy, trials, frame.fingerprint)


@pytest.mark.parametrize(
    "pattern",
    [
        "indicators/{series}.parquet",
        "{branch}/optimization_results/{series}.parquet",
        "{branch}/optimization_results/{series}/*/trials/*.parquet",
        "{branch}/optimization_results/{series}/*/blocks/*.parquet",
        "{branch}/walk_forward_validation/trades/{series}.parquet",
        "{branch}/walk_forward_validation/daily/{series}.parquet",
    ],
)
def test_a_flipped_byte_is_noticed_in_every_kind_of_file(unharmed, store, project_dir, pattern):
    unharmed()
    read_everything(store)
    name = pattern.format(branch=BRANCH, series=str(SERIES).replace(":", "_"))
    path = min((project_dir / ".tradepulse" / "artifacts").glob(name))
    content = path.read_bytes()
    try:
        for position in (0, len(content) // 3, len(content) - 1):
            path.write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
            with pytest.raises(ArtifactError, match=rf"{path.name} is damaged: its bytes do not match its seal"):
                read_everything(store)
    finally:
        path.write_bytes(content)


def test_what_a_killed_writer_left_is_not_read_and_goes_with_the_next_writing(tmp_path):
    folder = ArtifactStore(str(tmp_path)).folder((BRANCH, "results"), SERIES)
    table = pl.DataFrame({"a": [1, 2]})
    folder.write_parquet("0000.parquet", table, {})
    old, young = (Path(folder.url, f".0000.parquet.{name}") for name in ("old", "young"))
    for unfinished in (old, young):
        unfinished.write_bytes(b"PAR1 half")
    os.utime(old, (time.time() - 7_200,) * 2)
    assert folder.names() == ["0000.parquet"]
    folder.write_parquet("0000.parquet", table, {})
    assert not old.exists()
    assert young.exists()  # somebody may be writing it


def test_without_room_for_a_file_the_run_says_so_and_the_old_files_stay(train, unharmed, project_dir):
    unharmed()
    artifacts = project_dir / ".tradepulse" / "artifacts"

    def hashes():
        return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in artifacts.rglob("*") if file.is_file()}

    before = hashes()
    outcome = train(settings={"end": "2024-01-28"}, file_size=100_000).result()
    assert "Could not write" in outcome["errors"][0]
    assert "What was there before is untouched" in outcome["errors"][0]
    assert hashes() == before


@pytest.mark.parametrize("key", ["simulated:../..-USDT:5m", "../x:BTC-USDT:5m", "simulated:BTC-USDT:../5m", "/:B-C:5m"])
def test_a_name_leads_out_of_no_folder(key):
    with pytest.raises(InvalidInputError):
        SeriesKey.parse(key)


KERNEL = """
from tradepulse_pipeline.compiled import njit

@njit(cache=True, nogil=True)
def total(values):
    result = 0.0
    for k in range(values.shape[0]):
        result += values[k] * {factor}
    return result
"""


class TestTheCompileCache:
    @pytest.fixture
    def kernel(self, tmp_path, monkeypatch):
        """Load a kernel anew, as another process would; tells whether it came from the cache."""
        monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
        path = tmp_path / "kernel.py"
        path.write_text(KERNEL.format(factor=1.0))

        def load():
            source_stamp.cache_clear()
            spec = importlib.util.spec_from_file_location("kernel", path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            result = module.total(np.arange(5.0))
            return result, sum(module.total.stats.cache_hits.values()) == 1

        return load

    def test_another_process_takes_what_the_first_one_compiled(self, kernel):
        assert [kernel(), kernel()] == [(10.0, False), (10.0, True)]

    @pytest.mark.parametrize("suffix", ["nbi", "nbc"])
    @pytest.mark.parametrize("damage", [lambda _: b"", lambda old: old[: len(old) // 2], lambda old: old[:-1] + b"\0"])
    def test_damaged_files_are_made_again(self, kernel, tmp_path, suffix, damage):
        assert kernel() == (10.0, False)
        (path,) = (tmp_path / "cache").rglob(f"*.{suffix}")
        content = path.read_bytes()
        path.write_bytes(damage(content))
        assert path.read_bytes() != content
        assert [kernel(), kernel()] == [(10.0, False), (10.0, True)]

    def test_without_a_place_for_them_the_kernel_still_runs(self, kernel, monkeypatch, caplog):
        def fail(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(compiled._SealedFiles, "_save", fail)
        assert kernel() == (10.0, False)
        assert "No space left on device. Each process compiles anew" in caplog.text

    def test_a_change_in_what_the_kernel_imports_makes_it_stale(self, tmp_path):
        for name, text in {
            "tradepulse_pipeline/kernel.py": "from tradepulse_pipeline.rules import stop\n",
            "tradepulse_pipeline/rules.py": "from tradepulse_pipeline.fees import rate\n",
            "tradepulse_pipeline/fees.py": "rate = 1\n",
            "tradepulse_pipeline/other.py": "",
        }.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)

        def stamp():
            source_stamp.cache_clear()
            return source_stamp(tmp_path / "tradepulse_pipeline" / "kernel.py", tmp_path)

        first = stamp()
        (tmp_path / "tradepulse_pipeline" / "other.py").write_text("changed = True\n")
        assert stamp() == first
        (tmp_path / "tradepulse_pipeline" / "fees.py").write_text("rate = 2\n")
        assert stamp() != first

    def test_code_of_another_stamp_is_compiled_again(self, kernel, monkeypatch):
        assert [kernel(), kernel()] == [(10.0, False), (10.0, True)]
        with monkeypatch.context() as patch:
            patch.setattr(compiled, "_reached", lambda path, root: {Path(__file__)})
            assert kernel() == (10.0, False)
