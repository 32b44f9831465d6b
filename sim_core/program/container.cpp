// See container.h.
#include "program/container.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "isa.gen.h"

namespace ltc {
namespace {

constexpr std::uint32_t version = 3;
constexpr std::size_t header_bytes = 56;
constexpr std::size_t table_entry_bytes = 20;

// CRC-32 of ISO 3309, as zlib and PNG have it.
std::uint32_t crc32(Bytes bytes) {
    static const auto table = [] {
        std::array<std::uint32_t, 256> t{};
        for (std::uint32_t i = 0; i < 256; ++i) {
            std::uint32_t c = i;
            for (int bit = 0; bit < 8; ++bit) c = (c & 1) != 0 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
            t[i] = c;
        }
        return t;
    }();
    std::uint32_t c = 0xFFFFFFFFu;
    for (std::uint8_t byte : bytes) c = table[(c ^ byte) & 0xFF] ^ (c >> 8);
    return c ^ 0xFFFFFFFFu;
}

std::string hex(Bytes bytes) {
    static const char digits[] = "0123456789abcdef";
    std::string out;
    for (std::uint8_t byte : bytes) {
        out += digits[byte >> 4];
        out += digits[byte & 15];
    }
    return out;
}

void check_header(Bytes bytes) {
    if (bytes.size() < header_bytes)
        refuse_program("not a program: " + std::to_string(bytes.size()) + " bytes, shorter than a header", "byte 0");
    Reader header(bytes.first(header_bytes), "header");
    if (std::memcmp(header.take(4, "magic").data(), "LTCP", 4) != 0)
        refuse_program("not a program: the magic bytes LTCP are missing", "byte 0");
    const auto found_version = header.get<std::uint32_t>("version");
    if (found_version != version)
        refuse_program("program format " + std::to_string(found_version) + ", this build reads format " +
                           std::to_string(version), "byte 4");
    const Bytes hash = header.take(sizeof isa::hash, "hash");
    const auto size = header.get<std::uint64_t>("size");
    if (size != bytes.size())
        refuse_program("the header promises " + std::to_string(size) + " bytes, there are " +
                           std::to_string(bytes.size()), "byte 40");
    header.get<std::uint32_t>("section count");
    if (header.get<std::uint32_t>("checksum") != crc32(bytes.subspan(header_bytes)))
        refuse_program("the checksum does not fit the bytes: the program is damaged", "byte 52");
    if (!std::equal(hash.begin(), hash.end(), isa::hash))
        throw Refusal(RefusalKind::isa_mismatch,
                      "the program is for instruction set " + hex(hash.first(8)) + "..., this build has " +
                          hex(Bytes(isa::hash).first(8)) + "...",
                      "byte 8", "compile the model again with this version");
}

}  // namespace

Sections read_sections(Bytes bytes) {
    static const char* const tags[] = {"CONF", "MACH", "CODE", "CORE", "WGHT", "SYNP", "GATH", "MODL", "SHAD", "META"};
    check_header(bytes);
    std::uint32_t n;
    std::memcpy(&n, bytes.data() + 48, sizeof n);
    if (n > std::size(tags)) refuse_program(std::to_string(n) + " sections, there are " + std::to_string(std::size(tags)), "byte 48");
    Reader table(bytes.subspan(header_bytes), "table");
    const std::uint64_t first = header_bytes + std::uint64_t{n} * table_entry_bytes;
    Sections sections;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> spans;
    for (std::uint32_t i = 0; i < n; ++i) {
        const std::string where = table.where();
        const Bytes raw = table.take(4, "a section tag");
        const std::string tag(raw.begin(), raw.end());
        const auto offset = table.get<std::uint64_t>("a section offset");
        const auto size = table.get<std::uint64_t>("a section size");
        if (std::find(std::begin(tags), std::end(tags), tag) == std::end(tags))
            refuse_program("unknown section " + hex(raw), where);
        if (offset % 64 != 0 || offset < first || offset > bytes.size() || size > bytes.size() - offset)
            refuse_program("section " + tag + " lies outside the file or off its alignment", where);
        if (!sections.emplace(tag, bytes.subspan(offset, size)).second)
            refuse_program("section " + tag + " stands twice", where);
        if (size != 0) spans.emplace_back(offset, offset + size);
    }
    std::sort(spans.begin(), spans.end());
    for (std::size_t i = 1; i < spans.size(); ++i)
        if (spans[i].first < spans[i - 1].second) refuse_program("two sections overlap", "byte " + std::to_string(spans[i].first));
    for (const char* tag : {"CONF", "MACH", "CODE", "CORE", "WGHT", "SYNP", "GATH", "MODL", "META"})
        if (!sections.contains(tag)) refuse_program("section " + std::string(tag) + " is missing", "section table");
    return sections;
}

}  // namespace ltc
