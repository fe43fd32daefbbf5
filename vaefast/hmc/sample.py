"""Hamiltonian Monte Carlo on the true posterior p(z|x) of every input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from vaefast import checks
from vaefast.hmc.options import Options, chain_starts, inverse_mass, positive_step_size
from vaefast.hmc.result import HMCResult
from vaefast.hmc.rows import Inputs, Plan, sample_rows
from vaefast.hmc.schedule import group_chunks, group_of_rows, require_shared
from vaefast.models import lowering
from vaefast.models.footprint import activation_bytes
from vaefast.models.paths import Paths
from vaefast.models.vae import VAE
from vaefast.runtime import backends, batching, capture, memory
from vaefast.runtime.batching import Block
from vaefast.types import Network

__all__ = ["sample"]

HALF = (torch.float16, torch.bfloat16)
STATE_BYTES = 160  # working bytes per latent of one chain: momenta, proposals, random numbers
FIELDS = ("z", "accept_rate", "step_size", "energy", "divergent", "failed")
PIXEL_BYTES = 96  # working bytes per pixel of one chain in the likelihood


def sample(
    vae: VAE,
    x: Tensor,
    *,
    init: Tensor | None = None,
    chains: int = 1,
    steps: int = 1000,
    warmup: int | None = None,
    leapfrog: int | None = None,
    step_size: float | Tensor = 0.1,
    adapt: str | None = "dual_averaging",
    jitter: float | None = None,
    mass: str | Tensor | None = None,
    schedule: str | None = None,
    group: int | Tensor | None = None,
    keep: str | int | None = None,
    precision: str = "ieee",
    memory_format: str = "contiguous",
    seed: int = 0,
    index: Tensor | None = None,
    backend: str | None = None,
    progress: bool = False,
) -> HMCResult:
    """Draw from the posterior p(z|x) ∝ p(x|z) p(z) of every input, C chains each.

    One transition, with U(z) = −log p(x|z) − log p(z)::

        p ~ N(0, M),  (z', p') = L leapfrogs of length ε(1 + jitter·w),  w uniform in (−1, 1),
        accept z' with probability min(1, exp(U(z) + ½pᵀM⁻¹p − U(z') − ½p'ᵀM⁻¹p'))

    The step size ε adapts in the warm-up and is then frozen, so that what is kept leaves the
    posterior invariant. Nothing is pooled over rows: a row depends on its input, ``seed`` and
    ``index`` only. The jitter keeps a fixed path length from resonating with a direction of the
    posterior. Energy and gradient are carried along: a transition costs exactly L gradients.

    A decoder that is an MLP, with the prior N(0, I), runs in the fused ops; any other decoder or
    prior goes through autograd, on CUDA with the transition recorded once per shape and replayed as
    one graph (:mod:`vaefast.runtime.capture`). Both make the same transition to round-off; long
    chains, which amplify it, agree in law. On the second path rows stand in blocks of 64 chains
    (:mod:`vaefast.runtime.batching`), so a lone chain costs as much as 64;
    ``vaefast.set_block(1)`` samples each input by itself.

    Args:
        vae: the model; it is neither moved nor changed.
        x: [B, *event].
        init: start of the chains, [B, d] (shared) or [B, C, d]; default a draw from q(z|x) each.
        chains: C, chains per input, at least 1 (R-hat needs 2 or more).
        steps: transitions after the warm-up, at least 1.
        warmup: transitions before them, not kept; default 500. With ``adapt=None`` they are plain
            burn-in.
        leapfrog: L, leapfrogs a transition; default 10, under the schedule 20.
        step_size: ε, positive, float or [B]; where the adaptation starts.
        adapt: ``"dual_averaging"`` towards an acceptance probability of 0.8, per row, averaged
            over the row's chains; None leaves ``step_size`` as it is. Not used with ``schedule``.
        jitter: relative half-width of the step's jitter, in [0, 1); default 0.2. One factor a
            transition and row, constant along the trajectory.
        mass: diagonal of M: None (unit mass), ``"posterior"`` (the precision of q(z|x)), or
            positive masses [d] or [B, d].
        schedule: ``"kuzina2022"`` runs the published defence: steps // 2 transitions of burn-in,
            L = 20, no jitter, unit mass, the clamped likelihood for Bernoulli models, a step size
            that goes on adapting (:class:`~vaefast.hmc.schedule.GroupStepSize`), and by default
            only the last state. Values by data set are in ``vaefast.hmc.KUZINA2022``.
        group: rows that share the schedule's step size: rows per group (consecutive rows of x) or
            an int64 [B] of group identifiers; default every row by itself (with its chains). All
            rows of a group must be in the call; with identifiers this cannot be checked.
        keep: ``"all"`` (default; T = steps), ``"last"`` (default under the schedule; T = 1), or a
            number T of evenly spaced draws, steps // T transitions apart, the last one included.
        precision: ``"ieee"``, ``"tf32"`` or ``"bf16"`` for the gradients inside a trajectory; those
            at its ends and the energies are always ``"ieee"``, so that the chain stays exact
            (mathematics.md §10). The last two where the backend has them, on the second path on
            CUDA.
        memory_format: ``"contiguous"`` or ``"channels_last"``, the layout of a convolutional
            decoder's weights and images; tensor cores prefer the second. Equal to round-off, and
            of no use to the fused ops.
        seed: seed of all random numbers.
        index: [B] int64, the global numbers of the inputs; default 0 to B − 1.
        backend: ``"reference"``, ``"cpp"``, ``"triton"`` or None for the best one.
        progress: show a progress bar.

    Returns:
        :class:`HMCResult`. z has x's dtype, float32 for half-precision models. A row whose input,
        start or energy at the start is not finite is ``failed`` and NaN.

    Raises:
        ValueError: an option out of range, a wrong shape, or a group cut in two.
        TypeError: a wrong type or dtype.
        RuntimeError: dropout or batch norm in training mode; a backend that cannot run.
        MemoryError: the draws exceed the memory budget; ``keep="last"`` always fits.

    Source: Neal, "MCMC using Hamiltonian dynamics" (2011); Hoffman and Gelman, JMLR 15 (2014),
    for the adaptation, here per row; Kuzina, Welling, Tomczak, NeurIPS 2022, for the use as a
    defence and the schedule.
    """
    options = Options.checked(
        chains=chains,
        steps=steps,
        warmup=warmup,
        leapfrog=leapfrog,
        adapt=adapt,
        jitter=jitter,
        mass=mass,
        schedule=schedule,
        keep=keep,
        precision=precision,
        memory_format=memory_format,
        seed=seed,
    )
    with torch.inference_mode(False), torch.no_grad():
        x = _checked(vae, x)
        inputs = _inputs(vae, x, options, init, step_size, mass, group, index)
        return _sample(vae, inputs, options, backend, progress)


def _checked(vae: VAE, x: Tensor) -> Tensor:
    if not isinstance(vae, VAE):
        raise TypeError(
            f"vae must be a vaefast.VAE, got {type(vae).__name__}; wrap it with vaefast.as_vae"
        )
    checks.eval_mode(vae)
    return checks.batch(x).detach()


def _inputs(
    vae: VAE,
    x: Tensor,
    options: Options,
    init: Tensor | None,
    step_size: float | Tensor,
    mass: str | Tensor | None,
    group: int | Tensor | None,
    index: Tensor | None,
) -> Inputs:
    rows = len(x)
    like = x.new_empty(0, dtype=torch.float32 if x.dtype in HALF else x.dtype)
    latents = _latents(vae, x)
    masses = None if options.posterior_mass else mass
    numbers = checks.row_index(index, rows, x.device)
    if group is not None and options.schedule is None:
        raise ValueError('group needs schedule="kuzina2022"; without it every row adapts by itself')
    groups = group_of_rows(group, numbers, given=index is not None)
    step = positive_step_size(step_size, rows, like)
    require_shared(step, groups)
    return Inputs(
        x=x,
        index=numbers,
        step_size=step,
        group=groups,
        init=None if init is None else chain_starts(init, rows, options.chains, latents, like),
        inv_mass=None if masses is None else inverse_mass(masses, rows, latents, like),
        latents=latents,
    )


def _latents(vae: VAE, x: Tensor) -> int:
    """d, from the encoder's answer to one blank input."""
    return vae.posterior(x.new_zeros(1, *x.shape[1:]))[0].shape[1]


def _sample(
    vae: VAE, inputs: Inputs, options: Options, backend: str | None, progress: bool
) -> HMCResult:
    decoder, paths = _lowered(vae, inputs, options), Paths.of(vae, inputs.x)
    if decoder is not None:
        decoder = paths.packs.packed("decoder", decoder, backend=backend)
    promise = _promise(paths, decoder, inputs, options, backend)
    result = replace(_empty(inputs, options), reproducible=promise)
    with capture.recording(inputs.x, vae) as recordings:
        copies = recordings.copies if decoder is None else 1
        bytes_per_row = _bytes_per_row(vae, inputs, options, copies)
        chunks = list(_chunks(inputs, decoder is None, bytes_per_row, options.chains))
        total = len(chunks) * options.transitions
        with _progress_bar(total, shown=progress) as tick, batching.pinned(decoder is None):
            plan = Plan(paths, decoder, options, backend, tick, recordings)
            for block in chunks:
                part = sample_rows(plan, inputs.rows(block.take))
                for field in FIELDS:
                    getattr(result, field)[block.rows] = getattr(part, field)[block.place]
    return result


def _chunks(inputs: Inputs, generic: bool, bytes_per_row: int, chains: int) -> Iterator[Block]:
    """Blocks of rows; a group of several rows is never cut, so it is no block of one shape."""
    if not generic or inputs.grouped:
        for rows in group_chunks(inputs.group, bytes_per_row):
            yield Block(rows, rows, slice(None), len(rows))
    else:
        yield from batching.row_blocks(inputs.index, bytes_per_row, generic=True, width=chains)


def _promise(
    paths: Paths, decoder: Network | None, inputs: Inputs, options: Options, backend: str | None
) -> str:
    if decoder is None:
        promise = batching.reproducible(True, (), inputs.x)
        return "round-off" if inputs.grouped else promise
    drawn = inputs.init is None or options.posterior_mass
    start = batching.reproducible(paths.encoder is None and drawn, ("net_forward",), inputs.x)
    fused = ("net_potential", "net_trajectory", "net_chain")
    return batching.weakest(start, batching.reproducible(False, fused, inputs.x, backend))


@contextmanager
def _progress_bar(total: int, *, shown: bool) -> Iterator[Callable[[int], object]]:
    if not shown:
        yield lambda done: None
        return
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("progress=True needs tqdm; pip install vaefast[all]") from error
    with tqdm(total=total, unit="transition", desc="HMC") as bar:
        yield bar.update


def _lowered(vae: VAE, inputs: Inputs, options: Options) -> Network | None:
    """The decoder as an MLP, or None where only the generic path applies."""
    if options.memory_format != "contiguous" and inputs.x.ndim != 4:
        raise ValueError('memory_format="channels_last" is for images [B, C, H, W]')
    reason = "the prior is not N(0, I)" if vae.prior is not None else ""
    if inputs.x.dtype in HALF:
        reason = "x is in half precision"
    if not reason:
        try:
            net = lowering.decoder(vae)
            if not (reason := backends.fused(net, inputs.x).reason):
                return net
        except lowering.CannotLower as error:
            reason = str(error)
    if options.precision != "ieee" and not inputs.x.is_cuda:
        raise ValueError(
            f'precision={options.precision!r} on the CPU needs an MLP decoder: {reason}; use "ieee"'
        )
    return None


def _empty(inputs: Inputs, options: Options) -> HMCResult:
    """The result of all rows, to be filled in; refused where more than last states cannot fit."""
    rows, chains, kept = len(inputs.x), options.chains, options.kept
    step, latents = inputs.step_size, inputs.latents
    if kept > 1:
        memory.require_fits(
            rows * chains * _draw_bytes(inputs, options),
            f"z and energy of {rows} inputs, {chains} chains and {kept} draws",
            'pass keep="last" or a smaller keep=',
        )
    return HMCResult(
        z=step.new_empty(rows, chains, kept, latents),
        accept_rate=step.new_empty(rows, chains),
        step_size=torch.empty_like(step),
        energy=step.new_empty(rows, chains, kept, dtype=torch.float64),
        divergent=torch.empty(rows, chains, dtype=torch.int64, device=step.device),
        failed=torch.empty(rows, dtype=torch.bool, device=step.device),
    )


def _bytes_per_row(vae: VAE, inputs: Inputs, options: Options, copies: int) -> int:
    """Working memory of one row with its chains: measured for the model, counted for the rest."""
    x, latents = inputs.x, inputs.latents
    encoder = activation_bytes(vae.posterior, x, vae)
    decoder = activation_bytes(vae.decode, x.new_zeros(1, latents), vae)
    state = PIXEL_BYTES * x.shape[1:].numel() + STATE_BYTES * latents
    working = copies * (decoder + state)
    return encoder + options.chains * (working + 2 * _draw_bytes(inputs, options))


def _draw_bytes(inputs: Inputs, options: Options) -> int:
    """z and energy of one chain's kept draws."""
    return options.kept * (inputs.latents * inputs.step_size.element_size() + 8)
