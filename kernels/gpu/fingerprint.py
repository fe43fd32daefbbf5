"""Hashes of the sources that a kernel's binaries are made of."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

__all__ = ["fingerprint", "sources"]

PACKAGE = "vaefast.kernels"
PROOF = {"aot", "binary", "fingerprint", "occupancy", "results", "survey", "table"}


@cache
def fingerprint(module: str) -> str:
    """Of ``vaefast.kernels.<module>`` and all it imports from the package, but for the proof."""
    text = b"".join(path.read_bytes() for path in sources(f"{PACKAGE}.{module}"))
    return hashlib.sha256(text).hexdigest()[:16]


def sources(name: str) -> list[Path]:
    """The files of a module and of all that it imports from the package, by name."""
    found: dict[str, Path] = {}
    waiting = [name]
    while waiting:
        name = waiting.pop()
        if name in found or PROOF & set(name.split(".")) or (path := _file(name)) is None:
            continue
        found[name] = path
        waiting += _imported(path)
    return [found[name] for name in sorted(found)]


def _imported(path: Path) -> Iterator[str]:
    """Names that may be modules of the package; ``from a import b`` names ``a`` and ``a.b``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{PACKAGE}."):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            if node.module != PACKAGE:
                yield str(node.module)


@cache
def _file(name: str) -> Path | None:
    """Where a module lies; None for a package or for what is no module."""
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:  # its parent is no package
        return None
    if spec is None or spec.origin is None or spec.submodule_search_locations is not None:
        return None
    return Path(spec.origin)
