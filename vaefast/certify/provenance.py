"""What a probability was computed for, and whether a margin may rest on it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from vaefast import checks
from vaefast.models.context import Context
from vaefast.models.prepare import Prepared
from vaefast.models.vae import VAE

if TYPE_CHECKING:
    from vaefast.certify.probability import RobustProbability

__all__ = ["fingerprint", "require_draws", "require_same"]

ENTRIES = 16  # of each of the model's tensors
PLAIN = (Tensor, torch.nn.Parameter, torch.nn.Buffer)
FLOATS = (torch.float32, torch.float64)
NOTHING = np.zeros(0, dtype=np.float32)


def fingerprint(prepared: Prepared) -> str:
    """Two checksums, of the model and of x with its context, the same for any dtype and device.

    All of x counts, and of each parameter and buffer its size and up to 16 entries spread over it:
    a step of training changes some of them, and the time does not grow with the model's width.
    """
    return f"{_model(prepared):08x}-{_inputs(prepared.x, prepared.context):08x}"


def require_draws(probability: object) -> None:
    """Refuse a probability that no draws are behind: the first-order margins rest on them.

    Raises:
        TypeError: it is no :class:`RobustProbability`.
    """
    if not hasattr(probability, "hits"):
        raise TypeError(
            "probability must be a RobustProbability of draws, got "
            f'{type(probability).__name__}; method="lipschitz" takes none'
        )


def require_same(
    probability: RobustProbability, prepared: Prepared, r: Tensor, **draws: float | None
) -> None:
    """Refuse a probability that was computed for something else.

    Args:
        r: [B], of the margin.
        draws: ``samples``, ``alpha`` and ``seed``, None where the caller did not name them.

    Raises:
        ValueError: with what differs and the way out.
    """
    own, given = fingerprint(prepared).split("-"), probability.fingerprint.split("-")
    for what, mine, other in zip(("model", "x"), own, given, strict=True):
        if mine != other:
            raise ValueError(f"probability was computed for another {what}; compute it again")
    theirs = probability.r.to(r)
    differ = (theirs != r) & ~(theirs.isnan() & r.isnan())
    if bool(differ.any()):
        row = int(differ.nonzero()[0])
        _refuse("r", float(theirs[row]), float(r[row]), f" in row {row}" if len(r) > 1 else "")
    for name, value in draws.items():
        if value is not None and value != getattr(probability, name):
            _refuse(name, getattr(probability, name), value)


def _refuse(name: str, theirs: float, own: float, where: str = "") -> None:
    raise ValueError(
        f"probability was computed with {name} = {theirs:g}, the margin is asked for with "
        f"{name} = {own:g}{where}; pass the same {name} to both"
    )


def _model(prepared: Prepared) -> int:
    """Checksum of the likelihood and of entries of all parameters and buffers."""
    known, vae = prepared.maps.known, prepared.vae
    start, sources = _sources(vae) if known is None else known.once(_sources, vae)
    entries = [_spread(s) if isinstance(s, Tensor) else s for s in sources]
    floats = np.concatenate([*entries, NOTHING], dtype=np.float32, casting="unsafe")
    return crc32(floats.tobytes(), start)


def _sources(vae: VAE) -> tuple[int, list[np.ndarray | Tensor]]:
    """Checksum of settings and sizes, and where each tensor's entries are read from.

    In the tensor's own memory, so that they are those of the moment, or from the tensor.
    """
    std = None if vae.decoder_output == "mean_logvar" else vae.obs_std
    settings = [vae.likelihood, vae.decoder_output, None if isinstance(std, Tensor) else std]
    sources: list[np.ndarray | Tensor] = []
    for layer in checks.layers(vae):
        for t in (*layer._parameters.values(), *layer._buffers.values()):
            if t is not None:
                settings.append(t.numel())
                own = (
                    type(t) in PLAIN
                    and t.is_cpu
                    and t.layout is torch.strided
                    and t.is_contiguous()
                    and t.dtype in FLOATS
                )
                sources.append(_spread(t) if own else t)
    return crc32(repr(settings).encode()), sources


def _spread(t: Tensor) -> np.ndarray:
    """Up to ENTRIES + 1 entries at equal distances."""
    step = max(1, t.numel() // ENTRIES)
    try:
        if t.is_cpu and t.dtype is not torch.bfloat16:
            return t.detach().numpy().reshape(-1)[::step]
        return t.detach().reshape(-1)[::step].float().cpu().numpy()
    except (RuntimeError, TypeError):  # wrapped or quantised weights have no plain entries
        return NOTHING


def _inputs(x: Tensor, context: Context) -> int:
    tensors = {"x": x}
    if isinstance(context, dict):
        tensors.update(context)
    elif context is not None:
        tensors["context"] = context
    value = 0
    for name, t in tensors.items():
        entries = t.detach().float().cpu().numpy().tobytes()
        value = crc32(entries, crc32(f"{name} {tuple(t.shape)}".encode(), value))
    return value
