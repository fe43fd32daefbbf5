"""A run on disk: one safetensors file, written whole or not at all, never a pickle."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from vaefast import checks
from vaefast.models.context import Context
from vaefast.runtime import memory
from vaefast.runtime.durable import write_whole

__all__ = ["Checkpoint", "digest"]

KEY, FORMAT = "vaefast-training", 1


class Checkpoint:
    """Where a run is kept, and when it is written again.

    Args:
        path: of the file; its folder must exist.
        minutes: between two writes, at least 0; 0 writes after every step.
        identity: what the run is of. A file of another run is refused, never overwritten.

    Raises:
        TypeError: ``path`` is no path, or ``minutes`` no number.
        ValueError: ``minutes`` is negative.
        OSError: the folder is missing.
    """

    def __init__(
        self, path: str | os.PathLike[str], minutes: float, identity: dict[str, Any]
    ) -> None:
        if not isinstance(path, str | os.PathLike):
            raise TypeError(f"checkpoint must be the path of a file, got {type(path).__name__}")
        if not 0.0 <= checks.number(minutes, "checkpoint_minutes") < float("inf"):
            raise ValueError(f"checkpoint_minutes must be at least 0 and finite, got {minutes:g}")
        self.path, self._seconds, self._identity = Path(path), 60.0 * minutes, identity
        if self.path.is_dir():
            raise IsADirectoryError(f"checkpoint {path} is a folder; name a file in it")
        if not self.path.absolute().parent.is_dir():
            raise FileNotFoundError(f"checkpoint {path} has no folder {self.path.parent}; make it")
        self._written = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether the file is as old as it may become."""
        return time.monotonic() - self._written >= self._seconds

    def write(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Replace the file: under another name first, synced, then renamed."""
        text = json.dumps({"format": FORMAT, "identity": self._identity, "state": state})
        copies = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
        data = safetensors.torch.save(copies, metadata={KEY: text})
        write_whole(self.path, data)
        self._written = time.monotonic()

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What was written last, or None where there is no file.

        Raises:
            ValueError: the file is damaged, foreign, or of another run.
        """
        if not self.path.exists():
            return None
        try:
            with safetensors.safe_open(self.path, framework="pt", device="cpu") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                found = json.loads((file.metadata() or {})[KEY])
        except KeyError:
            raise ValueError(f"checkpoint {self.path} is no run of training.fit") from None
        except (safetensors.SafetensorError, ValueError, OSError) as error:
            raise ValueError(
                f"checkpoint {self.path} cannot be read ({error}); delete it to start anew"
            ) from None
        self._compare(found.get("format"), found.get("identity", {}))
        return tensors, found["state"]

    def _compare(self, version: object, identity: dict[str, Any]) -> None:
        if version != FORMAT:
            raise ValueError(
                f"checkpoint {self.path} has format {version!r}, this vaefast reads {FORMAT}"
            )
        wanted = json.loads(json.dumps(self._identity))
        for name, value in wanted.items():
            found = identity.get(name)
            if found != value:
                scalar = isinstance(found, str | int | float)
                what = f"{name} {found}, this one has {value}" if scalar else f"other {name}"
                raise ValueError(
                    f"checkpoint {self.path} is of a run with {what}; name another file, or delete "
                    "it to start anew"
                )


def digest(x: Tensor, context: Context) -> str:
    """A hash of the training rows, by which a run on other data is told."""
    total = hashlib.sha256()
    named = context if isinstance(context, dict) else {"": context}
    for name, rows in (("x", x), *sorted(named.items())):
        if rows is None:
            continue
        total.update(f"{name} {rows.dtype} {list(rows.shape)}".encode())
        size = rows.element_size() * rows.shape[1:].numel()
        for part in memory.row_chunks(len(rows), 2 * size):
            data = rows[part].detach().cpu().contiguous()
            total.update(data.view(torch.uint8).numpy().data if data.ndim else b"")
    return total.hexdigest()[:16]
