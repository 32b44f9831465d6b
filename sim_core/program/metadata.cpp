// See metadata.h. Entries that are absent say that there is nothing to say.
#include "program/metadata.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "program/json.h"

namespace ltc {
namespace {

constexpr std::int64_t max_steps = 1 << 24;  // of a latency, a tail or a limit
constexpr std::int64_t max_limit = std::int64_t{1} << 53;

std::int64_t ranged(Json& in, const char* name, std::int64_t low, std::int64_t high) {
    const std::int64_t value = in.integer();
    if (value < low || value > high)
        in.refuse(std::string(name) + " is " + std::to_string(value) + ", allowed are " + std::to_string(low) + " to " + std::to_string(high));
    return value;
}

// A list with one integer, or null, for each of `ports`.
void column(Json& in, const char* name, std::vector<PortStream>& ports, std::int32_t PortStream::* field, std::int64_t low, std::int64_t high) {
    std::size_t n = 0;
    in.array([&] {
        if (n == ports.size()) in.refuse(std::string(name) + " has more than " + std::to_string(n) + " entries");
        std::int32_t& to = ports[n++].*field;
        if (field == &PortStream::axis && in.peek() == 'n') return in.null();
        to = static_cast<std::int32_t>(ranged(in, name, low, high));
    });
    if (n != ports.size()) in.refuse(std::string(name) + " has " + std::to_string(n) + " entries for " + std::to_string(ports.size()) + " ports");
}

// The scalar state of a name; none for "".
std::size_t scalar_state(Json& in, const char* key, const Model& model) {
    const std::string name = in.text();
    if (name.empty()) return ModelMetadata::no_state;
    for (std::size_t n = 0; n < model.states.size(); ++n)
        if (model.states[n].name == name && model.states[n].shape.dims.empty()) return n;
    in.refuse(std::string("the ") + key + " is no scalar state of the model");
}

void read_streaming(Json& in, const Model& model, ModelMetadata& out) {
    in.object([&](std::string_view key) {
        if (key == "inputs") column(in, "an axis", out.inputs, &PortStream::axis, 0, limits::rank);
        else if (key == "outputs") column(in, "an axis", out.outputs, &PortStream::axis, 0, limits::rank);
        else if (key == "latencies") column(in, "a latency", out.outputs, &PortStream::latency, 0, max_steps);
        else if (key == "tails") column(in, "a tail", out.outputs, &PortStream::tail, -max_steps, max_steps);
        else if (key == "counter") out.counter = scalar_state(in, "counter", model);
        else if (key == "marker") scalar_state(in, "marker", model);
        else if (key == "limit") out.limit = static_cast<std::uint64_t>(ranged(in, "a limit", 0, max_limit));
        else if (key == "block") out.block = static_cast<std::uint64_t>(ranged(in, "a block", 1, max_steps));
        else in.skip();
    });
    const bool late = std::ranges::any_of(out.outputs, [](const PortStream& p) { return p.latency != 0; });
    if ((late || out.limit != 0) && out.counter == ModelMetadata::no_state) in.refuse("a stream that is counted has no counter");
}

void read_kinds(Json& in, const Model& model, ModelMetadata& out) {
    std::size_t n = 0;
    in.array([&] {
        if (n == model.states.size()) in.refuse("more kinds than states");
        out.kinds[n++] = in.text();
    });
    if (n != model.states.size()) in.refuse(std::to_string(n) + " kinds for " + std::to_string(model.states.size()) + " states");
}

// entry(model) for each entry of a list, one for each model; those that the list lacks stay as they are.
template <class Entry>
void by_model(Json& in, Metadata& out, Entry entry) {
    std::size_t n = 0;
    in.array([&] { n < out.models.size() ? entry(n) : in.skip(), ++n; });
}

void read_meta(Json in, const Program& program, Metadata& out) {
    in.object([&](std::string_view key) {
        if (key == "state_reset") {
            if (in.peek() == 't') out.can_reset = in.flag();
            else in.skip();
        } else if (key == "streaming") {
            by_model(in, out, [&](std::size_t n) { read_streaming(in, program.models[n], out.models[n]); });
        } else if (key == "states") {
            by_model(in, out, [&](std::size_t n) { read_kinds(in, program.models[n], out.models[n]); });
        } else {
            in.skip();
        }
    });
    in.finish();
}

void read_configuration(Json in, Metadata& out) {
    in.object([&](std::string_view key) {
        if (key == "name") out.machine = in.text();
        else if (key == "clock_mhz") out.clock_mhz = in.number();
        else if (key == "host.latency_us") out.host_latency_us = in.number();
        else if (key == "host.bytes_per_us") out.host_bytes_per_us = in.number();
        else in.skip();
    });
    in.finish();
    if (!(out.clock_mhz > 0) || !(out.host_latency_us >= 0) || !(out.host_bytes_per_us > 0))
        in.refuse("the clock or the host link of the machine is missing or not positive");
}

}  // namespace

Metadata read_metadata(const Sections& sections, const Program& program) {
    Metadata out;
    for (const Model& model : program.models) {
        ModelMetadata& made = out.models.emplace_back();
        made.inputs.resize(model.inputs.size());
        made.outputs.resize(model.outputs.size());
        made.kinds.assign(model.states.size(), "stream");
    }
    const Bytes configuration = sections.at("CONF");
    out.configuration.assign(configuration.begin(), configuration.end());
    read_configuration(Json(configuration, "CONF"), out);
    read_meta(Json(sections.at("META"), "META"), program, out);
    return out;
}

}  // namespace ltc
