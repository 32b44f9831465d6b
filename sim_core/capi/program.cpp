// Programs in C: reading them, and what they say of themselves.
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <utility>

#include "capi/handles.h"
#include "program/work.h"
#include "vm/self_test.h"

using namespace ltc::capi;

namespace {

using Content = std::vector<std::uint8_t>;

constexpr ltc_load_options default_load_options = LTC_LOAD_OPTIONS_INIT;

// The bytes of a file; no more of one than it says of itself, and a piece of one that is no program.
ltc_status read_file(const char* path, Content& out, ltc_error* error) {
    constexpr std::size_t piece = 1 << 20, size_at = 40;
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path, "rb"), &std::fclose);
    errno = file == nullptr ? errno : 0;
    for (std::uint64_t promised = piece; file != nullptr && out.size() <= promised;) {
        const std::size_t before = out.size();
        out.resize(before + std::max(piece, before));
        out.resize(before + std::fread(out.data() + before, 1, out.size() - before, file.get()));
        if (out.size() == before) break;
        if (before == 0 && out.size() >= size_at + sizeof promised && std::memcmp(out.data(), "LTCP", 4) == 0)
            std::memcpy(&promised, out.data() + size_at, sizeof promised);
    }
    if (file != nullptr && std::ferror(file.get()) == 0) return LTC_OK;
    return fail(error, LTC_FILE, path, "give a file that Program.save wrote", "cannot be read: %s", std::strerror(errno));
}

ltc_status load(std::shared_ptr<const Content> content, std::uint64_t max_work, ltc_program** out) {
    auto metadata = std::make_shared<ltc::Metadata>();
    const std::span<const std::uint8_t> bytes(*content);
    auto program = std::make_shared<const ltc::Program>(ltc::parse(bytes, std::move(content), metadata.get()));
    for (const ltc::Model& model : program->models)
        ltc::check_work(*program, model, 1, max_work, "lower the trip counts of its loops, or give a larger max_work");
    *out = new ltc_program{std::move(program), std::move(metadata)};
    return LTC_OK;
}

// What both ways to load look at first; *options is never NULL behind it.
ltc_status check_load(std::uint32_t api_version, const void* source, const char* name, const ltc_load_options** options, ltc_program** out,
                      ltc_error* error) noexcept {
    if (out != nullptr) *out = nullptr;
    if (api_version != LTC_API_VERSION)
        return fail(error, LTC_VERSION, "api_version", "compile with the ltc.h of this library",
                    "the caller was compiled for version %u of the API, this library has version %u", api_version, LTC_API_VERSION);
    if (out == nullptr) return null_argument(error, "out");
    if (source == nullptr) return null_argument(error, name);
    if (*options == nullptr) *options = &default_load_options;
    return check_size(error, *options, "options");
}

void fill(ltc_port_info* info, const std::string& name, const ltc::Shape& shape) noexcept {
    *info = LTC_PORT_INFO_INIT;
    info->name = name.c_str();
    info->rank = static_cast<std::uint32_t>(shape.dims.size());
    std::ranges::copy(shape.dims, info->shape);
    info->count = shape.elements();
    info->precision = "fp32";
    info->role = "plain";
}

ltc_status port(const ltc_program* program, std::size_t model, std::size_t index, ltc_port_info* info, ltc_error* error,
                std::vector<ltc::Port> ltc::Model::* side, std::vector<ltc::PortStream> ltc::ModelMetadata::* streams, const char* kind) noexcept {
    if (!known(error)) return LTC_VERSION;
    if (program == nullptr) return null_argument(error, "program");
    if (const ltc_status status = check_size(error, info, "info")) return status;
    if (const ltc_status status = check_model(error, *program->program, model)) return status;
    const std::vector<ltc::Port>& ports = program->program->models[model].*side;
    if (index >= ports.size()) return no_index(error, kind, index, ports.size());
    fill(info, ports[index].name, ports[index].shape);
    if (ports[index].precision == ltc::isa::Precision::bf16) info->precision = "bf16";
    if (ports[index].role == ltc::Role::elapsed_time) info->role = "elapsed_time";
    const ltc::PortStream& stream = (program->metadata->models[model].*streams)[index];
    info->streaming_axis = stream.axis;
    info->latency = stream.latency;
    info->tail = stream.tail;
    return LTC_OK;
}

}  // namespace

// ---- the library -----------------------------------------------------------------------------------------------------

uint32_t ltc_api_version(void) { return LTC_API_VERSION; }

const char* ltc_version(void) { return LTC_PROJECT_VERSION; }

const char* ltc_status_name(ltc_status status) {
    static const char* const names[] = {"LTC_OK", "LTC_ARGUMENT", "LTC_VERSION", "LTC_FILE", "LTC_PROGRAM", "LTC_ISA", "LTC_INPUT",
                                        "LTC_STATE", "LTC_CONFIG", "LTC_ARITHMETIC", "LTC_BUSY", "LTC_MEMORY", "LTC_STRUCTURE",
                                        "LTC_FULL", "LTC_CANCELLED", "LTC_INTERNAL"};
    return status >= 0 && static_cast<std::size_t>(status) < std::size(names) ? names[status] : "unknown";
}

const char* ltc_kernels(size_t index) { return ltc::kernels_name(index); }

ltc_status ltc_self_test(const char* kernels, ltc_error* error) {
    return guard(error, [&]() -> ltc_status {
        ltc::require_self_test(ltc::choose_kernels(kernels));
        return LTC_OK;
    });
}

// ---- programs --------------------------------------------------------------------------------------------------------

ltc_status ltc_program_load(uint32_t api_version, const char* path, const ltc_load_options* options, ltc_program** out, ltc_error* error) {
    return guard(error, [&]() -> ltc_status {
        if (const ltc_status status = check_load(api_version, path, "path", &options, out, error)) return status;
        auto content = std::make_shared<Content>();
        if (const ltc_status status = read_file(path, *content, error)) return status;
        try {
            return load(std::move(content), options->max_work, out);
        } catch (ltc::Refusal& refusal) {
            refusal.where = std::string(path) + ": " + refusal.where;
            throw;
        }
    });
}

ltc_status ltc_program_load_memory(uint32_t api_version, const void* bytes, size_t count, const ltc_load_options* options,
                                   ltc_program** out, ltc_error* error) {
    return guard(error, [&]() -> ltc_status {
        if (const ltc_status status = check_load(api_version, bytes, "bytes", &options, out, error)) return status;
        const auto* const first = static_cast<const std::uint8_t*>(bytes);
        return load(std::make_shared<const Content>(first, first + count), options->max_work, out);
    });
}

void ltc_program_free(ltc_program* program) { delete program; }

size_t ltc_program_models(const ltc_program* program) { return program == nullptr ? 0 : program->program->models.size(); }

ltc_status ltc_program_machine(const ltc_program* program, ltc_machine_info* info, ltc_error* error) {
    if (!known(error)) return LTC_VERSION;
    if (program == nullptr) return null_argument(error, "program");
    if (const ltc_status status = check_size(error, info, "info")) return status;
    info->cores = program->program->machine.cores;
    info->block_size = program->program->machine.block_size;
    info->reserved = 0;
    info->clock_mhz = program->metadata->clock_mhz;
    info->name = program->metadata->machine.c_str();
    info->configuration = program->metadata->configuration.c_str();
    return LTC_OK;
}

ltc_status ltc_program_model(const ltc_program* program, size_t model, ltc_model_info* info, ltc_error* error) {
    if (!known(error)) return LTC_VERSION;
    if (program == nullptr) return null_argument(error, "program");
    if (const ltc_status status = check_size(error, info, "info")) return status;
    if (const ltc_status status = check_model(error, *program->program, model)) return status;
    const ltc::Model& found = program->program->models[model];
    const ltc::ModelMetadata& metadata = program->metadata->models[model];
    *info = LTC_MODEL_INFO_INIT;
    info->inputs = static_cast<std::uint32_t>(found.inputs.size());
    info->outputs = static_cast<std::uint32_t>(found.outputs.size());
    info->states = static_cast<std::uint32_t>(found.states.size());
    info->name = found.name.c_str();
    info->block_steps = metadata.block;
    info->max_steps = metadata.limit;
    info->can_reset = program->metadata->can_reset ? 1 : 0;
    return LTC_OK;
}

ltc_status ltc_program_find_model(const ltc_program* program, const char* name, size_t* model, ltc_error* error) {
    if (!known(error)) return LTC_VERSION;
    if (program == nullptr) return null_argument(error, "program");
    if (name == nullptr) return null_argument(error, "name");
    if (model == nullptr) return null_argument(error, "model");
    const std::vector<ltc::Model>& models = program->program->models;
    const auto found = std::ranges::find(models, name, &ltc::Model::name);
    if (found == models.end())
        return fail(error, LTC_ARGUMENT, "name", "ltc_program_model gives their names", "none of the %zu models is called '%s'", models.size(), name);
    *model = static_cast<std::size_t>(found - models.begin());
    return LTC_OK;
}

ltc_status ltc_program_input(const ltc_program* program, size_t model, size_t index, ltc_port_info* info, ltc_error* error) {
    return port(program, model, index, info, error, &ltc::Model::inputs, &ltc::ModelMetadata::inputs, "input");
}

ltc_status ltc_program_output(const ltc_program* program, size_t model, size_t index, ltc_port_info* info, ltc_error* error) {
    return port(program, model, index, info, error, &ltc::Model::outputs, &ltc::ModelMetadata::outputs, "output");
}

ltc_status ltc_program_state(const ltc_program* program, size_t model, size_t index, ltc_port_info* info, ltc_error* error) {
    if (!known(error)) return LTC_VERSION;
    if (program == nullptr) return null_argument(error, "program");
    if (const ltc_status status = check_size(error, info, "info")) return status;
    if (const ltc_status status = check_model(error, *program->program, model)) return status;
    const std::vector<ltc::State>& states = program->program->models[model].states;
    if (index >= states.size()) return no_index(error, "state", index, states.size());
    fill(info, states[index].name, states[index].shape);
    info->role = program->metadata->models[model].kinds[index].c_str();
    return LTC_OK;
}
