"""Camuto, Willetts, Roberts, Holmes, Rainforth 2021: margins of robustness of VAEs."""

from vaefast.reproduce.camuto2021.run import Reproduction, open_store, run
from vaefast.reproduce.camuto2021.settings import Settings

__all__ = ["Reproduction", "Settings", "open_store", "run"]
