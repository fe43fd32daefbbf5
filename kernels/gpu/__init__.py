"""Triton kernels, one module per op. Imported at the first call only: triton loads slowly."""
