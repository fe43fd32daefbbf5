"""Runs over millions of inputs: shards, workers, and what a table of them says."""

from vaefast.jobs.plan import RunPlan
from vaefast.jobs.ray import RayOptions
from vaefast.jobs.run import Run, create, run
from vaefast.jobs.run import open_run as open
from vaefast.jobs.sources import Rows, RowSource, open_source
from vaefast.jobs.worker import Done, Worker

__all__ = [
    "Done",
    "RayOptions",
    "RowSource",
    "Rows",
    "Run",
    "RunPlan",
    "Worker",
    "create",
    "open",
    "open_source",
    "run",
]
