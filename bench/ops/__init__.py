"""One module per op, each with ``benchmarks()``."""
