// What a program file says to people and hosts beside what is executed: sections CONF and META. ltc_compiler/bytecode/
// alignment.py reads the same entries for Python. No bit of a result depends on it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "program/container.h"
#include "program/program.h"

namespace ltc {

// A port in the stream that a model was made of. axis: of the sequence, that was removed; no_axis: none.
struct PortStream {
    static constexpr std::int32_t no_axis = -1;
    std::int32_t axis = no_axis;
    std::int32_t latency = 0;  // of an output: step t of a stream gives its element t - latency
    std::int32_t tail = 0;     // elements that follow the last step; negative: so many last ones are missing
};

struct ModelMetadata {
    static constexpr std::size_t no_state = static_cast<std::size_t>(-1);
    std::vector<PortStream> inputs, outputs;
    std::vector<std::string> kinds;   // of the states: "stream", "module", "tied"
    std::size_t counter = no_state;   // the state that counts the steps of a stream
    std::uint64_t limit = 0;          // steps that a stream may have; 0: any number
    std::uint64_t block = 1;          // steps of one inference
};

struct Metadata {
    std::string configuration;  // section CONF: JSON
    std::string machine;        // its name
    double clock_mhz = 0;
    double host_latency_us = 0, host_bytes_per_us = 0;
    bool can_reset = true;
    std::vector<ModelMetadata> models;
};

// Throws Refusal for sections that are no JSON, or contradict the program.
Metadata read_metadata(const Sections& sections, const Program& program);

}  // namespace ltc
