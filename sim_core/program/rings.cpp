// See rings.h.
#include "program/rings.h"

namespace ltc {

RingMap::RingMap(const Program& program) : program_(program), model_of_{nullptr} {
    for (const Core& core : program.cores) owners_.emplace_back(core.tensor_rows + 1);
    std::vector<std::uint32_t> found(program.cores.size());
    for (const Model& model : program.models)
        for (const Ring& ring : model.rings) {
            const std::string where = "ring at row " + std::to_string(ring.row) + " of model " + model.name;
            place(ring, static_cast<std::uint32_t>(model_of_.size()), where);
            model_of_.push_back(&model);
            if (++found[ring.core] > program.machine.rings)
                refuse_program("core " + std::to_string(ring.core) + " has more rings than the machine, " +
                                   std::to_string(program.machine.rings), where);
        }
    for (std::vector<Owner>& core : owners_)
        for (std::size_t r = 1; r < core.size(); ++r) core[r].before = core[r - 1].before + (core[r - 1].ring != none);
    check_states();
}

void RingMap::place(const Ring& ring, std::uint32_t number, const std::string& where) {
    if (ring.core >= owners_.size()) refuse_program("core " + std::to_string(ring.core) + " does not exist", where);
    if (ring.rows == 0 || ring.advance == 0 || ring.advance >= ring.places)
        refuse_program("it has no rows, or turns by none or all of its " + std::to_string(ring.places) + " places", where);
    std::vector<Owner>& core = owners_[ring.core];
    if (ring.end() >= core.size())
        refuse_program("it is longer than the store: it ends at row " + std::to_string(ring.end()) + ", core " +
                           std::to_string(ring.core) + " uses " + std::to_string(core.size() - 1), where);
    for (std::uint64_t r = ring.row; r < ring.end(); ++r) {
        if (core[r].ring != none) refuse_program("it shares row " + std::to_string(r) + " with another ring", where);
        core[r].ring = number;
    }
}

// Whether these rows are all of one ring, or all of none.
bool RingMap::whole(std::uint32_t core, std::uint64_t low, std::uint64_t high) const {
    const std::vector<Owner>& rows = owners_[core];
    return rows[low].ring == rows[high].ring && (rows[low].ring != none || rows[low].before == rows[high].before);
}

void RingMap::check_states() {
    std::vector<std::uint64_t> held(model_of_.size());
    for (const Model& model : program_.models)
        for (const State& state : model.states) {
            const std::uint64_t rows = program_.rows_of(state.shape);
            const auto hold = [&](std::uint32_t core, std::uint32_t row) {
                if (fault(model, core, row, row + rows - 1) != nullptr)
                    refuse_program("it lies in a ring in part, or in one of another model",
                                   "state " + state.name + " of model " + model.name);
                held[owners_[core][row].ring] += rows;
            };
            hold(state.core, state.row);
            for (const State::Copy& copy : state.copies) hold(copy.core, copy.row);
        }
    std::size_t number = 1;
    for (const Model& model : program_.models)
        for (const Ring& ring : model.rings)
            if (held[number++] != ring.end() - ring.row)
                refuse_program("it has rows of no state", "ring at row " + std::to_string(ring.row) + " of model " + model.name);
}

const char* RingMap::fault(const Model& model, std::uint32_t core, std::uint64_t low, std::uint64_t high) const {
    if (!whole(core, low, high)) return "its rows pass an end of a ring";
    const std::uint32_t ring = owners_[core][low].ring;
    return ring == none || model_of_[ring] == &model ? nullptr : "its rows are a ring of another model";
}

}  // namespace ltc
