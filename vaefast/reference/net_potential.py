"""``net_potential`` in plain PyTorch: the potential energy of a latent, and its gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from vaefast.functional import network
from vaefast.functional.likelihoods import parameter_rows, valid
from vaefast.functional.priors import prior_energy, prior_gradient
from vaefast.functional.rows import chains, chunked, finite, nan_where_bad, of_chains
from vaefast.reference.log_likelihood import TEMPORARIES, log_density, score
from vaefast.types import Network

if TYPE_CHECKING:
    from vaefast.ops.net_potential import Call

__all__ = ["Target", "net_potential"]


class Target(NamedTuple):
    """The posterior of a few inputs, p(z | x) ∝ p(x | net(z)) N(z; 0, I)."""

    x: Tensor  # [B, D]
    net: Network
    likelihood: str
    parameters: list[Tensor]

    @classmethod
    def of(cls, call: Any) -> Target:
        """The target of an op's call."""
        return cls(call.x, call.net, call.likelihood, call.likelihood_params)

    def energy_and_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """U [N] float64 in nats, all constants included, and ∇U [N, d]; N = B·C."""
        tape = network.forward(z, self.net)
        logp = log_density(tape.out, self.x, self.likelihood, self.parameters)
        return prior_energy(z) - logp, self._gradient(z, tape)

    def gradient(self, z: Tensor) -> Tensor:
        """∇U = z − Jᵀ d log p / d out, [N, d]."""
        return self._gradient(z, network.forward(z, self.net))

    def rows(self, rows: slice) -> Target:
        return self._replace(x=self.x[rows], parameters=parameter_rows(self.parameters, rows))

    def good(self) -> Tensor:
        """[B] bool: the image and the likelihood's parameters are usable."""
        return finite(self.x) & valid(self.parameters, len(self.x), self.x)

    def bytes_per_input(self, z: Tensor) -> int:
        """Bytes at work for one input with all its chains."""
        pixels = TEMPORARIES * self.x.shape[-1] * z.element_size()
        return chains(z, self.x) * (network.bytes_per_row(self.net, z) + pixels)

    def _gradient(self, z: Tensor, tape: network.Tape) -> Tensor:
        upstream = score(tape.out, self.x, self.likelihood, self.parameters)
        return prior_gradient(z) - network.pullback(tape, upstream, self.net)


def net_potential(call: Call) -> tuple[Tensor, Tensor]:
    """U(z) = −log p(x | net(z)) − log N(z; 0, I) [N] float64, and ∇U [N, d]."""
    z, target, count = call.z, Target.of(call), chains(call.z, call.x)

    def run(rows: slice) -> tuple[Tensor, ...]:
        latents, part = z[of_chains(rows, count)], target.rows(rows)
        good = finite(latents) & part.good().repeat_interleave(count)
        return nan_where_bad(good, *part.energy_and_gradient(latents))

    U, grad = chunked(run, len(call.x), target.bytes_per_input(z))
    return U, grad
