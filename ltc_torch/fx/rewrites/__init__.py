"""Modules and functions of libraries that a recording takes as a whole: recurrent layers, ODE solvers, attention."""
