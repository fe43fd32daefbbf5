"""Block Lanczos on diffusers' AutoencoderKL: ``python -m vaefast.bench.lanczos``.

Random weights, one image; what it costs and how far the Ritz values may be off. The channels are
those of the latent diffusion models, or fewer where a processor should do it.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

import vaefast as vf
from vaefast.bench.rows import append

__all__ = ["CASES", "Case", "Row", "main", "measured"]

OUT = Path("bench/results/lanczos.csv")


class Case(NamedTuple):
    """A model, an image 3×side×side, and what is asked of them."""

    channels: tuple[int, ...]
    layers: int
    side: int
    of: str
    std: bool
    iterations: int


SMALL, TINY, PUBLISHED = (32, 64, 128, 128), (16, 32, 32, 32), (128, 256, 512, 512)
CASES = {
    "published": Case(PUBLISHED, 2, 64, "reconstruction", False, 12),
    "64": Case(SMALL, 1, 64, "reconstruction", False, 30),
    "64 with std": Case(SMALL, 1, 64, "reconstruction", True, 30),
    "fisher 64": Case(SMALL, 1, 64, "fisher", False, 30),
    "128": Case(SMALL, 1, 128, "reconstruction", False, 20),
    "256": Case(TINY, 1, 256, "reconstruction", False, 20),
    "latents 4x64x64": Case(TINY, 1, 512, "encoder", False, 20),
    "512": Case(TINY, 1, 512, "reconstruction", False, 20),
}


@dataclass(frozen=True)
class Row:
    """``value`` is at most the largest eigenvalue, which some eigenvalue is within ``residual`` of.

    ``seconds`` are of the whole call, ``gigabytes`` the process's peak.
    """

    case: str
    of: str
    parameters: int
    image: str
    latents: str
    iterations: int
    value: float
    residual: float
    seconds: float
    gigabytes: float


def measured(name: str) -> Row:
    """One case, from its model to its row."""
    case = CASES[name]
    model = autoencoder(case)
    vae = vf.models.as_vae(model, likelihood="gaussian", obs_std=1.0)
    generator = torch.Generator(device="cpu").manual_seed(0)
    size = {"generator": generator, "dtype": torch.float32, "device": "cpu"}
    x = 2.0 * torch.rand(1, 3, case.side, case.side, **size) - 1.0
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of residuals, which the row has
        found = vf.geometry.pullback_spectrum(
            vae, x, of=case.of, std=case.std, method="lanczos", iterations=case.iterations
        )
    seconds = time.perf_counter() - start
    assert found.residuals is not None
    return Row(
        case=name,
        of=case.of + (" with std" if case.std else ""),
        parameters=sum(p.numel() for p in model.parameters()),
        image="x".join(map(str, x.shape[1:])),
        latents="x".join(map(str, vae.latent_shape or ())),
        iterations=case.iterations,
        value=found.eigenvalues[0, 0].item(),
        residual=found.residuals[0, 0].item(),
        seconds=round(seconds, 1),
        gigabytes=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    )


def autoencoder(case: Case) -> Any:
    """diffusers' model of these channels, with random weights."""
    try:
        from diffusers import AutoencoderKL
    except ImportError:
        raise SystemExit("this measures diffusers' AutoencoderKL: pip install diffusers") from None
    torch.manual_seed(0)
    count = len(case.channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * count,
        up_block_types=("UpDecoderBlock2D",) * count,
        block_out_channels=case.channels,
        layers_per_block=case.layers,
        norm_num_groups=min(32, case.channels[0] // 2),
        sample_size=case.side,
    ).eval()


def main(arguments: list[str]) -> int:
    """Append to the table, and print it."""
    parser = argparse.ArgumentParser(prog="python -m vaefast.bench.lanczos")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.cases if name not in CASES]:
        parser.error(f"CASE must be one of {', '.join(CASES)}, got {unknown[0]!r}")
    torch.set_num_threads(given.threads)
    for name in given.cases or CASES:
        row = measured(name)
        append(given.out, [row])
        print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
