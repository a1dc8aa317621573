"""Pairs that an exchange has newly listed, and which of them are worth following."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, Self

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.series import MS_PER_DAY, Market, SeriesKey, Timeframe
from tradepulse_pipeline.market.sources.times import iso_utc

#: A pair's volume says nothing before it was traded for a day; it is only compared with the floor, never stored.
_HIGHEST_FLOOR: Final = 1e15


@dataclass(frozen=True, slots=True, kw_only=True)
class ListingRules:
    """Which newly listed pairs are followed: those in ``quote`` on ``exchanges`` that are traded enough.

    ``minimum_volume`` is what must have been traded in the last 24 hours, in quote currency. A pair below it is looked
    at again for ``watch_days``. ``most_per_day`` bounds how many pairs are taken within 24 hours, on all exchanges
    together; each is taken in every one of ``timeframes``.
    """

    exchanges: tuple[str, ...] = ()
    quote: str = "USDT"
    minimum_volume: float = 5_000_000.0
    timeframes: tuple[str, ...] = ("5m",)
    most_per_day: int = 3
    watch_days: int = 30

    def __post_init__(self) -> None:
        for exchange in self.exchanges:
            Market(exchange, "BTC", self.quote)
        Market("binance", "BTC", self.quote)
        for timeframe in self.timeframes:
            Timeframe(timeframe)
        if not self.timeframes:
            raise InvalidInputError("timeframes: found none, expected at least one, such as 5m.")
        if not 0 <= self.minimum_volume <= _HIGHEST_FLOOR:
            raise InvalidInputError(
                f"minimum_volume: found {self.minimum_volume:g}, expected 0 to {_HIGHEST_FLOOR:g} {self.quote}."
            )
        if not 1 <= self.most_per_day <= 1_000:
            raise InvalidInputError(f"most_per_day: found {self.most_per_day}, expected 1 to 1000 pairs.")
        if not 1 <= self.watch_days <= 365:
            raise InvalidInputError(f"watch_days: found {self.watch_days}, expected 1 to 365 days.")

    def series_of(self, market: Market) -> list[SeriesKey]:
        """Return the series in which a market is followed."""
        return [SeriesKey(market, Timeframe(name)) for name in self.timeframes]


class Lister(Protocol):
    """An exchange that tells what it trades, and how much."""

    @property
    def name(self) -> str:
        """The exchange's name."""
        ...

    def traded_pairs(self) -> Collection[str]:
        """Return the spot pairs that are traded, as ``BTC/USDT``."""
        ...

    def day_volumes(self, pairs: Sequence[str]) -> Mapping[str, float | None]:
        """Return what was traded of each pair in the last 24 hours, in quote currency; None where it is not told."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Listings:
    """What is known of one exchange's pairs in one quote currency.

    ``known`` are the base currencies that were ever seen: a pair that comes back is not new. ``watched`` are those that
    are too small so far, ``taken`` those that were taken within a day, each with the time in ms.
    """

    known: frozenset[str]
    watched: Mapping[str, int] = field(default_factory=dict)
    taken: Mapping[str, int] = field(default_factory=dict)

    def to_json_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {"known": sorted(self.known), "watched": dict(self.watched), "taken": dict(self.taken)}

    @classmethod
    def from_json_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read what ``to_json_dict`` gave."""
        return cls(known=frozenset(value["known"]), watched=value["watched"], taken=value["taken"])

    def taken_since(self, time_ms: int) -> int:
        """Return how many pairs were taken since then."""
        return sum(taken_ms > time_ms for taken_ms in self.taken.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a look at an exchange came to: what is known now, what is to be followed, and sentences that say why."""

    listings: Listings
    found: tuple[Market, ...]
    sentences: tuple[str, ...]


def look_for_listings(
    exchange: Lister, rules: ListingRules, before: Listings | None, *, now_ms: int, n_allowed: int
) -> Look:
    """Compare what an exchange trades with what was known ``before``; the first look (None) only learns.

    The pairs with the highest volume come first; at most ``n_allowed`` are taken, the others stay watched.

    Raises
    ------
    SourceError
        If the exchange cannot be reached, or fails; what was known before still holds.
    """
    offered = {
        base for base, _, quote in (pair.partition("/") for pair in exchange.traded_pairs()) if quote == rules.quote
    }
    name, quote = exchange.name, rules.quote
    if before is None:
        sentence = f"{name}: {len(offered)} {quote} pairs are known from now on; what is listed after them is new."
        return Look(listings=Listings(known=frozenset(offered)), found=(), sentences=(sentence,))
    watched = {**before.watched, **dict.fromkeys(sorted(offered - before.known), now_ms)}
    sentences, markets = [], {}
    for base in list(watched):
        try:
            markets[base] = Market(name, base, quote)
        except InvalidInputError as error:
            sentences.append(f"{name} {base}/{quote}: left out. {error}")
            del watched[base]
    # One that is not traded just now keeps its days.
    volumes = exchange.day_volumes([markets[base].pair for base in watched if base in offered]) if watched else {}
    found: list[Market] = []
    taken = {base: since for base, since in before.taken.items() if since > now_ms - MS_PER_DAY}
    for base in sorted(watched, key=lambda base: (-(volumes.get(markets[base].pair) or 0.0), base)):
        market, volume = markets[base], volumes.get(markets[base].pair)
        traded = "an unknown volume was" if volume is None else f"{volume:,.0f} {quote} were"
        said = f"{name} {market.pair}: {traded} traded in 24 h, {rules.minimum_volume:,.0f} are asked for"
        until_ms = watched[base] + rules.watch_days * MS_PER_DAY
        if volume is not None and volume >= rules.minimum_volume:
            if len(found) < n_allowed:
                found.append(market)
                taken[base] = now_ms
                del watched[base]
                sentences.append(f"{said}: it is followed.")
                continue
            sentences.append(f"{said}; {rules.most_per_day} pairs were taken within 24 h already, so it waits.")
        elif now_ms < until_ms:
            sentences.append(f"{said}; looked at again until {iso_utc(until_ms)}.")
        if now_ms >= until_ms:
            del watched[base]
            sentences.append(f"{said}: not looked at any more, {rules.watch_days} days are over.")
    if not (sentences or watched):
        sentences.append(f"{name}: no {quote} pair was newly listed.")
    listings = Listings(known=before.known | offered, watched=watched, taken=taken)
    return Look(listings=listings, found=tuple(found), sentences=tuple(sentences))
