"""Passes over NNIR, one per file: valid graph in, valid graph out, the same meaning."""
