"""The errors that a user can meet. One root, few classes; every message says what to do."""

from __future__ import annotations

import difflib
import os
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final


class TradePulseError(Exception):
    """Root of every error that TradePulse raises on purpose."""

    #: Whether the same work may succeed a little later, with nothing mended by anybody. Errors that pass one on (raised
    #: ``from`` it) need not say so again.
    may_pass = False


class InvalidInputError(TradePulseError, ValueError):
    """A value that a person or a program gave is not allowed; the message lists what is."""


class CandleError(InvalidInputError):
    """Candles break a rule of the data contract; the message names rows and counts."""


class SourceError(TradePulseError):
    """A source of candles could not answer; what was fetched before is kept."""


class SourceUnreachableError(SourceError):
    """No connection to the source at all (no network, blocked, refused)."""


class HistoryUnavailableError(SourceError):
    """The source gives only recent candles, and all that were asked for are older."""


class InsufficientHistoryError(InvalidInputError):
    """There are fewer candles than a window needs; the message gives both numbers."""


class DatabaseError(TradePulseError):
    """The database cannot be reached or holds what it must not; passwords never appear."""


class SearchLimitError(InvalidInputError):
    """A search is larger than the limit set for it; refused before it starts."""


class StrategyError(InvalidInputError):
    """A strategy breaks a rule of the interface; the message says where, and what was expected."""


class LookAheadError(StrategyError):
    """A strategy reads candles that come after its decision."""


#: How the names of files begin that no user wrote: Python's own, what is installed, TradePulse.
_NOT_THEIRS: Final = (
    "<",
    *(sysconfig.get_path(name) + os.sep for name in ("stdlib", "purelib", "platlib")),
    str(Path(__file__).parent) + os.sep,
)


@contextmanager
def blamed_on(what: str) -> Iterator[None]:
    """Tell what goes wrong in code that a user wrote as an error of ``what``, with file and line where they are known.

    Raises
    ------
    StrategyError
        In the place of any other error.
    """
    try:
        yield
    except StrategyError:
        raise
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_NOT_THEIRS)]
        place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
        said = str(error) if isinstance(error, TradePulseError) else f"{type(error).__name__}: {error}"
        raise StrategyError(f"{what}{place}: {said}") from error


def one_of(kind: str, found: object, allowed: Iterable[str], *, where: str = "") -> InvalidInputError:
    """Return the error for a name that is not among the ``allowed`` ones, with the nearest of them first.

    Examples
    --------
    >>> print(one_of("timeframe", "5min", ["1m", "5m", "1h"]))
    Unknown timeframe '5min'. Did you mean '5m'? Allowed: 1m, 5m, 1h.
    """
    names = [str(name) for name in allowed]
    near = difflib.get_close_matches(str(found), names, n=3, cutoff=0.6)
    hint = f" Did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
    place = f" in {where}" if where else ""
    listed = names if len(names) <= 120 else [*(near or names[:20]), f"… ({len(names)} in all)"]
    return InvalidInputError(f"Unknown {kind} {str(found)!r}{place}.{hint} Allowed: {', '.join(listed) or 'none'}.")
