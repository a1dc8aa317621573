"""Which pairs count as newly listed, and which of them are followed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.listings import ListingRules, Listings, Look, look_for_listings
from tradepulse_pipeline.market.series import MS_PER_DAY

NOW = 1_750_000_000_000
RULES = ListingRules(exchanges=("binance",), minimum_volume=100.0, most_per_day=2, watch_days=3)


class Exchange:
    """Trades the pairs that it is given, with their volumes, and counts how often it is asked for these."""

    name = "binance"

    def __init__(self, volumes: Mapping[str, float | None]) -> None:
        self.volumes, self.asked = dict(volumes), 0

    def traded_pairs(self) -> list[str]:
        return list(self.volumes)

    def day_volumes(self, pairs: Sequence[str]) -> dict[str, float | None]:
        self.asked += 1
        assert set(pairs) <= set(self.volumes)
        return {pair: self.volumes[pair] for pair in pairs}


def look(
    volumes: Mapping[str, float | None], before: Listings | None, *, now_ms: int = NOW, n_allowed: int = 2
) -> Look:
    return look_for_listings(Exchange(volumes), RULES, before, now_ms=now_ms, n_allowed=n_allowed)


def bases(found: Look) -> list[str]:
    return [market.base for market in found.found]


def test_the_first_look_only_learns_and_asks_for_no_volumes() -> None:
    exchange = Exchange({"BTC/USDT": 1e9, "ETH/BTC": 1e9})
    first = look_for_listings(exchange, RULES, None, now_ms=NOW, n_allowed=2)
    assert (first.found, first.listings.known, exchange.asked) == ((), frozenset({"BTC"}), 0)


def test_what_is_new_and_large_is_found_once_largest_first_as_far_as_allowed() -> None:
    known = look({"BTC/USDT": 1e9}, None).listings
    volumes = {"BTC/USDT": 1e9, "A/USDT": 100.0, "B/USDT": 300.0, "C/USDT": 200.0, "D/USDC": 1e9}
    second = look(volumes, known)
    assert bases(second) == ["B", "C"]
    assert any("binance A/USDT: 100 USDT were traded" in one and "so it waits" in one for one in second.sentences)
    third = look(volumes, second.listings, n_allowed=2 - second.listings.taken_since(NOW - MS_PER_DAY))
    assert bases(third) == []
    later = NOW + MS_PER_DAY
    fourth = look(volumes, third.listings, now_ms=later, n_allowed=2 - third.listings.taken_since(later - MS_PER_DAY))
    assert bases(fourth) == ["A"]


@pytest.mark.parametrize("volume", [99.9, 0.0, None])
def test_a_small_pair_is_watched_for_its_days_and_then_no_more(volume: float | None) -> None:
    known = look({}, None).listings
    for day in range(RULES.watch_days):
        seen = look({"A/USDT": volume}, known, now_ms=NOW + day * MS_PER_DAY)
        assert (bases(seen), list(seen.listings.watched)) == ([], ["A"])
        known = seen.listings
    over = look({"A/USDT": volume}, known, now_ms=NOW + RULES.watch_days * MS_PER_DAY)
    assert (dict(over.listings.watched), bases(over)) == ({}, [])
    assert "3 days are over" in over.sentences[0]
    assert bases(look({"A/USDT": 1e9}, over.listings, now_ms=NOW + 4 * MS_PER_DAY)) == []


def test_a_pair_that_grows_is_found_while_it_is_watched() -> None:
    known = look({}, None).listings
    small = look({"A/USDT": 1.0}, known)
    assert bases(look({"A/USDT": 1e3}, small.listings, now_ms=NOW + MS_PER_DAY)) == ["A"]


def test_a_list_that_lacks_pairs_for_a_moment_makes_none_of_them_new() -> None:
    volumes = {f"P{number}/USDT": 1e9 for number in range(50)}
    known = look(volumes, None).listings
    torn = look({"P0/USDT": 1e9}, known)
    back = look(volumes, torn.listings)
    assert (bases(torn), bases(back)) == ([], [])


def test_a_pair_whose_name_no_series_can_have_is_left_out_and_told() -> None:
    seen = look({"币安人生/USDT": 1e9}, look({}, None).listings)
    assert (bases(seen), dict(seen.listings.watched)) == ([], {})
    assert "left out. Currency '币安人生' is not valid" in seen.sentences[0]


@given(
    st.lists(
        st.dictionaries(st.sampled_from([f"{base}/USDT" for base in "ABCDEF"]), st.none() | st.floats(0, 300)),
        min_size=1,
        max_size=8,
    )
)
def test_no_pair_is_found_twice_and_none_that_was_there_from_the_start(days: list[dict[str, float | None]]) -> None:
    listings, found = None, []
    for day, volumes in enumerate(days):
        now_ms = NOW + day * MS_PER_DAY // 2
        taken = 0 if listings is None else listings.taken_since(now_ms - MS_PER_DAY)
        seen = look(volumes, listings, now_ms=now_ms, n_allowed=RULES.most_per_day - taken)
        listings = Listings.from_json_dict(seen.listings.to_json_dict())
        assert listings == seen.listings
        assert all((volumes[market.pair] or 0.0) >= RULES.minimum_volume for market in seen.found)
        assert taken + len(seen.found) <= RULES.most_per_day
        assert seen.sentences or listings.watched
        found += bases(seen)
    assert len(found) == len(set(found))
    assert not {f"{base}/USDT" for base in found} & set(days[0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"exchanges": ("Binance",)}, "Exchange 'Binance' is not a valid name"),
        ({"quote": "usdt"}, "Currency 'usdt' is not valid"),
        ({"timeframes": ("5min",)}, "Unknown timeframe '5min'"),
        ({"timeframes": ()}, "timeframes: found none"),
        ({"minimum_volume": -1.0}, "minimum_volume: found -1"),
        ({"minimum_volume": float("nan")}, "minimum_volume: found nan"),
        ({"most_per_day": 0}, "most_per_day: found 0"),
        ({"watch_days": 366}, "watch_days: found 366"),
    ],
)
def test_rules_check_themselves(values: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        ListingRules(**values)  # type: ignore[arg-type]
