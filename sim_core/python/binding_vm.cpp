// _core.VM: it converts and does nothing more. What the arguments must be, vm/checked.h says.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "buffers.h"
#include "kernels/choose.h"
#include "python_interrupt.h"

namespace nb = nanobind;

void bind_vm(nb::module_& m);

namespace {

// The VM for this thread, or StateError.
struct Lease : ltc::CheckedVM::Lease {
    explicit Lease(ltc::CheckedVM& vm) : ltc::CheckedVM::Lease(vm) {
        if (held()) return;
        ltc::Fault busy;
        busy.kind = ltc::FaultKind::busy;
        vm.refuse(busy, 0);
    }
};

// A VM, and what its calls would otherwise look up every time.
class PyVM {
public:
    PyVM(const std::shared_ptr<const ltc::Program>& program, bool bit_accurate, const std::optional<std::string>& kernels)
        : vm_(*program, bit_accurate, ltc::choose_kernels(kernels ? kernels->c_str() : nullptr)) {
        look_up();
    }
    PyVM(const PyVM&) = delete;
    PyVM& operator=(const PyVM&) = delete;

    PyVM* copy() {
        const Lease lease(vm_);
        return new PyVM(vm_);
    }

    nb::list run(Py_ssize_t model, nb::handle inputs) {
        Call call(*this);
        const ltc::Model& found = ltc::model_at(vm_.program(), model);
        in_.borrow(found.inputs, inputs, {}, ltc::Side::inputs);
        nb::list made;
        for (const nb::object& shape : output_shapes_[static_cast<std::size_t>(model)]) made.append(empty(shape));
        out_.borrow(found.outputs, made, {}, ltc::Side::outputs);
        call.execute(model, [&](auto in, auto out, auto& interrupt) { return call.run(model, in, out, interrupt); });
        return made;
    }

    void run_into(Py_ssize_t model, nb::handle inputs, nb::handle outputs) {
        Call call(*this);
        call.borrow(model, {}, inputs, outputs);
        call.execute(model, [&](auto in, auto out, auto& interrupt) { return call.run(model, in, out, interrupt); });
    }

    void run_timesteps(Py_ssize_t model, std::size_t steps, nb::handle inputs, nb::handle outputs) {
        Call call(*this);
        call.borrow(model, std::span(&steps, 1), inputs, outputs);
        call.execute(model, [&](auto in, auto out, auto& interrupt) { return call.run_timesteps(model, steps, in, out, interrupt); });
    }

    void run_batch(Py_ssize_t model, std::size_t streams, std::size_t steps, nb::handle inputs, nb::handle outputs,
                   std::size_t threads) {
        Call call(*this);
        const std::size_t leading[] = {streams, steps};
        call.borrow(model, leading, inputs, outputs);
        call.execute(model, [&](auto in, auto out, auto& interrupt) {
            return call.run_batch(model, streams, steps, in, out, threads, interrupt);
        });
    }

    void reset(Py_ssize_t model) {
        Lease lease(vm_);
        if (model == -1) return lease.reset_all();
        if (const ltc::Fault fault = lease.reset(model)) vm_.refuse(fault, model);
    }

    nb::object get_state(Py_ssize_t model, Py_ssize_t state, Py_ssize_t stream) {
        Lease lease(vm_);
        const ltc::State& found = ltc::state_at(vm_.program(), model, state);
        nb::object out = empty(python_shape(found.shape));
        const Buffer buffer(out.ptr(), found.name, found.shape, {}, true);
        const ltc::HostArray array = buffer.array();
        if (const ltc::Fault fault = lease.get_state(model, state, stream, array)) vm_.refuse(fault, model);
        return out;
    }

    void set_state(Py_ssize_t model, Py_ssize_t state, nb::handle value, Py_ssize_t stream) {
        Lease lease(vm_);
        const ltc::State& found = ltc::state_at(vm_.program(), model, state);
        const Buffer buffer(value.ptr(), found.name, found.shape, {}, false);
        const ltc::HostArray array = buffer.array();
        if (const ltc::Fault fault = lease.set_state(model, state, stream, array)) vm_.refuse(fault, model);
    }

    std::size_t steps_done(Py_ssize_t stream) const { return vm_.steps_done(stream); }

    nb::dict metrics() const {
        const ltc::VM& vm = vm_.vm();
        nb::dict out;
        out["arena_bytes"] = vm.arena_bytes();
        out["parameter_bytes"] = vm.parameter_bytes();
        out["streams"] = vm.streams();
        out["group"] = vm.group();
        out["steps"] = vm.steps();
        out["simd"] = vm.kernels().name;
        out["lanes"] = vm.kernels().lanes;
        out["bit_accurate"] = vm.bit_accurate();
        return out;
    }

private:
    // While it lives, this thread has the VM and its lists of arrays.
    struct Call : Lease {
        explicit Call(PyVM& vm) : Lease(vm.vm_), vm(vm.vm_), in(vm.in_), out(vm.out_) {}
        ~Call() {
            in.give_back();
            out.give_back();
        }

        void borrow(Py_ssize_t index, ltc::Leading leading, nb::handle inputs, nb::handle outputs) {
            const ltc::Model& found = ltc::model_at(vm.program(), index);
            in.borrow(found.inputs, inputs, leading, ltc::Side::inputs);
            out.borrow(found.outputs, outputs, leading, ltc::Side::outputs);
        }

        // run(inputs, outputs, interrupt) without the GIL, on the arrays that are borrowed.
        template <class Run>
        void execute(Py_ssize_t model, Run run) {
            ltc::PythonInterrupt interrupt;
            ltc::Fault fault;
            {
                const nb::gil_scoped_release unlocked;
                fault = run(in.arrays(), out.arrays(), interrupt);
            }
            if (fault.kind == ltc::FaultKind::interrupted) ltc::PythonInterrupt::raise();
            if (fault) vm.refuse(fault, model);
        }

        const ltc::CheckedVM& vm;
        Buffers &in, &out;
    };

    explicit PyVM(const ltc::CheckedVM& vm) : vm_(vm) { look_up(); }

    void look_up() {
        const nb::module_ numpy = nb::module_::import_("numpy");
        empty_ = numpy.attr("empty");
        float32_ = numpy.attr("float32");
        for (const ltc::Model& model : vm_.vm().program().models) {
            in_.reserve(model.inputs.size());
            out_.reserve(model.outputs.size());
            auto& shapes = output_shapes_.emplace_back();
            for (const ltc::Port& port : model.outputs) shapes.push_back(python_shape(port.shape));
        }
    }

    static nb::object python_shape(const ltc::Shape& shape) {
        nb::list dims;
        for (std::uint32_t d : shape.dims) dims.append(d);
        return nb::tuple(dims);
    }

    nb::object empty(const nb::object& shape) const {
        PyObject* array = PyObject_CallFunctionObjArgs(empty_.ptr(), shape.ptr(), float32_.ptr(), nullptr);
        if (array == nullptr) throw nb::python_error();
        return nb::steal(array);
    }

    ltc::CheckedVM vm_;
    Buffers in_, out_;  // of the call that holds the lease
    nb::object empty_, float32_;
    std::vector<std::vector<nb::object>> output_shapes_;  // by model
};

}  // namespace

void bind_vm(nb::module_& m) {
    nb::class_<PyVM>(m, "VM", "A program with a state of its own. For one thread at a time: StateError if it is busy.")
        .def(nb::init<std::shared_ptr<const ltc::Program>, bool, const std::optional<std::string>&>(), nb::arg("program"), nb::arg("bit_accurate") = true,
             nb::arg("kernels") = nb::none(),
             nb::sig("def __init__(self, program: Program, bit_accurate: bool = True, kernels: str | None = None) -> None"),
             "bit_accurate=False computes in plain fp32 from the fp32 originals; ProgramError if there are none.\n\n"
             "kernels: sse2, avx2, avx512 or avx512_bf16 (generic off x86-64); ConfigError if this CPU cannot run them.\n"
             "None: those that the environment variable LTC_SIMD names, or the widest that the CPU has.")
        .def("run", &PyVM::run, nb::arg("model"), nb::arg("inputs"),
             nb::sig("def run(self, model: int, inputs: typing.Any) -> list[typing.Any]"),
             "One inference: a tuple or list with one C-contiguous float32 array a port, or the one array; new arrays\n"
             "out. Raises InputError for anything else, an elapsed time that is NaN, infinite or negative, or a\n"
             "wrong model; the state is then as it was. A signal whose handler raises, as that of Ctrl-C does, ends this and\n"
             "the other runs within 50 ms, with every state as after a whole number of steps.")
        .def("run_into", &PyVM::run_into, nb::arg("model"), nb::arg("inputs"), nb::arg("outputs"),
             nb::sig("def run_into(self, model: int, inputs: typing.Any, outputs: typing.Any) -> None"),
             "run() into given arrays, writable and apart from each other and from the inputs.")
        .def("run_timesteps", &PyVM::run_timesteps, nb::arg("model"), nb::arg("steps"), nb::arg("inputs"), nb::arg("outputs"),
             nb::sig("def run_timesteps(self, model: int, steps: int, inputs: typing.Any, outputs: typing.Any) -> None"),
             "run_into() for every step of arrays with one more, leading axis of length `steps`.")
        .def("run_batch", &PyVM::run_batch, nb::arg("model"), nb::arg("streams"), nb::arg("steps"), nb::arg("inputs"),
             nb::arg("outputs"), nb::arg("threads"),
             nb::sig("def run_batch(self, model: int, streams: int, steps: int, inputs: typing.Any, outputs: typing.Any, "
                     "threads: int) -> None"),
             "run_timesteps() for each of `streams` independent streams, on so many threads: arrays with two more,\n"
             "leading axes of length `streams` and `steps`. Stream n keeps its state from call to call; stream 0 is\n"
             "the one that the other calls run.")
        .def("reset", &PyVM::reset, nb::arg("model") = -1, nb::sig("def reset(self, model: int = -1) -> None"),
             "The initial state of every stream, for one model or, with -1, for all.")
        .def("get_state", &PyVM::get_state, nb::arg("model"), nb::arg("state"), nb::arg("stream") = 0,
             nb::sig("def get_state(self, model: int, state: int, stream: int = 0) -> typing.Any"), "A copy, of the state's shape.")
        .def("set_state", &PyVM::set_state, nb::arg("model"), nb::arg("state"), nb::arg("value"),
             nb::arg("stream") = 0,
             nb::sig("def set_state(self, model: int, state: int, value: typing.Any, stream: int = 0) -> None"),
             "Replaces a state by a C-contiguous float32 array of its shape; subnormals become zero.")
        .def("steps_done", &PyVM::steps_done, nb::arg("stream") = 0, nb::sig("def steps_done(self, stream: int = 0) -> int"),
             "Steps that the last run_timesteps or run_batch executed of a stream: fewer than asked for if a signal ended it.")
        .def("copy", &PyVM::copy, nb::rv_policy::take_ownership, nb::sig("def copy(self) -> VM"),
             "Another VM with the same streams in the same states; the two share the weights.")
        .def("metrics", &PyVM::metrics, nb::sig("def metrics(self) -> dict[str, typing.Any]"),
             "Bytes of its memory, steps of its code, the kernels that it uses, and how many streams the last batch ran together.");
}
