// The container of a program: a header, a table of sections, and the sections' bytes (docs/architecture.md: container).
#pragma once

#include <map>
#include <string>

#include "program/reader.h"

namespace ltc {

// Tag -> bytes. Sections lie inside the file, do not overlap, and each tag stands once.
using Sections = std::map<std::string, Bytes>;

// Throws Refusal for bytes that are no container, are damaged, or were made for another instruction set.
Sections read_sections(Bytes bytes);

}  // namespace ltc
