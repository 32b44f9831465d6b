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

    Print the result, or use its .rows, .to_dataframe(), .to_csv() and .plot(). Regions of precision that are active
    around the call apply.

    Args:
        model: the model, as prepare_shape takes it.
        inputs: as the model takes them; the comparison is made on these values.
        config: the accelerator.
        streaming: the axis of the steps, or a tuple with one for each input tensor (None for one that is the same in
            every step), to compare step by step with the states carried along; None compares the whole call.
        context: as for fx.nnir.to_nnir.
        module_state: as for fx.prepare_shape.
        options: those of NNIR.compare: iterations, what_if, factor, optimize.

    Raises:
        UnsupportedError: the model cannot be lowered.
        StreamingError: the model has no step-by-step form.
        InputError: an argument is wrong.
        AllocationError: the program does not fit, or not all values find room at once.
        ConfigError: `config` is no Config.
        GraphError: the graph cannot be lowered.
        FaultError: the front end itself failed.
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
