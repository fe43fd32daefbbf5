"""``net_chain``: T transitions of Hamiltonian Monte Carlo on an MLP decoder, in one call."""

from __future__ import annotations

import torch
from torch import Tensor

from vaefast import checks
from vaefast.functional.chain import Chain, kept
from vaefast.ops._autograd import tensors_of, through_reference
from vaefast.ops._cpp import kernel, layers_of, like_of, plain_rows, rows_at
from vaefast.ops._inputs import (
    check_energy,
    check_jitter,
    check_lanes,
    check_like,
    check_mass,
    check_precision,
    check_range,
    check_seed,
    check_target,
)
from vaefast.ops._register import lazy, register
from vaefast.reference.net_chain import net_chain as reference
from vaefast.runtime import backends
from vaefast.runtime.tiles import check_tile
from vaefast.types import Network

__all__ = ["Chain", "net_chain"]


def net_chain(
    z: Tensor,
    U: Tensor,
    grad: Tensor,
    x: Tensor,
    net: Network,
    *,
    likelihood: str,
    obs_std: float = 1.0,
    step: float | Tensor,
    inv_mass: Tensor | None = None,
    leapfrog: int,
    jitter: float = 0.0,
    seed: int = 0,
    index: Tensor | None = None,
    first_step: int = 0,
    steps: int,
    thin: int = 0,
    precision: str = "ieee",
    tile: int | None = None,
    backend: str | None = None,
) -> Chain:
    """Run HMC transitions: momentum, trajectory, Metropolis; each costs L gradients.

        p ~ N(0, M),  (z', p') = L leapfrogs,  H = U + ½ pᵀM⁻¹p,
        z ← z' iff u < exp(H(z, p) − H(z', p')),  u uniform in (0, 1)

    The step of row b in transition t is ``step[b]·(1 + jitter·w)``, w uniform in (−1, 1), one
    per row and transition. A trajectory whose energy error exceeds 1000 nats or is not finite is
    rejected and counted as divergent. Two calls, the second with ``first_step`` raised by the
    first one's ``steps``, give the chain of one call.

    A row with NaN or infinity in its inputs gets U = NaN: it never moves, and each of its
    transitions counts as divergent.

    Args:
        z: positions [N, d]. Row n belongs to x[n // C], with C = N / B chains.
        U: potential energies at z [N] float64, in nats, from :func:`net_potential`.
        grad: gradients of U at z [N, d], from :func:`net_potential`.
        x: images [B, D] in z's dtype.
        net: the decoder, d to D, giving natural parameters.
        likelihood: one of ``vaefast.types.LIKELIHOODS``, as in :func:`log_likelihood`.
        obs_std: standard deviation of the Gaussian, in the scale of x.
        step: step size, float or [B].
        inv_mass: diagonal of M⁻¹ [B, d]; None for unit mass.
        leapfrog: steps per trajectory L, at least 1.
        jitter: relative half-width of the step's jitter, in [0, 1).
        seed: 64-bit seed of the random numbers.
        index: global number of each input [B] int64; default ``arange(B)``.
        first_step: number of the first transition.
        steps: how many transitions T.
        thin: k > 0 keeps each transition whose number plus one is a multiple of k; 0 keeps none.
        precision: ``"ieee"``, ``"tf32"`` or ``"bf16"``: the lowest that a backend may use inside
            matrix products; the reference always computes in z's dtype.
        tile: rows that one GPU program works on, 16, 32, 64 or 128; ``None`` chooses it from the
            batch. It pins the bits of a result on CUDA; the CPU has no tiles and ignores it.
        backend: ``"reference"``, ``"cpp"`` or ``"triton"``; ``None`` chooses.

    Returns:
        A named tuple: z [N, d], U [N] float64, grad [N, d], accepted [N] int64, divergent [N]
        int64, draws [N, n, d], energies [N, n] float64 (U of each draw, in nats).

    Raises:
        TypeError: not tensors, or dtypes that differ or are not floating.
        ValueError: shapes, devices or options that do not fit together.
        RuntimeError: an input requires grad; the backend asked for by name cannot run here.

    Source: Neal, "MCMC using Hamiltonian dynamics" (2011), §3.2; Kuzina et al. 2022
    (mathematics.md §1.3,
    §10), without their adaptation, which belongs to the caller.
    """
    check_lanes(check_target(z, x, net, likelihood, obs_std))
    check_energy(U, z)
    check_like(grad, "grad", z, "z", list(z.shape))
    check_mass(inv_mass, z, x)
    how = check_precision(precision), check_tile(tile)
    check_range(first_step, steps, "first_step", "steps")
    rows = len(x)
    step = checks.per_row(step, "step", rows, like=z)
    index = checks.row_index(index, rows, z.device)
    like = likelihood, float(obs_std)
    numbers = checks.count(leapfrog, "leapfrog"), check_jitter(jitter), check_seed(seed)
    span = first_step, steps, checks.count(thin, "thin", minimum=0)
    arguments = z, U, grad, x, *net, *like, step, inv_mass, index, *numbers, *span, *how
    chosen = backends.resolve("net_chain", backend, z)
    tensors = z, U, grad, x, step, inv_mass, *tensors_of(net)
    if through_reference("net_chain", backend, *tensors):
        return Chain(*_run_reference(*arguments))
    return Chain(*_op(*arguments, chosen))


def _run_reference(
    z, U, grad, x, weights, biases, layers, packed, likelihood, obs_std, step, inv_mass,
    index, leapfrog, jitter, seed, first_step, steps, thin, precision, tile,
) -> tuple[Tensor, ...]:  # fmt: skip
    result = reference(
        z,
        U,
        grad,
        x,
        Network(weights, biases, layers),
        likelihood=likelihood,
        obs_std=obs_std,
        step=step,
        inv_mass=inv_mass,
        leapfrog=leapfrog,
        jitter=jitter,
        seed=seed,
        index=index,
        first_step=first_step,
        steps=steps,
        thin=thin,
        precision=precision,
    )
    return tuple(t.contiguous() for t in result)


def _run_cpp(
    z, U, grad, x, weights, biases, layers, packed, likelihood, obs_std, step, inv_mass,
    index, leapfrog, jitter, seed, first_step, steps, thin, precision, tile,
) -> tuple[Tensor, ...]:  # fmt: skip
    layers, _alive = layers_of(weights, biases, layers, packed)
    N, n = len(z), kept(first_step, steps, thin)
    state = [t.clone(memory_format=torch.contiguous_format) for t in (z, grad, U)]
    counts = [torch.zeros(N, dtype=torch.int64) for _ in range(2)]
    draws, energies = z.new_empty((N, n, z.shape[1])), U.new_empty((N, n))
    rows = [step.contiguous(), index.contiguous()]
    images, mass = plain_rows(x, inv_mass)
    kernel("net_chain", z.dtype)(
        [rows_at(t) for t in state[:2]],
        [t.data_ptr() for t in (state[2], *counts, draws, energies)],
        [t.data_ptr() for t in rows],
        rows_at(mass),
        (N, leapfrog, first_step, steps, thin, n),
        jitter,
        seed % (1 << 64),
        layers,
        like_of(images, N, likelihood, [images.new_tensor(obs_std)]),
        torch.get_num_threads(),
    )
    return state[0], state[2], state[1], *counts, draws, energies


def _fake(
    z, U, grad, x, weights, biases, layers, packed, likelihood, obs_std, step, inv_mass,
    index, leapfrog, jitter, seed, first_step, steps, thin, precision, tile, backend,
) -> tuple[Tensor, ...]:  # fmt: skip
    N, n = z.shape[0], kept(first_step, steps, thin)
    state = z.new_empty(z.shape), U.new_empty(N), z.new_empty(z.shape)
    counts = [index.new_empty(N) for _ in range(2)]
    return *state, *counts, z.new_empty((N, n, z.shape[1])), U.new_empty((N, n))


_op = register(
    "net_chain",
    "(Tensor z, Tensor U, Tensor grad, Tensor x,"
    " Tensor[] weights, Tensor?[] biases, str[] layers, Tensor? packed,"
    " str likelihood, float obs_std, Tensor step, Tensor? inv_mass, Tensor index,"
    " int leapfrog, float jitter, int seed, int first_step, int steps, int thin,"
    " str precision, int tile, str backend)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    fake=_fake,
    reference=_run_reference,
    cpp=_run_cpp,
    triton=lazy("vaefast.kernels.net_chain", "net_chain"),
)
