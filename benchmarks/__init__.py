"""Measurements against other implementations, both sides in the same run; results are JSON."""
