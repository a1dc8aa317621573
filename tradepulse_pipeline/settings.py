"""The one place where settings are read: options, then environment, then ``tradepulse.toml``, then defaults."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

from pydantic import BeforeValidator, Field, PrivateAttr, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from tradepulse_pipeline.backtest.settings import AccountSettings
from tradepulse_pipeline.errors import InvalidInputError, one_of
from tradepulse_pipeline.market.history import CANDLE_ORIGINS, CandleOrigin, HistorySettings
from tradepulse_pipeline.market.listings import ListingRules
from tradepulse_pipeline.market.series import SIMULATED_EXCHANGE, SeriesKey
from tradepulse_pipeline.market.sources.pace import Pace, local_pace
from tradepulse_pipeline.market.sources.registry import SourceSettings
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings
from tradepulse_pipeline.optimizers.settings import SearchSettings
from tradepulse_pipeline.strategies.decisions import Side
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline.validation.windows import WindowSettings

if TYPE_CHECKING:
    from tradepulse_pipeline.strategies.base import Strategy

ENV_PREFIX: Final = "TRADEPULSE_"
SETTINGS_FILE: Final = "tradepulse.toml"

#: Variables that start like a setting and are none: read by the command line and the tests.
OTHER_VARIABLES: Final = ("TRADEPULSE_DEBUG", "TRADEPULSE_TEST_DATA")

#: Settings that are secrets: a file is read by others, copied and committed.
FROM_ENVIRONMENT_ONLY: Final = ("alerts_webhook", "alerts_smtp_password")

#: Lists that may be empty.
_MAY_BE_EMPTY: Final = ("further_objectives", "alerts_email")

SOURCES: Final = (*CANDLE_ORIGINS, SIMULATED_EXCHANGE)

_ACCOUNT: Final = AccountSettings()
_HISTORY: Final = HistorySettings()
_SEARCH: Final = SearchSettings()
_SIMULATED: Final = SimulatedMarketSettings()
_TRAINING: Final = TrainingSettings()
_WINDOWS: Final = WindowSettings()

Names = Annotated[tuple[str, ...], NoDecode]
Files = Annotated[tuple[Path, ...], NoDecode]
Values = Annotated[dict[str, float], NoDecode]
Order = Annotated[dict[str, tuple[str, ...]], NoDecode]
Texts = Annotated[dict[str, str], NoDecode]
T = TypeVar("T")


def _series(value: object) -> SeriesKey:
    if isinstance(value, str):
        return SeriesKey.read(value)
    raise ValueError("Expected a text such as 'binance:BTC-USDT:5m'")


AllSeries = Annotated[tuple[Annotated[SeriesKey, BeforeValidator(_series)], ...], NoDecode]


class Settings(BaseSettings):
    """Every setting by its flat name; what is not given has the default of the domain class that it configures.

    The environment spells a name in capitals after ``TRADEPULSE_``: ``fee_rate`` is ``TRADEPULSE_FEE_RATE``. Lists are
    written with commas there: ``TRADEPULSE_PAIRS=BTC/USDT,ETH/USDT``; values by name with ``=`` as well. Schedules,
    which may hold commas, are parted by semicolons.
    """

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    data_dir: Path = Field(Path(".tradepulse"), description="Folder of the embedded database, artifacts and logs.")
    database_url: SecretStr | None = Field(None, description="PostgreSQL to use; none: the embedded server.")
    artifacts_url: str = Field("", description="Where Parquet files go: a folder or any fsspec URL.")
    exchange_url: str | None = Field(None, description="Base URL that replaces the exchanges' own.")
    web_host: str = Field("127.0.0.1", description="Address that the web UI listens on.")
    web_port: int = Field(3000, ge=0, le=65_535, description="Port that the web UI listens on; 0 takes a free one.")
    web_url: str = Field("", description="Address of the web UI for links in alerts; empty: no links.")
    keep_runs_days: int = Field(
        90, ge=0, le=36_500, description="Days that finished runs and what they printed are kept; 0: for ever."
    )
    alerts_log: str = Field("", description="File of alerts; empty: logs/alerts.log in the data folder.")
    alerts_webhook: SecretStr | None = Field(None, description="URL that alerts are posted to; environment only.")
    alerts_email: Names = Field((), description="Addresses that alerts are mailed to.")
    alerts_email_from: str = Field("tradepulse@localhost", description="Address that alerts are mailed from.")
    alerts_smtp_host: str = Field("", description="Mail server that takes alerts.")
    alerts_smtp_port: int = Field(587, ge=1, le=65_535, description="Port of the mail server.")
    alerts_smtp_security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="How the connection to the mail server is encrypted."
    )
    alerts_smtp_user: str = Field("", description="User at the mail server; empty: no login.")
    alerts_smtp_password: SecretStr | None = Field(None, description="Password there; environment only.")
    own_strategies: Files = Field((), description="Python files with strategies of your own, relative to the project.")

    strategies: Names = Field(("LIQUIDITY_SWEEP_V3",), description="Strategies to train.")
    exchanges: Names = Field(("binance",), description="Exchanges to train on.")
    pairs: Names = Field(("BTC/USDT",), description="Pairs to train on.")
    timeframes: Names = Field(("5m",), description="Timeframes to train on.")
    source: str = Field(_HISTORY.source, description="Where candles may come from.")
    history_days: int = Field(_HISTORY.history_days, description="Days of candles to train on, up to the latest.")
    source_order: Order = Field(
        {}, description="Sources asked for candles, in order, by exchange or by market; none: the exchange itself."
    )
    markets: AllSeries = Field(
        (), description="Series to follow: the sensor declared_markets adds and trains them. exchange:PAIR:timeframe."
    )
    listings: Annotated[ListingRules, NoDecode] = Field(
        ListingRules(), description="Which newly listed pairs the sensor new_listings adds; no exchanges: none."
    )
    partitions_per_run: int = Field(
        1, ge=1, le=1_000, description="Series that one run of a backfill takes; 1: each fails and is repeated alone."
    )
    simulated_edge: float = Field(
        _SIMULATED.edge, description="Strength of the edge planted in simulated candles; 0: none."
    )

    method: str = Field(
        _SEARCH.method,
        description="How parameter sets are searched; auto: grid if it takes less than a minute, else random.",
    )
    budget: int | None = Field(_SEARCH.budget, description="Trials of a search; none: as the method is used to.")
    objective: str = Field(_SEARCH.objective, description="The metric that a search maximises.")
    selection: str = Field(
        _SEARCH.selection,
        description="Which trial a search chooses: best by the objective, or plateau: best with its grid neighbours.",
    )
    further_objectives: Names = Field(
        _SEARCH.further_objectives, description="Metrics that a genetic search weighs beside the objective."
    )
    minimum_trades: int = Field(_SEARCH.minimum_trades, description="Trades that a trial needs to be valid.")
    seed: int = Field(_SEARCH.seed, description="Seed of every random draw.")
    workers: int = Field(_SEARCH.workers, description="Threads that evaluate trials; 0: one per core.")
    memory_limit_mib: int = Field(
        _SEARCH.memory_limit_mib, description="Mebibytes that the tables of decisions and outcomes may hold."
    )
    max_runtime_seconds: float = Field(_SEARCH.max_runtime_seconds, description="Limit of a search; 0: none.")

    max_combinations: int = Field(_SEARCH.max_combinations, description="Largest search that is started, in trials.")

    scheme: str = Field(_WINDOWS.scheme, description="How history is cut into train and test.")
    train_days: int = Field(_WINDOWS.train_days, description="Days of a train window.")
    test_days: int = Field(_WINDOWS.test_days, description="Days of a test window, its gap included.")
    gap_days: int = Field(_WINDOWS.gap_days, description="Days left out between train and test.")
    step_days: int | None = Field(_WINDOWS.step_days, description="Days from window to window; none: test_days.")
    train_ratio: float = Field(_WINDOWS.train_ratio, description="Share trained on with train_test_split.")
    reoptimise: bool = Field(
        _WINDOWS.reoptimise, description="Search anew in each train window; else only in the last."
    )

    filters: Values = Field({}, description="Optional filters of the strategy to switch on, each with its value.")

    retraining_schedule: Texts = Field(
        {}, description="When strategies are trained again, by name, as cron expressions in UTC; none: each week."
    )
    max_age_days: int = Field(
        90, ge=0, le=36_500, description="Days after which a configuration is trained again; 0: never."
    )

    side: Side = Field(_TRAINING.side, description="Which side is traded.")
    fee_rate: float = Field(_ACCOUNT.fee_rate, description="Fee on entry and on exit, fraction of the notional.")
    slippage: float = Field(_ACCOUNT.slippage, description="Slippage of market and stop orders, fraction of price.")
    initial_capital: float = Field(_ACCOUNT.initial_capital, description="Equity at the start, quote currency.")
    risk_fraction: float = Field(_ACCOUNT.risk_fraction, description="Share of equity that a stop-out costs.")
    max_leverage: float = Field(_ACCOUNT.max_leverage, description="Largest notional as a multiple of equity.")
    max_holding_bars: int = Field(_ACCOUNT.max_holding_bars, description="Longest position in bars; 0: no limit.")

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    _project_dir: Path = PrivateAttr()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from the caller alone: ``load_settings`` joins the sources, to know where each came from."""
        return (init_settings,)

    @field_validator("strategies", "exchanges", "pairs", "timeframes", *_MAY_BE_EMPTY, mode="before")
    @classmethod
    def _names(cls, value: object, info: ValidationInfo) -> object:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
            return value
        names = tuple(dict.fromkeys(name.strip() for part in parts for name in part.split(",") if name.strip()))
        if not names and info.field_name not in _MAY_BE_EMPTY:
            raise ValueError("Expected at least one name")
        return names

    @field_validator("markets", mode="before")
    @classmethod
    def _declared(cls, value: object) -> object:
        if isinstance(value, str):
            return [part for part in value.split(",") if part.strip()]
        if isinstance(value, list | tuple):
            return value
        raise ValueError("Expected a list such as ['binance:BTC-USDT:5m', 'kraken:ETH-USD:1h']")

    @field_validator("markets", mode="after")
    @classmethod
    def _once(cls, value: tuple[SeriesKey, ...]) -> tuple[SeriesKey, ...]:
        return tuple(dict.fromkeys(value))

    @field_validator("listings", mode="before")
    @classmethod
    def _rules(cls, value: object) -> object:
        if isinstance(value, str):
            parts = [part for part in value.split(",") if part.strip()]
            if not all("=" in part for part in parts):
                raise ValueError("Expected NAME=VALUE, as in exchanges=binance+kraken,quote=USDT")
            value = {name.strip(): text.strip() for name, _, text in (part.partition("=") for part in parts)}
        if not isinstance(value, dict):
            return value
        names = {field.name: field.type for field in fields(ListingRules)}
        for name in value:
            if name not in names:
                raise one_of("entry", name, names)
        return {
            name: [one.strip() for one in entry.replace("+", ",").split(",") if one.strip()]
            if isinstance(entry, str) and str(names[name]).startswith("tuple")
            else entry
            for name, entry in value.items()
        }

    @field_validator("own_strategies", mode="before")
    @classmethod
    def _files(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("filters", mode="before")
    @classmethod
    def _values(cls, value: object) -> object:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
            return value
        parts = [part for text in texts for part in text.split(",") if part.strip()]
        if not all("=" in part for part in parts):
            raise ValueError("Expected NAME=VALUE")
        return {name.strip(): number for name, _, number in (part.partition("=") for part in parts)}

    @field_validator("source_order", mode="before")
    @classmethod
    def _order(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        parts = [part for part in value.split(",") if part.strip()]
        if not all("=" in part for part in parts):
            raise ValueError("Expected MARKET=SOURCE+SOURCE, as in kraken=kraken+kraken.trades")
        pairs = (part.partition("=") for part in parts)
        return {name.strip(): [source.strip() for source in sources.split("+")] for name, _, sources in pairs}

    @field_validator("retraining_schedule", mode="before")
    @classmethod
    def _texts(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        parts = [part.partition("=") for part in value.split(";") if part.strip()]
        if not all(equals for _, equals, _ in parts):
            raise ValueError("Expected NAME=CRON;NAME=CRON, as in LIQUIDITY_SWEEP_V3=0 3 * * 6")
        return {name.strip(): text.strip() for name, _, text in parts}

    @property
    def project_dir(self) -> Path:
        """The folder of ``dagster.yaml`` and ``workspace.yaml`` that these settings were loaded for."""
        return self._project_dir

    def origin(self, name: str) -> str:
        """Return where a value came from: option, environment TRADEPULSE_X, tradepulse.toml or default."""
        return self._origins.get(name, "default")

    def account(self) -> AccountSettings:
        """Return capital, sizing and costs.

        Raises
        ------
        InvalidInputError
            If a value is not allowed; the message says where it came from. So do the methods below.
        """
        return self._checked(lambda: AccountSettings(**self._values_of(AccountSettings)))

    def training(self) -> TrainingSettings:
        """Return what is asked of a training."""
        return self._checked(
            lambda: TrainingSettings(
                side=self.side,
                account=AccountSettings(**self._values_of(AccountSettings)),
                search=SearchSettings(**self._values_of(SearchSettings)),
                windows=WindowSettings(**self._values_of(WindowSettings)),
                filters=self.filters,
            )
        )

    def filtered(self, strategy: Strategy) -> Strategy:
        """Return ``strategy`` with the filters that are switched on."""
        return self._checked(lambda: strategy.with_filters(self.filters))

    def history(self) -> HistorySettings:
        """Return which candles a training stands on. Simulated candles are made anew where they are missing."""

        def build() -> HistorySettings:
            if self.source not in SOURCES:
                raise one_of("source", self.source, SOURCES)
            source: CandleOrigin = "auto" if self.source == SIMULATED_EXCHANGE else self.source  # type: ignore[assignment]
            return HistorySettings(source=source, history_days=self.history_days)

        return self._checked(build)

    def sources(self, pace: Callable[[str], Pace] = local_pace) -> SourceSettings:
        """Return where candles come from: sources and their order, data vendors' keys from the environment.

        ``pace`` gives the turns of a venue, by default those of this process alone.
        """

        def build() -> SourceSettings:
            return SourceSettings(
                simulated=SimulatedMarketSettings(edge=self.simulated_edge),
                base_url=self.exchange_url,
                order=self.source_order,
                pace=pace,
            )

        return self._checked(build)

    def simulated(self) -> SimulatedMarketSettings:
        """Return what the simulated market is like."""

        def build() -> SimulatedMarketSettings:
            try:
                return SimulatedMarketSettings(edge=self.simulated_edge)
            except InvalidInputError as error:
                raise InvalidInputError(f"simulated_edge: {error}") from None

        return self._checked(build)

    def _values_of(self, owner: type) -> dict[str, Any]:
        return {
            field.name: getattr(self, field.name) for field in fields(owner) if field.name in type(self).model_fields
        }

    def _checked(self, build: Callable[[], T]) -> T:
        try:
            return build()
        except InvalidInputError as error:
            blamed = [name for name in type(self).model_fields if name in str(error) and self.origin(name) != "default"]
            if not blamed:
                raise
            origins = ", ".join(f"{name}: from {self.origin(name)}" for name in blamed)
            raise type(error)(f"{error} ({origins})") from None


def project_dir() -> Path:
    """Return the nearest folder upwards that holds ``dagster.yaml`` and ``workspace.yaml``, else TradePulse's own."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if all((folder / name).is_file() for name in ("dagster.yaml", "workspace.yaml")):
            return folder
    return Path(__file__).resolve().parents[1]


def load_settings(**options: object) -> Settings:
    """Return the settings; an option that is None was not given.

    Raises
    ------
    InvalidInputError
        If a name is unknown or a value has the wrong form; the message says where it came from and what is allowed.
        Ranges are checked by the methods that hand settings to the domain.
    """
    project = project_dir()
    from_file = _read_file(project / SETTINGS_FILE)
    from_environment = EnvSettingsSource(Settings)()
    given = {name: value for name, value in options.items() if value is not None}
    origins = {
        **dict.fromkeys(from_file, SETTINGS_FILE),
        **{name: f"environment {variable(name)}" for name in from_environment},
        **dict.fromkeys(given, "option"),
    }
    try:
        settings = Settings(**{**from_file, **from_environment, **given})
    except ValidationError as error:
        raise InvalidInputError("\n".join(_explained(problem, origins) for problem in error.errors())) from None
    data_dir = project / settings.data_dir.expanduser()
    artifacts = settings.artifacts_url or str(data_dir / "artifacts")
    located = settings.model_copy(
        update={
            "data_dir": data_dir,
            "alerts_log": str(project / Path(settings.alerts_log or data_dir / "logs" / "alerts.log").expanduser()),
            "own_strategies": tuple(project / path.expanduser() for path in settings.own_strategies),
            "artifacts_url": artifacts if "://" in artifacts else str(project / Path(artifacts).expanduser()),
        }
    )
    located._origins, located._project_dir = origins, project
    return located


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return f"{ENV_PREFIX}{name.upper()}"


def _read_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path}: not valid TOML: {error}.") from None
    for name in values:
        if name not in Settings.model_fields:
            raise one_of("setting", name, Settings.model_fields, where=str(path))
        if name in FROM_ENVIRONMENT_ONLY:
            raise InvalidInputError(f"{path}: {name} is a secret. Take it out, and set {variable(name)} instead.")
    return values


def _explained(problem: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    name = str(problem["loc"][0])
    place = ".".join(str(part) for part in problem["loc"] if isinstance(part, str))
    if name not in Settings.model_fields:
        return str(one_of("setting", name, Settings.model_fields))
    is_secret = name in (*FROM_ENVIRONMENT_ONLY, "database_url")
    found = "a value that is not shown" if is_secret else repr(problem["input"])
    said = problem["msg"].removeprefix("Value error, ").removesuffix(".")
    return f"{place}: found {found} from {origins[name]}. {said}."
