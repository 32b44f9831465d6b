"""Models for the tests, small and of every kind that the front end takes: `ZOO` lists them all."""

from models.zoo import ZOO, Case, build

__all__ = ["ZOO", "Case", "build"]
