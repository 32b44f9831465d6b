"""The simulator's C++ core."""

from types import ModuleType
from typing import Any


def build_info() -> dict[str, str | int | bool]:
    """
    How this extension was built: compiler, C++ standard, and whether the sanitizers watch it.
    """

class Program:
    """A parsed and verified program; VMs share it read-only."""

    @staticmethod
    def parse(data: bytes | bytearray) -> Program:
        """
        Reads and verifies a program file's bytes; executes nothing.

        Raises ProgramError or IsaMismatchError with the section and byte, or the instruction.
        """

    def check_work(self, max_work: int) -> None:
        """
        Raises ProgramError if one inference of a model executes more instructions, or more beats, than max_work.
        """

    def work(self, model: int = 0) -> dict[str, int]:
        """Instructions and beats of one inference; 2**64 - 1 stands for more."""

class VM:
    """
    A program with a state of its own. For one thread at a time: StateError if it is busy.
    """

    def __init__(self, program: Program, bit_accurate: bool = True, kernels: str | None = None) -> None:
        """
        bit_accurate=False computes in plain fp32 from the fp32 originals; ProgramError if there are none.

        kernels: sse2, avx2, avx512 or avx512_bf16 (generic off x86-64); ConfigError if this CPU cannot run them.
        None: those that the environment variable LTC_SIMD names, or the widest that the CPU has.
        """

    def run(self, model: int, inputs: Any) -> list[Any]:
        """
        One inference: a tuple or list with one C-contiguous float32 array a port, or the one array; new arrays
        out. Raises InputError for anything else, an elapsed time that is NaN, infinite or negative, or a
        wrong model; the state is then as it was. A signal whose handler raises, as that of Ctrl-C does, ends this and
        the other runs within 50 ms, with every state as after a whole number of steps.
        """

    def run_into(self, model: int, inputs: Any, outputs: Any) -> None:
        """
        run() into given arrays, writable and apart from each other and from the inputs.
        """

    def run_timesteps(self, model: int, steps: int, inputs: Any, outputs: Any) -> None:
        """
        run_into() for every step of arrays with one more, leading axis of length `steps`.
        """

    def run_batch(self, model: int, streams: int, steps: int, inputs: Any, outputs: Any, threads: int) -> None:
        """
        run_timesteps() for each of `streams` independent streams, on so many threads: arrays with two more,
        leading axes of length `streams` and `steps`. Stream n keeps its state from call to call; stream 0 is
        the one that the other calls run.
        """

    def reset(self, model: int = -1) -> None:
        """The initial state of every stream, for one model or, with -1, for all."""

    def get_state(self, model: int, state: int, stream: int = 0) -> Any:
        """A copy, of the state's shape."""

    def set_state(self, model: int, state: int, value: Any, stream: int = 0) -> None:
        """
        Replaces a state by a C-contiguous float32 array of its shape; subnormals become zero.
        """

    def steps_done(self, stream: int = 0) -> int:
        """
        Steps that the last run_timesteps or run_batch executed of a stream: fewer than asked for if a signal ended it.
        """

    def copy(self) -> VM:
        """
        Another VM with the same streams in the same states; the two share the weights.
        """

    def metrics(self) -> dict[str, Any]:
        """
        Bytes of its memory, steps of its code, the kernels that it uses, and how many streams the last batch ran together.
        """

numerics: ModuleType

def cycles(program: Program, model_index: int = 0, arrival: int = 0, inferences: int = 1) -> dict[str, Any]:
    """
    Cycles of one inference, from the issue of its first instruction at 0; or of some that follow each other.

    arrival: the cycle at which the host's data is there. Keys: total (every row written, every output out),
    offered (the host has its last input row ready, one a cycle from arrival on; 0 without inputs),
    last_in (start of the last beat that took a row from the host; 0 without one), last_out (the last output
    row is out; total without one), instructions (executed, over all cores), busy ([core][unit of isa.UNITS]:
    cycles that beats held the unit). Releases the GIL. Raises InputError for a model that is not there, an
    arrival from 2**62 on or no inferences, ProgramError beyond 2**33 executed instructions or beats.
    """

def trace(program: Program, model_index: int = 0, arrival: int = 0, limit: int = 10000) -> list[tuple[int, int, tuple[int, ...], int, int, int, int, int, int, str, int]]:
    """
    The first `limit` executed instructions of the same walk, in program order.

    Each is (index in the code, core, iterations of the enclosing loops, issue, begin, start, end, finish, busy,
    stall, cycles lost to it): begin is when its unit is free for it, start its first beat, end when its unit is
    free again; finish is its last effect, a row readable, a row at the far end of a link, a row out; busy counts
    the cycles that its beats held the unit; stall is the cause that cost it most: none, unit, host, link,
    accumulator, operand, overwrite or port. A loop or an end leaves one record per core. Raises as cycles().
    """
