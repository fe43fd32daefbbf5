"""diffusers' AutoencoderKL: latents [C, h, w], pixels in [-1, 1].

``encode(x)`` has ``.latent_dist`` with ``.mean`` and ``.logvar``, ``decode(z)`` has ``.sample``. A
``scaling_factor`` belongs to the diffusion model and is not applied to z.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from vaefast import checks
from vaefast.models import results
from vaefast.models.adapters import Adapter, is_from
from vaefast.models.calls import HALF
from vaefast.models.vae import VAE
from vaefast.models.wrapping import ModuleVAE

__all__ = ["ADAPTER"]

BOX = (-1.0, 1.0)


class ContiguousNorms(TorchFunctionMode):
    """Group norms get contiguous inputs: their forward-mode rule takes no others.

    What comes out of attention, transposed, is none.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in (F.group_norm, torch.group_norm):
            args = (args[0].contiguous(), *args[1:])
        return func(*args, **(kwargs or {}))


@contextmanager
def forward_mode() -> Iterator[None]:
    """Inside, attention and norms run in forms that forward-mode derivatives pass through."""
    with sdpa_kernel(SDPBackend.MATH), ContiguousNorms():
        yield


class KLEncoder(nn.Module):
    """x [n, 3, H, W] to the mean and log-variance of q(z|x), each [n, C, h, w]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        _check_settings(self.model)
        with forward_mode():
            return results.moments(self.model.encode(x))


class KLDecoder(nn.Module):
    """z [n, C, h, w] to the mean of p(x|z), [n, 3, H, W]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, z: Tensor) -> Tensor:
        _check_settings(self.model)
        with forward_mode():
            return results.image(self.model.decode(z))


def wrap(model: Any, options: dict[str, Any]) -> VAE:
    """An AutoencoderKL as a VAE; its attention runs in the kernel that has forward-mode rules.

    Raises:
        ValueError: no likelihood is named, tiling or slicing is on, or the weights are in half
            precision.
    """
    if "likelihood" not in options:
        raise ValueError(
            "likelihood must be named for AutoencoderKL, whose loss (L1, LPIPS, a discriminator) "
            'is no log p(x|z); pass likelihood="gaussian" and obs_std='
        )
    if options["likelihood"] != "gaussian":
        raise ValueError(
            "likelihood must be 'gaussian' for AutoencoderKL, whose pixels lie in [-1, 1], "
            f"got {options['likelihood']!r}"
        )
    _check_settings(model)
    vae = ModuleVAE(KLEncoder(model), KLDecoder(model), **options)
    vae.box = BOX
    return vae


def _check_settings(model: Any) -> None:
    """Nothing that makes the model another function, or its derivatives noise."""
    for name in ("tiling", "slicing"):
        if getattr(model, f"use_{name}", False):
            raise ValueError(
                f"{name} is on, so a row's result depends on how the batch or image is cut; "
                f"call model.disable_{name}()"
            )
    dtype = next(model.parameters()).dtype
    if dtype in HALF:
        raise ValueError(
            f"AutoencoderKL is in {checks.short(dtype)}, too coarse for its derivatives; "
            "call model.float()"
        )


ADAPTER = Adapter("diffusers", lambda module: is_from(module, "diffusers", "AutoencoderKL"), wrap)
