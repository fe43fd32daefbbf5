"""What runs beneath the ops: backends, batching, memory, tiles, numerics, graph capture."""
