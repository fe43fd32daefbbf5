"""Whether encode and decode are functions of their row: not random, nor of the rows beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from vaefast import checks
from vaefast.models import context as contexts
from vaefast.models.context import Context
from vaefast.models.encoders import DecodeMethod, EncodeMethod
from vaefast.models.finite_model import WRAPPER
from vaefast.models.vae import VAE

__all__ = ["of_decode", "of_encode", "violation"]

RANDOM = (
    "is random: it gives two equal rows different results; as a function, dropout is on unless "
    "training=False is passed, encode must return the mean, not a draw, and what differs from row "
    "to row goes into context="
)
OF_THE_PLACE = (
    "gives two equal rows different results by their place in the batch, as a buffer of conditions "
    "does; what differs from row to row goes into context="
)
OF_THE_BATCH = (
    "gives a row another result beside another row, as batch norm without running statistics does"
)


@torch.no_grad()
def violation(vae: VAE, x: Tensor, context: Context = None) -> str:
    """What shows that encode or decode is not one function of its row, "" if nothing does.

    Args:
        vae: in the modes that are asked about.
        x: [B, *event], at least one row.
        context: of the rows of x.
    """
    if found := of_encode(vae, x, context):
        return found
    given = contexts.as_keyword(_thrice(context))
    return of_decode(vae, vae.encode(torch.stack([x[0], _other(x), x[0]]), **given)[0], context)


def of_encode(
    vae: VAE, x: Tensor, context: Context = None, moments: tuple[Tensor, ...] = ()
) -> str:
    """As :func:`violation`, of encode alone, at x [B, *event].

    A row is encoded beside a copy of itself and a third row, and beside two copies, unless
    ``moments``, what encode gives for two rows x, are known. It takes no random numbers of the
    caller's.
    """
    given = contexts.as_keyword(_thrice(context))
    return _compare(vae, lambda rows: vae.encode(rows, **given), x[0], _other(x), moments)


def of_decode(vae: VAE, z: Tensor, context: Context = None) -> str:
    """As :func:`of_encode`, of decode at z [n, d]."""
    given = contexts.as_keyword(_thrice(context))
    return _compare(vae, lambda rows: (vae.decode(rows, **given),), z[0], _other(z))


def _thrice(context: Context) -> Context:
    """That of the first row, for three of it."""
    return contexts.repeated(contexts.rows(context, slice(0, 1)), 3)


@torch.no_grad()
def _compare(
    vae: VAE,
    function: Callable[[Tensor], tuple[Tensor, ...]],
    row: Tensor,
    other: Tensor,
    alike: tuple[Tensor, ...] = (),
) -> str:
    devices = [row.device] if row.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        beside = function(torch.stack([row, row, other]))
        alike = alike or function(torch.stack([row, row, row]))
    eps = _eps(vae, row)
    if not all(_same(eps, out[0], out[1]) for out in beside):
        return _differing(vae, function, row, eps)
    if all(_same(eps, a[0], b[0]) for a, b in zip(beside, alike)):
        return ""
    guilty = (m for m in vae.modules() if _of_its_batch(m))
    module = next(guilty, None)
    return f"{'the model' if module is None else _said(vae, module)} {OF_THE_BATCH}"


def _eps(vae: VAE, row: Tensor) -> float:
    """Of the coarsest dtype in the model and its inputs."""
    dtypes = {p.dtype for p in checks.parameters(vae) if p.is_floating_point()}
    return max(torch.finfo(dtype).eps for dtype in (row.dtype, *dtypes))


def _same(eps: float, a: Tensor, b: Tensor) -> bool:
    """But for rounding, which may differ by a row's place: half of the digits."""
    difference, largest = (t.nan_to_num().abs().max() for t in (a - b, a))
    return bool(difference <= eps**0.5 * largest)


def _other(x: Tensor) -> Tensor:
    """Another row than the first."""
    found = next((row for row in x[1:16] if not torch.equal(row, x[0])), None)
    return 0.5 * x[0] + 0.25 if found is None else found


def _differing(
    vae: VAE, function: Callable[[Tensor], tuple[Tensor, ...]], row: Tensor, eps: float
) -> str:
    """The innermost module that gives two equal rows different results, and how."""
    devices = [row.device] if row.device.type == "cuda" else []
    with torch.random.fork_rng(devices), _watched(vae, eps) as found:
        once, again = (function(torch.stack([row, row, row])) for _ in range(2))
    drawn = not all(_same(eps, a, b) for a, b in zip(once, again))
    return f"{found[0] if found else 'the model'} {RANDOM if drawn else OF_THE_PLACE}"


@contextmanager
def _watched(vae: VAE, eps: float) -> Iterator[list[str]]:
    """The modules, innermost first, that gave two equal rows different results."""
    found: list[str] = []

    def hook(module: nn.Module, args: tuple, output: Any) -> None:
        (given, *_), results = args or (None,), output if isinstance(output, tuple) else (output,)
        rows = [t for t in (given, *results) if isinstance(t, Tensor) and t.ndim and len(t) == 3]
        same = [_same(eps, t[0].double(), t[1].double()) for t in rows]
        if rows and rows[0] is given and same[0] and not all(same):
            found.append(_said(vae, module))

    handle = register_module_forward_hook(hook)
    try:
        yield found
    finally:
        handle.remove()


def _said(vae: VAE, module: nn.Module) -> str:
    if isinstance(module, EncodeMethod | DecodeMethod):
        return f"{type(module.module).__name__}.{module.name}"
    path = next((name for name, other in vae.named_modules() if other is module), "")
    kind = type(module).__name__
    return f"layer {WRAPPER.sub('', path)!r} ({kind})" if path else kind


def _of_its_batch(module: nn.Module) -> bool:
    batch_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
    return batch_norm and (module.training or module.running_mean is None)
