"""The benchmarks on a GPU: large jobs, each peer in turns with ours, and the chip's own ceilings.

``vaefast bench --device cuda``, ``python -m vaefast.bench.gpu`` (which needs no command-line
packages), or ``bench/gpu.sh`` for a bare machine.
"""

from vaefast.bench.gpu.job import JOBS, run_jobs
from vaefast.bench.gpu.place import Place

__all__ = ["JOBS", "Place", "run_jobs"]
