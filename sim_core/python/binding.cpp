// The module ltc_compiler._core. The binding converts and does nothing more.
#include <nanobind/nanobind.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include <cstdint>
#include <memory>
#include <span>

#include "host/refusal.h"
#include "program/program.h"
#include "program/work.h"

namespace nb = nanobind;

void bind_vm(nb::module_& m);
void bind_timing(nb::module_& m);
void bind_numerics(nb::module_& m);

namespace {

using ltc::Refusal;

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

void check_work(const ltc::Program& program, std::uint64_t max_work) {
    for (const ltc::Model& model : program.models)
        ltc::check_work(program, model, 1, max_work, "lower the trip counts of its loops, or give a larger max_work");
}

nb::dict work(const ltc::Program& program, Py_ssize_t model) {
    const ltc::Work found = ltc::work_of(program, ltc::model_at(program, model));
    nb::dict out;
    out["instructions"] = found.instructions;
    out["beats"] = found.beats;
    return out;
}

std::shared_ptr<const ltc::Program> parse(const nb::object& data) {
    auto* const view = new Py_buffer;  // it keeps the bytes alive, and a bytearray at its size
    if (PyObject_GetBuffer(data.ptr(), view, PyBUF_SIMPLE) != 0) {
        delete view;
        throw nb::python_error();
    }
    const std::shared_ptr<const void> owner(view->buf, [view](const void*) {
        const nb::gil_scoped_acquire locked;
        PyBuffer_Release(view);
        delete view;
    });
    const std::span<const std::uint8_t> bytes(static_cast<const std::uint8_t*>(view->buf),
                                              static_cast<std::size_t>(view->len));
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
        .def_static("parse", &parse, nb::arg("data"), nb::sig("def parse(data: bytes | bytearray) -> Program"),
                    "Reads and verifies a program file's bytes; executes nothing.\n\n"
                    "Raises ProgramError or IsaMismatchError with the section and byte, or the instruction.")
        .def("check_work", &check_work, nb::arg("max_work"), nb::sig("def check_work(self, max_work: int) -> None"),
             "Raises ProgramError if one inference of a model executes more instructions, or more beats, than max_work.")
        .def("work", &work, nb::arg("model") = 0, nb::sig("def work(self, model: int = 0) -> dict[str, int]"),
             "Instructions and beats of one inference; 2**64 - 1 stands for more.");

    bind_vm(m);
    bind_numerics(m);
    bind_timing(m);
}
