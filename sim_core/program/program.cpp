// See program.h.
#include "program/program.h"

namespace ltc {

void refuse_model(const Program& program, std::ptrdiff_t index) {
    const std::vector<Model>& models = program.models;
    std::string listed;
    for (std::size_t n = 0; n < models.size(); ++n) listed += (n != 0 ? ", " : "") + std::to_string(n) + " '" + models[n].name + "'";
    throw Refusal(RefusalKind::input, "no model " + std::to_string(index), "model_index", "the models are " + listed);
}

std::string name_of(const Program& program, std::size_t index) {
    return "instruction " + std::to_string(index) + " (" + program.code[index].info().name + ")";
}

}  // namespace ltc
