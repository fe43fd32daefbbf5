"""Torch functions that production code and specification share."""
