"""Rows, cores and stores: where values lie, and the builder of the instructions on them."""
