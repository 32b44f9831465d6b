"""Which core computes what."""
