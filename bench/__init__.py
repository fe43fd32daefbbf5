"""Benchmarks: one declaration per op, every provider in one interleaved run.

``vaefast bench pgd_step`` or ``run_cli(["pgd_step"])``. A provider must agree with the first one
before anything is timed.
"""

from vaefast.bench.runner import Benchmark, Result, measure, run
from vaefast.bench.summary import Verdict, verdicts
from vaefast.bench.table import run_cli

__all__ = ["Benchmark", "Result", "Verdict", "measure", "run", "run_cli", "verdicts"]
