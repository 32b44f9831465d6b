# How the typed stub shows what the generator cannot: _core.numerics is a submodule, which a single stub file cannot hold.
_core\.numerics:
    \from types import ModuleType
    numerics: ModuleType
