// How the core refuses: an exception in the parts of ltc_compiler.errors.LtcError.
#pragma once

#include <cstdint>
#include <exception>
#include <string>
#include <utility>

namespace ltc {

// Thrown while loading and by the checks of a call, never by a run. `kind` names the class of the error.
enum class RefusalKind : std::uint8_t { program, isa_mismatch, input, state, config, arithmetic };

class Refusal : public std::exception {
public:
    Refusal(RefusalKind kind, std::string what, std::string where, std::string remedy)
        : kind(kind), fact(std::move(what)), where(std::move(where)), remedy(std::move(remedy)) {}
    const char* what() const noexcept override { return fact.c_str(); }

    RefusalKind kind;
    std::string fact;
    std::string where;
    std::string remedy;
};

// A program is damaged or was not made by our compiler: the one remedy is to compile it again.
[[noreturn]] inline void refuse_program(std::string what, std::string where) {
    throw Refusal(RefusalKind::program, std::move(what), std::move(where), "compile and save the program again");
}

}  // namespace ltc
