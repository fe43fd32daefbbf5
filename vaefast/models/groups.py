"""VAEs whose latents are groups, each Gaussian given those above: what is known of any of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vaefast.models.calls import check_event_shape, check_sizes
from vaefast.models.encoders import require_module
from vaefast.models.likelihoods import to_pixels

__all__ = ["Group", "Hierarchical", "as_hierarchical", "gaussian_log_prob"]

Groups = Sequence[Tensor]


class Group(NamedTuple):
    """One group along a path through all of them: a draw and the Gaussian that it is of.

    Args:
        z: [n, *shape].
        mean, logvar: of the group given those above (and x, in the posterior), like z.
        prior_mean, prior_logvar: of the prior given those above, where the posterior's path has
            it, for a KL in closed form.
    """

    z: Tensor
    mean: Tensor
    logvar: Tensor
    prior_mean: Tensor | None = None
    prior_logvar: Tensor | None = None

    def log_prob(self) -> Tensor:
        """log N(z; mean, exp logvar) [n] float64, nats."""
        return gaussian_log_prob(self.z, self.mean, self.logvar)

    def kl(self) -> Tensor | None:
        """KL(posterior ‖ prior) given the groups above, [n] float64, nats; None without a prior."""
        if self.prior_mean is None or self.prior_logvar is None:
            return None
        t = self.logvar - self.prior_logvar
        apart = (self.mean - self.prior_mean).square() * torch.exp(-self.prior_logvar)
        return 0.5 * (torch.expm1(t) - t + apart).flatten(1).sum(1, dtype=torch.float64)


class Hierarchical(nn.Module):
    """p(x, z_1, ..., z_K) = p(z_1) Π p(z_k | z_1..z_{k−1}) p(x | z_1..z_K), z_1 on top.

    A subclass sets ``shapes`` and defines :meth:`posterior_path` and :meth:`log_joint`; with
    :meth:`decode` there are reconstructions, with :meth:`prior_path` the groups below the top ones
    can follow these.

    Attributes:
        shapes: of z_1 to z_K, without the batch.
        likelihood: as of :class:`VAE`, or None where it is unknown: x is then not checked.
        event_shape: of one x, or None.
    """

    shapes: tuple[tuple[int, ...], ...]
    likelihood: str | None = None
    event_shape: tuple[int, ...] | None = None

    def posterior_path(self, x: Tensor, noise: Groups) -> list[Group]:
        """The first len(noise) groups of q(z|x) along the path that the noise draws.

            z_k = mean_k + exp(½ logvar_k)·noise_k,   mean_k, logvar_k from x and z_1..z_{k−1}

        Args:
            x: [n, *event].
            noise: [n, *shape_k] each.
        """
        raise NotImplementedError(self._lacks("posterior_path"))

    def log_joint(self, z: Groups, x: Tensor) -> Tensor:
        """log p(x, z) [n] in nats, a function of its row; z_k [n, *shape_k], x [n, *event]."""
        raise NotImplementedError(self._lacks("log_joint"))

    def prior_path(self, z: Groups, noise: Groups) -> list[Group]:
        """The groups below z_1..z_k by the prior given those above: len(noise) of them."""
        raise NotImplementedError(self._lacks("prior_path"))

    def decode(self, z: Groups) -> Tensor:
        """Natural parameters of p(x|z), [n, *event]."""
        raise NotImplementedError(self._lacks("decode"))

    def g(self, z: Groups) -> Tensor:
        """The reconstruction in pixel scale, [n, *event]."""
        return to_pixels(self.decode(z), self.likelihood or "gaussian")

    def _lacks(self, name: str) -> str:
        return f"{type(self).__name__} defines no {name}, which this needs"

    def can(self, name: str) -> bool:
        """Whether there is a method of that name, "decode" or "prior_path"."""
        return getattr(type(self), name) is not getattr(Hierarchical, name)

    @property
    def sizes(self) -> list[int]:
        """Numbers in each group."""
        return [math.prod(shape) for shape in self.shapes]

    def flat(self, z: Groups) -> Tensor:
        """Groups [n, *shape_k] side by side, [n, Σ d_k]."""
        return torch.cat([part.flatten(1) for part in z], dim=1)

    def unflat(self, z: Tensor, first: int = 0) -> list[Tensor]:
        """[.., Σ d_k] as groups [.., *shape_k], from group number ``first`` (0 is the top) on."""
        groups: list[Tensor] = []
        start = 0
        for shape, size in zip(self.shapes[first:], self.sizes[first:]):
            if start == z.shape[-1]:
                break
            part = z[..., start : start + size]
            groups.append(part.reshape(*z.shape[:-1], *shape))
            start += size
        return groups

    def sample(self, noise: Groups) -> list[Tensor]:
        """z_1..z_K from the prior."""
        return [group.z for group in self.prior_path([], noise)]


class _Wrapped(Hierarchical):
    """A caller's functions, and the module whose weights they use."""

    def __init__(self, module: nn.Module, functions: dict[str, Callable[..., Any]]) -> None:
        super().__init__()
        self.module = module
        self.functions = functions

    def posterior_path(self, x: Tensor, noise: Groups) -> list[Group]:
        found = self.functions["posterior_path"](x, list(noise))
        return _checked_path(found, noise, "posterior_path", at_least=len(noise))

    def log_joint(self, z: Groups, x: Tensor) -> Tensor:
        logp = self.functions["log_joint"](list(z), x)
        if not isinstance(logp, Tensor) or list(logp.shape) != [len(x)]:
            got = list(logp.shape) if isinstance(logp, Tensor) else type(logp).__name__
            raise ValueError(f"log_joint must return a tensor [n] = [{len(x)}], got {got}")
        return logp.double()

    def can(self, name: str) -> bool:
        return name in self.functions

    def prior_path(self, z: Groups, noise: Groups) -> list[Group]:
        found = self.functions["prior_path"](list(z), list(noise))
        return _checked_path(found, noise, "prior_path", at_least=len(noise))

    def decode(self, z: Groups) -> Tensor:
        out: Tensor = self.functions["decode"](list(z))
        return out


def as_hierarchical(
    module: nn.Module,
    *,
    posterior_path: Callable[[Tensor, list[Tensor]], Any],
    log_joint: Callable[[list[Tensor], Tensor], Tensor],
    shapes: Sequence[Sequence[int]],
    prior_path: Callable[[list[Tensor], list[Tensor]], Any] | None = None,
    decode: Callable[[list[Tensor]], Tensor] | None = None,
    likelihood: str | None = None,
    event_shape: Sequence[int] | None = None,
) -> Hierarchical:
    """A hierarchical VAE from any module and two functions, written with its own parts.

    Args:
        module: whose weights the functions use; it is shared, not copied.
        posterior_path: (x [n, *event], noise) to a list of (z_k, mean_k, logvar_k), each like
            noise_k [n, *shape_k], top group first, with z_k = mean_k + exp(½ logvar_k)·noise_k
            conditioned on x and the z above. It is given as many noises as groups are wanted, and
            may return more.
        log_joint: (z, x) to log p(x, z_1, ..., z_K) [n] in nats, by torch functions of z and x
            alone (no draws), so that it has a gradient.
        shapes: of one draw of each group, such as ``[(16,), (4, 7, 7)]``.
        prior_path: (z above, noise) to the same triples of the groups below, by the prior; needed
            where groups below the top ones follow these.
        decode: z to natural parameters of p(x|z) [n, *event]; needed for reconstructions.
        likelihood: of x given those, as for :class:`VAE`; pixels are then checked against it. None:
            ``decode`` gives pixels.
        event_shape: of one x.

    Raises:
        TypeError: ``module`` is no module, or a function cannot be called.
        ValueError: no shapes.
    """
    functions = {
        "posterior_path": posterior_path,
        "log_joint": log_joint,
        "prior_path": prior_path,
        "decode": decode,
    }
    for name, function in functions.items():
        if not callable(function) and not (function is None and name in ("prior_path", "decode")):
            raise TypeError(f"{name} must be a function, got {type(function).__name__}")
    given = {name: f for name, f in functions.items() if f is not None}
    wrapped = _Wrapped(require_module(module, "module"), given)
    wrapped.shapes = tuple(check_sizes(shape, "shapes") for shape in shapes)
    if not wrapped.shapes:
        raise ValueError("shapes must name at least one group, such as [(16,), (4, 7, 7)]")
    wrapped.likelihood = likelihood
    wrapped.event_shape = None if event_shape is None else check_event_shape(event_shape)
    return wrapped


def gaussian_log_prob(z: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """log N(z; mean, exp logvar) [n] float64 in nats, over all that follows the batch."""
    terms = (z - mean).square() * torch.exp(-logvar) + logvar
    count = z[0].numel() if len(z) else 0
    total = terms.flatten(1).sum(1, dtype=torch.float64)
    return -0.5 * (total + count * math.log(2.0 * math.pi))


def _checked_path(found: Any, noise: Groups, name: str, at_least: int) -> list[Group]:
    """The first groups of what a caller's function returned.

    Raises:
        TypeError: no list of triples of tensors.
        ValueError: too few groups, or of other shapes than the noise.
    """
    if not isinstance(found, list | tuple) or len(found) < at_least:
        got = len(found) if isinstance(found, list | tuple) else type(found).__name__
        raise TypeError(
            f"{name} must return a list of (z, mean, logvar), one for each of {at_least} noises, "
            f"got {got}"
        )
    path = []
    for k, (group, own) in enumerate(zip(found, noise)):
        tensors = isinstance(group, tuple | list) and len(group) >= 3
        if not tensors or not all(isinstance(t, Tensor) for t in group[:3]):
            raise TypeError(f"{name}: group {k} must be (z, mean, logvar), three tensors")
        for what, value in zip(("z", "mean", "logvar"), group):
            if value.shape != own.shape:
                raise ValueError(
                    f"{name}: {what} of group {k} must be {list(own.shape)} like its noise, "
                    f"got {list(value.shape)}"
                )
        path.append(Group(*group))
    return path
