"""Machine code of the kernels, kept between processes, and never in the way: what is broken or stale is made again.

Numba's own cache fails every call where a file of it is damaged (a power loss leaves empty ones), loads machine code
whatever happened to its bytes, and takes code for fresh as long as the kernel's own file stays the same, even where a
helper or a constant that the kernel uses has changed in another file.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.extending import is_jitted

if TYPE_CHECKING:
    from numba.core.dispatcher import Dispatcher

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

_log: Final = logging.getLogger(__name__)

_ROOT: Final = Path(__file__).parents[1]
_IMPORT: Final = re.compile(r"^(?:from|import) (tradepulse_pipeline[\w.]*)", re.MULTILINE)
_N_DIGEST: Final = hashlib.sha256().digest_size


def njit(**options: Any) -> Callable[[Kernel], Dispatcher[Kernel]]:
    """Return ``numba.njit(**options)`` with a cache that tells broken and stale files from good ones."""

    def decorate(function: Kernel) -> Dispatcher[Kernel]:
        made: Any = numba.njit(**options)(function)
        is_cached: bool = options.get("cache", False) and is_jitted(made)  # not where NUMBA_DISABLE_JIT is set
        if is_cached:
            made._cache = _Cache(function)
        return cast("Dispatcher[Kernel]", made)

    return decorate


class _Cache(FunctionCache):
    """Keeps the machine code of one function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = _SealedFiles(self.cache_path, self._impl.filename_base, Path(function.__code__.co_filename))

    def save_overload(self, sig: Any, data: Any) -> None:
        """Save machine code; without room for it, the next process compiles again."""
        try:
            super().save_overload(sig, data)
        except OSError as error:
            _log.warning("Compiled code cannot be kept in %s: %s. Each process compiles anew.", self.cache_path, error)


class _SealedFiles(IndexDataCacheFile):
    """Index and machine code of one function, each with the SHA-256 of what follows it.

    The index holds a stamp of all source that the function can see; code under another one is stale.
    """

    def __init__(self, folder: str, name: str, source: Path) -> None:
        super().__init__(folder, name, None)
        self._source = source

    def _load_index(self) -> dict[Any, str]:
        content = _unsealed(Path(self._index_path))
        stamp, overloads = (None, {}) if content is None else pickle.loads(content)  # noqa: S301 (our own, sealed)
        return overloads if stamp == self._stamp() else {}

    def _save_index(self, overloads: dict[Any, str]) -> None:
        self._save(self._index_path, (self._stamp(), overloads))

    def _load_data(self, name: str) -> Any:
        content = _unsealed(Path(self._data_path(name)))
        return None if content is None else pickle.loads(content)  # noqa: S301

    def _save_data(self, name: str, data: Any) -> None:
        self._save(self._data_path(name), data)

    def _save(self, path: str, value: Any) -> None:
        content = self._dump(value)
        with self._open_for_write(path) as file:
            file.write(hashlib.sha256(content).digest() + content)

    def _stamp(self) -> tuple[str, str]:
        return numba.__version__, source_stamp(self._source)


def _unsealed(path: Path) -> bytes | None:
    """Return what a file holds after its hash; None if there is none or it does not match."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    seal, rest = content[:_N_DIGEST], content[_N_DIGEST:]
    return rest if hashlib.sha256(rest).digest() == seal else None


@functools.cache
def source_stamp(path: Path, root: Path = _ROOT) -> str:
    """Return the SHA-256 of a source file and of all of TradePulse's that it imports, directly or not."""
    digest = hashlib.sha256()
    for source in sorted(_reached(path, root)):
        digest.update(hashlib.sha256(source.read_bytes()).digest())
    return digest.hexdigest()


def _reached(path: Path, root: Path) -> set[Path]:
    found, left = set[Path](), [path]
    while left:
        source = left.pop()
        if source not in found:
            found.add(source)
            left += _imported(source, root)
    return found


def _imported(source: Path, root: Path) -> Iterator[Path]:
    """Return the files of the modules that a file imports when it is loaded."""
    for name in _IMPORT.findall(source.read_text(encoding="utf-8")):
        module = root.joinpath(*name.split("."))
        yield from (file for file in (module.with_suffix(".py"), module / "__init__.py") if file.is_file())
