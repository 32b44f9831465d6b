"""Copies of a model and of its inputs, and calls that leave no trace in it or in random state."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._library.custom_ops import CustomOpDef
from torch.utils import _pytree as pytree

from ltc_compiler.errors import InputError, Unsupported, UnsupportedError
from ltc_torch.fx.record.unwrap import unwrap_children
from ltc_torch.fx.state.closures import Closures
from ltc_torch.fx.state.held import held


def copied(model: nn.Module) -> nn.Module:
    """A copy in eval mode, without wrappers. Tensors that were computed (by a hook, or by a call with gradients) are
    copied by value; functions that are objects, of TorchScript and of torch.library, are the same in the copy, as
    Python's are. Functions of Python that reach back into the model reach the copy."""
    values = [v for m in model.modules() for v in vars(m).values()]
    memo: dict[int, Any] = {id(t): t.detach().clone() for t in held(model).tensors.values() if not t.is_leaf}
    memo.update({id(f): f for f in values if isinstance(f, (torch.jit.ScriptFunction, CustomOpDef))})
    closures = Closures(model, memo)
    try:
        made = copy.deepcopy(model, memo).eval()
        closures.bind(made, memo)
    except (RuntimeError, TypeError, pickle.PickleError) as error:
        remedy = "take it out of the model: an open file, a lock or a generator has no copy"
        if isinstance(error, RuntimeError):
            remedy = "tensors kept as attributes need .detach(), or to be parameters or buffers"
        raise InputError(
            f"the model cannot be copied: {error}", where=type(model).__name__, remedy=remedy
        ) from error
    unwrap_children(made)
    return made


def cloned(tree: Any) -> Any:
    return pytree.tree_map(lambda t: t.detach().clone() if isinstance(t, Tensor) else t, tree)


def scaled(tree: Any, factor: float) -> Any:
    """Other inputs of the same kind: signs and zeros stay, so that times and masks remain valid."""
    return pytree.tree_map(lambda t: t.detach() * factor if isinstance(t, Tensor) else t, tree)


def tensors_of(tree: Any) -> list[Tensor]:
    return [t for t in pytree.tree_leaves(tree) if isinstance(t, Tensor)]


@contextmanager
def same_random_state() -> Iterator[None]:
    """What is drawn inside, by torch, NumPy or Python, is drawn again after."""
    state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(state[0])
        np.random.set_state(state[1])
        random.setstate(state[2])


def called(model: nn.Module, inputs: Any) -> Any:
    """What a call returns, in tensors that a later call does not write into."""
    with same_random_state():
        return copy.deepcopy(model(*cloned(inputs)))


def plain(outputs: Any) -> Any:
    """What forward returns as tuples, lists and dicts of tensors; the fields of a dataclass as a dict."""
    if dataclasses.is_dataclass(outputs) and not isinstance(outputs, (type, dict)):
        return {f.name: plain(getattr(outputs, f.name)) for f in dataclasses.fields(outputs)}
    if type(outputs) in (tuple, list):
        return type(outputs)(map(plain, outputs))
    if type(outputs) is dict:
        return {key: plain(value) for key, value in outputs.items()}
    for leaf in pytree.tree_leaves(outputs):
        if not isinstance(leaf, (Tensor, int, float, str, type(None))):
            what = f"forward returns a {type(leaf).__name__}"
            remedy = "return tensors, or tuples, lists, dicts and dataclasses of them"
            raise UnsupportedError([Unsupported("forward", "the model", what, remedy)])
    return outputs
