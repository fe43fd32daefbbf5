"""Benchmarks: one list of cases for each op, on a CPU and on a GPU, beside every rival.

``vaefast bench pgd_step``, ``python -m vaefast.bench`` (which needs no command-line packages), or
``bench/gpu.sh`` for a bare machine. A provider must agree with the first one before it is timed.
On a CPU all providers take turns in one run; on a GPU each in turns with ours alone
(:mod:`vaefast.bench.gpu`).
"""

from vaefast.bench.place import Place
from vaefast.bench.runner import Benchmark, Result, measure, run
from vaefast.bench.summary import Verdict, verdicts
from vaefast.bench.table import run_cli

__all__ = ["Benchmark", "Place", "Result", "Verdict", "measure", "run", "run_cli", "verdicts"]
