"""The order of instructions: list scheduling between loop boundaries."""
