// Values taken off the front of a section's bytes, little endian as every machine that this builds for. Every size is
// checked against the bytes that are there before anything is allocated for it.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "host/refusal.h"
#include "program/program.h"

namespace ltc {

static_assert(std::endian::native == std::endian::little, "the container is read by memcpy");

using Bytes = std::span<const std::uint8_t>;

// Refuses to pass the end of its section.
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

// A number from low to high, or a flag of 0 or 1; refuses any other.
inline std::uint32_t ranged(Reader& in, const char* name, std::uint32_t low, std::uint32_t high) {
    const std::string where = in.where();
    const auto value = in.get<std::uint32_t>(name);
    if (value < low || value > high)
        refuse_program(std::string(name) + " is " + std::to_string(value) + ", allowed are " + std::to_string(low) +
                           " to " + std::to_string(high), where);
    return value;
}

inline bool flag(Reader& in, const char* name) {
    const std::string where = in.where();
    const auto value = in.get<std::uint8_t>(name);
    if (value > 1) refuse_program(std::string(name) + " is " + std::to_string(value) + ", allowed are 0 and 1", where);
    return value != 0;
}

}  // namespace ltc
