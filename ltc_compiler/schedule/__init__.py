"""From an NNIR graph to a program: selection, partition, order, memory, and the machine as they see it."""
