"""From an NNIR graph to the image of a program: selection, order, memory, encoding, and the search among schedules."""
