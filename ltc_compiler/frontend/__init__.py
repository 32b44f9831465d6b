"""The kit of all importers: the composer that writes NNIR, and compound operations in terms of its ops."""
