"""Certification jobs: runs over many inputs that can be stopped at any moment and go on."""

from vaefast.jobs.plan import RunPlan
from vaefast.jobs.ray import RayOptions
from vaefast.jobs.run import Run, create, run
from vaefast.jobs.run import open_run as open
from vaefast.jobs.worker import Done, Worker

__all__ = ["Done", "RayOptions", "Run", "RunPlan", "Worker", "create", "open", "run"]
