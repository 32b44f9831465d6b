// Bytes to a parsed Program: what each section holds, and the instructions by the field tables of isa.gen.h. What the parts
// mean to each other is verify.cpp's.
#include <algorithm>
#include <bit>
#include <cstring>

#include "numerics/numerics.h"
#include "program/container.h"
#include "program/metadata.h"
#include "program/program.h"
#include "program/reader.h"

namespace ltc {
namespace {

Machine read_machine(Reader in) {
    Machine m{};
    for (const isa::CountInfo& count : isa::machine_counts) {
        m.*count.value = ranged(in, count.name, count.low, count.high);
        if (count.power_of_two && !std::has_single_bit(m.*count.value))
            refuse_program(std::string(count.name) + " is no power of two", in.where());
    }
    for (const isa::FeatureInfo& feature : isa::machine_features) m.*feature.value = flag(in, feature.name);
    in.take(isa::feature_padding, "padding");
    for (std::size_t i = 0; i < isa::n_latencies; ++i) {
        const isa::LatencyInfo& latency = isa::latency_ranges[i];
        m.latencies[i] = ranged(in, latency.name, latency.low, latency.high);
    }
    in.finish();
    return m;
}

Instruction read_instruction(Reader& in) {
    const std::string where = in.where();
    const auto opcode = in.get<std::uint8_t>("an opcode");
    if (opcode > isa::max_opcode || isa::instructions[opcode].name == nullptr)
        refuse_program("opcode " + std::to_string(opcode) + " does not exist", where);
    Instruction out{};
    out.opcode = static_cast<isa::Opcode>(opcode);
    out.core = in.get<std::uint8_t>("a core");
    const isa::FormatInfo& format = out.format();
    for (std::size_t f = 0; f < format.n_fields; ++f) {
        const isa::FieldInfo& field = format.fields[f];
        const std::size_t bytes = isa::encoded_bytes[static_cast<std::size_t>(field.kind)];
        const Bytes raw = in.take(bytes, field.name);
        std::memcpy(&out.operands[field.word], raw.data(), bytes);  // little endian: shorter fields leave zeros above
        const bool binary = field.kind == isa::FieldKind::precision || field.kind == isa::FieldKind::flag;
        if (binary && out.operands[field.word] > 1)
            refuse_program(std::string(field.name) + " is " + std::to_string(out.operands[field.word]) + ", allowed are 0 and 1", where);
    }
    return out;
}

void read_code(Reader in, Program& p) {
    const auto n = ranged(in, "the number of instructions", 0, limits::instructions);
    p.code.reserve(std::min<std::size_t>(n, in.left() / 2));
    for (std::uint32_t i = 0; i < n; ++i) p.code.push_back(read_instruction(in));
    in.finish();
}

// What a write to a row could have left there (rule 4 of docs/numerics.md).
bool is_architectural(float x) { return bits(write_fp32(x)) == bits(x); }

void check_constant_rows(const Core& core, const std::string& where) {
    std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
    for (const ConstantRange& range : core.constants) ranges.emplace_back(range.row, std::uint64_t{range.row} + range.rows);
    std::sort(ranges.begin(), ranges.end());
    std::uint64_t end = 0;
    for (const auto& [first, last] : ranges) {
        if (first < end || first == last || last > core.tensor_rows)
            refuse_program("constant rows " + std::to_string(first) + " to " + std::to_string(last) +
                               " are empty, overlap others, or pass the rows in use", where);
        end = last;
    }
}

void read_rows(Reader& in, std::vector<float>& rows, std::size_t n) {
    const std::string where = in.where();
    in.fill(rows, n, "constant rows");
    if (!std::all_of(rows.begin(), rows.end(), is_architectural))
        refuse_program("constant rows hold subnormals or NaNs that no row can hold", where);
}

void read_cores(Reader in, Program& p) {
    const Machine& m = p.machine;
    const auto n = ranged(in, "the number of cores", m.cores, m.cores);
    p.cores.resize(n);
    for (Core& core : p.cores) {
        core.tensor_rows = ranged(in, "tensor_rows_used", 0, m.tensor_rows);
        core.weight_blocks = ranged(in, "weight_blocks_used", 0, m.weight_blocks);
        core.synapse_slots = ranged(in, "synapse_slots_used", 0, m.synapse_slots);
        core.gather_entries = ranged(in, "gather_entries_used", 0, m.gather_entries);
        const auto ranges = ranged(in, "the number of constant ranges", 0, core.tensor_rows);
        for (std::uint32_t i = 0; i < ranges; ++i) {
            const auto row = in.get<std::uint32_t>("a constant range");
            core.constants.push_back({row, in.get<std::uint32_t>("a constant range"), {}, {}});
        }
        check_constant_rows(core, in.where());
        for (ConstantRange& range : core.constants) read_rows(in, range.data, std::size_t{range.rows} * m.block_size);
    }
    in.finish();
}

void read_weights(Reader in, Program& p) {
    const std::size_t block = std::size_t{p.machine.block_size} * p.machine.block_size;
    for (Core& core : p.cores) in.fill(core.weights, core.weight_blocks * block, "weight blocks");
    in.finish();
}

void read_slots(Reader in, Program& p) {
    const std::size_t B = p.machine.block_size;
    for (Core& core : p.cores) {
        SlotStore& s = core.slots;
        for (std::uint32_t i = 0; i < core.synapse_slots; ++i) {
            in.append(s.src, B, "synapse sources");
            for (std::vector<float>* values : {&s.mu, &s.sigma, &s.w, &s.we}) in.append(*values, B, "synapse parameters");
            s.last.push_back(flag(in, "last"));
            in.take(3, "padding");
            std::uint16_t largest = 0;
            for (std::size_t l = 0; l < B; ++l) {
                const std::uint16_t src = s.src[i * B + l];
                if (src != isa::absent) largest = std::max(largest, src);
            }
            s.max_src.push_back(largest);
        }
        s.run.resize(core.synapse_slots);
        std::uint32_t run = 0;
        for (std::size_t i = core.synapse_slots; i-- > 0;) {
            run = s.last[i] != 0 ? 1 : (run != 0 ? run + 1 : 0);
            s.run[i] = run;
        }
    }
    in.finish();
}

void read_entries(Reader in, Program& p) {
    const std::size_t B = p.machine.block_size;
    for (Core& core : p.cores) {
        EntryStore& e = core.entries;
        for (std::uint32_t i = 0; i < core.gather_entries; ++i) {
            const std::string where = in.where();
            e.src.push_back(in.get<std::int32_t>("a source row"));
            e.dst.push_back(in.get<std::int32_t>("a destination row"));
            e.clear.push_back(flag(in, "clear"));
            in.take(3, "padding");
            in.append(e.lane, B, "lanes");
            for (std::size_t l = 0; l < B; ++l) {
                const std::uint16_t lane = e.lane[i * B + l];
                if (lane != isa::absent && lane >= B) refuse_program("lane " + std::to_string(lane) + " of a gather entry does not exist", where);
            }
        }
    }
    in.finish();
}

void read_shadow(Reader in, Program& p) {
    const std::size_t B = p.machine.block_size;
    for (Core& core : p.cores) {
        in.fill(core.shadow_weights, core.weight_blocks * B * B, "fp32 weight blocks");
        in.fill(core.shadow_slots, core.synapse_slots * 4 * B, "fp32 synapse parameters");
        for (ConstantRange& range : core.constants) read_rows(in, range.original, range.rows * B);
    }
    in.finish();
    p.has_shadow = true;
}

bool is_utf8(Bytes s) {
    for (std::size_t i = 0; i < s.size();) {
        const std::uint8_t lead = s[i++];
        if (lead < 0x80) continue;
        const int more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
        if (lead < 0xC2 || lead > 0xF4) return false;
        std::uint32_t point = lead & (0x3Fu >> more);
        for (int n = 0; n < more; ++n) {
            if (i == s.size() || (s[i] & 0xC0) != 0x80) return false;
            point = point << 6 | (s[i++] & 0x3Fu);
        }
        static const std::uint32_t least[] = {0, 0x80, 0x800, 0x10000};
        if (point < least[more] || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000)) return false;
    }
    return true;
}

std::string read_name(Reader& in) {
    const std::string where = in.where();
    const Bytes raw = in.take(in.get<std::uint16_t>("a name"), "a name");
    if (!is_utf8(raw)) refuse_program("a name is not UTF-8", where);
    return {raw.begin(), raw.end()};
}

Shape read_shape(Reader& in) {
    const std::string where = in.where();
    const auto rank = in.get<std::uint8_t>("a rank");
    if (rank > limits::rank) refuse_program("rank " + std::to_string(rank) + ", at most " + std::to_string(limits::rank), where);
    Shape shape;
    std::uint64_t n = 1;
    for (int i = 0; i < rank; ++i) {
        shape.dims.push_back(ranged(in, "a dimension", 1, limits::elements));
        n *= shape.dims.back();
        if (n > limits::elements) refuse_program("an array has more than 2^30 elements", where);
    }
    return shape;
}

Port read_port(Reader& in) {
    Port port;
    port.name = read_name(in);
    port.role = flag(in, "a role") ? Role::elapsed_time : Role::plain;
    port.precision = flag(in, "a precision") ? isa::Precision::bf16 : isa::Precision::fp32;
    port.shape = read_shape(in);
    return port;
}

void read_models(Reader in, Program& p) {
    const auto n = in.get<std::uint32_t>("the number of models");
    for (std::uint32_t i = 0; i < n; ++i) {
        Model model;
        model.name = read_name(in);
        model.code_begin = in.get<std::uint32_t>("code_begin");
        model.code_end = in.get<std::uint32_t>("code_end");
        const auto inputs = in.get<std::uint32_t>("n_inputs");
        const auto outputs = in.get<std::uint32_t>("n_outputs");
        const auto states = in.get<std::uint32_t>("n_states");
        const auto rings = in.get<std::uint32_t>("n_rings");
        for (std::uint32_t k = 0; k < inputs; ++k) model.inputs.push_back(read_port(in));
        for (std::uint32_t k = 0; k < outputs; ++k) model.outputs.push_back(read_port(in));
        for (std::uint32_t k = 0; k < states; ++k) {
            State state;
            state.name = read_name(in);
            state.shape = read_shape(in);
            state.core = in.get<std::uint32_t>("the core of a state");
            state.row = in.get<std::uint32_t>("the row of a state");
            const auto copies = in.get<std::uint32_t>("n_copies");
            for (std::uint32_t c = 0; c < copies; ++c) {
                const auto core = in.get<std::uint32_t>("the core of a copy");
                state.copies.push_back({core, in.get<std::uint32_t>("the row of a copy")});
            }
            model.states.push_back(std::move(state));
        }
        for (std::uint32_t k = 0; k < rings; ++k) {
            Ring ring{};
            for (std::uint32_t* word : {&ring.core, &ring.row, &ring.places, &ring.rows, &ring.advance})
                *word = in.get<std::uint32_t>("a ring");
            model.rings.push_back(ring);
        }
        p.models.push_back(std::move(model));
    }
    in.finish();
}

}  // namespace

Program parse(std::span<const std::uint8_t> bytes, std::shared_ptr<const void> owner, Metadata* metadata) {
    const Sections sections = read_sections(bytes);
    const auto reader = [&](const char* tag) { return Reader(sections.at(tag), tag); };
    Program p;
    p.file = std::move(owner);
    p.machine = read_machine(reader("MACH"));
    read_cores(reader("CORE"), p);
    read_code(reader("CODE"), p);
    read_weights(reader("WGHT"), p);
    read_slots(reader("SYNP"), p);
    read_entries(reader("GATH"), p);
    read_models(reader("MODL"), p);
    if (sections.contains("SHAD")) read_shadow(reader("SHAD"), p);
    verify(p);
    if (metadata != nullptr) *metadata = read_metadata(sections, p);
    return p;
}

}  // namespace ltc
