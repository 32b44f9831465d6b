"""The reference machine: executes a program's Image with numerics/ alone, one instruction after the other.

It is slow and plain on purpose: what an instruction means can be read in semantics.py. It shares no code and
no table of semantics with the C++ simulator, and the two must agree bit for bit on every program and input.
The merged list of instructions is a legal sequential execution, so it runs front to back. Addresses are
checked as it goes: a bad program raises ProgramError here, where the simulator refuses to load it.
"""

from ltc_compiler.oracle.oracle import Oracle

__all__ = ["Oracle"]
