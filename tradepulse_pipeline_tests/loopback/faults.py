"""What can go wrong between an exchange and us, as data."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, Self, get_args

FaultKind = Literal[
    "status",
    "redirect",
    "reset",
    "short_body",
    "truncated_json",
    "html",
    "empty_body",
    "other_json",
    "flipped_byte",
    "drip",
    "empty_page",
    "partial_page",
    "duplicated_page",
    "overlapping_page",
    "restated_page",
    "nonsense_page",
    "edge_page",
    "hole_page",
    "stale_page",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong, for ``times`` requests (None: for good) after ``skip`` good ones.

    It strikes requests whose path contains ``path`` and whose query contains ``query``. ``status`` and ``retry_after``
    belong to the kind 'status', ``location`` to 'redirect', ``seconds`` to 'drip', ``body`` to 'other_json'. The kinds
    that end in 'page' change the rows of a good reply.
    """

    kind: FaultKind
    path: str = ""
    query: str = ""
    skip: int = 0
    times: int | None = 1
    status: int = 503
    retry_after: str = ""
    location: str = "http://elsewhere.invalid/"
    seconds: float = 60.0
    body: str = '{"error": [], "result": {}}'

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            raise ValueError(f"Unknown fault {self.kind!r}. Allowed: {', '.join(get_args(FaultKind))}.")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a fault as it is written on a command line.

        Examples
        --------
        >>> Fault.parse("status,status=429,retry_after=2,path=klines,times=3").times
        3
        """
        kind, *parts = text.split(",")
        numbers = {"skip": int, "times": lambda value: None if value == "ever" else int(value), "status": int}
        given = {}
        for part in parts:
            name, _, value = part.partition("=")
            if name not in {field.name for field in fields(cls)}:
                raise ValueError(f"Unknown property {name!r} of a fault in {text!r}.")
            given[name] = float(value) if name == "seconds" else numbers.get(name, str)(value)
        return cls(kind=kind, **given)

    @property
    def changes_rows(self) -> bool:
        """Whether the reply is well formed and only its candles are not what they should be."""
        return self.kind.endswith("_page")

    def rows(self, rows: list[list[Any]]) -> list[list[Any]]:
        """Return a page's rows with the fault in them."""
        match self.kind:
            case "empty_page":
                return []
            case "partial_page":
                return rows[: max(len(rows) // 3, 1)]
            case "duplicated_page":
                return [row for row in rows for _ in range(2)]
            case "overlapping_page":
                return [*rows[: len(rows) // 2 + 3], *rows[len(rows) // 2 - 3 :]]
            case "edge_page":
                return rows[:-1] if len(rows) > 1 else rows
            case "stale_page":
                return rows[:1]
            case "hole_page":
                return [*rows[: len(rows) // 2], *rows[len(rows) // 2 + 1 :]]
            case "restated_page":
                return [[*row[:5], repr(float(row[5]) * 1.5), *row[6:]] for row in rows]
            case _:
                return [*rows[:5], [rows[5][0], "NaN", "-1", None, "0", "x", *rows[5][6:]], *rows[6:]]
