"""The tree of modules around a recording: wrappers that are taken off, and a shelf for what the recording makes.

Wrappers compute nothing of their own: torch.compile, DataParallel and their kin. Without them paths are the user's, and
no wrapper's machinery runs inside of a recording.
"""

from __future__ import annotations

from torch import nn
from torch.nn.parameter import is_lazy

from ltc_compiler.errors import InputError

_WRAPPED = {  # a wrapper's class -> the attribute that holds the module
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
}


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside of wrappers; a plain module is returned as it is."""
    while (held := _held(module)) is not None:
        module = held
    return module


def unwrap_children(root: nn.Module) -> None:
    """Take the wrappers off everything below a module that is the recording's own copy."""
    for parent in root.modules():
        parent._compiled_call_impl = None  # what Module.compile() put in the place of the call
        for name, child in parent._modules.items():
            if child is not None:
                parent._modules[name] = unwrapped(child)


def check_made(root: nn.Module) -> None:
    """Raise InputError for parameters that a lazy module makes at its first call: they have no values yet."""
    tensors = [*root.named_parameters(), *root.named_buffers()]
    missing = [name for name, tensor in tensors if is_lazy(tensor)]
    if missing:
        what = f"{', '.join(missing)} of a lazy module has no values before its first call"
        raise InputError(what, where=type(root).__name__, remedy="call the model once, then record it")


def shelf(root: nn.Module) -> nn.Module:
    """A module that holds all that `root` holds. What is added to it does not show in the model, whose forward may be
    going through its modules."""
    made = nn.Module()
    for kind in ("_parameters", "_buffers", "_modules"):
        getattr(made, kind).update(getattr(root, kind))
    return made


def _held(module: nn.Module) -> nn.Module | None:
    cls = type(module)
    attribute = _WRAPPED.get(f"{cls.__module__}.{cls.__qualname__}")
    held: nn.Module | None = None if attribute is None else getattr(module, attribute)
    return held
