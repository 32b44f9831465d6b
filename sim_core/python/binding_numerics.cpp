// _core.numerics: the C++ half of the numeric contract on NumPy arrays. It converts, under a FlushGuard as every entry
// into the core is, and does nothing more.
#include "kernels/choose.h"
#include "numerics/numerics.h"
#include "numerics/numerics_api.h"
#include "vm/self_test.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>

namespace nb = nanobind;

void bind_numerics(nb::module_& parent);

namespace {

template <class T>
using Vector = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Matrix = nb::ndarray<const T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class T>
using Result = nb::ndarray<nb::numpy, T, nb::ndim<1>>;

template <class T>
Result<T> fresh(std::size_t n) {
    auto data = std::make_unique<T[]>(n);
    nb::capsule owner(data.get(), [](void* p) noexcept { delete[] static_cast<T*>(p); });
    return Result<T>(data.release(), {n}, owner);
}

void require(bool holds, const char* message) {
    if (!holds) throw std::invalid_argument(message);
}

Result<float> apply(ltc::Unary run, const Vector<float>& x) {
    auto y = fresh<float>(x.size());
    const ltc::FlushGuard guard;
    run(x.data(), y.data(), x.size());
    return y;
}

Result<float> apply(ltc::Binary run, const Vector<float>& a, const Vector<float>& b) {
    require(a.size() == b.size(), "a and b must have one length");
    auto y = fresh<float>(a.size());
    const ltc::FlushGuard guard;
    run(a.data(), b.data(), y.data(), a.size());
    return y;
}

Result<float> activation(std::span<const ltc::Named<ltc::Unary>> units, const char* name,
                         const Vector<float>& x) {
    for (const auto& unit : units)
        if (std::strcmp(name, unit.name) == 0) return apply(unit.run, x);
    throw std::invalid_argument("no activation unit is called " + std::string(name));
}

Result<float> dot(const Matrix<float>& w, const Vector<float>& x) {
    require(w.shape(1) == x.size(), "w (m, k) and x (k) must share k");
    auto y = fresh<float>(w.shape(0));
    const ltc::FlushGuard guard;
    ltc::dot_rows(w.data(), x.data(), y.data(), w.shape(0), w.shape(1));
    return y;
}

Result<float> select_lanes(const Vector<float>& condition, const Vector<float>& a, const Vector<float>& b) {
    require(condition.size() == a.size() && a.size() == b.size(), "the operands must have one length");
    auto y = fresh<float>(a.size());
    const ltc::FlushGuard guard;
    ltc::select_each(condition.data(), a.data(), b.data(), y.data(), a.size());
    return y;
}

using Rows = void (*)(const float* x, float* y, std::size_t m, std::size_t k) noexcept;

Result<float> reduce(Rows rows, const Matrix<float>& x) {
    require(x.shape(1) > 0, "the reduced axis must not be empty");
    auto y = fresh<float>(x.shape(0));
    const ltc::FlushGuard guard;
    rows(x.data(), y.data(), x.shape(0), x.shape(1));
    return y;
}

void require_exponent(int exponent) {
    require(exponent >= -120 && exponent <= 120, "exponent must be in -120..120");
}

nb::tuple synapse(const Vector<float>& v, const Matrix<std::int32_t>& source, const Matrix<float>& mu,
                  const Matrix<float>& sigma, const Matrix<float>& w, const Matrix<float>& we, bool fp32) {
    const std::size_t slots = source.shape(0), targets = source.shape(1);
    for (const auto* p : {&mu, &sigma, &w, &we})
        require(p->shape(0) == slots && p->shape(1) == targets, "every parameter must be (slots, targets)");
    for (std::size_t i = 0; i < source.size(); ++i)
        require(source.data()[i] < static_cast<std::int64_t>(v.size()), "a source is outside v");
    auto num = fresh<float>(targets), den = fresh<float>(targets);
    const ltc::Synapses all{source.data(), mu.data(), sigma.data(), w.data(), we.data(), slots, targets};
    const ltc::FlushGuard guard;
    ltc::synapse_sums(v.data(), all, fp32, num.data(), den.data());
    return nb::make_tuple(num, den);
}

Result<float> ltc_update(const Matrix<float>& columns) {
    require(columns.shape(0) == 7, "columns must be (7, n): v, num, den, leak, conductance, cm, h");
    const std::size_t n = columns.shape(1);
    const float* column[7];
    for (std::size_t i = 0; i < 7; ++i) column[i] = columns.data() + i * n;
    auto y = fresh<float>(n);
    const ltc::FlushGuard guard;
    ltc::ltc_update_each(column, y.data(), n);
    return y;
}

// A class of static functions: a stub can describe it where it could not describe a submodule.
struct Numerics {};
using Namespace = nb::class_<Numerics>;

void bind_tables(Namespace& m) {
    for (const auto& [name, run] : ltc::unary_operators())
        m.def_static(name, [run = run](const Vector<float>& x) { return apply(run, x); }, nb::arg("x"));
    for (const auto& [name, run] : ltc::binary_operators())
        m.def_static(name, [run = run](const Vector<float>& a, const Vector<float>& b) { return apply(run, a, b); },
              nb::arg("a"), nb::arg("b"));
    m.def_static("activation_bf16", [](const char* name, const Vector<float>& x) {
        return activation(ltc::bf16_activations(), name, x);
    }, nb::arg("name"), nb::arg("x"));
    m.def_static("activation_fp32", [](const char* name, const Vector<float>& x) {
        return activation(ltc::fp32_activations(), name, x);
    }, nb::arg("name"), nb::arg("x"));
}

nb::list self_test() {
    nb::list out;
    for (const ltc::Proof& proof : ltc::self_test(ltc::choose_kernels()))
        out.append(nb::make_tuple(proof.name.c_str(), proof.found, proof.expected));
    return out;
}

}  // namespace

void bind_numerics(nb::module_& parent) {
    Namespace m(parent, "numerics", "The C++ half of the numeric contract, for comparison.");
    bind_tables(m);
    m.def_static("select", &select_lanes, nb::arg("condition"), nb::arg("a"), nb::arg("b"));
    m.def_static("dot", &dot, nb::arg("w"), nb::arg("x"));
    m.def_static("tree_sum", [](const Matrix<float>& x) { return reduce(ltc::tree_sum_rows, x); }, nb::arg("x"));
    m.def_static("reduce_max", [](const Matrix<float>& x) { return reduce(ltc::reduce_max_rows, x); }, nb::arg("x"));
    m.def_static("encode_fp8_e4m3", [](const Vector<float>& x, int exponent) {
        require_exponent(exponent);
        auto y = fresh<std::uint8_t>(x.size());
        const ltc::FlushGuard guard;
        ltc::encode_fp8(x.data(), y.data(), x.size(), exponent);
        return y;
    }, nb::arg("x"), nb::arg("exponent"));
    m.def_static("decode_fp8_e4m3", [](const Vector<std::uint8_t>& x, int exponent) {
        require_exponent(exponent);
        auto y = fresh<float>(x.size());
        const ltc::FlushGuard guard;
        ltc::decode_fp8(x.data(), y.data(), x.size(), exponent);
        return y;
    }, nb::arg("x"), nb::arg("exponent"));
    m.def_static("synapse", &synapse, nb::arg("v"), nb::arg("source"), nb::arg("mu"), nb::arg("sigma"), nb::arg("w"),
          nb::arg("we"), nb::arg("fp32"), "source < 0 marks an absent slot.");
    m.def_static("ltc_update", &ltc_update, nb::arg("columns"));
    m.def_static("flush_guard_holds", &ltc::flush_guard_holds);
    m.def_static("self_test", &self_test, nb::sig("def self_test() -> list[tuple[str, int, int]]"),
                 "What the kernels named by LTC_SIMD compute: for each pinned result its name, the hash found, and the hash\n"
                 "pinned. A VM makes sure that they are equal before it is made.");
}
