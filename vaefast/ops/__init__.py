"""The ops: public functions with checks, registration and the choice of backend."""

from vaefast.ops.pgd_step import pgd_step

__all__ = ["pgd_step"]
