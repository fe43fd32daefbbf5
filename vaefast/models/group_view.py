"""A hierarchical VAE's top groups seen as the latents of a VAE, for the sampler and the attacks.

What differs from row to row travels as the context, so that it is cut and repeated with the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vaefast import checks
from vaefast.models.context import Context
from vaefast.models.groups import Hierarchical
from vaefast.models.likelihoods import LikelihoodAt
from vaefast.models.posterior import DiagonalGaussian
from vaefast.models.vae import VAE
from vaefast.models.wrapping import DEFAULTS

__all__ = ["BELOW", "GroupView", "check_top"]

BELOW = ("prior", "held")


class _Part(nn.Module):
    """The model, as the encoder or the decoder that twins are made of."""

    def __init__(self, model: Hierarchical) -> None:
        super().__init__()
        self.model = model

    def forward(self, value: Tensor, context: Context = None) -> Tensor:
        raise NotImplementedError("a view of groups runs the model by its own methods")


class _Joint(NamedTuple):
    """log p(x, z) at n latents, as :class:`LikelihoodAt` gives log p(x|z)."""

    view: GroupView
    z: Tensor
    below: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        return self.view.log_joint(self.z, self.below, x)


class GroupView(VAE):
    """The first ``top`` groups, flat [n, d], whose energy is that of the model.

    U(z) = −log p(x, z) with the groups below as the context's ``"below"`` [n, d'] says: their
    noise, from which they follow z by the prior, U being that of z given the noise; or their
    values, which stay. The context's ``"noise"`` [n, S, d] draws the paths along which the
    encoder's moments are taken, S side by side; without it there is the path of means.

    Args:
        model: the model.
        top: groups that are latents.
        below: ``"prior"`` or ``"held"``.
        event_shape: of x.
    """

    def __init__(
        self, model: Hierarchical, top: int, below: str, event_shape: Sequence[int]
    ) -> None:
        nn.Module.__init__(self)
        options: dict[str, Any] = {
            "likelihood": "gaussian",  # of no consequence: likelihood_at is our own
            "decoder_output": "mean_logvar",
            "event_shape": model.event_shape or tuple(event_shape),
        }
        self._assemble(_Part(model), _Part(model), **(DEFAULTS | options))
        self.top, self.below, self._doubts = top, below, ()
        self.latent_dim = sum(model.sizes[:top])
        self.latent_shape = (self.latent_dim,)

    @property
    def model(self) -> Hierarchical:
        """The model as it decodes; a twin of it where one runs."""
        return self.decoder.model  # type: ignore[return-value]

    def q(self, x: Tensor, context: Context = None) -> DiagonalGaussian:
        """The moments of the top groups along paths, [n, S·d]."""
        noise = context.get("noise") if isinstance(context, dict) else None
        if noise is None:
            noise = x.new_zeros(len(x), 1, self.latent_dim or 0)
        model: Any = self.encoder.model
        rows = x.repeat_interleave(noise.shape[1], dim=0) if noise.shape[1] > 1 else x
        path = model.posterior_path(rows, model.unflat(noise.flatten(0, 1)))[: self.top]
        moments = (model.flat([getattr(g, name) for g in path]) for name in ("mean", "logvar"))
        mean, logvar = (t.reshape(len(x), -1) for t in moments)
        return DiagonalGaussian(mean, logvar, tuple(mean.shape[1:]))

    def draw(self, x: Tensor, noise: Tensor) -> Tensor:
        """z of all groups that the noise [n, d] has, along its path."""
        model: Any = self.encoder.model
        groups = model.unflat(noise)
        path = model.posterior_path(x, groups)[: len(groups)]
        drawn: Tensor = model.flat([group.z for group in path])
        return drawn

    def groups(self, z: Tensor, below: Tensor) -> list[Tensor]:
        """All groups, from the top ones [n, d] and what those below are made from."""
        top = self.model.unflat(z)
        rest = self.model.unflat(below, self.top)
        if self.below == "held" or not rest:
            return [*top, *rest]
        return [*top, *[group.z for group in self.model.prior_path(top, rest)]]

    def log_joint(self, z: Tensor, below: Tensor, x: Tensor) -> Tensor:
        """−U [n] float64, nats, for x [B, D] with n = B·C."""
        x = x.reshape(-1, *(self.event_shape or x.shape[1:]))
        x = x.repeat_interleave(len(z) // max(len(x), 1), dim=0)
        top, rest = self.model.unflat(z), self.model.unflat(below, self.top)
        if self.below == "held" or not rest:
            return self.model.log_joint([*top, *rest], x).double()
        path = self.model.prior_path(top, rest)
        joint = self.model.log_joint([*top, *[group.z for group in path]], x).double()
        return joint - torch.stack([group.log_prob() for group in path]).sum(0)

    def decode(self, z: Tensor, context: Context = None) -> Tensor:
        """log p(0, z) [n, 1]: what tells the memory of a row, and whether rows are independent."""
        shape = self.event_shape or ()
        zero = z.new_zeros(len(z), *shape)
        return self.log_joint(z, self._below(z, context), zero).to(z.dtype).unsqueeze(1)

    def g(self, z: Tensor, context: Context = None) -> Tensor:
        return self.decode(z, context)

    def likelihood_at(self, z: Tensor, context: Context = None) -> LikelihoodAt:
        return _Joint(self, z, self._below(z, context))  # type: ignore[return-value]

    def log_prior(self, z: Tensor, context: Context = None) -> Tensor:
        """0, as the prior is in the joint density."""
        return torch.zeros(len(z), dtype=torch.float64, device=z.device)

    def _below(self, z: Tensor, context: Context) -> Tensor:
        if isinstance(context, dict) and "below" in context:
            return context["below"].to(z.dtype)
        return z.new_zeros(len(z), sum(self.model.sizes[self.top :]))


def check_top(model: object, top: int | None) -> int:
    """How many groups from the top on are meant; None for all.

    Raises:
        TypeError: the model has no groups, or ``top`` is no whole number.
        ValueError: more groups than there are, or none.
    """
    if not isinstance(model, Hierarchical):
        raise TypeError(
            f"model must be a HierarchicalVAE or come from vaefast.models.as_hierarchical, got "
            f"{type(model).__name__}"
        )
    count = len(model.shapes)
    if top is None:
        return count
    if checks.count(top, "top") > count:
        raise ValueError(f"top must be at most the model's {count} groups, got {top}")
    return top
