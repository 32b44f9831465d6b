"""Module state: tensors that a call leaves changed in a model, found, recorded, and checked call by call."""
