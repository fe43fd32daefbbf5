"""How a GPU is measured: each peer in turns with ours, and the chip's own ceilings."""

from vaefast.bench.gpu.job import run_jobs

__all__ = ["run_jobs"]
