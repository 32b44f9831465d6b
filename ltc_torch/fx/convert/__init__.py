"""Conversion: a recorded graph becomes NNIR, one converter for each torch function."""
