"""Code of the user's own, named in a config as `package.module:name`: a network or a loss.

Importing a module runs it, so that is announced once. The working directory is searched last. Code that only the
config of a run folder names may be a stranger's: it is imported when the user allows it.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from errors import UserError, info, suggest_nearest


@dataclass
class _Permission:
    """Names of code that this process may import; a name from elsewhere, as in a test, needs none."""

    allowed: set[str] = field(default_factory=set)
    foreign: dict[str, Path] = field(default_factory=dict)  # by the file that names it
    allows_all: bool = False
    imported: set[str] = field(default_factory=set)


_permission = _Permission()


def reset_permission(allows_all: bool = False) -> None:
    """Forget which code was named, as a command starts."""
    _permission.allowed.clear()
    _permission.foreign.clear()
    _permission.imported.clear()
    _permission.allows_all = allows_all


def allow_code(config: BaseModel) -> None:
    """Allow the code that a config from the user names, also in the grid of a study."""
    _permission.allowed.update(_iterate_names(config.model_dump()))


def mark_foreign(config: BaseModel, path: Path) -> None:
    """Remember the code that the config of a run folder names: only `allow_code` permits it."""
    for name in _iterate_names(config.model_dump()):
        _permission.foreign.setdefault(name, path)


def has_imported_code() -> bool:
    """Return whether this command has imported code of the user's own."""
    return bool(_permission.imported)


def _iterate_names(values: Any) -> Iterator[str]:
    if isinstance(values, str) and is_own(values):
        yield values
    elif isinstance(values, dict):
        yield from _iterate_names([*values, *values.values()])
    elif isinstance(values, list | tuple):
        for one in values:
            yield from _iterate_names(one)


def _refuse_foreign(key: str, name: str) -> None:
    """Raise `UserError` for code that only a run folder's config names."""
    if name in _permission.foreign and name not in _permission.allowed and not _permission.allows_all:
        path = _permission.foreign[name]
        raise UserError(
            f"{path}: {key} {name} is code that this command would run: if you trust who made the run, "
            "allow it with --allow-code"
        )


def is_own(name: str) -> bool:
    """Return whether a name is that of a class or function to import."""
    return ":" in name


def load_own(key: str, name: str) -> Callable[..., object]:
    """Return the class or function with the name `package.module:name`.

    Args:
        key: of the config, for messages.
        name: package.module:name.

    Raises:
        UserError: there is none, or importing it fails.
    """
    module_name, _, wanted = name.partition(":")
    module = _import_module(key, name, module_name)
    found: Any = module
    for part in wanted.split("."):
        if not hasattr(found, part):
            place = getattr(module, "__file__", module_name)
            callables = [known for known, value in vars(module).items() if callable(value)]
            raise UserError(f"{key} {name}: {place} has no {wanted}{suggest_nearest(wanted, callables)}")
        found = getattr(found, part)
    if not callable(found):
        raise UserError(f"{key} {name}: {wanted} is a {type(found).__name__}, name a class or a function")
    own: Callable[..., object] = found
    return own


def digest_code(key: str, name: str) -> str:
    """Return a digest of the file with the user's own code, empty for any other name."""
    if not is_own(name):
        return ""
    place = getattr(_import_module(key, name, name.partition(":")[0]), "__file__", None)
    return hashlib.sha256(Path(place).read_bytes()).hexdigest()[:16] if place else ""


def _import_module(key: str, name: str, module_name: str) -> ModuleType:
    _refuse_foreign(key, name)
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise UserError(f"{key} {name}: write package.module:name, a module as `import` takes it")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        is_asked = error.name is not None and f"{module_name}.".startswith(f"{error.name}.")
        reason = (
            f"neither installed nor in {here}" if is_asked else f"which {module_name} imports, is not installed"
        )
        raise UserError(f"{key} {name}: no module {error.name}, {reason}") from None
    except Exception as error:  # code of the user's own may raise anything
        raise UserError(f"{key} {name}: importing {module_name} raised {type(error).__name__}: {error}") from error
    _permission.imported.add(module_name)
    info(f"{key} {name}: imported {module.__file__ or module_name}, which is code of your own")
    return module
