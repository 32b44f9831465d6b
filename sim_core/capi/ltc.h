/* libltc: compiled programs of ltc-compiler in C. Plain C99 and no other header of the project.
 *
 * Every function that can fail returns a status and, if `error` is not NULL, fills what is wrong, where, and what to do. A
 * refused call changes nothing: not a state, not an output, and *out is NULL. Nothing is thrown, printed, or kept in a global.
 *
 * Pointers. Handles come from a function that makes or loads them and go by the _free of their kind, which takes NULL too.
 * A handle keeps alive what it needs: a program may be freed before its VMs. Texts and names that a call returns belong to the
 * handle and live as long as it. Everything that a caller passes is read or written during the call alone, unless it says else.
 *
 * Threads. A program never changes: any number of threads may use it. A VM, a batch or a queue's polling end is for one thread
 * at a time: a second one is refused with LTC_BUSY, not made to wait. Different handles may be used at once.
 *
 * Real time. ltc_vm_run, ltc_vm_run_steps, ltc_vm_reset, ltc_vm_get_state and ltc_vm_set_state take no memory, no lock and no
 * system call, throw nothing, and use less than 16 KiB of stack, whether they succeed or refuse. The caller's rounding mode,
 * exception masks and treatment of denormals change no bit and are as before afterwards.
 *
 * Sizes. A struct begins with its own size, which LTC_..._INIT sets; a library that does not know it refuses it with
 * LTC_VERSION. Numbers are IEEE fp32 in C order; `count` says how many, so that a wrong shape is refused. */
#ifndef LTC_H
#define LTC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define LTC_API __attribute__((visibility("default")))
#else
#define LTC_API
#endif

/* Of this header. It grows with every change that an old program would not survive; the library refuses another one. */
#define LTC_API_VERSION 1u

typedef int32_t ltc_status;
enum {
    LTC_OK = 0,
    LTC_ARGUMENT = 1,   /* a NULL pointer, or an index that is not there */
    LTC_VERSION = 2,    /* the API version, or the size of a struct, is not this library's */
    LTC_FILE = 3,       /* the file cannot be read */
    LTC_PROGRAM = 4,    /* it is no program, is damaged, breaks a rule of the machine, or asks for too much work */
    LTC_ISA = 5,        /* it was made for another instruction set: compile the model again */
    LTC_INPUT = 6,      /* a wrong number or size of arrays, shared memory, a bad elapsed time, a stream at its end */
    LTC_STATE = 7,      /* the program has no reset */
    LTC_CONFIG = 8,     /* this CPU has no such kernels */
    LTC_ARITHMETIC = 9, /* the kernels fail their self-test: do not use this build on this CPU */
    LTC_BUSY = 10,      /* another call on the handle is under way */
    LTC_MEMORY = 11,    /* there is not enough memory, or no further thread */
    LTC_STRUCTURE = 12, /* the new weights are of a program of another structure */
    LTC_FULL = 13,      /* the queue holds as many jobs as it can */
    LTC_CANCELLED = 14, /* the job was not run: its queue went away */
    LTC_INTERNAL = 15   /* a fault of the library: report it */
};

typedef struct ltc_error {
    uint32_t size; /* sizeof(ltc_error) */
    ltc_status status;
    char what[512];   /* what is wrong */
    char where[256];  /* the section and byte of a file, the port, the argument */
    char remedy[256]; /* what to do */
} ltc_error;
#define LTC_ERROR_INIT {sizeof(ltc_error), LTC_OK, "", "", ""}

typedef struct ltc_program ltc_program; /* a compiled program: read-only */
typedef struct ltc_vm ltc_vm;           /* a program with a state of its own */
typedef struct ltc_batch ltc_batch;     /* independent streams of a program, on threads */

/* ---- the library ---------------------------------------------------------------------------------------------------- */

LTC_API uint32_t ltc_api_version(void);
LTC_API const char *ltc_version(void);                       /* "0.1.0"; static */
LTC_API const char *ltc_status_name(ltc_status status);      /* "LTC_OK"; static */
/* The kernels that this CPU can run, from index 0 on, the widest last; NULL behind the last. Static. */
LTC_API const char *ltc_kernels(size_t index);
/* Whether these kernels give the bits of the numeric contract; NULL: those that a VM would take. Every VM proves it once per
 * process by itself. About a millisecond. */
LTC_API ltc_status ltc_self_test(const char *kernels, ltc_error *error);

/* ---- programs ------------------------------------------------------------------------------------------------------- */

typedef struct ltc_load_options {
    uint32_t size;
    uint32_t reserved;  /* 0 */
    uint64_t max_work;  /* instructions, and beats, that one inference may take: a file may ask for hours */
} ltc_load_options;
#define LTC_LOAD_OPTIONS_INIT {sizeof(ltc_load_options), 0, (uint64_t)1 << 33}

/* Reads and verifies a program file; nothing of it is executed. api_version: LTC_API_VERSION. options: NULL for the defaults.
 * path: of the system. bytes: copied. */
LTC_API ltc_status ltc_program_load(uint32_t api_version, const char *path, const ltc_load_options *options, ltc_program **out,
                                    ltc_error *error);
LTC_API ltc_status ltc_program_load_memory(uint32_t api_version, const void *bytes, size_t count, const ltc_load_options *options,
                                           ltc_program **out, ltc_error *error);
LTC_API void ltc_program_free(ltc_program *program);

#define LTC_MAX_RANK 8
#define LTC_NO_AXIS (-1)

typedef struct ltc_machine_info {
    uint32_t size;
    uint32_t cores, block_size, reserved;
    double clock_mhz;
    const char *name;          /* of the configuration; the program's */
    const char *configuration; /* all of it, as JSON; the program's */
} ltc_machine_info;
#define LTC_MACHINE_INFO_INIT {sizeof(ltc_machine_info), 0, 0, 0, 0.0, NULL, NULL}

typedef struct ltc_model_info {
    uint32_t size;
    uint32_t inputs, outputs, states; /* how many */
    const char *name;                 /* the program's */
    uint64_t block_steps;             /* steps of a stream that one inference takes */
    uint64_t max_steps;               /* that a stream may have until it is reset; 0: any number */
    uint32_t can_reset;               /* 0: ltc_vm_reset is refused */
    uint32_t reserved;
} ltc_model_info;
#define LTC_MODEL_INFO_INIT {sizeof(ltc_model_info), 0, 0, 0, NULL, 0, 0, 0, 0}

/* An input, an output or a state. */
typedef struct ltc_port_info {
    uint32_t size;
    uint32_t rank;
    uint64_t shape[LTC_MAX_RANK]; /* of one inference: `rank` lengths */
    uint64_t count;               /* of numbers: the product of the lengths */
    const char *name;             /* the program's */
    const char *precision;        /* "fp32" or "bf16": what the machine holds; the host always has fp32. Static */
    const char *role;             /* of an input: "plain" or "elapsed_time"; of a state: "stream", "module", "tied" */
    int32_t streaming_axis;       /* of the original array, that a stream's step has not; LTC_NO_AXIS: none */
    int32_t latency;              /* of an output: step t of a stream gives its element t - latency */
    int32_t tail;                 /* of an output: elements that follow a stream's last step */
    uint32_t reserved;
} ltc_port_info;
#define LTC_PORT_INFO_INIT {sizeof(ltc_port_info), 0, {0}, 0, NULL, NULL, NULL, LTC_NO_AXIS, 0, 0, 0}

LTC_API size_t ltc_program_models(const ltc_program *program); /* 0 for NULL */
LTC_API ltc_status ltc_program_machine(const ltc_program *program, ltc_machine_info *info, ltc_error *error);
LTC_API ltc_status ltc_program_model(const ltc_program *program, size_t model, ltc_model_info *info, ltc_error *error);
LTC_API ltc_status ltc_program_find_model(const ltc_program *program, const char *name, size_t *model, ltc_error *error);
LTC_API ltc_status ltc_program_input(const ltc_program *program, size_t model, size_t index, ltc_port_info *info, ltc_error *error);
LTC_API ltc_status ltc_program_output(const ltc_program *program, size_t model, size_t index, ltc_port_info *info, ltc_error *error);
LTC_API ltc_status ltc_program_state(const ltc_program *program, size_t model, size_t index, ltc_port_info *info, ltc_error *error);

/* ---- time on the accelerator: counted, not measured --------------------------------------------------------------------- */

typedef struct ltc_cycles {
    uint32_t size, reserved;
    uint64_t spaced;     /* latency where the machine was idle before the input came */
    uint64_t contiguous; /* where one inference follows the other */
    double interval;     /* cycles from one inference to the next without a pause */
    double spaced_us, contiguous_us;
    double host_us;      /* an estimate of the transfers to and from the host */
} ltc_cycles;
#define LTC_CYCLES_INIT {sizeof(ltc_cycles), 0, 0, 0, 0.0, 0.0, 0.0, 0.0}

/* Walks one inference and some that follow each other; the time that it takes grows with their instructions. */
LTC_API ltc_status ltc_program_cycles(const ltc_program *program, size_t model, ltc_cycles *cycles, ltc_error *error);

#define LTC_MAX_LOOP_DEPTH 4

/* One executed instruction on one core; a loop, or its end, leaves one record for every core. */
typedef struct ltc_trace_record {
    uint32_t index, core; /* in the program's code */
    uint32_t depth, reserved;
    uint64_t iterations[LTC_MAX_LOOP_DEPTH]; /* of the loops around it, the outermost first */
    uint64_t issue;  /* cycles: its unit's queue takes it */
    uint64_t begin;  /* its unit is free for it */
    uint64_t start;  /* its first beat */
    uint64_t end;    /* its unit is free again */
    uint64_t finish; /* its last effect */
    uint64_t busy;   /* how long its beats held the unit */
    uint64_t lost;   /* waiting for `stall` */
    const char *instruction, *stall; /* names; static */
} ltc_trace_record;

/* The first `capacity` records of a spaced (1) or contiguous (0) inference; *count: how many there are. */
LTC_API ltc_status ltc_program_trace(const ltc_program *program, size_t model, int spaced, ltc_trace_record *records, size_t capacity,
                                     size_t *count, ltc_error *error);

/* ---- running --------------------------------------------------------------------------------------------------------- */

/* The numbers of one port. */
typedef struct ltc_input {
    const float *data;
    size_t count;
} ltc_input;
typedef struct ltc_output {
    float *data; /* shares no memory with an input or another output */
    size_t count;
} ltc_output;

typedef struct ltc_vm_options {
    uint32_t size;
    uint32_t plain_fp32; /* 0: the bits of the accelerator; 1: plain fp32, from the originals in the file */
    const char *kernels; /* one of ltc_kernels; NULL: what the environment variable LTC_SIMD names, or the widest */
} ltc_vm_options;
#define LTC_VM_OPTIONS_INIT {sizeof(ltc_vm_options), 0, NULL}

#define LTC_ALL_MODELS SIZE_MAX

/* A VM in the initial state. options: NULL for the defaults. */
LTC_API ltc_status ltc_vm_create(const ltc_program *program, const ltc_vm_options *options, ltc_vm **out, ltc_error *error);
/* Another one in the same state; they share the weights. */
LTC_API ltc_status ltc_vm_copy(ltc_vm *vm, ltc_vm **out, ltc_error *error);
/* No call on it may be under way. */
LTC_API void ltc_vm_free(ltc_vm *vm);
LTC_API const char *ltc_vm_kernels(const ltc_vm *vm); /* their name; NULL for NULL. Static */

/* One inference: one array a port, in the order of the ports. */
LTC_API ltc_status ltc_vm_run(ltc_vm *vm, size_t model, const ltc_input *inputs, size_t n_inputs, const ltc_output *outputs,
                              size_t n_outputs, ltc_error *error);
/* `steps` of them, one after the other: arrays of (steps, shape). Every elapsed time is looked at before the first step. */
LTC_API ltc_status ltc_vm_run_steps(ltc_vm *vm, size_t model, size_t steps, const ltc_input *inputs, size_t n_inputs,
                                    const ltc_output *outputs, size_t n_outputs, ltc_error *error);
/* The initial state of a model, or of LTC_ALL_MODELS. */
LTC_API ltc_status ltc_vm_reset(ltc_vm *vm, size_t model, ltc_error *error);
/* A state, by its index in the model, as `count` numbers; subnormal ones become 0. */
LTC_API ltc_status ltc_vm_get_state(ltc_vm *vm, size_t model, size_t state, float *data, size_t count, ltc_error *error);
LTC_API ltc_status ltc_vm_set_state(ltc_vm *vm, size_t model, size_t state, const float *data, size_t count, ltc_error *error);

/* ---- batches: many streams at once, for throughput; locks and threads are at work here -------------------------------------- */

typedef struct ltc_batch_options {
    uint32_t size;
    uint32_t plain_fp32; /* as for a VM */
    const char *kernels; /* as for a VM */
    size_t streams;      /* at most 65536 */
    size_t threads;      /* the caller's among them: at most 1024, and no more than streams */
} ltc_batch_options;
#define LTC_BATCH_OPTIONS_INIT {sizeof(ltc_batch_options), 0, NULL, 1, 1}

/* Streams in the initial state, and the threads, which sleep between calls. */
LTC_API ltc_status ltc_batch_create(const ltc_program *program, const ltc_batch_options *options, ltc_batch **out, ltc_error *error);
LTC_API void ltc_batch_free(ltc_batch *batch);
/* `steps` of every stream: arrays of (streams, steps, shape). The bits are those of a VM for each stream. */
LTC_API ltc_status ltc_batch_run(ltc_batch *batch, size_t model, size_t steps, const ltc_input *inputs, size_t n_inputs,
                                 const ltc_output *outputs, size_t n_outputs, ltc_error *error);
LTC_API ltc_status ltc_batch_reset(ltc_batch *batch, size_t model, ltc_error *error); /* every stream */
LTC_API ltc_status ltc_batch_get_state(ltc_batch *batch, size_t model, size_t stream, size_t state, float *data, size_t count,
                                       ltc_error *error);
LTC_API ltc_status ltc_batch_set_state(ltc_batch *batch, size_t model, size_t stream, size_t state, const float *data, size_t count,
                                       ltc_error *error);

#ifdef __cplusplus
}
#endif

#endif
