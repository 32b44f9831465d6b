"""A model as one step with state, checked against the model itself on a longer sequence than it was recorded with.

An example shows a model at one length. What the model does differently at another (a window longer than the example, a
length that is written down in the code, a loop that stayed unrolled) shows when the step runs on: here, before a user
meets it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ltc_compiler import NNIR
from ltc_compiler.errors import StreamingError
from ltc_compiler.transforms.streaming.transform import Tables
from ltc_torch.fx.nnir import to_nnir
from ltc_torch.fx.prepare import ModuleState, prepare_shape
from ltc_torch.fx.state.copies import copied, same_random_state

Axes = int | tuple[int | None, ...] | None
TOLERANCE = 1e-3  # of the largest element: the step is computed in fp64, PyTorch in fp32


def stream(
    module: nn.Module,
    *example: Any,
    axis: int | Sequence[int | None],
    context: int | None = None,
    tables: Tables = "refuse",
    module_state: ModuleState = "carry",
    check: bool = True,
    block: int = 1,
) -> tuple[NNIR, Axes]:
    """Record a model, convert it, make it one step, and check that step: the four stages in one call.

    Args:
        module: the model, as fx.prepare_shape takes it.
        example: its inputs: a sequence of at least two steps.
        axis: the axis of time, for all input tensors; or a sequence with one for each input tensor, flattened in
            order, None for a tensor without time.
        context: the positions that causal attention looks back on, as for fx.nnir.to_nnir.
        tables: "refuse" or "wrap", for constants that vary along the axis, as for NNIR.streaming_transform.
        module_state: what becomes of tensors that a call leaves changed in the module, as for fx.prepare_shape.
        check: run the step in fp64 on a sequence longer than the example, and compare every output of every step with
            what the module returns for that sequence. Where the module takes no longer sequence, a warning says that
            the step is unchecked.
        block: how many steps one run takes, as for NNIR.streaming_transform.

    Returns:
        The step, and the axis of time in the whole output, a tuple where there are several outputs. An output may come
        late, by the number of steps in `step.graph.output_latencies`.

    Raises:
        StreamingError: the model has no step-by-step form, or a step differs from the module; the error names the
            first step that does. Or a block that NNIR.streaming_transform refuses.
        UnsupportedError: the model cannot be lowered.
        InputError: a module or an example that cannot be recorded.
        GraphError: the graph cannot be lowered.
        FaultError: the front end itself failed.
    """
    traced, _ = prepare_shape(module, *example, module_state=module_state)
    step, axes = to_nnir(traced, context=context).streaming_transform(
        axis if isinstance(axis, int) else tuple(axis), tables, block
    )
    if check:
        _Check(module, example, step).run(context)
    return step, axes


class _Check:
    """One step graph beside the module that it was made of."""

    def __init__(self, module: nn.Module, example: tuple[Any, ...], step: NNIR) -> None:
        self.module, self.example, self.step = module, example, step
        self.axes = step.graph.input_streaming_dims or ()
        given = [x for x in pytree.tree_leaves(example) if isinstance(x, Tensor)]
        self.length = next(x.shape[a] for x, a in zip(given, self.axes, strict=True) if a is not None)

    def run(self, context: int | None) -> None:
        steps = self.length + min(self.length, 64) + 8
        if context is not None:
            steps = min(steps, context)  # a module without that limit sees more from there on
        limit = self.step.graph.step_limit
        steps = min(steps, limit or steps)
        block = self.step.graph.block
        steps -= steps % block if steps > block else 0
        if steps < block and (limit or context is not None):
            self._unchecked(f"a block has {block} steps, and the check {steps}")
            return
        steps = max(steps, block)
        longer = self._longer(steps)
        try:
            with same_random_state(), torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = copied(self.module).eval()(*longer)
        except Exception as error:
            self._unchecked(f"it takes no sequence of {steps} steps ({type(error).__name__}: {error})")
            return
        wanted = [x.numpy() for x in pytree.tree_leaves(expected) if isinstance(x, Tensor)]
        found = self._outputs([x for x in pytree.tree_leaves(longer) if isinstance(x, Tensor)])
        for i, (a, b) in enumerate(zip(wanted, found, strict=True)):
            self._compare(i, a, b)
        if limit:
            self._unchecked(f"its tables hold {limit} steps, and a stream has no more")
        elif steps <= self.length:
            self._unchecked(f"a context of {steps} shows no more than the example")

    def _longer(self, steps: int) -> tuple[Any, ...]:
        """The example at another length: steps of its own in random order, and scaled; no sign or zero changes."""
        rng = torch.Generator().manual_seed(0)
        order = torch.cat([torch.arange(self.length), torch.randint(self.length, (steps,), generator=rng)])[
            :steps
        ]
        axes = iter(self.axes)

        def extended(x: Any) -> Any:
            axis = next(axes) if isinstance(x, Tensor) else None
            if axis is None:
                return x
            y = x.detach().index_select(axis, order)
            return y * (0.5 + torch.rand(y.shape, generator=rng)).to(y.dtype)

        made: tuple[Any, ...] = pytree.tree_map(extended, self.example)
        return made

    def _outputs(self, inputs: list[Tensor]) -> list[NDArray[np.float64]]:
        """What the steps give, with what comes behind the end, in the places of the inputs."""
        made = self.step.run_timesteps(*(x.detach().double().numpy() for x in inputs), end=True)
        return list(made) if isinstance(made, tuple) else [made]

    def _compare(self, i: int, wanted: NDArray[Any], found: NDArray[np.float64]) -> None:
        graph = self.step.graph
        axis = (graph.output_streaming_dims or ())[i]
        if axis is None:
            pairs = [(len(found) - 1, wanted, found[-1])]
        else:
            columns = (np.moveaxis(a, axis, 0) for a in (wanted, found))
            pairs = [(t, a, b) for t, (a, b) in enumerate(zip(*columns, strict=False))]
        bound = TOLERANCE * float(np.abs(np.where(np.isfinite(wanted), wanted, 0)).max(initial=0)) + 1e-5
        for t, expected, y in pairs:
            if expected.shape != y.shape or not np.allclose(y, expected, rtol=0, atol=bound, equal_nan=True):
                raise self._differs(graph.output_names[i], t, expected, y)
        if axis is not None and wanted.shape[axis] != found.shape[axis]:
            raise self._differs(graph.output_names[i], len(pairs), wanted, found)

    def _differs(self, name: str, t: int, expected: NDArray[Any], y: NDArray[Any]) -> StreamingError:
        how = f"has shape {y.shape} instead of {expected.shape}"
        if expected.shape == y.shape:
            at = np.unravel_index(int(np.argmax(np.nan_to_num(np.abs(y - expected), nan=np.inf))), y.shape)
            how = f"is {float(y[at]):.6g} instead of {float(expected[at]):.6g}"
        return StreamingError(
            f"output {name!r} of step {t} {how}: the step was made of an example of {self.length} steps, and on a"
            " longer sequence the model computes something else", where=type(self.module).__name__,
            remedy="record a longer example, longer than every window and hand-written loop of the model; lengths that"
            " forward writes down, as x[:, :5], must follow from its input; check=False skips this comparison",
        )  # fmt: skip

    def _unchecked(self, why: str) -> None:
        message = f"{type(self.module).__name__}: the step is not checked on sequences longer than the example: {why}"
        warnings.warn(message, UserWarning, stacklevel=4)
