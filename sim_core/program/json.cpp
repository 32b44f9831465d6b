// See json.h.
#include "program/json.h"

#include <charconv>
#include <system_error>

namespace ltc {
namespace {

bool digit(char c) { return c >= '0' && c <= '9'; }

// Appends a code point as UTF-8; half of a surrogate pair becomes U+FFFD.
void append_utf8(std::string& out, std::uint32_t c) {
    if (c >= 0xD800 && c < 0xE000) c = 0xFFFD;
    if (c < 0x80) {
        out += static_cast<char>(c);
    } else if (c < 0x800) {
        out += static_cast<char>(0xC0 | (c >> 6));
        out += static_cast<char>(0x80 | (c & 63));
    } else {
        if (c < 0x10000) {
            out += static_cast<char>(0xE0 | (c >> 12));
        } else {
            out += static_cast<char>(0xF0 | (c >> 18));
            out += static_cast<char>(0x80 | ((c >> 12) & 63));
        }
        out += static_cast<char>(0x80 | ((c >> 6) & 63));
        out += static_cast<char>(0x80 | (c & 63));
    }
}

// Whether bytes are UTF-8: no half of a surrogate pair, no longer form than needed.
bool is_utf8(std::string_view bytes) {
    for (std::size_t i = 0; i < bytes.size();) {
        const auto lead = static_cast<unsigned char>(bytes[i++]);
        if (lead < 0x80) continue;
        const int more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
        if (lead < 0xC2 || lead > 0xF4 || bytes.size() - i < static_cast<std::size_t>(more)) return false;
        std::uint32_t c = lead & (0x3Fu >> more);
        for (int n = 0; n < more; ++n) {
            const auto next = static_cast<unsigned char>(bytes[i++]);
            if ((next & 0xC0) != 0x80) return false;
            c = c << 6 | (next & 63);
        }
        if ((more == 2 && c < 0x800) || (more == 3 && c < 0x10000) || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) return false;
    }
    return true;
}

}  // namespace

Json::Json(Bytes bytes, std::string section)
    : left_(reinterpret_cast<const char*>(bytes.data()), bytes.size()), size_(bytes.size()), section_(std::move(section)) {
    if (!is_utf8(left_)) refuse("not UTF-8");
}

void Json::refuse(const std::string& what) const {
    refuse_program(what, "section " + section_ + ", byte " + std::to_string(size_ - left_.size()));
}

void Json::space() {
    const std::size_t n = left_.find_first_not_of(" \t\r\n");
    left_.remove_prefix(n == std::string_view::npos ? left_.size() : n);
}

char Json::peek() {
    space();
    if (left_.empty()) refuse("the JSON text ends too early");
    const char c = left_.front();
    return digit(c) || c == '-' ? '0' : c == 'f' ? 't' : c;
}

void Json::expect(char c) {
    space();
    if (left_.empty() || left_.front() != c) refuse(std::string("not JSON: ") + c + " expected");
    left_.remove_prefix(1);
}

void Json::open(char bracket) {
    expect(bracket);
    if (++depth_ > max_depth) refuse("JSON nested deeper than " + std::to_string(max_depth));
}

bool Json::more(char bracket, bool first) {
    if (peek() == bracket) {
        left_.remove_prefix(1);
        return false;
    }
    if (!first) expect(',');
    return true;
}

std::uint32_t Json::hex4() {
    std::uint32_t value = 0;
    const char* const end = left_.data() + 4;
    if (left_.size() < 4 || std::from_chars(left_.data(), end, value, 16).ptr != end) refuse("not JSON: \\u without four digits");
    left_.remove_prefix(4);
    return value;
}

void Json::escape(std::string& out) {
    static constexpr std::string_view names = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
    if (left_.empty()) refuse("not JSON: a text without an end");
    const char c = left_.front();
    left_.remove_prefix(1);
    if (const std::size_t n = names.find(c); n != std::string_view::npos) {
        out += meanings[n];
        return;
    }
    if (c != 'u') refuse("not JSON: an escape that there is not");
    std::uint32_t code = hex4();
    if (code >= 0xD800 && code < 0xDC00 && left_.starts_with("\\u")) {
        const std::string_view before = left_;
        left_.remove_prefix(2);
        const std::uint32_t low = hex4();
        if (low >= 0xDC00 && low < 0xE000) code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        else left_ = before;
    }
    append_utf8(out, code);
}

std::string Json::text() {
    expect('"');
    std::string out;
    for (;;) {
        std::size_t n = 0;
        while (n < left_.size() && left_[n] != '"' && left_[n] != '\\' && static_cast<unsigned char>(left_[n]) >= 0x20) ++n;
        out += left_.substr(0, n);
        left_.remove_prefix(n);
        if (left_.empty() || static_cast<unsigned char>(left_.front()) < 0x20) refuse("not JSON: a text without an end");
        const char c = left_.front();
        left_.remove_prefix(1);
        if (c == '"') return out;
        escape(out);
    }
}

std::string_view Json::digits() {
    space();
    std::size_t n = 0;
    const auto at = [&](char c) { return n < left_.size() && left_[n] == c; };
    const auto run = [&] {
        const std::size_t first = n;
        while (n < left_.size() && digit(left_[n])) ++n;
        if (n == first) refuse("not JSON: a number expected");
    };
    if (at('-')) ++n;
    if (at('0')) ++n;
    else run();
    if (at('.')) ++n, run();
    if (at('e') || at('E')) {
        ++n;
        if (at('+') || at('-')) ++n;
        run();
    }
    const std::string_view found = left_.substr(0, n);
    left_.remove_prefix(n);
    return found;
}

double Json::number() {
    const std::string_view found = digits();
    double value = 0;
    if (std::from_chars(found.data(), found.data() + found.size(), value).ec != std::errc{}) refuse("a number out of range");
    return value;
}

std::int64_t Json::integer() {
    const std::string_view found = digits();
    std::int64_t value = 0;
    const auto done = std::from_chars(found.data(), found.data() + found.size(), value);
    if (done.ec != std::errc{} || done.ptr != found.data() + found.size()) refuse(std::string(found.substr(0, 40)) + " is no integer in range");
    return value;
}

void Json::literal(std::string_view word) {
    space();
    if (!left_.starts_with(word)) refuse("not JSON: " + std::string(word) + " expected");
    left_.remove_prefix(word.size());
}

bool Json::flag() {
    space();
    const bool value = left_.starts_with('t');
    literal(value ? "true" : "false");
    return value;
}

void Json::null() { literal("null"); }

void Json::skip() {
    switch (peek()) {
        case '{': return object([this](std::string_view) { skip(); });
        case '[': return array([this] { skip(); });
        case '"': return static_cast<void>(text());
        case 't': return static_cast<void>(flag());
        case 'n': return null();
        default: digits();
    }
}

void Json::finish() {
    space();
    if (!left_.empty()) refuse("not JSON: something behind the end");
}

}  // namespace ltc
