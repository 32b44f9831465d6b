// JSON read front to back (RFC 8259), without building it in memory: what a reader does not ask for is looked at and passed
// over. It refuses what is no JSON, and nesting deeper than `max_depth`.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "program/reader.h"

namespace ltc {

class Json {
public:
    static constexpr int max_depth = 64;

    // section: for the refusals.
    Json(Bytes bytes, std::string section);

    // What the next value is: one of { [ " 0 t n for object, array, text, number, true or false, null.
    char peek();

    // Calls member(key) for each member; it reads the value, or calls skip.
    template <class Member>
    void object(Member member) {
        open('{');
        for (bool first = true; more('}', first); first = false) {
            const std::string key = text();
            expect(':');
            member(std::string_view(key));
        }
        --depth_;
    }
    // Calls element() for each element, which reads it or calls skip.
    template <class Element>
    void array(Element element) {
        open('[');
        for (bool first = true; more(']', first); first = false) element();
        --depth_;
    }
    std::string text();
    double number();
    std::int64_t integer();  // refuses a number with a fraction or an exponent
    bool flag();
    void null();
    void skip();
    void finish();  // refuses anything but space behind the value

    [[noreturn]] void refuse(const std::string& what) const;

private:
    void space();
    void open(char bracket);
    bool more(char bracket, bool first);
    void expect(char c);
    void literal(std::string_view word);
    std::string_view digits();  // of a number, as JSON writes it
    void escape(std::string& out);
    std::uint32_t hex4();

    std::string_view left_;
    std::size_t size_;
    std::string section_;
    int depth_ = 0;
};

}  // namespace ltc
