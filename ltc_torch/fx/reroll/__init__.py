"""Loops over time that Python has written out become scans again."""
