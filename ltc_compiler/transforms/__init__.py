"""Passes over NNIR, one a file: valid graph in, valid graph out, the same meaning."""
