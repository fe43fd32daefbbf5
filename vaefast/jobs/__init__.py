"""Runs over millions of inputs: shards, workers, and what a table of them says."""
