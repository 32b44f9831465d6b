"""NNIR: the typed SSA graph between the front end and the scheduler."""
