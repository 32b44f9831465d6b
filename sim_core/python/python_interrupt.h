// Python as the host of a run: Ctrl-C, and any other signal whose handler raises, stops it.
#pragma once

#include <nanobind/nanobind.h>

#include "host/interrupt.h"

namespace ltc {

// Made with the GIL, before it is released. Python runs the handlers of signals on its main thread alone: runs of other
// threads ask once, and no more.
class PythonInterrupt : public Interrupt {
public:
    PythonInterrupt() : Interrupt(&ask, nullptr) {}

    // With the GIL, after a run that was interrupted: what the handler of the signal raised.
    [[noreturn]] static void raise() { throw nanobind::python_error(); }

private:
    static Answer ask(void*) noexcept {
        const nanobind::gil_scoped_acquire locked;
        if (PyErr_CheckSignals() != 0) return Answer::stop;
        return is_main_thread() ? Answer::go_on : Answer::never;
    }
    static bool is_main_thread() noexcept {
        try {
            const nanobind::module_ threading = nanobind::module_::import_("threading");
            return threading.attr("current_thread")().is(threading.attr("main_thread")());
        } catch (...) {
            return true;  // as at the end of the interpreter: to ask too often does no harm
        }
    }
};

}  // namespace ltc
