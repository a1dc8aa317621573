from __future__ import annotations

import os
from pathlib import Path

import pytest

from tradepulse_pipeline.backtest.settings import AccountSettings
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.history import HistorySettings
from tradepulse_pipeline.market.listings import ListingRules
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings
from tradepulse_pipeline.settings import load_settings, project_dir
from tradepulse_pipeline.validation.training import TrainingSettings


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty project, without settings from outside."""
    for name in [name for name in os.environ if name.startswith("TRADEPULSE_")]:
        monkeypatch.delenv(name)
    (tmp_path / "dagster.yaml").touch()
    (tmp_path / "workspace.yaml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_defaults_are_those_of_the_domain() -> None:
    settings = load_settings()
    assert settings.training() == TrainingSettings()
    assert settings.account() == AccountSettings()
    assert settings.history() == HistorySettings()
    assert settings.simulated() == SimulatedMarketSettings()
    assert settings.origin("fee_rate") == "default"


def test_options_come_before_environment_before_file_before_defaults(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "tradepulse.toml").write_text("seed = 1\nbudget = 1\nslippage = 0.1\n")
    monkeypatch.setenv("TRADEPULSE_SEED", "2")
    monkeypatch.setenv("TRADEPULSE_BUDGET", "2")
    settings = load_settings(seed=3, budget=None)
    assert (settings.seed, settings.origin("seed")) == (3, "option")
    assert (settings.budget, settings.origin("budget")) == (2, "environment TRADEPULSE_BUDGET")
    assert (settings.slippage, settings.origin("slippage")) == (0.1, "tradepulse.toml")
    assert (settings.fee_rate, settings.origin("fee_rate")) == (0.001, "default")


def test_every_training_setting_reaches_the_domain() -> None:
    given: dict[str, object] = {
        "side": "both",
        "fee_rate": 0.002,
        "slippage": 0.003,
        "initial_capital": 5.0,
        "risk_fraction": 0.5,
        "max_leverage": 3.0,
        "max_holding_bars": 4,
        "method": "genetic",
        "budget": 7,
        "objective": "calmar",
        "further_objectives": ("drawdown", "sharpe"),
        "minimum_trades": 2,
        "seed": 9,
        "workers": 3,
        "max_runtime_seconds": 11.0,
        "max_combinations": 12,
        "scheme": "train_test_split",
        "train_days": 50,
        "test_days": 20,
        "gap_days": 3,
        "step_days": 25,
        "train_ratio": 0.6,
        "reoptimise": False,
        "filters": {"max_spread_tolerance": 20.0},
    }
    training = load_settings(**given).training()
    parts = (training, training.account, training.search, training.windows)
    reached = {name: getattr(part, name) for part in parts for name in part.__dataclass_fields__ if name in given}
    assert reached == given


def test_the_selection_reaches_the_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADEPULSE_SELECTION", "plateau")
    assert load_settings().training().search.selection == "plateau"
    with pytest.raises(InvalidInputError, match=r"selection: found 'plateau'.*from environment TRADEPULSE_SELECTION"):
        load_settings(method="tpe").training()


def test_lists_are_written_with_commas_or_as_toml_arrays(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "tradepulse.toml").write_text('pairs = ["BTC/USDT", "ETH/USDT"]\n')
    monkeypatch.setenv("TRADEPULSE_TIMEFRAMES", "5m, 1h,5m")
    settings = load_settings(exchanges=("kraken,binance", "kraken"))
    assert settings.pairs == ("BTC/USDT", "ETH/USDT")
    assert settings.timeframes == ("5m", "1h")
    assert settings.exchanges == ("kraken", "binance")


def test_no_further_objectives_may_be_asked_for_in_so_many_words(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRADEPULSE_FURTHER_OBJECTIVES", "drawdown, sharpe")
    assert load_settings().further_objectives == ("drawdown", "sharpe")
    assert load_settings(further_objectives=[""]).further_objectives == ()
    monkeypatch.delenv("TRADEPULSE_FURTHER_OBJECTIVES")
    (project / "tradepulse.toml").write_text("further_objectives = []\n")
    assert load_settings().further_objectives == ()


def test_declared_markets_are_series_however_a_person_spells_them(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "tradepulse.toml").write_text('markets = ["binance:btc/usdt:5m", "binance:BTC-USDT:5m"]\n')
    assert [str(series) for series in load_settings().markets] == ["binance:BTC-USDT:5m"]
    monkeypatch.setenv("TRADEPULSE_MARKETS", "kraken:ETH/USD:1h, simulated:A-B:1d")
    assert [str(series) for series in load_settings().markets] == ["kraken:ETH-USD:1h", "simulated:A-B:1d"]


def test_rules_for_new_listings_are_a_table_or_a_variable(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().listings == ListingRules()
    (project / "tradepulse.toml").write_text('[listings]\nexchanges = ["okx"]\nminimum_volume = 1_000\n')
    assert load_settings().listings == ListingRules(exchanges=("okx",), minimum_volume=1_000.0)
    monkeypatch.setenv("TRADEPULSE_LISTINGS", "exchanges=binance+kraken,quote=USD,most_per_day=5,timeframes=5m+1h")
    expected = ListingRules(exchanges=("binance", "kraken"), quote="USD", most_per_day=5, timeframes=("5m", "1h"))
    assert load_settings().listings == expected
    monkeypatch.setenv("TRADEPULSE_LISTINGS", "binance")
    with pytest.raises(InvalidInputError, match=r"listings: found 'binance' from environment.*Expected NAME=VALUE"):
        load_settings()


def test_schedules_are_parted_by_semicolons_or_a_table_of_toml(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "tradepulse.toml").write_text('retraining_schedule = {S = "0 3 * * 6"}\n')
    assert load_settings().retraining_schedule == {"S": "0 3 * * 6"}
    monkeypatch.setenv("TRADEPULSE_RETRAINING_SCHEDULE", "S=0 3 * * 1,4; T = 5 4 * * 0;")
    assert load_settings().retraining_schedule == {"S": "0 3 * * 1,4", "T": "5 4 * * 0"}
    monkeypatch.setenv("TRADEPULSE_RETRAINING_SCHEDULE", "0 3 * * 6")
    with pytest.raises(InvalidInputError, match=r"retraining_schedule: found '0 3 .*NAME=CRON;NAME=CRON"):
        load_settings()


@pytest.mark.parametrize("days", [-1, 36_501, "old"])
def test_an_age_that_cannot_be_is_refused(days: object) -> None:
    with pytest.raises(InvalidInputError, match=f"max_age_days: found {days!r}"):
        load_settings(max_age_days=days)


def test_an_empty_variable_counts_as_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADEPULSE_DATABASE_URL", "")
    assert load_settings().database_url is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fee_rat = 0.1", r"Unknown setting 'fee_rat' in .*tradepulse.toml. Did you mean 'fee_rate'"),
        ("fee_rate = \n", r"tradepulse.toml: not valid TOML: .*line 1"),
        ("fee_rate = 'cheap'", r"fee_rate: found 'cheap' from tradepulse.toml. .*valid number"),
        ("pairs = []", r"pairs: found \[\] from tradepulse.toml. Expected at least one name"),
        ("web_port = 70000", r"web_port: found 70000 from tradepulse.toml. .*less than or equal to 65535"),
        ("markets = ['aa:B-C:5m', 'aa:B:5m']", r"markets: found 'aa:B:5m' from tradepulse.toml. Pair 'B' is not valid"),
        (
            "markets = ['aa:B-C:5min']",
            r"found 'aa:B-C:5min' from tradepulse.toml. Unknown timeframe '5min'. Did you mean",
        ),
        ("markets = [5]", r"markets: found 5 from tradepulse.toml. Expected a text such as 'binance:BTC-USDT:5m'"),
        ("[markets]\nx = 1", r"markets: found \{'x': 1\} from tradepulse.toml. Expected a list such as"),
        (
            "[listings]\nquot = 'X'",
            r"listings: found .* from tradepulse.toml. Unknown entry 'quot'. Did you mean 'quote'",
        ),
        (
            "[listings]\nminimum_volume = 'x'",
            r"listings.minimum_volume: found 'x' from tradepulse.toml. .*valid number",
        ),
        ("[listings]\nmost_per_day = 0", r"listings: found .*most_per_day: found 0, expected 1 to 1000"),
        ("partitions_per_run = 0", r"partitions_per_run: found 0 from tradepulse.toml. .*greater than or equal to 1"),
        ("own_strategies = 5", r"own_strategies: found 5 from tradepulse.toml. .*tuple"),
        ("side = 'up'", r"side: found 'up' from tradepulse.toml. .*'long', 'short' or 'both'"),
    ],
)
def test_a_wrong_file_is_told_with_field_value_and_what_is_allowed(project: Path, text: str, message: str) -> None:
    (project / "tradepulse.toml").write_text(text)
    with pytest.raises(InvalidInputError, match=message):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("fee_rate", "0.5", r"fee_rate: found 0.5, expected .*0.1.*fee_rate: from environment TRADEPULSE_FEE_RATE"),
        ("method", "gird", r"Unknown method 'gird'. Did you mean 'grid'.*from environment TRADEPULSE_METHOD"),
        ("further_objectives", "calmar", r"found calmar with the method.*TRADEPULSE_FURTHER_OBJECTIVES"),
        ("gap_days", "31", r"gap_days: found 31, expected less than test_days.*from environment TRADEPULSE_GAP_DAYS"),
        ("source", "web", r"Unknown source 'web'. Allowed: auto, exchange, stored, simulated.*TRADEPULSE_SOURCE"),
        ("history_days", "0", r"history_days: found 0, expected 1 to .*TRADEPULSE_HISTORY_DAYS"),
        ("simulated_edge", "99", r"simulated_edge: .*99.*TRADEPULSE_SIMULATED_EDGE"),
    ],
)
def test_a_value_out_of_range_is_told_with_its_origin(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(f"TRADEPULSE_{name.upper()}", value)
    settings = load_settings()
    with pytest.raises(InvalidInputError, match=message):
        (settings.training(), settings.history(), settings.simulated())


def test_an_unknown_option_lists_the_settings() -> None:
    with pytest.raises(InvalidInputError, match=r"Unknown setting 'fees'. .*Allowed: .*slippage"):
        load_settings(fees=0.1)


def test_secrets_are_neither_shown_nor_part_of_errors(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADEPULSE_DATABASE_URL", "postgresql://me:hunter2@db/x")
    settings = load_settings()
    assert "hunter2" not in repr(settings)
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "postgresql://me:hunter2@db/x"
    monkeypatch.delenv("TRADEPULSE_DATABASE_URL")
    (project / "tradepulse.toml").write_text('database_url = ["hunter2"]')
    with pytest.raises(InvalidInputError, match="database_url") as raised:
        load_settings()
    assert "hunter2" not in str(raised.value)


def test_files_of_own_strategies_are_relative_to_the_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().own_strategies == ()
    (project / "tradepulse.toml").write_text('own_strategies = ["mine/a, b.py", "/abs/c.py"]\n')
    assert load_settings().own_strategies == (project / "mine" / "a, b.py", Path("/abs/c.py"))
    monkeypatch.setenv("TRADEPULSE_OWN_STRATEGIES", "x.py, y.py")
    assert load_settings().own_strategies == (project / "x.py", project / "y.py")


def test_places_are_relative_to_the_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "deep" / "down").mkdir(parents=True)
    monkeypatch.chdir(project / "deep" / "down")
    settings = load_settings()
    assert settings.project_dir == project_dir() == project
    assert settings.data_dir == project / ".tradepulse"
    assert settings.artifacts_url == str(project / ".tradepulse" / "artifacts")
    assert load_settings(data_dir="data").artifacts_url == str(project / "data" / "artifacts")
    assert load_settings(data_dir="/srv/data").data_dir == Path("/srv/data")
    assert load_settings(artifacts_url="s3://bucket/x").artifacts_url == "s3://bucket/x"
    assert load_settings(artifacts_url="files").artifacts_url == str(project / "files")


def test_outside_of_a_project_it_is_the_one_that_tradepulse_is_installed_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert project_dir() == Path(__file__).resolve().parents[1]
