"""Constants of a graph: held once, in fp32 where they came so, and the same graph whatever they are held in."""

import gc

import numpy as np
import pytest

from ltc_compiler import NNIR, Config
from ltc_compiler.ir import contents
from ltc_compiler.ir.contents import contents_key
from ltc_compiler.ir.graph import Array, Graph, Type, fixed
from ltc_compiler.ir.ops import add
from ltc_compiler.transforms.cleanup import share_common

GENERATOR = np.random.default_rng(4)


def test_an_array_that_can_change_is_copied_and_one_that_cannot_is_shared() -> None:
    graph, array = Graph(), np.ones((2, 3), np.float32)
    copied = graph.constant(array)
    read_only = array.view()
    read_only.flags.writeable = False
    through_a_view = graph.constant(read_only)
    array[:] = 7
    for value in (copied, through_a_view):
        stored = value.stored()
        assert stored is not None
        assert (stored == 1).all()
        with pytest.raises(ValueError, match="read-only"):
            stored[0] = 2
    own = fixed(np.ones(3))
    assert graph.constant(own).stored() is own
    wide = graph.constant(own.astype(np.float32)).constant()
    assert wide is not None
    assert wide.dtype == np.float64


def test_keys_are_of_elements_whatever_holds_them() -> None:
    narrow = GENERATOR.standard_normal((5, 7)).astype(np.float32)
    assert (
        contents_key(narrow) == contents_key(narrow.astype(np.float64)) == contents_key(fixed(narrow.copy()))
    )
    others: list[Array] = [
        narrow.T,
        narrow.reshape(7, 5),
        narrow.astype(np.float64) + 2.0**-60,
        np.where(narrow == narrow[0, 0], narrow + 1, narrow),
    ]
    assert len({contents_key(x) for x in (narrow, *others)}) == 5
    assert contents_key(np.array([0.0])) != contents_key(np.array([-0.0]))
    nan = np.array([np.nan])
    assert contents_key(nan) == contents_key(nan.astype(np.float32))


def test_a_key_is_found_once_and_forgotten_with_its_array(monkeypatch: pytest.MonkeyPatch) -> None:
    array = fixed(GENERATOR.standard_normal(9))
    key = contents_key(array)
    monkeypatch.setattr(contents, "_key", lambda _: b"again")
    assert contents_key(array) == key
    number = id(array)
    del array
    gc.collect()
    assert number not in contents._known


def step(dtype: type[np.floating]) -> NNIR:
    """Two products of one weight and one of another, with the weights held in `dtype`."""
    generator = np.random.default_rng(5)
    first, second = (generator.standard_normal((40, 40)).astype(np.float32).astype(dtype) for _ in range(2))
    graph = Graph()
    x = graph.add_input(Type((1, 40)))
    for weight in (first, second, first):
        x = add(graph, "tanh", add(graph, "linear", x, graph.constant(weight), graph.constant(np.zeros(40))))
    graph.add_output(x)
    return NNIR(graph)


def test_what_holds_a_weight_changes_neither_text_nor_value_nor_program() -> None:
    narrow, wide = step(np.float32), step(np.float64)
    assert str(narrow) == str(wide)
    x = GENERATOR.standard_normal((1, 40))
    assert np.array_equal(narrow.run(x), wide.run(x))
    config = Config.preset("small_c2b16")
    assert narrow.to_program(config).save_bytes() == wide.to_program(config).save_bytes()
    shared = share_common(narrow.graph)
    weights = [n.operands[1] for n in shared.nodes if n.op == "linear"]
    assert weights[0] is weights[2]
    assert weights[0] is not weights[1]
