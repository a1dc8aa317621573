"""Strategies that users write: read from files that the settings name, and from installed packages."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import re
import sys
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from tradepulse_pipeline.errors import StrategyError, TradePulseError
from tradepulse_pipeline.indicators.frame import Indicator
from tradepulse_pipeline.strategies.base import KINDS, Origin, Parameter, Strategy
from tradepulse_pipeline.strategies.registry import register

#: The group under which an installed package offers strategies.
ENTRY_POINTS: Final = "tradepulse.strategies"

#: Columns that stand beside those of the parameters in the tables of trials.
RESERVED_NAMES: Final = frozenset({
    "window", "rank", "trial", "combination", "objective", "on_pareto_front",
    "neighbours_mean", "neighbours_worst", "neighbours_kept",
    "net_profit", "total_return", "annualized_return", "sharpe_ratio", "sortino_ratio", "calmar_ratio", "max_drawdown",
    "sample_size", "win_rate", "gross_win_rate", "average_win", "average_loss", "profit_factor", "expectancy_r",
    "average_holding_bars", "exposure", "adverse_selection_score", "fill_rate",
})  # fmt: skip

_TEXTS: Final = {
    "name": "the name by which it is trained, such as MA_CROSS",
    "title": "a name to read",
    "description": "what it does, in a sentence or two",
    "version": "a text that changes with what it decides",
}


def register_own_strategies(files: Iterable[Path]) -> None:
    """Make the strategies of ``files`` and of installed packages known by name, in the place of own ones before.

    Raises
    ------
    StrategyError
        If one of them is not as it must be: the message says where, what was expected and what was found. Those that
        were known before stay known then.
    """
    register([*(strategy for file in files for strategy in strategies_of_file(file)), *_installed()])


def strategies_of_file(path: Path) -> list[Strategy]:
    """Return the strategies that a Python file defines, in their order; the file is read anew each time.

    A class without a name, from which others of the file derive, is their base and no strategy itself.

    Raises
    ------
    StrategyError
        See ``register_own_strategies``.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise StrategyError(
            f"{path}: expected a Python file with a strategy, found none to read: {error.strerror or error}. Names in "
            "own_strategies are relative to the project folder, where tradepulse.toml is."
        ) from None
    module = _run(path, source)
    classes = [item for item in vars(module).values() if _is_strategy(item) and item.__module__ == module.__name__]
    bases = {base for item in classes for base in item.__mro__[1:]}
    wanted = [item for item in dict.fromkeys(classes) if hasattr(item, "name") or item not in bases]
    if not wanted:
        raise StrategyError(
            f"{path}: found no strategy in it, expected a class that derives from "
            "tradepulse_pipeline.strategies.base.Strategy."
        )
    lines = {node.name: node.lineno for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)}
    digest = hashlib.sha256(source).hexdigest()
    return [
        _made(item, Origin(str(path), digest), f"{path}, line {lines.get(item.__name__, 1)}: class {item.__name__}")
        for item in wanted
    ]


def _run(path: Path, source: bytes) -> ModuleType:
    """Return the module that a file's source makes: of exactly the bytes that are hashed, and not of a cached copy."""
    name = f"tradepulse_own_{path.stem}_{hashlib.sha256(bytes(path)).hexdigest()[:8]}"
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = str(path)
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 (code that the user asks to run)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise StrategyError(f"{_place_of(error, path)}: {_explained(error)}") from error
    return module


def _place_of(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}, line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _explained(error: BaseException) -> str:
    if isinstance(error, TradePulseError):
        return str(error)
    said = f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"
    if isinstance(error, ImportError):
        return f"{said}. It can import what is installed beside TradePulse, but no file next to it."
    if isinstance(error, TypeError) and "Parameter." in said:
        return f"{said}. A parameter needs name, unit, meaning, kind, grid (the values to try), minimum and maximum."
    return said


def _installed() -> Iterator[Strategy]:
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        package = f"{point.dist.name} {point.dist.version}" if point.dist else "an installed package"
        place = f"{package} (entry point {point.name} = {point.value})"
        try:
            item = point.load()
        except Exception as error:
            raise StrategyError(f"{place}: {type(error).__name__}: {error}. Mend or uninstall the package.") from error
        if not _is_strategy(item):
            raise StrategyError(f"{place}: found {item!r}, expected a class that derives from Strategy.")
        yield _made(item, Origin(place, _hash_of_package(item.__module__.partition(".")[0])), place)


def _hash_of_package(name: str) -> str:
    """Return the SHA-256 over names and contents of all source files of a package, or of a module's only one."""
    module, digest = sys.modules[name], hashlib.sha256()
    folders = [Path(folder) for folder in getattr(module, "__path__", ())]
    files = [(path, folder) for folder in folders for path in sorted(folder.rglob("*.py"))]
    for path, folder in files or [(Path(str(module.__file__)), Path(str(module.__file__)).parent)]:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _is_strategy(item: object) -> bool:
    return isinstance(item, type) and issubclass(item, Strategy) and item is not Strategy


def _made(item: type[Strategy], origin: Origin, place: str) -> Strategy:
    """Return the strategy of a class whose declarations are as they must be; ``place`` is where errors point to."""
    problem = next(_problems(item), None)
    if problem is not None:
        raise StrategyError(f"{place}: {problem}")
    try:
        strategy = item()
    except Exception as error:
        raise StrategyError(f"{place}: cannot be made without arguments: {type(error).__name__}: {error}") from error
    strategy.origin = origin
    return strategy


def _problems(item: type[Strategy]) -> Iterator[str]:
    """Yield what is wrong with the declarations of a strategy, the plainest first."""
    for attribute, meaning in _TEXTS.items():
        value = getattr(item, attribute, None)
        if not isinstance(value, str) or not value.strip():
            yield f"{attribute} is {'missing' if value is None else repr(value)}, expected a text: {meaning}."
    if not re.fullmatch("[A-Z][A-Z0-9_]*", item.name):
        yield f"name is {item.name!r}, expected capitals, digits and underscores, such as MA_CROSS."
    if missing := sorted(item.__abstractmethods__):
        yield f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing: expected a method of that name."
    yield from _members_problems(item, "parameters", Parameter)
    yield from _members_problems(item, "indicators", Indicator)
    for parameter in item.parameters:
        if not re.fullmatch("[a-z][a-z0-9_]*", parameter.name):
            yield f"parameter {parameter.name!r}: expected lower-case letters, digits and underscores in the name."
        if parameter.name in RESERVED_NAMES:
            yield f"parameter {parameter.name!r}: the tables of trials have a column of this name. Choose another."
    for kind in KINDS:
        if kind not in [parameter.kind for parameter in item.parameters]:
            yield f"no parameter of kind {kind!r}, expected one or more. What is fixed has a grid of one value: (2.0,)."


def _members_problems(item: type[Strategy], attribute: str, kind: type) -> Iterator[str]:
    """Yield what is wrong with a tuple of named things."""
    members: Any = getattr(item, attribute, None)
    if members is None:
        yield f"{attribute} is missing, expected a tuple of {kind.__name__} objects."
    elif not isinstance(members, tuple):
        yield (
            f"{attribute} is of type {type(members).__name__}, expected a tuple of {kind.__name__} objects. One alone "
            "needs a comma: (first,)."
        )
    else:
        for member in members:
            if not isinstance(member, kind):
                yield f"{attribute} holds {member!r}, expected {kind.__name__} objects alone."
        for name, count in Counter(member.name for member in members).items():
            if count > 1:
                yield f"{attribute} has {count} of the name {name!r}, expected each name once."
