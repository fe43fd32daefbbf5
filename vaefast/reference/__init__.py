"""The specification: every op in plain PyTorch, for any float dtype, differentiable."""
