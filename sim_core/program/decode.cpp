// Bytes to a parsed Program: the container, its sections, and the instructions by the field tables of isa.gen.h.
// Every size is checked against the bytes that are there before anything is allocated for it; what the parts mean to
// each other is verify.cpp's. Bytes are little endian, as every machine that this builds for.
#include <algorithm>
#include <array>
#include <bit>
#include <map>

#include "numerics/numerics.h"
#include "program/program.h"

namespace ltc {
namespace {

static_assert(std::endian::native == std::endian::little, "the container is read by memcpy");

constexpr std::uint32_t version = 2;
constexpr std::size_t header_bytes = 56;
constexpr std::size_t table_entry_bytes = 20;

using Bytes = std::span<const std::uint8_t>;

// Takes values off the front of a section and refuses to pass its end.
class Reader {
public:
    Reader(Bytes bytes, std::string section) : bytes_(bytes), section_(std::move(section)) {}

    Bytes take(std::uint64_t n, const char* what) {
        if (n > bytes_.size() - at_)
            refuse_program("the bytes end inside " + std::string(what) + ": " + std::to_string(n) + " needed, " +
                               std::to_string(bytes_.size() - at_) + " left",
                           where());
        Bytes part = bytes_.subspan(at_, static_cast<std::size_t>(n));
        at_ += static_cast<std::size_t>(n);
        return part;
    }
    template <class T>
    T get(const char* what) {
        T value;
        std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
        return value;
    }
    template <class T>
    void fill(std::vector<T>& out, std::size_t n, const char* what) {
        Bytes part = take(std::uint64_t{n} * sizeof(T), what);
        out.resize(n);
        if (n != 0) std::memcpy(out.data(), part.data(), part.size());
    }
    // Leaves them in the file, or copies them where they do not lie as the type demands.
    template <class T>
    void fill(Numbers<T>& out, std::size_t n, const char* what) {
        Bytes part = take(std::uint64_t{n} * sizeof(T), what);
        if (reinterpret_cast<std::uintptr_t>(part.data()) % alignof(T) == 0) {
            out.of_file = {reinterpret_cast<const T*>(part.data()), n};
        } else {
            out.own.resize(n);
            std::memcpy(out.own.data(), part.data(), part.size());
        }
    }
    template <class T>
    void append(std::vector<T>& out, std::size_t n, const char* what) {
        Bytes part = take(std::uint64_t{n} * sizeof(T), what);
        out.resize(out.size() + n);
        std::memcpy(out.data() + (out.size() - n), part.data(), part.size());
    }
    std::string where() const { return "section " + section_ + ", byte " + std::to_string(at_); }
    std::size_t left() const { return bytes_.size() - at_; }
    void finish() const {
        if (left() != 0) refuse_program(std::to_string(left()) + " bytes too many", where());
    }

private:
    Bytes bytes_;
    std::string section_;
    std::size_t at_ = 0;
};

// CRC-32 of ISO 3309, as zlib and PNG have it.
std::uint32_t crc32(Bytes bytes) {
    static const auto table = [] {
        std::array<std::uint32_t, 256> t{};
        for (std::uint32_t i = 0; i < 256; ++i) {
            std::uint32_t c = i;
            for (int bit = 0; bit < 8; ++bit) c = (c & 1) != 0 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
            t[i] = c;
        }
        return t;
    }();
    std::uint32_t c = 0xFFFFFFFFu;
    for (std::uint8_t byte : bytes) c = table[(c ^ byte) & 0xFF] ^ (c >> 8);
    return c ^ 0xFFFFFFFFu;
}

std::string hex(Bytes bytes) {
    static const char digits[] = "0123456789abcdef";
    std::string out;
    for (std::uint8_t byte : bytes) {
        out += digits[byte >> 4];
        out += digits[byte & 15];
    }
    return out;
}

// Header and section table: tag -> bytes. Sections lie inside the file, do not overlap, and each tag stands once.
using Sections = std::map<std::string, Bytes>;

void check_header(Bytes bytes) {
    if (bytes.size() < header_bytes)
        refuse_program("not a program: " + std::to_string(bytes.size()) + " bytes, shorter than a header", "byte 0");
    Reader header(bytes.first(header_bytes), "header");
    if (std::memcmp(header.take(4, "magic").data(), "LTCP", 4) != 0)
        refuse_program("not a program: the magic bytes LTCP are missing", "byte 0");
    const auto found_version = header.get<std::uint32_t>("version");
    if (found_version != version)
        refuse_program("program format " + std::to_string(found_version) + ", this build reads format " +
                           std::to_string(version), "byte 4");
    const Bytes hash = header.take(sizeof isa::hash, "hash");
    const auto size = header.get<std::uint64_t>("size");
    if (size != bytes.size())
        refuse_program("the header promises " + std::to_string(size) + " bytes, there are " +
                           std::to_string(bytes.size()), "byte 40");
    header.get<std::uint32_t>("section count");
    if (header.get<std::uint32_t>("checksum") != crc32(bytes.subspan(header_bytes)))
        refuse_program("the checksum does not fit the bytes: the program is damaged", "byte 52");
    if (!std::equal(hash.begin(), hash.end(), isa::hash))
        throw Refusal(RefusalKind::isa_mismatch,
                      "the program is for instruction set " + hex(hash.first(8)) + "..., this build has " +
                          hex(Bytes(isa::hash).first(8)) + "...",
                      "byte 8", "compile the model again with this version");
}

Sections read_sections(Bytes bytes) {
    static const char* const tags[] = {"CONF", "MACH", "CODE", "CORE", "WGHT", "SYNP", "GATH", "MODL", "SHAD", "META"};
    check_header(bytes);
    std::uint32_t n;
    std::memcpy(&n, bytes.data() + 48, sizeof n);
    if (n > std::size(tags)) refuse_program(std::to_string(n) + " sections, there are " + std::to_string(std::size(tags)), "byte 48");
    Reader table(bytes.subspan(header_bytes), "table");
    const std::uint64_t first = header_bytes + std::uint64_t{n} * table_entry_bytes;
    Sections sections;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> spans;
    for (std::uint32_t i = 0; i < n; ++i) {
        const std::string where = table.where();
        const Bytes raw = table.take(4, "a section tag");
        const std::string tag(raw.begin(), raw.end());
        const auto offset = table.get<std::uint64_t>("a section offset");
        const auto size = table.get<std::uint64_t>("a section size");
        if (std::find(std::begin(tags), std::end(tags), tag) == std::end(tags))
            refuse_program("unknown section " + hex(raw), where);
        if (offset % 64 != 0 || offset < first || offset > bytes.size() || size > bytes.size() - offset)
            refuse_program("section " + tag + " lies outside the file or off its alignment", where);
        if (!sections.emplace(tag, bytes.subspan(offset, size)).second)
            refuse_program("section " + tag + " stands twice", where);
        if (size != 0) spans.emplace_back(offset, offset + size);
    }
    std::sort(spans.begin(), spans.end());
    for (std::size_t i = 1; i < spans.size(); ++i)
        if (spans[i].first < spans[i - 1].second) refuse_program("two sections overlap", "byte " + std::to_string(spans[i].first));
    for (const char* tag : {"CONF", "MACH", "CODE", "CORE", "WGHT", "SYNP", "GATH", "MODL", "META"})
        if (!sections.contains(tag)) refuse_program("section " + std::string(tag) + " is missing", "section table");
    return sections;
}

std::uint32_t ranged(Reader& in, const char* name, std::uint32_t low, std::uint32_t high) {
    const std::string where = in.where();
    const auto value = in.get<std::uint32_t>(name);
    if (value < low || value > high)
        refuse_program(std::string(name) + " is " + std::to_string(value) + ", allowed are " + std::to_string(low) +
                           " to " + std::to_string(high), where);
    return value;
}

bool flag(Reader& in, const char* name) {
    const std::string where = in.where();
    const auto value = in.get<std::uint8_t>(name);
    if (value > 1) refuse_program(std::string(name) + " is " + std::to_string(value) + ", allowed are 0 and 1", where);
    return value != 0;
}

Machine read_machine(Reader in) {
    Machine m{};
    m.cores = ranged(in, "cores", 1, limits::cores);
    m.block_size = ranged(in, "block_size", limits::min_block_size, limits::max_block_size);
    if (!std::has_single_bit(m.block_size)) refuse_program("block_size is no power of two", in.where());
    m.weight_blocks = ranged(in, "weight_blocks", 0, limits::store);
    m.tensor_rows = ranged(in, "tensor_rows", 1, limits::store);
    m.accumulators = ranged(in, "accumulators", 1, limits::accumulators);
    m.synapse_slots = ranged(in, "synapse_slots", 0, limits::store);
    m.gather_entries = ranged(in, "gather_entries", 0, limits::store);
    m.instruction_slots = ranged(in, "instruction_slots", 1, limits::store);
    m.link_fifo_rows = ranged(in, "link_fifo_rows", 0, limits::fifo_rows);
    m.fp32_beats = ranged(in, "fp32_beats", 1, limits::cycles);
    m.issue_queue = ranged(in, "issue_queue", 1, limits::issue_queue);
    m.read_ports = ranged(in, "read_ports", limits::min_read_ports, limits::max_read_ports);
    m.fp32_matmul = flag(in, "fp32_matmul");
    m.fp8_weights = flag(in, "fp8_weights");
    m.synapse_unit = flag(in, "synapse_unit");
    in.take(1, "padding");
    for (std::uint32_t& latency : m.latencies) latency = ranged(in, "a latency", 1, limits::cycles);
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
        p.models.push_back(std::move(model));
    }
    in.finish();
}

}  // namespace

Program parse(std::span<const std::uint8_t> bytes, std::shared_ptr<const void> owner) {
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
    return p;
}

}  // namespace ltc
