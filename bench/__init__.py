"""Benchmarks: one declaration per op, run interleaved against the best alternatives."""
