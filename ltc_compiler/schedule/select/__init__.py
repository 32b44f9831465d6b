"""Instruction selection: the instructions of the machine for every op of NNIR."""
