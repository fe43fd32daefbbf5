"""Reproductions of published experiments: one command each, which goes on when interrupted.

Each has a package of its own; what they share is beside them: finished parts in a folder
(:mod:`store`), tables (:mod:`numbers`), sentences (:mod:`sentences`) and the page (:mod:`shell`).
"""
