"""What earlier runs found of each binary, kept beside triton's cache: a run can be taken up again.

A result's key holds everything that it depends on: the kernel's sources, the form, the target, the
version of triton, and the code that compiles and measures.
"""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from pathlib import Path

import triton

import vaefast.kernels.aot as aot
import vaefast.kernels.binary as binary
from vaefast.kernels.aot import Variant
from vaefast.kernels.binary import Binary
from vaefast.kernels.fingerprint import fingerprint

__all__ = ["folder", "keep", "kept", "key"]


def folder() -> Path:
    """In ``TRITON_CACHE_DIR``, by default ``~/.triton/cache``."""
    cached = os.environ.get("TRITON_CACHE_DIR") or Path.home() / ".triton" / "cache"
    return Path(cached) / "vaefast"


def key(module: str, variant: Variant, target: str) -> str:
    """The name of a result's file; a form's label and its other targets do not matter."""
    form = variant._replace(label="", kernel=variant.kernel.__name__, targets=())
    parts = (triton.__version__, _proof(), fingerprint(module), target, repr(tuple(form)))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@cache
def _proof() -> str:
    text = b"".join(Path(str(module.__file__)).read_bytes() for module in (aot, binary))
    return hashlib.sha256(text).hexdigest()


def kept(key: str) -> Binary | None:
    """A result that an earlier run kept."""
    try:
        return Binary(**json.loads((folder() / f"{key}.json").read_text()))
    except (OSError, ValueError, TypeError):  # none, or half of one
        return None


def keep(key: str, found: Binary) -> None:
    folder().mkdir(parents=True, exist_ok=True)
    new = folder() / f"{key}.{os.getpid()}"
    new.write_text(json.dumps(found._asdict()))
    new.replace(folder() / f"{key}.json")
