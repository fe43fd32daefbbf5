"""A small convolutional VAE with two to five groups of latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaefast import checks
from vaefast.models.groups import Group, Groups, Hierarchical, gaussian_log_prob
from vaefast.models.likelihoods import LikelihoodAt, check_likelihood
from vaefast.models.networks import _check_image, _initialise

__all__ = ["HierarchicalVAE"]

MAPS = {4: 4, 2: 2}  # maps of latents of a group on a quarter and on half of the sides
MOST_LOGVAR = 5.0  # log-variances, and how far the posterior's lie from the prior's, stay within
HEAD_SCALE = 0.1  # of the initial weights of the heads, so that training starts near q = p


class _State(NamedTuple):
    """What is known between two groups of the path."""

    h: Tensor | None  # of the groups above: [n, channels, side, side], None at the top
    like: Tensor  # whose dtype and device a prior without parameters has
    rows: int


Choice = Callable[[int, Tensor, Tensor, Tensor | None], Group]  # (k, prior's mean, logvar, h)


class HierarchicalVAE(Hierarchical):
    """A top vector and maps of latents on a quarter and on half of the image's sides.

        p(x, z) = N(z_1; 0, I) Π N(z_k; μ_k, σ_k² of z_1..z_{k−1}) p(x | z_1..z_K)
        q(z|x): z_1 from x; z_k has mean μ_k + Δμ_k and log-variance log σ_k² + Δ_k, the differences
        from x and z_1..z_{k−1}

    One path of features runs down from z_1; each group reads its prior off it and is added to it.
    2 groups: a vector and quarter-size maps; 3: and half-size maps; 4 and 5: twice such maps.

    Args:
        event_shape: [channels, height, width], height and width multiples of 4 from 8 to 64.
        groups: K, 2 to 5.
        channels: of features on half of the sides; twice as many on a quarter.
        latent: numbers of the top group.
        likelihood, obs_std: as for :class:`VAE`.
        free_bits: nats of each group's KL, in the mean over a batch, that training does not charge.
        seed: of the initial weights.

    Raises:
        TypeError: a size is not a whole number.
        ValueError: a size out of range, or an unknown name.

    Source: Sønderby et al. 2016 (one path for prior and posterior), Vahdat, Kautz 2020 (posterior
    relative to the prior), Kingma et al. 2016 (free bits).
    """

    def __init__(
        self,
        event_shape: Sequence[int] = (1, 28, 28),
        groups: int = 3,
        channels: int = 16,
        latent: int = 16,
        likelihood: str = "bernoulli",
        obs_std: float = 1.0,
        free_bits: float = 1.0,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        event = self.event_shape = _check_image(event_shape)
        if not 2 <= checks.count(groups, "groups") <= 5:
            raise ValueError(f"groups must be 2 to 5, got {groups}")
        self.likelihood, self.obs_std = check_likelihood(likelihood, obs_std)
        self.free_bits = _nats(free_bits)
        self.channels = checks.count(channels, "channels")
        self.latent = checks.count(latent, "latent")
        self.scales = [4] * (groups // 2) + [2] * ((groups - 1) // 2)
        maps = [(MAPS[s], event[1] // s, event[2] // s) for s in self.scales]
        self.shapes = ((self.latent,), *maps)
        with torch.device("meta"):
            self._build(event)
        _initialise(self, seed)  # type: ignore[arg-type]
        with torch.no_grad():
            for head in (self.top_posterior, *self.priors, *self.posteriors):
                head.weight.mul_(HEAD_SCALE)

    def _build(self, event: tuple[int, ...]) -> None:
        c, side = self.channels, (event[1] // 4, event[2] // 4)
        width, quarter = {2: c, 4: 2 * c}, side[0] * side[1]
        self.to_half = nn.Conv2d(event[0], c, 3, stride=2, padding=1)
        self.mix_half = nn.Conv2d(c, c, 3, padding=1)
        self.to_quarter = nn.Conv2d(c, 2 * c, 3, stride=2, padding=1)
        self.mix_quarter = nn.Conv2d(2 * c, 2 * c, 3, padding=1)
        self.top_posterior = nn.Linear(2 * c * quarter, 2 * self.latent)
        self.unfold_top = nn.Sequential(
            nn.Linear(self.latent, 2 * c * quarter), nn.Unflatten(1, (2 * c, *side))
        )
        self.upsample = nn.ConvTranspose2d(2 * c, c, 4, stride=2, padding=1)
        self.out = nn.ConvTranspose2d(c, event[0], 4, stride=2, padding=1)
        self.priors, self.posteriors = nn.ModuleList(), nn.ModuleList()
        self.merges, self.blocks = nn.ModuleList(), nn.ModuleList()
        for scale, (maps, *_) in zip(self.scales, self.shapes[1:]):
            w = width[scale]
            self.priors.append(nn.Conv2d(w, 2 * maps, 3, padding=1))
            self.posteriors.append(nn.Conv2d(2 * w, 2 * maps, 3, padding=1))
            self.merges.append(nn.Conv2d(maps, w, 3, padding=1))
            self.blocks.append(nn.Conv2d(w, w, 3, padding=1))
        self.last = nn.Conv2d(c, c, 3, padding=1)

    def posterior_path(self, x: Tensor, noise: Groups) -> list[Group]:
        return self._path(x, noise)[0]

    def prior_path(self, z: Groups, noise: Groups) -> list[Group]:
        like = z[0] if len(z) else noise[0]

        def choose(k: int, mean: Tensor, logvar: Tensor, h: Tensor | None) -> Group:
            own = z[k] if k < len(z) else mean + torch.exp(0.5 * logvar) * noise[k - len(z)]
            return Group(own, mean, logvar)

        groups = len(z) + len(noise)
        return self._down(choose, _State(None, like, len(like)), groups)[0][len(z) :]

    def log_joint(self, z: Groups, x: Tensor) -> Tensor:
        logp, out = self._given(z)
        return logp + self.likelihood_at(out).log_prob(x)

    def decode(self, z: Groups) -> Tensor:
        return self._given(z)[1]

    def likelihood_at(self, out: Tensor) -> LikelihoodAt:
        """p(x|z) from the natural parameters."""
        params = (self.obs_std,) if self.likelihood == "gaussian" else ()
        return LikelihoodAt(self.likelihood or "", out, params)

    def bound(self, x: Tensor, noise: Groups) -> tuple[Tensor, list[Tensor]]:
        """log p(x|z) [n] and the KL of each group [n], float64 nats, along the noise's path."""
        logp, path = self.drawn(x, noise)
        return logp, [found for group in path if (found := group.kl()) is not None]

    def drawn(self, x: Tensor, noise: Groups) -> tuple[Tensor, list[Group]]:
        """log p(x|z) [n] float64 nats, and the groups of q(z|x), along the noise's path."""
        path, state = self._path(x, noise)
        return self.likelihood_at(self._out(state)).log_prob(x), path

    def config(self) -> dict[str, Any]:
        """The constructor's arguments that make a model of this one's shape."""
        return {
            "event_shape": list(self.event_shape or ()),
            "groups": len(self.shapes),
            "channels": self.channels,
            "latent": self.latent,
            "likelihood": self.likelihood,
            "obs_std": self.obs_std,
            "free_bits": self.free_bits,
        }

    def _path(self, x: Tensor, noise: Groups) -> tuple[list[Group], _State]:
        half = F.silu(self.to_half(x))
        half = half + self.mix_half(half)
        quarter = F.silu(self.to_quarter(F.silu(half)))
        quarter = quarter + self.mix_quarter(quarter)
        seen = {2: half, 4: quarter}

        def choose(k: int, mean: Tensor, logvar: Tensor, h: Tensor | None) -> Group:
            if h is None:
                delta = self.top_posterior(F.silu(quarter).flatten(1))
            else:
                both = torch.cat((h, seen[self.scales[k - 1]]), dim=1)
                delta = self.posteriors[k - 1](F.silu(both))
            shift, scale = delta.chunk(2, dim=1)
            own, own_logvar = mean + shift, logvar + _bounded(scale)
            z = own + torch.exp(0.5 * own_logvar) * noise[k]
            return Group(z, own, own_logvar, mean, logvar)

        return self._down(choose, _State(None, x, len(x)), len(noise))

    def _given(self, z: Groups) -> tuple[Tensor, Tensor]:
        """log p(z) [n] float64 and the natural parameters, for all groups."""

        def choose(k: int, mean: Tensor, logvar: Tensor, h: Tensor | None) -> Group:
            return Group(z[k], mean, logvar)

        path, state = self._down(choose, _State(None, z[0], len(z[0])), len(self.shapes))
        logp = [gaussian_log_prob(*group[:3]) for group in path]
        return torch.stack(logp).sum(0), self._out(state)

    def _out(self, state: _State) -> Tensor:
        """Natural parameters from the state below all groups."""
        assert state.h is not None
        h = state.h if self.scales[-1] == 2 else self.upsample(F.silu(state.h))
        out: Tensor = self.out(F.silu(h + self.last(F.silu(h))))
        return out

    def _down(self, choose: Choice, state: _State, groups: int) -> tuple[list[Group], _State]:
        """The first groups as they are chosen, and the state below them."""
        path = []
        for k in range(groups):
            h = self._at_scale(state.h, k)
            group = choose(k, *self._prior(h, k, state), h)
            path.append(group)
            state = state._replace(h=self._merged(h, group.z, k))
        return path, state

    def _at_scale(self, h: Tensor | None, k: int) -> Tensor | None:
        """The features above group k on its grid."""
        if h is None or k == 0:
            return None
        doubles = self.scales[k - 1] == 2 and (k == 1 or self.scales[k - 2] == 4)
        return self.upsample(F.silu(h)) if doubles else h

    def _prior(self, h: Tensor | None, k: int, state: _State) -> tuple[Tensor, Tensor]:
        if h is None:
            zeros = state.like.new_zeros(state.rows, *self.shapes[0])
            return zeros, zeros
        mean, logvar = self.priors[k - 1](F.silu(h)).chunk(2, dim=1)
        return mean, _bounded(logvar)

    def _merged(self, h: Tensor | None, z: Tensor, k: int) -> Tensor:
        if h is None:
            opened: Tensor = self.unfold_top(z)
            return opened
        h = h + self.merges[k - 1](z)
        return h + self.blocks[k - 1](F.silu(h))


def _bounded(logvar: Tensor) -> Tensor:
    return MOST_LOGVAR * torch.tanh(logvar / MOST_LOGVAR)


def _nats(free_bits: float) -> float:
    if not 0.0 <= checks.number(free_bits, "free_bits") < float("inf"):
        raise ValueError(f"free_bits must be at least 0 and finite, got {free_bits:g}")
    return float(free_bits)
