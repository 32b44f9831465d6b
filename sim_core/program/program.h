// A program as the core holds it: parsed and verified once, then shared read-only by every VM made from it and by the
// timing walk. Everything here has been checked: a reader may index without looking.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "host/refusal.h"
#include "program/machine.h"

namespace ltc {

// One decoded instruction. `operands` holds the struct of its format (isa.gen.h); read it with as<isa::Unary>() etc.
struct Instruction {
    static constexpr std::size_t max_words = 33;

    isa::Opcode opcode;
    std::uint8_t core;           // isa::all_cores for loop and end
    std::uint8_t depth;          // loops around it; a loop's own and its end's level is depth + 1
    std::uint32_t match;         // of a loop: the index of its end; of an end: the index of its loop
    std::uint32_t operands[max_words];

    const isa::InstructionInfo& info() const { return isa::instructions[static_cast<std::size_t>(opcode)]; }
    const isa::FormatInfo& format() const { return isa::formats[static_cast<std::size_t>(info().format)]; }

    template <class Operands>
    Operands as() const {
        static_assert(std::is_trivially_copyable_v<Operands> && sizeof(Operands) <= sizeof(operands));
        Operands out;
        std::memcpy(&out, operands, sizeof out);
        return out;
    }
    isa::Row row(std::size_t word) const { return {operands[word], static_cast<std::int32_t>(operands[word + 1]), operands[word + 2]}; }
    std::int32_t step(std::size_t word) const { return static_cast<std::int32_t>(operands[word]); }
};

struct ConstantRange {
    std::uint32_t row;
    std::uint32_t rows;
    std::vector<float> data;      // [rows][B]
    std::vector<float> original;  // the same before it was rounded to bf16; empty without section SHAD
};

// Numbers of a store: a view of the file's, or a copy of its own.
template <class T>
struct Numbers {
    std::span<const T> of_file;
    std::vector<T> own;

    const T* data() const { return own.empty() ? of_file.data() : own.data(); }
    std::size_t size() const { return own.empty() ? of_file.size() : own.size(); }
    const T& operator[](std::size_t n) const { return data()[n]; }
};

// The synapse store of a core, array by array: [slots] or [slots][B].
struct SlotStore {
    std::vector<std::uint16_t> src;  // isa::absent: no synapse in this lane
    std::vector<float> mu, sigma, w, we;
    std::vector<std::uint8_t> last;      // 1 ends the slots of a target row
    std::vector<std::uint32_t> run;      // slots from this one to the next one marked last, both included; 0: none
    std::vector<std::uint16_t> max_src;  // largest source of the slot, over the lanes that have a synapse
};

// The gather store of a core.
struct EntryStore {
    std::vector<std::int32_t> src, dst;  // row offsets
    std::vector<std::uint8_t> clear;
    std::vector<std::uint16_t> lane;  // [entries][B]; isa::absent: the lane keeps its value or is cleared
};

struct Core {
    std::uint32_t tensor_rows = 0;
    std::uint32_t weight_blocks = 0;
    std::uint32_t synapse_slots = 0;
    std::uint32_t gather_entries = 0;
    std::vector<ConstantRange> constants;
    Numbers<std::uint16_t> weights;  // [blocks][B][B], row-major: [output][input]
    SlotStore slots;
    EntryStore entries;
    Numbers<float> shadow_weights;  // fp32 originals [blocks][B][B]; empty without section SHAD
    Numbers<float> shadow_slots;    // [slots][4][B]: mu, sigma, w, we
};

enum class Role : std::uint8_t { plain, elapsed_time };

// An array on the host: fp32, C order. Its vectors (the last axis) start on a new row each.
struct Shape {
    std::vector<std::uint32_t> dims;

    std::size_t elements() const {
        std::size_t n = 1;
        for (std::uint32_t d : dims) n *= d;
        return n;
    }
    std::size_t width() const { return dims.empty() ? 1 : dims.back(); }
    std::size_t vectors() const { return elements() / width(); }
};

struct Port {
    std::string name;
    Role role;
    isa::Precision precision;
    Shape shape;
};

struct State {
    std::string name;
    Shape shape;
    std::uint32_t core;
    std::uint32_t row;  // the first of shape.vectors() * rows(shape.width())
    struct Copy {
        std::uint32_t core, row;
    };
    std::vector<Copy> copies;  // the same rows on other cores
};

// Rows of a core whose addresses are logical: place 0 is the oldest. After n inferences of its model, logical place p stands
// at place (p + n * advance) mod places.
struct Ring {
    std::uint32_t core, row;
    std::uint32_t places, rows;  // rows of a place
    std::uint32_t advance;       // places

    std::uint64_t end() const { return row + std::uint64_t{places} * rows; }
    bool holds(std::uint64_t r) const { return r >= row && r < end(); }
};

struct Model {
    std::string name;
    std::uint32_t code_begin, code_end;
    std::vector<Port> inputs, outputs;
    std::vector<State> states;
    std::vector<Ring> rings;
};

struct Program {
    Machine machine;
    std::vector<Instruction> code;
    std::vector<Core> cores;
    std::vector<Model> models;
    std::vector<std::uint32_t> fifo_rows;  // [source * cores + target]: most rows that the link FIFO ever holds
    bool has_shadow = false;
    std::shared_ptr<const void> file;  // the bytes that `of_file` looks into, if any

    std::uint64_t rows_of(const Shape& shape) const { return shape.vectors() * machine.rows(shape.width()); }
};

struct Metadata;

// Reads and verifies a program (docs/architecture.md: container). Throws Refusal; never reads outside `bytes`, and
// allocates no more than a small multiple of them. `owner` keeps the bytes alive: large stores stay where they are.
// metadata: of the same file (metadata.h), where it is asked for.
Program parse(std::span<const std::uint8_t> bytes, std::shared_ptr<const void> owner, Metadata* metadata = nullptr);

// The rules that hold between the parts of a parsed program; fills depth, match and fifo_rows. Called by parse.
void verify(Program& program);

// The model of an index; throws Refusal if there is none.
[[noreturn]] void refuse_model(const Program& program, std::ptrdiff_t index);
inline const Model& model_at(const Program& program, std::ptrdiff_t index) {
    if (static_cast<std::size_t>(index) < program.models.size()) return program.models[static_cast<std::size_t>(index)];
    refuse_model(program, index);
}

// "instruction 12 (add)", for the message of a refusal.
std::string name_of(const Program& program, std::size_t index);

}  // namespace ltc
