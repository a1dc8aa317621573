from __future__ import annotations

import importlib.metadata
import json
import platform
from datetime import UTC, datetime

import numpy as np
import pytest

import tradepulse_pipeline
from tradepulse_pipeline.configurations.lineage import Lineage, collect_lineage, engine_hash
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import Timeframe
from tradepulse_pipeline.optimizers.settings import SearchSettings
from tradepulse_pipeline.strategies.registry import get_strategy
from tradepulse_pipeline.validation.training import TrainingSettings

SETTINGS = TrainingSettings(search=SearchSettings(method="tpe", seed=11))


def candles(close=100.0):
    times = 1_704_067_200_000 + 3_600_000 * np.arange(48, dtype=np.int64)
    price = np.full(48, close)
    return Candles.from_arrays(Timeframe("1h"), times, price, price, price, price, price)


def lineage_of(series):
    return collect_lineage(series, get_strategy("LIQUIDITY_SWEEP_V3"), SETTINGS, n_trials=3_000, run_id="run-1")


def test_lineage_says_what_a_repetition_needs():
    lineage = lineage_of(candles())
    assert lineage.data_fingerprint == candles().fingerprint() != candles(101.0).fingerprint()
    assert lineage.data_start == datetime(2024, 1, 1, tzinfo=UTC)
    assert lineage.data_end == datetime(2024, 1, 3, tzinfo=UTC)
    assert TrainingSettings.from_json_dict(lineage.settings) == SETTINGS
    assert (lineage.optimizer, lineage.seed, lineage.n_trials, lineage.run_id) == ("tpe", 11, 3_000, "run-1")
    assert lineage.settings_digest == SETTINGS.digest()
    assert lineage.code_version == tradepulse_pipeline.__version__
    assert lineage.dependency_versions["python"] == platform.python_version()
    assert lineage.dependency_versions["optuna"] == importlib.metadata.version("optuna")


def test_lineage_comes_back_from_json():
    lineage = lineage_of(candles())
    assert Lineage.from_json_dict(json.loads(json.dumps(lineage.to_json_dict()))) == lineage


def test_a_lineage_with_other_fields_is_refused():
    values = lineage_of(candles()).to_json_dict()
    del values["seed"]
    with pytest.raises(InvalidInputError, match=r"\['seed'\] are missing, \['sead'\] are unknown"):
        Lineage.from_json_dict({**values, "sead": 1})


def write(folder, **files):
    for name in ("market", "indicators", "strategies", "backtest", "optimizers", "validation", "cli"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("")
    for path, text in files.items():
        (folder / f"{path.replace('__', '/')}.py").write_text(text)
    return engine_hash(folder)


def test_the_engine_hash_follows_names_and_contents_of_what_computes(tmp_path):
    first = write(tmp_path / "a", backtest__kernel="x = 1")
    assert first == write(tmp_path / "b", backtest__kernel="x = 1")
    assert first == write(tmp_path / "c", backtest__kernel="x = 1", cli__main="y = 1")
    others = [
        write(tmp_path / "d", backtest__kernel="x = 2"),
        write(tmp_path / "e", backtest__kernels="x = 1"),
        write(tmp_path / "f", backtest__kernel="x = 1", market__more="y = 1"),
        write(tmp_path / "g", backtest__kernel="x =", backtest__kernel2=" 1"),
    ]
    assert len({first, *others}) == 5


def test_the_engine_hash_of_the_package_itself():
    assert len(engine_hash()) == 64
    assert engine_hash() == engine_hash()
