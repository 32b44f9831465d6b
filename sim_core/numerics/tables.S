// The bf16 activation tables, linked in as read-only data: uint16 ltc_activation_tables[function][input].
// TABLE_PATH, from CMake, names ltc_compiler/activation_tables.bin.
#if defined(__APPLE__)
#define SYMBOL _ltc_activation_tables
    .const
#else
#define SYMBOL ltc_activation_tables
    .section .rodata
    .hidden SYMBOL
    .type SYMBOL, %object
#endif
    .globl SYMBOL
    .p2align 6
SYMBOL:
    .incbin TABLE_PATH
#if !defined(__APPLE__)
    .size SYMBOL, . - SYMBOL
    .section .note.GNU-stack, "", %progbits
#endif
