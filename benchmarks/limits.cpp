// Bare kernels: the arithmetic of a program and nothing else, from packed weights, in the order that docs/numerics.md
// demands; and the cheapest call from Python with one array in and one out. What the simulator is measured against.
// _limits.py compiles it for this CPU and says which work a program has. It needs AVX-512 with bf16 dot products.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#define LTC_ISA bare
#include "kernels/synapse.h"
#include <sys/mman.h>

namespace {

using namespace ltc;
using namespace ltc::bare;
using V = Floats<16>;

enum Kind : std::int64_t { matmul_, synapse, sigmoid, tanh_, divide, pointwise };
struct Work {
    std::int64_t kind, k, n, batch;  // of a matmul: terms, vectors of outputs, batch; else n vectors
    std::size_t at;                  // its weights
};

constexpr std::int64_t pairs_of(std::int64_t k) { return (k + 15) / 16 * 8; }
constexpr std::size_t pair_words = 96;  // of two synapses on 16 targets: two slots of the simulator

// Rule 7 for N vectors of x and a group of 16 outputs, A accumulators in registers at a time: `parts` times A of them from
// accumulator A * first on, summed. Those that no pair reaches are +0.
template <int N>
struct Sums {
    V of[N];
};
template <int N, int A, int first, int parts>
LTC_INLINE Sums<N> dot(const std::uint32_t* w, const std::uint32_t* x, std::int64_t pairs) {
    Sums<N> sums{};
    if constexpr (parts > 1) {
        sums = dot<N, A, first, parts / 2>(w, x, pairs);
        if (A * (first + parts / 2) >= pairs) return sums;
        const Sums<N> more = dot<N, A, first + parts / 2, parts / 2>(w, x, pairs);
        for (int i = 0; i < N; ++i) sums.of[i] = sums.of[i] + more.of[i];
    } else {
        V a[N][A] = {};
        for (std::int64_t p = A * first; p < pairs; p += 64)
#pragma GCC unroll 8
            for (std::int64_t j = 0; j < A; ++j)
#pragma GCC unroll 4
                for (std::int64_t i = 0; i < N; ++i)
                    a[i][j] = add_pair_of<true>(a[i][j], load<U<V>>(w + (p + j) * 16), x + i * pairs + p + j);
        for (int i = 0; i < N; ++i) sums.of[i] = adjacent_tree(a[i]);
    }
    return sums;
}

template <int N, int A>
void multiply(const std::uint32_t* w, const std::uint32_t* x, float* y, std::int64_t pairs, std::int64_t groups) {
    for (std::int64_t g = 0; g < groups; ++g, w += pairs * 16) {
        const Sums<N> sums = dot<N, A, 0, 64 / A>(w, x, pairs);
        for (int i = 0; i < N; ++i) store(y + (i * groups + g) * 16, write_fp32(sums.of[i]));
    }
}

struct Memory {
    std::uint32_t* words;
    std::uint32_t* x;
    float* y;
};

void run(const Memory& m, const std::vector<Work>& list) {
    for (const Work& work : list) {
        const std::uint32_t* w = m.words + work.at;
        if (work.kind == matmul_) {
            const std::int64_t pairs = pairs_of(work.k);
            std::int64_t b = 0;
            for (; b + 4 <= work.batch; b += 4) multiply<4, 4>(w, m.x, m.y, pairs, work.n);
            for (; b < work.batch; ++b) multiply<1, 8>(w, m.x, m.y, pairs, work.n);
        } else if (work.kind == synapse) {
            static constexpr std::uint32_t list[8] = {};
            const SharedSources<16> sources{m.y, list};
            bare::Sums<16> sums;
            std::int64_t pairs = (work.n + 1) / 2;
            for (; pairs >= 4; pairs -= 4) add_pairs<true, 4>(sums, sources, w, 0);
            for (; pairs > 0; --pairs) add_pairs<true, 1>(sums, sources, w, 0);
            store(m.y + 16, sums.num);
            store(m.y + 32, sums.den);
        } else {
            for (std::int64_t i = 0; i < work.n; ++i) {
                float* at = m.y + i % 64 * 16;
                const V x = load<V>(at), one = splat<V>(1.0f);
                const V y = work.kind == sigmoid ? activation<Activation::sigmoid, true>(x)
                            : work.kind == tanh_ ? activation<Activation::tanh, true>(x)
                            : work.kind == divide ? write_fp32(one / (x + one))
                                                  : write_fp32(x * x);
                store(at + 1024, y);
            }
        }
    }
}

void* pages(std::size_t bytes) {
    const std::size_t huge = std::size_t{1} << 21;
    void* memory = std::aligned_alloc(huge, (bytes + huge) / huge * huge);
    if (memory != nullptr) madvise(memory, (bytes + huge) / huge * huge, MADV_HUGEPAGE);
    return memory;
}

// measure(work: list of (kind, k, n, batch), calls) -> microseconds of each call, as bytes of doubles.
PyObject* measure(PyObject*, PyObject* args) {
    PyObject* given;
    Py_ssize_t calls;
    if (!PyArg_ParseTuple(args, "On", &given, &calls)) return nullptr;
    std::vector<Work> list;
    std::size_t words = 0;
    for (Py_ssize_t n = 0; n < PySequence_Size(given); ++n) {
        PyObject* item = PySequence_GetItem(given, n);
        long long kind, k, count, batch;
        const int ok = item != nullptr && PyArg_ParseTuple(item, "LLLL", &kind, &k, &count, &batch);
        Py_XDECREF(item);
        if (!ok) return nullptr;
        list.push_back({kind, k, count, batch, words});
        words += static_cast<std::size_t>(kind == matmul_ ? pairs_of(k) * count * 16 : kind == synapse ? (count + 1) / 2 * pair_words : 0);
    }
    Memory m{static_cast<std::uint32_t*>(pages(words * 4 + 64)), static_cast<std::uint32_t*>(pages(1 << 20)),
             static_cast<float*>(pages(1 << 22))};
    for (std::size_t i = 0; i < words; ++i) m.words[i] = 0x3C003C00u + static_cast<std::uint32_t>(i % 97);
    for (std::size_t i = 0; i < (1 << 18); ++i) m.x[i] = 0x3F003F00u;
    for (std::size_t i = 0; i < (1 << 20); ++i) m.y[i] = 0.5f;
    std::vector<double> times;
    for (Py_ssize_t n = 0; n < calls + 3; ++n) {
        const auto begin = std::chrono::steady_clock::now();
        run(m, list);
        const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - begin;
        if (n >= 3) times.push_back(took.count());
    }
    std::free(m.words), std::free(m.x), std::free(m.y);
    return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(times.data()), static_cast<Py_ssize_t>(times.size() * 8));
}

// product(w words, x words, y floats, pairs): one group of 16 outputs, to compare its bits.
PyObject* product(PyObject*, PyObject* const* args, Py_ssize_t) {
    Py_buffer b[3];
    for (int n = 0; n < 3; ++n)
        if (PyObject_GetBuffer(args[n], &b[n], n == 2 ? PyBUF_WRITABLE : PyBUF_SIMPLE) != 0) return nullptr;
    multiply<1, 8>(static_cast<const std::uint32_t*>(b[0].buf), static_cast<const std::uint32_t*>(b[1].buf),
                   static_cast<float*>(b[2].buf), b[1].len / 4, b[0].len / 4 / 16 / (b[1].len / 4));
    for (Py_buffer& buffer : b) PyBuffer_Release(&buffer);
    Py_RETURN_NONE;
}

// vectors(kind, y: 2048 floats): a unit on the first 1024, its results behind them, to compare their bits.
PyObject* vectors(PyObject*, PyObject* const* args, Py_ssize_t) {
    const std::int64_t kind = PyLong_AsLongLong(args[0]);
    Py_buffer y;
    if (PyObject_GetBuffer(args[1], &y, PyBUF_WRITABLE) != 0) return nullptr;
    run({nullptr, nullptr, static_cast<float*>(y.buf)}, {{kind, 0, 64, 1, 0}});
    PyBuffer_Release(&y);
    Py_RETURN_NONE;
}

// An array in and an array out, and nothing done.
PyObject* empty(PyObject*, PyObject* const* args, Py_ssize_t) {
    Py_buffer in, out;
    if (PyObject_GetBuffer(args[0], &in, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) != 0) return nullptr;
    if (PyObject_GetBuffer(args[1], &out, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | PyBUF_WRITABLE) != 0) return nullptr;
    PyBuffer_Release(&in);
    PyBuffer_Release(&out);
    Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"measure", measure, METH_VARARGS, nullptr},
    {"product", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(product)), METH_FASTCALL, nullptr},
    {"vectors", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(vectors)), METH_FASTCALL, nullptr},
    {"empty", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(empty)), METH_FASTCALL, nullptr},
    {nullptr, nullptr, 0, nullptr},
};
PyModuleDef definition = {PyModuleDef_HEAD_INIT, "limits", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit_limits() { return PyModule_Create(&definition); }
