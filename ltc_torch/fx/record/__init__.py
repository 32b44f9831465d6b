"""Recording: a model runs on real tensors, and every operation that depends on an input is written down."""
