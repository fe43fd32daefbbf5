"""``net_trajectory``: L leapfrog steps on the posterior of an MLP decoder."""

from __future__ import annotations

import torch
from torch import Tensor

from vaefast import checks
from vaefast.ops._autograd import tensors_of, through_reference
from vaefast.ops._cpp import kernel, layers_of, like_of, plain_rows, rows_at
from vaefast.ops._inputs import check_like, check_mass, check_precision, check_target
from vaefast.ops._register import lazy, register
from vaefast.reference.net_trajectory import net_trajectory as reference
from vaefast.runtime import backends
from vaefast.runtime.tiles import check_tile
from vaefast.types import Network

__all__ = ["net_trajectory"]


def net_trajectory(
    z: Tensor,
    p: Tensor,
    grad: Tensor,
    x: Tensor,
    net: Network,
    *,
    likelihood: str,
    obs_std: float = 1.0,
    step: float | Tensor,
    inv_mass: Tensor | None = None,
    leapfrog: int,
    precision: str = "ieee",
    tile: int | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Follow Hamilton's equations for ``leapfrog`` steps, with exactly as many gradients.

        p ← p − ½ step·∇U(z);  L times: z ← z + step·M⁻¹p, p ← p − step·∇U(z) (the last by half)

    Equivalent to, with ``U`` and its gradient from :func:`net_potential`::

        for _ in range(leapfrog):
            leapfrog_step(z, p, grad, step, inv_mass=inv_mass, kick=0.5)
            U, grad = net_potential(z, x, net, likelihood=likelihood)
            leapfrog_step(z, p, grad, step, kick=0.5, drift=False)

    The first half kick uses ``grad``; the end's U comes from the last gradient's forward pass.
    The map preserves volume and is reversible: from (z', −p') it returns to (z, −p), to
    round-off. NaN or infinity in a row's inputs makes that row of every result NaN.

    Args:
        z: positions [N, d]. Row n belongs to x[n // C], with C = N / B.
        p: momenta [N, d].
        grad: gradients of U at z [N, d], from :func:`net_potential` or the last trajectory.
        x: images [B, D] in z's dtype.
        net: the decoder, d to D, giving natural parameters.
        likelihood: one of ``vaefast.types.LIKELIHOODS``, as in :func:`log_likelihood`.
        obs_std: standard deviation of the Gaussian, in the scale of x.
        step: step size, float or [N].
        inv_mass: diagonal of M⁻¹ [B, d]; None for unit mass.
        leapfrog: number of steps L, at least 1.
        precision: ``"ieee"``, ``"tf32"`` or ``"bf16"``: the lowest that a backend may use inside
            matrix products; the reference always computes in z's dtype.
        tile: rows that one GPU program works on, 16, 32, 64 or 128; ``None`` chooses it from the
            batch. It pins the bits of a result on CUDA; the CPU has no tiles and ignores it.
        backend: ``"reference"``, ``"cpp"`` or ``"triton"``; ``None`` chooses.

    Returns:
        The end: z [N, d], p [N, d], grad [N, d], U [N] float64 in nats.

    Raises:
        TypeError: not tensors, or dtypes that differ or are not floating.
        ValueError: shapes, devices or options that do not fit together.
        RuntimeError: an input requires grad; the backend asked for by name cannot run here.

    Source: Neal, "MCMC using Hamiltonian dynamics" (2011), §2.3; mathematics.md §10.
    """
    check_target(z, x, net, likelihood, obs_std)
    check_like(p, "p", z, "z", list(z.shape))
    check_like(grad, "grad", z, "z", list(z.shape))
    check_mass(inv_mass, z, x)
    step = checks.per_row(step, "step", z.shape[0], like=z)
    options = likelihood, float(obs_std), checks.count(leapfrog, "leapfrog")
    how = check_precision(precision), check_tile(tile)
    arguments = z, p, grad, x, *net, step, inv_mass, *options, *how
    chosen = backends.resolve("net_trajectory", backend, z)
    tensors = z, p, grad, x, step, inv_mass, *tensors_of(net)
    if through_reference("net_trajectory", backend, *tensors):
        return _run_reference(*arguments)
    return _op(*arguments, chosen)


def _run_reference(
    z, p, grad, x, weights, biases, layers, packed, step, inv_mass, likelihood, obs_std,
    leapfrog, precision, tile,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return reference(
        z,
        p,
        grad,
        x,
        Network(weights, biases, layers),
        likelihood=likelihood,
        obs_std=obs_std,
        step=step,
        inv_mass=inv_mass,
        leapfrog=leapfrog,
        precision=precision,
    )


def _run_cpp(
    z, p, grad, x, weights, biases, layers, packed, step, inv_mass, likelihood, obs_std,
    leapfrog, precision, tile,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    layers, _alive = layers_of(weights, biases, layers, packed)
    end = [z.new_empty(z.shape) for _ in range(3)]
    U, step = z.new_empty(len(z), dtype=torch.float64), step.contiguous()
    *start, images, mass = plain_rows(z, p, grad, x, inv_mass)
    kernel("net_trajectory", z.dtype)(
        [rows_at(t) for t in end],
        U.data_ptr(),
        [rows_at(t) for t in start],
        step.data_ptr(),
        rows_at(mass),
        len(z),
        leapfrog,
        layers,
        like_of(images, len(z), likelihood, [images.new_tensor(obs_std)]),
        torch.get_num_threads(),
    )
    return *end, U


def _fake(z, *arguments) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    state = [z.new_empty(z.shape) for _ in range(3)]
    return *state, z.new_empty(z.shape[0], dtype=torch.float64)


_op = register(
    "net_trajectory",
    "(Tensor z, Tensor p, Tensor grad, Tensor x,"
    " Tensor[] weights, Tensor?[] biases, str[] layers, Tensor? packed, Tensor step,"
    " Tensor? inv_mass, str likelihood, float obs_std, int leapfrog,"
    " str precision, int tile, str backend)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    fake=_fake,
    reference=_run_reference,
    cpp=_run_cpp,
    triton=lazy("vaefast.kernels.net_trajectory", "net_trajectory"),
)
