"""Tables between assets: sealed Parquet files, written atomically, one per asset and series."""

from __future__ import annotations

import hashlib
import io
import operator
import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tradepulse_pipeline.errors import TradePulseError
from tradepulse_pipeline.market.series import Market, SeriesKey

if TYPE_CHECKING:
    import polars as pl

#: The key of the Parquet metadata that holds the seal, and how key and value stand in the file: with two bytes of
#: Thrift between them.
_SEAL: Final = "tradepulse.seal"
_NO_SEAL: Final = b"0" * 64
_SEAL_IN_FILE: Final = re.compile(rb"tradepulse\.seal..([0-9a-f]{64})", re.DOTALL)


#: Nobody takes so many seconds to write a file: whoever began was killed.
_UNFINISHED_FOR_S: Final = 3600.0

#: Calls what it is given, which makes a change visible, and may refuse it.
Guard = Callable[[Callable[[], None]], None]


class ArtifactError(TradePulseError):
    """A Parquet file between two assets is missing, damaged, or does not belong to what it is used with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file that was written: where it is, and the SHA-256 of its bytes."""

    url: str
    sha256: str
    n_bytes: int
    n_rows: int


class ArtifactStore:
    """Parquet files under a folder or any other base that fsspec knows (``s3://…``, ``memory://…``).

    Machines may share it: a folder that all of them mount, or an object store. A file is replaced as a whole or not at
    all. It carries a seal in its metadata: the SHA-256 of its own bytes with zeros in the seal's place. A flipped bit,
    anywhere, is noticed when the file is read.
    """

    def __init__(self, base_url: str, guard: Guard = operator.call) -> None:
        self._base_url: Final = base_url.rstrip("/")
        self._guard: Final = guard

    def guarded(self, guard: Guard) -> ArtifactStore:
        """Return the same store, in which files take their place, or are removed, in ``guard`` alone."""
        return ArtifactStore(self._base_url, guard)

    def url(self, asset: Sequence[str], series: SeriesKey) -> str:
        """Return where the table of an asset for one series is: ``…/indicators/binance_BTC-USDT_5m.parquet``."""
        return "/".join((self._base_url, *asset, f"{str(series).replace(':', '_')}.parquet"))

    def write_parquet(
        self, asset: Sequence[str], series: SeriesKey, table: pl.DataFrame, metadata: Mapping[str, str]
    ) -> Artifact:
        """Write ``table``, with ``metadata`` in the file, in place of what was there.

        Raises
        ------
        ArtifactError
            If it cannot be written; the old file, if any, is still whole.
        """
        return _write(self.url(asset, series), table, metadata, self._guard)

    def read_parquet(self, asset: Sequence[str], series: SeriesKey) -> tuple[pl.DataFrame, dict[str, str], Artifact]:
        """Return the table, the metadata that was written with it, and which file that was.

        Raises
        ------
        ArtifactError
            If there is no such file, or its seal does not match its bytes.
        """
        return _read(self.url(asset, series), "/".join(asset), series)

    def recordings(self, market: Market) -> ArtifactFolder:
        """Return the folder ``…/recordings/binance/BTC-USDT`` for what was recorded live."""
        url = "/".join((self._base_url, "recordings", market.exchange, f"{market.base}-{market.quote}"))
        return ArtifactFolder(url, "recordings", market, self._guard)

    def folder(self, asset: Sequence[str], series: SeriesKey, *parts: str) -> ArtifactFolder:
        """Return the folder ``…/optimization_results/binance_BTC-USDT_5m/parts…`` for tables in many files."""
        url = "/".join((self.url(asset, series).removesuffix(".parquet"), *parts))
        return ArtifactFolder(url, "/".join(asset), series, self._guard)


class ArtifactFolder:
    """Parquet files of one asset and series that belong together, each as sealed and atomic as a single one."""

    def __init__(self, url: str, asset: str, series: SeriesKey | Market, guard: Guard) -> None:
        self.url: Final = url
        self._asset: Final = asset
        self._series: Final = series
        self._guard: Final = guard

    def folder(self, name: str) -> ArtifactFolder:
        """Return a folder in this one."""
        return ArtifactFolder(f"{self.url}/{name}", self._asset, self._series, self._guard)

    def write_parquet(self, name: str, table: pl.DataFrame, metadata: Mapping[str, str]) -> Artifact:
        """Write ``name``; see :meth:`ArtifactStore.write_parquet`."""
        return _write(f"{self.url}/{name}", table, metadata, self._guard)

    def read_parquet(self, name: str) -> tuple[pl.DataFrame, dict[str, str], Artifact]:
        """Read ``name``; see :meth:`ArtifactStore.read_parquet`."""
        return _read(f"{self.url}/{name}", self._asset, self._series)

    def scan_parquet(self, names: Sequence[str]) -> pl.LazyFrame:
        """Return the tables of some files below each other, of which only what is asked for is read.

        Seals are not looked at: for what is merely shown, of files that this process wrote or has checked.
        """
        import polars as pl

        sources: list[Any] = []
        for name in names:
            filesystem, path = _filesystem(f"{self.url}/{name}")
            sources.append(Path(path) if _is_local(filesystem) else io.BytesIO(filesystem.cat_file(path)))
        return pl.scan_parquet(sources, glob=False)

    def names(self) -> list[str]:
        """Return the names of what lies in the folder, sorted; none if there is no such folder.

        Hidden files are left out: those that a killed process did not finish.
        """
        filesystem, path = _filesystem(self.url)
        if not filesystem.isdir(path):
            return []
        names = (str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in filesystem.ls(path, detail=False))
        return sorted(name for name in names if not name.startswith("."))

    def age(self) -> timedelta:
        """Return how long ago its newest file was written; as good as forever if there is none."""
        filesystem, path = _filesystem(self.url)
        times = [filesystem.modified(file) for file in filesystem.find(path)]
        return datetime.now(UTC) - max(times) if times else timedelta.max

    def remove(self) -> None:
        """Remove the folder and all that lies in it, if it is there."""
        filesystem, path = _filesystem(self.url)
        self._guard(lambda: filesystem.rm(path, recursive=True) if filesystem.exists(path) else None)


def _filesystem(url: str) -> tuple[Any, str]:
    import fsspec

    # What other machines write must show, and object stores' listings are remembered for ever by default.
    filesystem, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    return filesystem, path


def _is_local(filesystem: Any) -> bool:
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(filesystem, LocalFileSystem)


def _write(url: str, table: pl.DataFrame, metadata: Mapping[str, str], guard: Guard) -> Artifact:
    content = _sealed(table, metadata)
    try:
        _replace_file(url, content, guard)
    except OSError as error:
        raise ArtifactError(
            f"Could not write {url} ({len(content)} bytes): {error}. What was there before is untouched; free some "
            "space or set artifacts_url to another place, and run it again."
        ) from error
    return Artifact(url=url, sha256=hashlib.sha256(content).hexdigest(), n_bytes=len(content), n_rows=table.height)


def _read(url: str, name: str, series: SeriesKey | Market) -> tuple[pl.DataFrame, dict[str, str], Artifact]:
    import polars as pl

    filesystem, path = _filesystem(url)
    try:
        content = bytes(filesystem.cat_file(path))
    except FileNotFoundError:
        raise ArtifactError(f"{name} of {series}: no file {url}. Materialize {name} for {series} first.") from None
    if not _is_whole(content):
        raise ArtifactError(
            f"{name} of {series}: the file {url} is damaged: its bytes do not match its seal. Materialize {name} "
            f"for {series} again."
        )
    metadata = pl.read_parquet_metadata(io.BytesIO(content))
    table = pl.read_parquet(io.BytesIO(content))
    kept = {key: value for key, value in metadata.items() if key not in (_SEAL, "ARROW:schema")}
    digest = hashlib.sha256(content).hexdigest()
    return table, kept, Artifact(url=url, sha256=digest, n_bytes=len(content), n_rows=table.height)


def _sealed(table: pl.DataFrame, metadata: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    # The lowest level: the next ones take much longer and gain a twentieth.
    table.write_parquet(
        buffer, compression="zstd", compression_level=1, metadata={**metadata, _SEAL: _NO_SEAL.decode()}
    )
    content = buffer.getbuffer()
    place = _place_of_seal(buffer.getvalue())
    assert place is not None
    content[place] = hashlib.sha256(content).hexdigest().encode()
    return bytes(content)


def _is_whole(content: bytes) -> bool:
    """Return whether the seal is there and matches all other bytes; trusts none of them before."""
    place = _place_of_seal(content)
    if place is None:
        return False
    digest = hashlib.sha256(content[: place.start])
    digest.update(_NO_SEAL)
    digest.update(memoryview(content)[place.stop :])
    return digest.hexdigest().encode() == content[place]


def _place_of_seal(content: bytes) -> slice | None:
    """Return where the digits of the last seal are, which stands in the metadata at the end of the file."""
    found = _SEAL_IN_FILE.match(content, max(0, content.rfind(_SEAL.encode())))
    return None if found is None else slice(*found.span(1))


def _replace_file(url: str, content: bytes, guard: Guard) -> None:
    filesystem, path = _filesystem(url)
    if not _is_local(filesystem):
        guard(lambda: filesystem.pipe_file(path, content))  # object stores replace an object as a whole
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_unfinished(target)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as temporary:
        unfinished = Path(temporary.name)
        try:
            temporary.write(content)
            temporary.flush()
            os.fsync(temporary.fileno())
            guard(lambda: _take_place(unfinished, target))
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    _sync_folder(target.parent)


def _take_place(unfinished: Path, target: Path) -> None:
    """Move a file to its place; doing it again changes nothing."""
    with suppress(FileNotFoundError):
        unfinished.replace(target)


def _remove_unfinished(target: Path) -> None:
    """Remove what processes that were killed while they wrote ``target`` left beside it."""
    for unfinished in target.parent.glob(f".{target.name}.*"):
        with suppress(FileNotFoundError):
            if time.time() - unfinished.stat().st_mtime > _UNFINISHED_FOR_S:
                unfinished.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the renaming of a file in ``folder`` survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
