// Arrays of Python as the core takes them, through the buffer protocol: it costs a fraction of what an ndarray object does.
// Whatever is not a C-contiguous float32 array is refused here, and of the wrong shape in vm/checked.h; ltc_compiler/vm.py
// then says so at length or converts it.
#pragma once

#include <nanobind/nanobind.h>

#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "vm/checked.h"

// A float32 array of the caller's, held while the VM uses it.
class Buffer {
public:
    // name, shape, leading: of the array that is expected, for the refusal.
    Buffer(PyObject* object, const std::string& name, const ltc::Shape& shape, ltc::Leading leading, bool writable) {
        const int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0);
        const bool given = PyObject_GetBuffer(object, &view_, flags) == 0;
        if (given && view_.format != nullptr && std::strcmp(view_.format, "f") == 0 && view_.itemsize == sizeof(float)) return;
        ltc::refuse_array(name, shape, leading, writable, given ? released() : type_of(object));
    }
    ~Buffer() {
        if (view_.obj != nullptr) PyBuffer_Release(&view_);
    }
    Buffer(Buffer&& other) noexcept : view_(other.view_) { other.view_.obj = nullptr; }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    ltc::HostArray array() const { return {static_cast<float*>(view_.buf), dims()}; }

private:
    // What the object is that has no such buffer, or what its buffer is.
    [[gnu::cold]] static std::string type_of(PyObject* object) {
        PyErr_Clear();
        return nanobind::steal<nanobind::str>(PyObject_Str(reinterpret_cast<PyObject*>(Py_TYPE(object)))).c_str();
    }
    [[gnu::cold]] std::string released() {
        const std::string format = view_.format == nullptr ? "B" : view_.format;
        const std::string given = "format " + format + ", shape " + ltc::text(dims());
        PyBuffer_Release(&view_);
        return given;
    }

    std::span<const std::ptrdiff_t> dims() const { return {view_.shape, static_cast<std::size_t>(view_.ndim)}; }

    Py_buffer view_;
};

// The arrays of all ports on one side. Its memory is taken once, by reserve(): a call only borrows arrays.
class Buffers {
public:
    void reserve(std::size_t ports) {
        buffers_.reserve(ports);
        arrays_.reserve(ports);
    }

    // values: a tuple or list with one array per port, or the one array itself.
    void borrow(const std::vector<ltc::Port>& ports, nanobind::handle values, ltc::Leading leading, ltc::Side side) {
        const bool tuple = PyTuple_Check(values.ptr()), list = !tuple && PyList_Check(values.ptr());
        const auto n = static_cast<std::size_t>(tuple ? PyTuple_Size(values.ptr()) : list ? PyList_Size(values.ptr()) : 1);
        if (n != ports.size()) ltc::refuse_count(ports, side, n);
        for (std::size_t i = 0; i < n; ++i) {
            const auto at = static_cast<Py_ssize_t>(i);
            PyObject* value = tuple ? PyTuple_GetItem(values.ptr(), at) : list ? PyList_GetItem(values.ptr(), at) : values.ptr();
            buffers_.emplace_back(value, ports[i].name, ports[i].shape, leading, side == ltc::Side::outputs);
            arrays_.push_back(buffers_.back().array());
        }
    }
    void give_back() {
        buffers_.clear();
        arrays_.clear();
    }

    std::span<const ltc::HostArray> arrays() const { return arrays_; }

private:
    std::vector<Buffer> buffers_;
    std::vector<ltc::HostArray> arrays_;
};
