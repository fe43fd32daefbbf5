"""Reproductions of published experiments: one command each, which goes on when interrupted."""

from vaefast.reproduce.run import Reproduction, open_store, run
from vaefast.reproduce.settings import Settings

__all__ = ["Reproduction", "Settings", "open_store", "run"]
