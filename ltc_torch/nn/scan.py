"""Scan: a user's step function over an axis of its inputs, with states, as a module.

In training it is a plain loop; when a model is recorded it is one operation whatever its length, and a program that is
streamed along the axis runs the step once per input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ltc_torch.fx.record.structured import scan

# (slice of the inputs, states) -> (outputs, new states); each a tensor or a nest of tuples, lists and dicts of tensors
Step = Callable[[Any, Any], tuple[Any, Any]]


class Scan(nn.Module):
    """A loop over an axis: `Scan(step)(xs, state, input_axis=0, output_axis=0)` returns `(outputs, final state)`.

    Inputs, states and outputs are tensors, or nests of tuples, lists and dicts of them.

    Args:
        step: `step(x, state) -> (y, state)` takes one slice of every input, without the scanned axis, and returns the
            outputs of this step and the new states, of the same shapes as the old ones. It may be a function, or a
            module, whose parameters then belong to this one.
    """

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step

    def forward(self, xs: Any, state: Any, input_axis: int = 0, output_axis: int = 0) -> tuple[Any, Any]:
        """Run the loop.

        Args:
            xs: the inputs, with equally many slices on `input_axis`; else ValueError.
            state: the initial states.
            input_axis: the axis of the inputs to run along.
            output_axis: the axis on which outputs are stacked.

        Returns:
            The stacked outputs, and the final states.
        """
        leaves, x_spec = pytree.tree_flatten(xs)
        carries, state_spec = pytree.tree_flatten(state)
        if not leaves or not all(isinstance(t, Tensor) for t in (*leaves, *carries)):
            raise ValueError("Scan takes at least one input; inputs and states are tensors or nests of them")
        y_spec = None

        def step(states: list[Tensor], slices: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
            nonlocal y_spec
            x, s = pytree.tree_unflatten(slices, x_spec), pytree.tree_unflatten(states, state_spec)
            y, new = self.step(x, s)
            outputs, y_spec = pytree.tree_flatten(y)
            new_states, spec = pytree.tree_flatten(new)
            if spec != state_spec:
                raise ValueError(
                    f"the step returns states of the structure {spec}, and was given {state_spec}"
                )
            return new_states, outputs

        axes = [input_axis] * len(leaves)
        length = leaves[0].shape[input_axis]
        names = _names(state)
        final, outputs = scan(
            step, carries, leaves, length=length, in_axes=axes, out_axes=output_axis, names=names
        )
        assert y_spec is not None
        return pytree.tree_unflatten(outputs, y_spec), pytree.tree_unflatten(final, state_spec)


def _names(state: Any) -> list[str]:
    """What the parts of a state are called in a stream: "h", with the keys and positions that lead to them."""
    found: list[str] = []
    for path, _ in pytree.tree_leaves_with_path(state):
        keys = (str(getattr(key, "key", getattr(key, "idx", key))) for key in path)
        name = "_".join(("h", *keys)) if path else "h"
        found.append(name if name.isidentifier() else f"h_{len(found)}")
    return found
