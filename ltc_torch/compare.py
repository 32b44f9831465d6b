"""`compare`: from a PyTorch model to the report of what each of its operations does to the precision, in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ltc_torch.fx.nnir import to_nnir
from ltc_torch.fx.prepare import ModuleState, prepare_shape
from ltc_torch.observe import observe

if TYPE_CHECKING:
    from ltc_compiler import Config
    from ltc_compiler.compare import Comparison


def compare(
    model: nn.Module,
    *inputs: Any,
    config: Config,
    streaming: Any = None,
    context: int | None = None,
    module_state: ModuleState = "carry",
    **options: Any,
) -> Comparison:
    """Where `model` loses precision on the accelerator: PyTorch, fp64, plain fp32 and the bit-accurate machine.

    inputs: as the model takes them; the comparison is made on these values. streaming: the axis of the steps (or one
    for each input tensor, None for one that is the same at every step), to compare step by step with the states
    carried along; None compares the whole call. context: as to_nnir takes it. module_state: as prepare_shape takes it.
    options: those of NNIR.compare (iterations, what_if, factor, optimize).
    Precision contexts that are active apply. Print the result, or use its .rows, .to_dataframe(), .to_csv() and
    .plot(). Raises UnsupportedError for a model that cannot be lowered, StreamingError for one that has no step, and
    as NNIR.compare.
    """
    traced, expected = prepare_shape(model, *inputs, module_state=module_state)
    nnir = to_nnir(traced, context=context)
    if streaming is not None:
        nnir, _ = nnir.streaming_transform(streaming)
    given, outputs = (
        [leaf.detach() for leaf in pytree.tree_leaves(nest) if isinstance(leaf, Tensor)]
        for nest in (inputs, expected)
    )
    return nnir.compare(config, *given, expected=outputs, observed=observe(traced, given), **options)
