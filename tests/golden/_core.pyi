"""The simulator's C++ core."""



def build_info() -> dict[str, str | int | bool]:
    """
    How this extension was built: compiler, C++ standard, and whether the sanitizers watch it.
    """
