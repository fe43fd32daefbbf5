"""Reproductions of published experiments, resumable, each one command."""
