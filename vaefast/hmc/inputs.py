"""The sampler's arguments that differ from row to row, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from vaefast.hmc.groups import group_of_rows, require_shared
from vaefast.hmc.mass import check_named
from vaefast.hmc.options import Options, chain_starts, inverse_mass, positive_step_size
from vaefast.models.calls import HALF
from vaefast.models.likelihoods import check_pixels
from vaefast.models.prepare import Prepared
from vaefast.runtime.batching import Rows

__all__ = ["Inputs"]


@dataclass(frozen=True)
class Inputs:
    """What differs from row to row beside x, index and context; B rows."""

    step_size: Tensor  # [B], float32 where x is in half precision
    group: Tensor  # [B] int64
    init: Tensor | None  # [B, C, d]
    inv_mass: Tensor | None  # [B, d]

    @classmethod
    def checked(
        cls,
        prepared: Prepared,
        options: Options,
        *,
        init: Tensor | None,
        step_size: float | Tensor,
        mass: str | Tensor | None,
        group: int | Tensor | None,
        numbered: bool,
    ) -> Inputs:
        """Arguments of :func:`vaefast.hmc.sample`; ``numbered``: its caller passed ``index``."""
        x, latents = prepared.x, latent_shape(prepared.vae)
        check_pixels(x, prepared.vae.likelihood)
        like = x.new_empty(0, dtype=torch.float32 if x.dtype in HALF else x.dtype)
        step = positive_step_size(step_size, len(x), like)
        if group is not None and options.schedule is None:
            raise ValueError(
                'group needs schedule="kuzina2022"; without it every row adapts by itself'
            )
        groups = group_of_rows(group, prepared.index, given=numbered)
        if group is not None:
            require_shared(step, groups)
        if init is not None:
            init = chain_starts(init, len(x), options.chains, latents, like)
        width = torch.Size(latents).numel()
        check_named(options.mass, width, prepared.vae)
        given = options.mass == "given"
        inv_mass = inverse_mass(mass, len(x), width, like) if given else None
        return cls(step, groups, init, inv_mass)

    @cached_property
    def grouped(self) -> bool:
        """Whether rows share a step size."""
        rows = len(self.group)
        return rows > 1 and len(torch.unique(self.group)) < rows

    def at(self, rows: Rows) -> Inputs:
        """Some of the rows; without groups a copy of a row is a group of its own."""
        if isinstance(rows, slice) and rows == slice(0, len(self.group)):
            return self
        group = self.group[rows]
        if not self.grouped:
            group = torch.arange(len(group), device=group.device)
        init = None if self.init is None else self.init[rows]
        inv_mass = None if self.inv_mass is None else self.inv_mass[rows]
        return Inputs(self.step_size[rows], group, init, inv_mass)


def latent_shape(vae: Any) -> tuple[int, ...]:
    """The shape of one latent of a VAE that has encoded; inside of the sampler it is flat."""
    shape = getattr(vae, "latent_shape", None)
    return (vae.latent_dim,) if shape is None else tuple(shape)
