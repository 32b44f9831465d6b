// The Python binding: it converts and does nothing more. Arrays come in through the buffer protocol, which costs a
// fraction of what an ndarray object does; whatever is not a C-contiguous float32 array of the right shape is refused
// here, and ltc_compiler/vm.py then says so at length or converts it.
#include <nanobind/nanobind.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "program/work.h"
#include "python_interrupt.h"
#include "vm/vm.h"

namespace nb = nanobind;

void bind_timing(nb::module_& m);
void bind_numerics(nb::module_& m);

namespace {

using ltc::Refusal;
using ltc::RefusalKind;

#ifdef LTC_SANITIZE
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif

nb::dict build_info() {
    nb::dict info;
    info["compiler"] = __VERSION__;
    info["cplusplus"] = __cplusplus;
    info["sanitized"] = sanitized;
    return info;
}

constexpr std::size_t max_streams = 65536, max_threads = 1024;  // of a batch

[[noreturn]] void refuse_input(std::string what, std::string where, std::string remedy) {
    throw Refusal(RefusalKind::input, std::move(what), std::move(where), std::move(remedy));
}

// A Refusal becomes the class of ltc_compiler.errors that it names.
void translate(const std::exception_ptr& exception, void*) {
    try {
        std::rethrow_exception(exception);
    } catch (const Refusal& refusal) {
        static const char* const classes[] = {"ProgramError", "IsaMismatchError", "InputError", "StateError", "ConfigError", "ArithmeticMismatchError"};
        nb::object kind = nb::module_::import_("ltc_compiler.errors").attr(classes[static_cast<std::size_t>(refusal.kind)]);
        nb::object error = kind(refusal.fact, nb::arg("where") = refusal.where, nb::arg("remedy") = refusal.remedy);
        PyErr_SetObject(kind.ptr(), error.ptr());
    }
}

std::string text(const std::vector<std::size_t>& dims) {
    std::string out = "(";
    for (std::size_t n = 0; n < dims.size(); ++n) out += (n != 0 ? ", " : "") + std::to_string(dims[n]);
    return out + (dims.size() == 1 ? ",)" : ")");
}

// Lengths of the axes in front of a port's own: none, the steps of a sequence, or streams and steps.
using Leading = std::span<const std::size_t>;

// A float32 array of the caller's, held while the VM uses it.
class Array {
public:
    // shape: what the array must have behind the axes of `leading`.
    Array(PyObject* object, const ltc::Shape& shape, Leading leading, bool writable, const std::string& name) {
        const int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0);
        if (PyObject_GetBuffer(object, &view_, flags) != 0) {
            PyErr_Clear();
            fail(shape, leading, writable, name, nb::steal<nb::str>(PyObject_Str(reinterpret_cast<PyObject*>(Py_TYPE(object)))).c_str());
        }
        if (!fits(shape, leading)) {
            std::string given = std::string("format ") + view_.format + ", shape ";
            given += text({view_.shape, view_.shape + view_.ndim});
            PyBuffer_Release(&view_);
            fail(shape, leading, writable, name, given);
        }
    }
    ~Array() {
        if (view_.obj != nullptr) PyBuffer_Release(&view_);
    }
    Array(Array&& other) noexcept : view_(other.view_) { other.view_.obj = nullptr; }
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;

    float* data() const { return static_cast<float*>(view_.buf); }
    bool overlaps(const Array& other) const {
        const auto a = reinterpret_cast<std::uintptr_t>(view_.buf), b = reinterpret_cast<std::uintptr_t>(other.view_.buf);
        return a < b + static_cast<std::uintptr_t>(other.view_.len) && b < a + static_cast<std::uintptr_t>(view_.len);
    }

private:
    bool fits(const ltc::Shape& shape, Leading leading) const {
        const std::size_t more = leading.size();
        if (view_.format == nullptr || std::strcmp(view_.format, "f") != 0 || view_.itemsize != sizeof(float)) return false;
        if (static_cast<std::size_t>(view_.ndim) != shape.dims.size() + more) return false;
        for (std::size_t n = 0; n < more; ++n)
            if (static_cast<std::size_t>(view_.shape[n]) != leading[n]) return false;
        for (std::size_t n = 0; n < shape.dims.size(); ++n)
            if (static_cast<std::size_t>(view_.shape[n + more]) != shape.dims[n]) return false;
        return true;
    }
    [[noreturn]] static void fail(const ltc::Shape& shape, Leading leading, bool writable,
                                  const std::string& name, const std::string& given) {
        std::vector<std::size_t> dims(shape.dims.begin(), shape.dims.end());
        dims.insert(dims.begin(), leading.begin(), leading.end());
        refuse_input(std::string("expected a ") + (writable ? "writable " : "") + "C-contiguous float32 array of shape " +
                         text(dims) + ", given: " + given,
                     name, "pass np.ascontiguousarray(x, dtype=np.float32)");
    }

    Py_buffer view_;
};

// The arrays of all ports on one side, as the VM takes them. Its memory is taken once: a call only borrows arrays.
class Arrays {
public:
    explicit Arrays(std::size_t most_ports) {
        arrays_.reserve(most_ports);
        data_.reserve(most_ports);
    }

    // values: a tuple or list with one array a port, or the one array itself.
    void borrow(const std::vector<ltc::Port>& ports, nb::handle values, Leading leading, bool writable) {
        const bool tuple = PyTuple_Check(values.ptr()), list = !tuple && PyList_Check(values.ptr());
        const std::size_t n = tuple ? nb::borrow<nb::tuple>(values).size() : list ? nb::borrow<nb::list>(values).size() : 1;
        if (n != ports.size())
            refuse_input(std::string("the model has ") + std::to_string(ports.size()) + (writable ? " outputs, " : " inputs, ") +
                             std::to_string(n) + " arrays given", writable ? "outputs" : "inputs", "give one array a port");
        for (std::size_t i = 0; i < n; ++i) {
            const auto at = static_cast<Py_ssize_t>(i);
            PyObject* value = tuple ? PyTuple_GetItem(values.ptr(), at) : list ? PyList_GetItem(values.ptr(), at) : values.ptr();
            arrays_.emplace_back(value, ports[i].shape, leading, writable, ports[i].name);
            data_.push_back(arrays_.back().data());
        }
    }
    void give_back() {
        arrays_.clear();
        data_.clear();
    }

    const Array& operator[](std::size_t port) const { return arrays_[port]; }
    std::size_t size() const { return arrays_.size(); }
    float* const* data() const { return data_.data(); }

private:
    std::vector<Array> arrays_;
    std::vector<float*> data_;
};

// Refuses rather than waits: two threads that share a VM would mix their states.
struct Lease : ltc::VM::Lease {
    explicit Lease(ltc::VM& vm) : ltc::VM::Lease(vm) {
        if (!held())
            throw Refusal(RefusalKind::state, "the VM is running in another thread, or below a signal's handler", "VM",
                          "make one VM for each thread: they share the program");
    }
};

// A VM, and what its calls would otherwise look up every time.
class PyVM {
public:
    PyVM(const std::shared_ptr<const ltc::Program>& program, bool bit_accurate)
        : vm_(*program, bit_accurate), in_(most_ports(&ltc::Model::inputs)), out_(most_ports(&ltc::Model::outputs)) {
        look_up();
    }

    PyVM(const PyVM&) = delete;
    PyVM& operator=(const PyVM&) = delete;

    PyVM* copy() {
        const Lease lease(vm_);
        return new PyVM(vm_);
    }

    nb::list run(Py_ssize_t index, nb::handle inputs) {
        const Call call(*this);
        const ltc::Model& model = model_at(index);
        in_.borrow(model.inputs, inputs, {}, false);
        nb::list made;
        for (const nb::object& shape : output_shapes_[static_cast<std::size_t>(index)]) made.append(empty(shape));
        out_.borrow(model.outputs, made, {}, true);
        execute(index, 1, 1, [&](std::size_t m, auto& interrupt) { return vm_.run(m, in_.data(), out_.data(), interrupt); });
        return made;
    }

    void run_into(Py_ssize_t index, nb::handle inputs, nb::handle outputs) {
        const Call call(*this);
        borrow(index, {}, inputs, outputs);
        execute(index, 1, 1, [&](std::size_t m, auto& interrupt) { return vm_.run(m, in_.data(), out_.data(), interrupt); });
    }

    void run_timesteps(Py_ssize_t index, std::size_t steps, nb::handle inputs, nb::handle outputs) {
        const Call call(*this);
        borrow(index, std::span(&steps, 1), inputs, outputs);
        execute(index, 1, steps, [&](std::size_t m, auto& interrupt) {
            return vm_.run_timesteps(m, steps, in_.data(), out_.data(), interrupt);
        });
    }

    void run_batch(Py_ssize_t index, std::size_t streams, std::size_t steps, nb::handle inputs, nb::handle outputs,
                   std::size_t threads) {
        const Call call(*this);
        const std::size_t leading[] = {streams, steps};
        borrow(index, leading, inputs, outputs);
        if (streams > max_streams || threads - 1 >= max_threads)
            refuse_input(std::to_string(streams) + " streams on " + std::to_string(threads) + " threads", "run_batch",
                         "use at most " + std::to_string(max_streams) + " streams and from 1 to " +
                             std::to_string(max_threads) + " threads");
        vm_.prepare_batch(streams, std::min(threads, std::max<std::size_t>(streams, 1)));
        execute(index, streams, steps, [&](std::size_t m, auto& interrupt) {
            return vm_.run_batch(m, streams, steps, in_.data(), out_.data(), interrupt);
        });
    }

    void reset(Py_ssize_t index) {
        const Lease lease(vm_);
        if (index != -1) return vm_.reset(static_cast<std::size_t>(&model_at(index) - vm_.program().models.data()));
        for (std::size_t m = 0; m < vm_.program().models.size(); ++m) vm_.reset(m);
    }

    nb::object get_state(Py_ssize_t index, Py_ssize_t state, Py_ssize_t stream) {
        const Lease lease(vm_);
        const ltc::State& found = state_at(index, state);
        nb::object out = empty(python_shape(found.shape));
        const Array array(out.ptr(), found.shape, {}, true, found.name);
        vm_.get_state(static_cast<std::size_t>(index), static_cast<std::size_t>(state), stream_at(stream), array.data());
        return out;
    }

    void set_state(Py_ssize_t index, Py_ssize_t state, nb::handle value, Py_ssize_t stream) {
        const Lease lease(vm_);
        const ltc::State& found = state_at(index, state);
        const Array array(value.ptr(), found.shape, {}, false, found.name);
        vm_.set_state(static_cast<std::size_t>(index), static_cast<std::size_t>(state), stream_at(stream), array.data());
    }

    std::size_t steps_done(Py_ssize_t stream) { return vm_.steps_done(stream_at(stream)); }

    nb::dict metrics() const {
        nb::dict out;
        out["arena_bytes"] = vm_.arena_bytes();
        out["parameter_bytes"] = vm_.parameter_bytes();
        out["streams"] = vm_.streams();
        out["steps"] = vm_.steps();
        out["simd"] = vm_.kernels().name;
        out["lanes"] = vm_.kernels().lanes;
        out["bit_accurate"] = vm_.bit_accurate();
        return out;
    }

private:
    explicit PyVM(const ltc::VM& vm)
        : vm_(vm), in_(most_ports(&ltc::Model::inputs)), out_(most_ports(&ltc::Model::outputs)) {
        look_up();
    }

    void look_up() {
        const nb::module_ numpy = nb::module_::import_("numpy");
        empty_ = numpy.attr("empty");
        float32_ = numpy.attr("float32");
        for (const ltc::Model& model : vm_.program().models) {
            auto& shapes = output_shapes_.emplace_back();
            for (const ltc::Port& port : model.outputs) shapes.push_back(python_shape(port.shape));
        }
    }

    // While it lives, this thread has the VM and its lists of arrays.
    struct Call : Lease {
        explicit Call(PyVM& vm) : Lease(vm.vm_), vm_(vm) {}
        ~Call() {
            vm_.in_.give_back();
            vm_.out_.give_back();
        }
        PyVM& vm_;
    };

    std::size_t most_ports(std::vector<ltc::Port> ltc::Model::* side) const {
        std::size_t most = 0;
        for (const ltc::Model& model : vm_.program().models) most = std::max(most, (model.*side).size());
        return most;
    }

    const ltc::Model& model_at(Py_ssize_t index) const {
        const auto& models = vm_.program().models;
        if (index < 0 || static_cast<std::size_t>(index) >= models.size())
            refuse_input("no model " + std::to_string(index), "model_index",
                         "give an index below " + std::to_string(models.size()));
        return models[static_cast<std::size_t>(index)];
    }

    const ltc::State& state_at(Py_ssize_t index, Py_ssize_t state) const {
        const auto& states = model_at(index).states;
        if (state < 0 || static_cast<std::size_t>(state) >= states.size())
            throw Refusal(RefusalKind::state, "no state " + std::to_string(state), "state index",
                          "give an index below " + std::to_string(states.size()));
        return states[static_cast<std::size_t>(state)];
    }

    std::size_t stream_at(Py_ssize_t stream) const {
        if (stream < 0 || static_cast<std::size_t>(stream) >= vm_.streams())
            throw Refusal(RefusalKind::state, "no stream " + std::to_string(stream), "stream",
                          "give an index below " + std::to_string(vm_.streams()) + ", the most that run_batch has had");
        return static_cast<std::size_t>(stream);
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

    void borrow(Py_ssize_t index, Leading leading, nb::handle inputs, nb::handle outputs) {
        const ltc::Model& model = model_at(index);
        in_.borrow(model.inputs, inputs, leading, false);
        out_.borrow(model.outputs, outputs, leading, true);
        for (std::size_t o = 0; o < out_.size(); ++o) {
            for (std::size_t i = 0; i < in_.size(); ++i)
                if (out_[o].overlaps(in_[i]))
                    refuse_input("it shares memory with an input", model.outputs[o].name, "give an array of its own");
            for (std::size_t other = 0; other < o; ++other)
                if (out_[o].overlaps(out_[other]))
                    refuse_input("it shares memory with another output", model.outputs[o].name, "give an array of its own");
        }
    }

    // run(model, interrupt) without the GIL, on the arrays that are borrowed: of `steps` for each stream.
    template <class Run>
    void execute(Py_ssize_t index, std::size_t streams, std::size_t steps, Run run) {
        const auto model = static_cast<std::size_t>(index);
        ltc::PythonInterrupt interrupt;
        ltc::Status status;
        {
            const nb::gil_scoped_release unlocked;
            status = run(model, interrupt);
        }
        if (status == ltc::Status::ok) return;
        if (status == ltc::Status::interrupted) ltc::PythonInterrupt::raise();
        const std::size_t port = vm_.bad_elapsed_time(model, streams * steps, in_.data());
        refuse_input("an elapsed time is NaN, infinite or negative", vm_.program().models[model].inputs[port].name,
                     "give the time since the previous step, finite and 0 or more");
    }

    ltc::VM vm_;
    Arrays in_, out_;  // of the call that holds the lease
    nb::object empty_, float32_;
    std::vector<std::vector<nb::object>> output_shapes_;  // by model
};

void check_work(const ltc::Program& program, std::uint64_t max_work) {
    for (const ltc::Model& model : program.models)
        ltc::check_work(program, model, 1, max_work, "lower the trip counts of its loops, or give a larger max_work");
}

nb::dict work(const ltc::Program& program, std::size_t model) {
    if (model >= program.models.size()) refuse_input("no model " + std::to_string(model), "model_index", "give a smaller index");
    const ltc::Work found = ltc::work_of(program, program.models[model]);
    nb::dict out;
    out["instructions"] = found.instructions;
    out["beats"] = found.beats;
    return out;
}

std::shared_ptr<const ltc::Program> parse(const nb::bytes& data) {
    const std::span<const std::uint8_t> bytes(static_cast<const std::uint8_t*>(data.data()), data.size());
    data.inc_ref();
    const std::shared_ptr<const void> owner(data.ptr(), [](const void* object) {
        const nb::gil_scoped_acquire locked;
        nb::handle(const_cast<PyObject*>(static_cast<const PyObject*>(object))).dec_ref();
    });
    const nb::gil_scoped_release unlocked;
    return std::make_shared<const ltc::Program>(ltc::parse(bytes, owner));
}

}  // namespace

NB_MODULE(_core, m) {
    m.doc() = "The simulator's C++ core.";
    nb::register_exception_translator(&translate);
    m.def("build_info", &build_info, nb::sig("def build_info() -> dict[str, str | int | bool]"),
          "How this extension was built: compiler, C++ standard, and whether the sanitizers watch it.");

    nb::class_<ltc::Program>(m, "Program", "A parsed and verified program; VMs share it read-only.")
        .def_static("parse", &parse, nb::arg("data"), nb::sig("def parse(data: bytes) -> Program"),
                    "Reads and verifies a program file's bytes; executes nothing.\n\n"
                    "Raises ProgramError or IsaMismatchError with the section and byte, or the instruction.")
        .def("check_work", &check_work, nb::arg("max_work"), nb::sig("def check_work(self, max_work: int) -> None"),
             "Raises ProgramError if one inference of a model executes more instructions, or more beats, than max_work.")
        .def("work", &work, nb::arg("model") = 0, nb::sig("def work(self, model: int = 0) -> dict[str, int]"),
             "Instructions and beats of one inference; 2**64 - 1 stands for more.");

    nb::class_<PyVM>(m, "VM", "A program with a state of its own. For one thread at a time: StateError if it is busy.")
        .def(nb::init<std::shared_ptr<const ltc::Program>, bool>(), nb::arg("program"), nb::arg("bit_accurate") = true,
             nb::sig("def __init__(self, program: Program, bit_accurate: bool = True) -> None"),
             "bit_accurate=False computes in plain fp32 from the fp32 originals; ProgramError if there are none.\n\n"
             "The environment variable LTC_SIMD names the kernels: sse2, avx2, avx512, avx512_bf16\n"
             "(generic off x86-64); ConfigError if this CPU cannot run them.")
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
             "Bytes of its memory, steps of its code, and the kernels that it uses.");

    bind_numerics(m);
    bind_timing(m);
}
