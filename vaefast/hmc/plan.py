"""What a run of the sampler needs beside the rows: its path, memory, batches and results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from vaefast.functional.counts import COUNTS
from vaefast.hmc.groups import group_chunks
from vaefast.hmc.inputs import Inputs, latent_shape
from vaefast.hmc.options import EVERY, Options
from vaefast.hmc.potential import is_standard
from vaefast.hmc.result import HMCResult, Transitions
from vaefast.hmc.spans import Span, op_thin, passed_draws, spans
from vaefast.models.calls import HALF
from vaefast.models.likelihoods import squashed
from vaefast.models.prepare import Prepared
from vaefast.runtime import batching, capture, memory
from vaefast.runtime.batching import PaddedBatch, Rows
from vaefast.runtime.capture import Graphs
from vaefast.types import Network

__all__ = ["Plan", "beside_torch", "likelihood_of", "lowered", "planned"]

STATE_BYTES = 160  # working bytes per latent of one chain: momenta, proposals, random numbers
PIXEL_BYTES = 96  # working bytes per pixel of one chain in the likelihood
FIELDS = (
    "z",
    "accept_rate",
    "step_size",
    "energy",
    "divergent",
    "failed",
    "unresolved",
    "rounding",
    "leapfrog",
)
FUSED = ("net_potential", "net_trajectory", "net_chain")


@dataclass(frozen=True)
class Plan:
    """What all rows of a call share.

    Args:
        decoder: as the ops take it, or None on the generic path.
        tick: is told how many transitions were done.
        result: of all rows, filled in batch by batch; latents are flat.
        reasons: of rows with which something is wrong, by their number; filled in likewise.
    """

    prepared: Prepared
    inputs: Inputs
    options: Options
    backend: str | None
    decoder: Network | None
    spans: list[Span]
    captures: Graphs
    tick: Callable[[int], object]
    result: HMCResult
    reasons: dict[int, str]

    def batches(self) -> Iterator[PaddedBatch]:
        """The rows, cut to the memory budget; a group of several rows is never cut."""
        generic, cost = self.decoder is None, self._bytes_per_row()
        if not self.inputs.grouped:
            yield from self.prepared.batches(cost, self.options.chains, generic)
            return
        for rows in group_chunks(self.inputs.group, cost):
            yield PaddedBatch(rows, rows, slice(None), len(rows))

    def store(self, batch: PaddedBatch, part: HMCResult) -> None:
        in_order = isinstance(batch.positions, slice)
        for field in FIELDS:
            own = getattr(part, field)
            getattr(self.result, field)[batch.rows] = own if in_order else own[batch.positions]
        if self.result.diverging is not None and part.diverging is not None:
            self.result.diverging[batch.rows] = part.diverging[batch.positions]
        if self.result.energy_error is not None and part.energy_error is not None:
            self.result.energy_error[batch.rows] = part.energy_error[batch.positions]
        if any(part.reasons):
            numbers = torch.arange(len(self.result.z), device="cpu")[_on_cpu(batch.rows)].tolist()
            places = torch.arange(batch.size, device="cpu")[_on_cpu(batch.positions)].tolist()
            self.reasons.update(zip(numbers, (part.reasons[place] for place in places)))

    def finished(self) -> HMCResult:
        """The result, latents in the model's own shape."""
        shape = latent_shape(self.prepared.vae)
        reasons = tuple(self.reasons.get(row, "") for row in range(len(self.result.z)))
        return replace(self.result, z=self.result.z.unflatten(-1, shape), reasons=reasons)

    def _bytes_per_row(self) -> int:
        """Working memory of one row with its chains."""
        maps, step = self.prepared.maps, self.inputs.step_size
        latents, itemsize = self.result.z.shape[-1], step.element_size()
        state = PIXEL_BYTES * self.prepared.pixels + STATE_BYTES * latents
        copies = self.captures.copies if self.decoder is None else 1
        working = copies * (maps.decoder.bytes_per_row(itemsize) + state)
        passed = passed_draws(self.options, self.spans[-1].thin)
        passed += self.options.warmup if self.options.adapts_mass else 0
        draws = passed * draw_bytes(latents, itemsize)
        return maps.mean.bytes_per_row(itemsize) + self.options.chains * (working + 2 * draws)


@contextmanager
def planned(
    prepared: Prepared, inputs: Inputs, options: Options, backend: str | None, progress: bool
) -> Iterator[Plan]:
    """The plan of a call, inside which its captures and the progress bar live."""
    result = _empty(prepared, inputs, options)
    decoder = lowered(prepared, options)
    if decoder is not None:
        uses = options.transitions + 1
        decoder = prepared.packs.packed("decoder", decoder, backend=backend, uses=uses)
    result = replace(result, reproducible=_promise(prepared, decoder, inputs, options, backend))
    generic, x, vae = decoder is None, prepared.x, prepared.vae
    cost = draw_bytes(result.z.shape[-1], result.z.element_size())
    thin = op_thin(options, len(x) * options.chains, cost)
    cuts = spans(options, thin=thin, shown=progress)
    with capture.capturing(x, vae) as captures, batching.pinned(generic):
        run = prepared, inputs, options, backend, decoder, cuts, captures
        plan = Plan(*run, _no_tick, result, {})
        if not progress:
            yield plan
            return
        batches = sum(1 for _ in plan.batches())
        with _progress_bar(batches * options.transitions) as tick:
            yield replace(plan, tick=tick)


def draw_bytes(latents: int, itemsize: int) -> int:
    """z and energy of one draw."""
    return latents * itemsize + 8


def likelihood_of(prepared: Prepared, options: Options) -> str:
    """The model's own; the published schedule clamps the Bernoulli's probabilities."""
    likelihood = prepared.vae.likelihood
    clamped = options.schedule == "kuzina2022" and likelihood == "bernoulli"
    return "clamped_bernoulli" if clamped else likelihood


def lowered(prepared: Prepared, options: Options) -> Network | None:
    """The decoder as a network, or None where only the generic path applies."""
    if options.memory_format == "channels_last" and prepared.x.ndim != 4:
        raise ValueError('memory_format="channels_last" is for images [B, C, H, W]')
    net, reason = _network(prepared)
    if not is_standard(prepared.vae):
        reason = reason or "the prior is not N(0, I)"
    if not reason:
        return net
    if options.precision != "ieee" and not prepared.x.is_cuda:
        raise ValueError(
            f"precision={options.precision!r} on the CPU needs a decoder that lowers: {reason}; "
            'use "ieee"'
        )
    return None


def beside_torch(prepared: Prepared) -> Network | None:
    """The decoder as a network, beside a prior that is not N(0, I) or a likelihood of counts.

    On CUDA a captured transition of the modules takes its place.
    """
    vae, x = prepared.vae, prepared.x
    if x.is_cuda:
        return None
    if vae.likelihood in COUNTS:
        return None if x.dtype in HALF else prepared.maps.decoder.lowered
    if is_standard(vae):
        return None
    net, reason = _network(prepared)
    return None if reason else net


def _network(prepared: Prepared) -> tuple[Network | None, str]:
    """The decoder as the fused likelihood takes it, or why there is none."""
    vae, decoder = prepared.vae, prepared.maps.decoder
    if prepared.x.dtype in HALF:
        return None, "x is in half precision"
    if vae.decoder_output == "mean_logvar":
        return None, "the decoder has a second head"
    if vae.likelihood in COUNTS:
        return None, "the likelihood of counts runs in torch"
    if decoder.lowered is None:
        return None, decoder.why_not
    return decoder.lowered, squashed(vae.likelihood, decoder.lowered)


def _promise(
    prepared: Prepared,
    decoder: Network | None,
    inputs: Inputs,
    options: Options,
    backend: str | None,
) -> str:
    x = prepared.x
    if decoder is None:
        return "round-off" if inputs.grouped else batching.reproducible(True, (), x)
    drawn = inputs.init is None or options.mass not in ("unit", "given")
    encoded = drawn and prepared.maps.generic("encoder")
    start = batching.reproducible(encoded, ("net_forward",), x)
    return batching.weakest(start, batching.reproducible(False, FUSED, x, backend))


def _empty(prepared: Prepared, inputs: Inputs, options: Options) -> HMCResult:
    """The result of all rows, to be filled in; refused where more than last states cannot fit."""
    rows, chains, kept = len(prepared.x), options.chains, options.kept
    step, latents = inputs.step_size, torch.Size(latent_shape(prepared.vae)).numel()
    if kept > 1:
        memory.require_fits(
            rows * chains * kept * draw_bytes(latents, step.element_size()),
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
        unresolved=torch.empty(rows, dtype=torch.bool, device=step.device),
        rounding=step.new_empty(rows, dtype=torch.float64),
        reasons=("",) * rows,
        mass=options.mass,
        diverging=_no_divergences(options, rows, step.device),
        transitions=_transitions(prepared, options),
        energy_error=_no_energy_errors(options, rows, step.device),
        leapfrog=torch.empty(rows, dtype=torch.int64, device=step.device),
    )


def _no_divergences(options: Options, rows: int, device: torch.device) -> torch.Tensor | None:
    """[B, C, T], or None where not every draw is kept or steps that still adapt are forgotten."""
    if options.kept < options.steps or options.schedule is not None:
        return None
    shape = rows, options.chains, options.kept
    return torch.zeros(shape, dtype=torch.bool, device=device)


def _no_energy_errors(options: Options, rows: int, device: torch.device) -> torch.Tensor | None:
    """[B, C, n], where they are looked at."""
    if not options.looks_at_errors:
        return None
    shape = rows, options.chains, options.steps // EVERY
    return torch.zeros(shape, dtype=torch.float64, device=device)


def _transitions(prepared: Prepared, options: Options) -> Transitions:
    first = options.transitions - 1 - (options.kept - 1) * options.thin
    return Transitions(prepared.index, options.seed, first, options.thin)


def _on_cpu(rows: Rows) -> Rows:
    return rows.cpu() if isinstance(rows, torch.Tensor) else rows


def _no_tick(done: int) -> None:
    pass


@contextmanager
def _progress_bar(total: int) -> Iterator[Callable[[int], object]]:
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("progress=True needs tqdm; pip install vaefast[all]") from error
    with tqdm(total=total, unit="transition", desc="HMC") as bar:
        yield bar.update
