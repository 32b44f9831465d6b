"""Module state: tensors that a call of a model leaves changed in it, found by calling copies and comparing.

PyTorch's next call sees them, and so must the program's next run. A copy of the model is called a few times; what a
call replaces, or writes into, is a candidate. A state has one shape from the second call on, and one initial value: the
value when recorded, and zeros for what is not there before the first call. That zeros do is shown by executing both.
What a program cannot carry (a Python number that enters the result, a list that grows) is refused by name and line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ltc_compiler.errors import Unsupported, UnsupportedError
from ltc_torch.fx.state.assigned import assigned_at, whole_numbers
from ltc_torch.fx.state.copies import called, copied, scaled
from ltc_torch.fx.state.counters import counting
from ltc_torch.fx.state.held import Held, Path, held, put, spelled
from ltc_torch.fx.state.trials import Seen, Trial, same_elements, written

FACTORS = (1.0, 0.9375, 0.75, 1.0, 0.5, 1.0)  # of the example inputs, call by call
_ALONG = range(1, 9)  # calls after which a counter is looked at, beside the numbers that its class names
_NAMED = 40  # of them
_TRIED = 16  # calls that look for more of them
_NO_TENSOR = "is changed by a call, is no tensor, and the result depends on it"
_AS_TENSOR = "keep it in a tensor, such as a buffer, and compute with it by torch operations"
_STATE = "a program carries tensors of fixed shapes from call to call"


@dataclass
class Behaviour:
    """What the first calls of a model do to it.

    model: the one to record: as a later call finds it, but with the initial values of `states`. states: what
    calls change, with initial values. after: the values of the states after the first call. outputs: of the calls with
    inputs scaled by FACTORS, as many as were made.
    """

    model: nn.Module
    states: dict[Path, Tensor] = field(default_factory=dict)
    after: dict[Path, Tensor] = field(default_factory=dict)
    outputs: list[Any] = field(default_factory=list)


def behaviour(model: nn.Module, inputs: Any) -> Behaviour:
    """Call copies of a model, and see what the calls change in it. Raises UnsupportedError for what cannot be state."""
    user, copy = held(model), copied(model)
    seen = [Seen.of(copy)]
    outputs = []
    for factor in FACTORS[:3]:
        outputs.append(called(copy, scaled(inputs, factor)))
        seen.append(Seen.of(copy))
    changes = (seen[0].touched(later) or seen[0].changed(later) for later in seen[1:])
    taken = seen[0].held.iterators != seen[1].held.iterators
    if not any(changes) and not taken and not written(user.tensors, seen[0].held.tensors):
        return Behaviour(model, outputs=outputs)
    stages = []
    copy = copied(model)
    for factor in FACTORS[:3]:
        called(copy, scaled(inputs, factor))
        stages.append(copied(copy))
    return _Finder(model, inputs, user, seen, stages, outputs).found()


@dataclass
class _Finder:
    """stages: copies of the model after each of the first calls."""

    model: nn.Module
    inputs: Any
    user: Held
    seen: list[Seen]
    stages: list[nn.Module]
    outputs: list[Any]

    def __post_init__(self) -> None:
        self.same: dict[Path, Path] = {}  # paths of one tensor object, always: the first of them

    def found(self) -> Behaviour:
        self._check_iterators()
        self._check_arrays()
        values = [self.user.tensors, *(held(stage).tensors for stage in self.stages)]
        changes = [
            before.touched(after) | written(old, new)
            for before, after, old, new in zip(self.seen, self.seen[1:], values, values[1:], strict=False)
        ]
        touched = changes[1] | changes[2]
        loose = self._check_shapes(touched)
        states = touched - loose
        self.same = self._objects(states)
        states -= {path for path, first in self.same.items() if path != first}
        paths = held(self.stages[0]).tensors
        calls = [Trial.of(self.model, scaled(self.inputs, factor), paths) for factor in FACTORS[:2]]
        self._check_first_call(changes[0] - touched - loose, calls[1].after)
        initial = {path: self._initial(path) for path in sorted(states, key=spelled)}
        entry = self._entry(0, initial)
        after = self._after(0, states)
        for call in calls:
            self._check_start(entry, initial, call.only(states))
        self._check_numbers(after)
        return Behaviour(entry, initial, after, self.outputs)

    def _objects(self, states: Iterable[Path]) -> dict[Path, Path]:
        """For every state the first path at which the same tensor object stands after each call, and at the start."""
        keys = {}
        for path in (p for p in self.seen[1].held.tensors if p in states):
            start = self.user.tensors.get(path)
            keys[path] = (
                id(start) if start is not None else path,
                *(id(s.held.tensors[path]) for s in self.seen[1:]),
            )
        first: dict[Any, Path] = {}
        return {path: first.setdefault(key, path) for path, key in keys.items()}

    def _after(self, call: int, states: Iterable[Path]) -> dict[Path, Tensor]:
        tensors = held(self.stages[call]).tensors
        return {path: tensors[path].detach().clone() for path in states}

    def _entry(self, call: int, values: Mapping[Path, Tensor]) -> nn.Module:
        """The model after a call, with other values of the states, each in a tensor of its own."""
        model = copied(self.stages[call])
        made = {path: value.detach().clone() for path, value in values.items()}
        for path, tensor in made.items():
            put(model, path, tensor)
        for path, first in self.same.items():
            if path != first and first in made:
                put(model, path, made[first])
        return model

    def _initial(self, path: Path) -> Tensor:
        """The value when recorded; zeros, or the number that stands there, for what the first call makes."""
        like = self.seen[1].held.tensors[path].detach()
        value = self.user.tensors.get(path)
        if value is not None:
            try:
                return value.detach().to(like.dtype).expand(like.shape).clone()
            except RuntimeError:
                return torch.zeros_like(like)
        number = self.user.plain.get(path)
        return torch.full_like(like, number if isinstance(number, (bool, int, float)) else 0)

    # ---------------------------------------------------------------- refusals

    def _check_shapes(self, states: set[Path]) -> set[Path]:
        """From the second call on there are the same tensors, of the same shapes and types.

        Returns what is not so and is never read, such as a list of all results.
        """
        problems: dict[Path, str] = {}
        first, second, third = (s.held.tensors for s in self.seen[1:4])
        for path in sorted(states, key=spelled):
            for before, after, call in ((first, second, "first"), (second, third, "second")):
                if path in before and path in after:
                    a, b = before[path], after[path]
                    if a.shape != b.shape or a.dtype != b.dtype:
                        what = f"is {_described(a)} after the {call} call and {_described(b)} after the next"
                        problems.setdefault(path, what)
                elif path in before or path in after:
                    kept = path[:-1] if isinstance(path[-1], int) else path
                    sizes = [sum(p[: len(kept)] == kept for p in held) for held in (before, after)]
                    what = f"holds {_number(sizes[0])} after the {call} call, and {sizes[1]} after the next"
                    problems.setdefault(kept, what)
        everything = {path for call in self.seen for path in call.held.tensors}
        loose = {path for path in everything if any(path[: len(kept)] == kept for kept in problems)}
        if problems and self._matters(loose, states - loose):
            remedy = (
                "give it its final length before it is recorded, by zeros in __init__ or by enough calls, and keep"
                " that length; or empty it in forward"
            )
            raise self._refusal({path: f"{what}; {_STATE}" for path, what in problems.items()}, remedy)
        return loose

    def _check_iterators(self) -> None:
        """What an iterator gives in later calls is not known."""
        before, after = (s.held.iterators for s in self.seen[:2])
        wrong = [path for path, at in before.items() if after.get(path) != at]
        if wrong:
            reason = "is an iterator, and a call takes an element of it"
            remedy = (
                "keep the elements in a tensor, and a counter in another; or pass the element as an input"
            )
            raise self._refusal(dict.fromkeys(wrong, reason), remedy)

    def _check_arrays(self) -> None:
        """What a call writes into a NumPy array must not be a tensor's memory: a copy of the model has two memories."""
        tensors = [t.untyped_storage() for t in self.user.tensors.values()]
        wrong = []
        for path in self.seen[0].changed(self.seen[1]).keys() & self.user.arrays.keys():
            address = self.user.arrays[path].__array_interface__["data"][0]
            if any(0 <= address - memory.data_ptr() < memory.nbytes() for memory in tensors):
                wrong.append(path)
        if wrong:
            reason = "is a NumPy view of a tensor's memory, and a call writes into it"
            raise self._refusal(dict.fromkeys(wrong, reason), "write into the tensor by torch operations")

    def _matters(self, loose: Iterable[Path], others: set[Path]) -> bool:
        """Whether a call reads the tensors at `loose`: their number, shapes or values."""
        values = self._after(0, others)
        expected = Trial.of(self._entry(0, values), self.inputs, others)
        changed = self._entry(0, values)
        tensors = held(changed).tensors
        for path in loose:
            if path in tensors:
                put(changed, path, tensors[path] * 0.5 + 1)
        models = (changed, *(self._entry(call, values) for call in (1, 2)))
        return not all(expected.is_same(model) for model in models)

    def _check_first_call(self, made: set[Path], other: Mapping[Path, Tensor | None]) -> None:
        """What the first call alone makes must not depend on its input."""
        values = held(self.stages[0]).tensors
        wrong = [
            p for p in made if p in values and ((b := other[p]) is None or not same_elements(values[p], b))
        ]
        if wrong:
            reason = "is computed from the input of the first call and kept from then on"
            remedy = "set it before recording (one call of the model does), or pass it as an input"
            raise self._refusal(dict.fromkeys(sorted(wrong, key=spelled), reason), remedy)

    def _check_start(self, entry: nn.Module, initial: Mapping[Path, Tensor], expected: Trial) -> None:
        """A later call that begins with the initial values does what the first call does."""
        if expected.is_same(entry):
            return
        made = [p for p in initial if p not in self.user.tensors]
        if made:
            reason = "is not there before the first call, and zeros in its place give another result"
            remedy = "make it in __init__ as a tensor with the value that the first call starts from"
            raise self._refusal(dict.fromkeys(made, reason), remedy)
        changed = list(self.seen[0].changed(self.seen[1]))
        if changed:
            alone = []
            for path in self.user.plain.keys() & set(changed):
                model = copied(entry)
                put(model, path, self.user.plain[path])
                alone += [path] if expected.is_same(model) else []
            raise self._refusal(dict.fromkeys(alone or changed, _NO_TENSOR), _AS_TENSOR)
        shared = self._shared(initial)
        if shared:
            reason = "is a view of the memory of another state"
            raise self._refusal(dict.fromkeys(shared, reason), "cut the view in forward, where it is needed")
        reason = "the first call differs from a later call that starts with the same tensors"
        raise self._refusal(
            {(): reason}, "keep all that a call leaves for the next one in tensors of the module"
        )

    def _shared(self, states: Iterable[Path]) -> list[Path]:
        """States in the memory of a larger one."""
        tensors = held(self.stages[0]).tensors
        largest: dict[int, Path] = {}
        for path in sorted(states, key=lambda p: -tensors[p].numel()):
            largest.setdefault(tensors[path].untyped_storage().data_ptr(), path)
        return [path for path in states if path not in largest.values()]

    def _check_numbers(self, values: Mapping[Path, Tensor]) -> None:
        """Plain values that go on changing must not enter the result, now or after many calls."""
        changed = self.seen[1].changed(self.seen[2]) | self.seen[2].changed(self.seen[3])
        if not changed:
            return
        base = self._entry(0, values)
        expected = Trial.of(base, self.inputs, values)
        numbers = {p: (a, b) for p, (a, b) in self.seen[1].changed(self.seen[2]).items() if _counts(a, b)}

        def matters(numbers: Mapping[Path, tuple[Any, Any]]) -> bool:
            return not all(map(expected.is_same, self._counted(base, numbers)))

        later = (self._entry(call, values) for call in (1, 2))
        if matters(numbers) or not all(map(expected.is_same, later)):
            alone = [path for path, pair in numbers.items() if len(changed) > 1 and matters({path: pair})]
            raise self._refusal(dict.fromkeys(alone or changed, _NO_TENSOR), _AS_TENSOR)

    def _counted(self, base: nn.Module, numbers: Mapping[Path, tuple[Any, Any]]) -> Iterator[nn.Module]:
        """The model with its counters as after some more calls, and at the numbers that the code asks for."""
        for calls in _ALONG if numbers else ():
            model = copied(base)
            for path, (a, b) in numbers.items():
                put(model, path, type(b)(a + (b - a) * calls))
            yield model
        for path, (a, b) in numbers.items():
            named = whole_numbers(base, path)
            beside = (v for p, v in self.user.plain.items() if p[:-1] == path[:-1])
            named |= {v for v in beside if isinstance(v, int) and not isinstance(v, bool)}
            values = {n - i * (b - a) for n in sorted(named)[:_NAMED] for i in (0, 1)}
            for value in sorted(values | self._compared(base, path, a, b)):
                model = copied(base)
                put(model, path, type(b)(value))
                yield model

    def _compared(self, base: nn.Module, path: Path, before: Any, now: Any) -> set[int | float]:
        """The values ahead of a counter at which a comparison in forward has another result; from there, further
        ones."""
        found: set[int | float] = set()
        ahead, tried = [now], 0
        while ahead and tried < _TRIED:
            model, seen, tried = copied(base), set(found), tried + 1
            put(model, path, counting(ahead.pop(0), now - before, found))
            with suppress(Exception):  # forward asks for a plain number: what was found before counts
                called(model, self.inputs)
            ahead += sorted(found - seen)
        return set(sorted(found)[:_NAMED])

    def _refusal(self, reasons: Mapping[Path, str], remedy: str) -> UnsupportedError:
        return refusal(self.stages[0], reasons, remedy)


def _counts(a: Any, b: Any) -> bool:
    return all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in (a, b))


def _number(count: int) -> str:
    return f"{count} tensor" if count == 1 else f"{count} tensors"


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"


def refusal(model: nn.Module, reasons: Mapping[Path, str], remedy: str) -> UnsupportedError:
    """The error for some of what a model holds, each with the line that changes it."""
    rest = "; module_state='reset' starts every call from what the model holds now"
    entries = [
        Unsupported(spelled(path) or "forward", str(assigned_at(model, path)), reason, remedy + rest)
        for path, reason in reasons.items()
    ]
    return UnsupportedError(entries)
