// How C hears of an error: a status, and words in the caller's own struct. Nothing here takes memory.
#pragma once

#include <cstddef>
#include <span>

#include "capi/ltc.h"
#include "vm/checked.h"

namespace ltc::capi {

// Whether the caller's struct for errors is none, or one that this library knows.
inline bool known(const ltc_error* error) noexcept { return error == nullptr || error->size == sizeof *error; }

// Fills an error, if there is one, and returns the status. `format` with its arguments says what is wrong.
[[gnu::cold, gnu::noinline, gnu::format(printf, 5, 6)]] ltc_status fail(ltc_error* error, ltc_status status, const char* where,
                                                                       const char* remedy, const char* format, ...) noexcept;

ltc_status null_argument(ltc_error* error, const char* name) noexcept;
ltc_status no_index(ltc_error* error, const char* kind, std::size_t index, std::size_t count) noexcept;
ltc_status wrong_size(ltc_error* error, const char* name, std::size_t given, std::size_t size) noexcept;

// A fault of a call on a model.
ltc_status fail(ltc_error* error, const Fault& fault, const Program& program, std::size_t model) noexcept;

// Fills an error from the exception that is being handled.
ltc_status of_exception(ltc_error* error) noexcept;

// call(), which returns a status; what it throws becomes one. For all that is not the run path.
template <class Call>
ltc_status guard(ltc_error* error, Call call) noexcept {
    if (!known(error)) return LTC_VERSION;
    try {
        return call();
    } catch (...) {
        return of_exception(error);
    }
}

// Whether a struct of the caller's has the size that this header gave it; fills the error if not.
template <class Struct>
ltc_status check_size(ltc_error* error, const Struct* given, const char* name) noexcept {
    if (given == nullptr) return null_argument(error, name);
    return given->size == sizeof *given ? LTC_OK : wrong_size(error, name, given->size, sizeof *given);
}

}  // namespace ltc::capi
