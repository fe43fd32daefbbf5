"""The user's own sources: objects of two methods, or a function that makes one."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaefast.data.dataset import Array
from vaefast.data.values import UNIT, Box
from vaefast.jobs.sources.content import xxhash
from vaefast.jobs.sources.images import first_shape
from vaefast.jobs.sources.rows import Raw, Rows, Source, into_rows, listed, rows_digest, span

__all__ = ["ObjectSource", "is_source", "made_by"]

SAMPLED = 32  # rows that a fingerprint reads, evenly spaced


def is_source(value: object) -> bool:
    """Whether it has a length and gives rows: ``read(start, stop)``, or items as torch's sets."""
    return hasattr(value, "__len__") and (hasattr(value, "read") or hasattr(value, "__getitem__"))


class ObjectSource(Source):
    """Rows of an object with ``__len__`` and ``read(start, stop)``, or ``__getitem__``.

    ``read`` returns :class:`Rows`, x, or (x, y); an item is x or (x, y). What it gives is checked
    as a file's values are. Where ``read`` raises, rows are read one by one, and those that raise
    have failed.

    The fingerprint is the object's own ``fingerprint`` where it has one; else it covers the name of
    its type, its length and 32 rows, evenly spaced, the first and the last among them.
    """

    def __init__(self, value: Any, box: Box | None, event: tuple[int, ...] | None) -> None:
        self._value, self.length, self.box = value, len(value), box or UNIT
        self._name = name = f"{type(value).__module__}.{type(value).__qualname__}"
        if not self.length:
            raise ValueError(f"{name} has no rows")
        self.event_shape = event or first_shape(name, self.length, self._probe)
        self.classes = tuple(getattr(value, "classes", ()))
        self.note = str(getattr(value, "note", ""))
        self.description = {"kind": "object", "type": name}

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        own = getattr(self._value, "fingerprint", None)
        digest = xxhash().xxh3_128(repr((self._name, len(self), self.box)).encode())
        if own is not None:
            digest.update(str(own).encode())
        else:
            for index in np.linspace(0, len(self) - 1, min(SAMPLED, len(self))).astype(int):
                digest.update(rows_digest(self.read(int(index), int(index) + 1)).encode())
        return digest.hexdigest()

    def read(self, start: int, stop: int) -> Rows:
        start, stop = span(start, stop, len(self))
        try:
            return self._range(start, stop)
        except Exception as error:  # the user's code may fail in any way
            if stop - start == 1:
                empty = np.zeros((0, *self.event_shape), np.float32)
                raw = Raw(empty, np.zeros(0, np.int64), {start: _reason(error)})
                return into_rows(raw, None, self.box)
        return _joined([self.read(k, k + 1) for k in range(start, stop)])

    def _probe(self, index: int) -> Array | str:
        try:
            found = self._get(index, index + 1)
        except Exception as error:
            return _reason(error)
        x = found.x if isinstance(found, Rows) else found[0]
        return np.asarray(x)[0] if len(x) else "it did not come"

    def _get(self, start: int, stop: int) -> Rows | tuple[Array, Array | None]:
        """What the object gives, its x [n, *event] and y [n]."""
        if hasattr(self._value, "read"):
            found = self._value.read(start, stop)
            if isinstance(found, Rows):
                return found
            x, y = found if isinstance(found, tuple) else (found, None)
            return _array(x), None if y is None else _array(y)
        items = [self._value[k] for k in range(start, stop)]
        pairs = [item if isinstance(item, tuple | list) else (item, None) for item in items]
        x = np.stack([_array(pair[0]) for pair in pairs])
        y = None if pairs[0][1] is None else np.array([int(pair[1]) for pair in pairs])
        return x, y

    def _range(self, start: int, stop: int) -> Rows:
        found = self._get(start, stop)
        if isinstance(found, Rows):
            given = sorted([*found.index.tolist(), *found.failed])
            if given != list(range(start, stop)):
                raise ValueError(f"read({start}, {stop}) must give each of its rows once")
            x, y = _array(found.x), None if found.y is None else _array(found.y)
            index, failed = found.index.numpy(), dict(found.failed)
        else:
            (x, y), failed = found, {}
            index = np.arange(start, stop)
        if x.shape != (len(index), *self.event_shape):
            raise ValueError(f"shape {listed(x.shape[1:])}, not {listed(self.event_shape)}")
        if x.dtype.kind not in "fb" and x.dtype != np.uint8:
            raise ValueError(f"type {x.dtype}, not uint8 or floats")
        return into_rows(Raw(x, index, failed), y, self.box)


def _array(value: Any) -> Array:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _joined(parts: list[Rows]) -> Rows:
    given = [part for part in parts if part.y is not None]
    labels = torch.cat([part.y for part in given]) if given else None  # type: ignore[misc]
    return Rows(
        torch.cat([part.x for part in parts]),
        torch.cat([part.index for part in parts]),
        labels,
        {index: why for part in parts for index, why in part.failed.items()},
        sum(part.clipped for part in parts),
    )


def made_by(spec: str) -> Any:
    """What the function of ``package.module:make_rows`` or ``file.py:make_rows`` returns.

    Raises:
        ValueError, FileNotFoundError: one line that says what failed.
    """
    source, _, name = spec.rpartition(":")
    try:
        make = getattr(_module(source), name)
        return make()
    except FileNotFoundError:
        raise
    except Exception as error:  # the user's code may fail in any way
        raise ValueError(f"data {spec} failed with {_reason(error)}") from error


def _module(source: str) -> Any:
    if not source.endswith(".py"):
        return importlib.import_module(source)
    path = Path(source).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"data {source}: there is no such file")
    found = importlib.util.spec_from_file_location(f"rows_of_{path.stem}", path)
    if found is None or found.loader is None:
        raise ValueError(f"{source} is no Python file")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module
