"""Compilation ahead of time, and what it proves of the binaries."""
