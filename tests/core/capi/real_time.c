/* The run path of libltc under watch: real_time WATCH PROGRAM. Every call, good and refused, is made REPEATS times. Prints what
 * was seen; under "calls" the kernel ends the process at the first system call but read, write and exit. */
#define _GNU_SOURCE
#include <fenv.h>
#include <ltc.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#define REPEATS 60
#define STEPS 50
#define MOST 8

/* ---- what is counted ---- */
static long taken, locked;
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);
#ifdef COUNT
void *malloc(size_t n) { return ++taken, __libc_malloc(n); }
void *calloc(size_t n, size_t m) { return ++taken, __libc_calloc(n, m); }
void *realloc(void *p, size_t n) { return ++taken, __libc_realloc(p, n); }
void *aligned_alloc(size_t a, size_t n) { return ++taken, __libc_memalign(a, n); }
void *memalign(size_t a, size_t n) { return ++taken, __libc_memalign(a, n); }
void free(void *p) { taken += p != NULL, __libc_free(p); }
static int lock_seen(void) { return ++locked, 0; } /* this program has one thread: nothing needs to be locked */
int pthread_mutex_lock(pthread_mutex_t *m) { return (void)m, lock_seen(); }
int pthread_mutex_trylock(pthread_mutex_t *m) { return (void)m, lock_seen(); }
int pthread_rwlock_rdlock(pthread_rwlock_t *m) { return (void)m, lock_seen(); }
int pthread_rwlock_wrlock(pthread_rwlock_t *m) { return (void)m, lock_seen(); }
#endif

/* ---- the calls ---- */
static ltc_vm *vm;
static ltc_input in[MOST], long_in[MOST], bad_in[MOST];
static ltc_output out[MOST], long_out[MOST];
static size_t n_in, n_out;
static float state[4096];
static size_t state_count;
static int wrong; /* calls that did not end as they should */

static void expect(ltc_status found, ltc_status wanted) { wrong += found != wanted; }

static void call_all(int repeats) {
    static ltc_error error = LTC_ERROR_INIT;
    for (int i = 0; i < repeats; ++i) {
        expect(ltc_vm_run(vm, 0, in, n_in, out, n_out, &error), LTC_OK);
        expect(ltc_vm_run_steps(vm, 0, STEPS, long_in, n_in, long_out, n_out, &error), LTC_OK);
        expect(ltc_vm_get_state(vm, 0, 0, state, state_count, &error), LTC_OK);
        expect(ltc_vm_set_state(vm, 0, 0, state, state_count, &error), LTC_OK);
        expect(ltc_vm_run(vm, 0, bad_in, n_in, out, n_out, &error), LTC_INPUT); /* an elapsed time of NaN, or a wrong size */
        expect(ltc_vm_run(vm, 1, in, n_in, out, n_out, &error), LTC_ARGUMENT);
        expect(ltc_vm_set_state(vm, 0, 0, state, state_count + 1, &error), LTC_INPUT);
        if (i % 10 == 0) expect(ltc_vm_reset(vm, 0, &error), LTC_OK);
    }
}

static float *numbers(size_t count, float value) {
    float *made = malloc(count * sizeof *made);
    for (size_t i = 0; i < count; ++i) made[i] = value;
    return made;
}

static void prepare(const char *path) {
    ltc_program *program;
    ltc_model_info model = LTC_MODEL_INFO_INIT;
    ltc_port_info port = LTC_PORT_INFO_INIT;
    if (ltc_program_load(LTC_API_VERSION, path, NULL, &program, NULL) || ltc_vm_create(program, NULL, &vm, NULL)) exit(2);
    ltc_program_model(program, 0, &model, NULL);
    n_in = model.inputs, n_out = model.outputs;
    for (size_t i = 0; i < n_in; ++i) {
        ltc_program_input(program, 0, i, &port, NULL);
        const int time = strcmp(port.role, "elapsed_time") == 0;
        in[i].data = numbers(port.count, 0.3f), in[i].count = port.count;
        long_in[i].data = numbers(port.count * STEPS, 0.7f), long_in[i].count = port.count * STEPS;
        bad_in[i] = in[i];
        if (time) bad_in[i].data = numbers(port.count, NAN);
        else if (i + 1 == n_in) bad_in[i].count += 1;
    }
    for (size_t o = 0; o < n_out; ++o) {
        ltc_program_output(program, 0, o, &port, NULL);
        out[o].data = numbers(port.count, 0), out[o].count = port.count;
        long_out[o].data = numbers(port.count * STEPS, 0), long_out[o].count = port.count * STEPS;
    }
    ltc_program_state(program, 0, 0, &port, NULL);
    state_count = port.count;
    ltc_program_free(program);
    call_all(2);
}

/* ---- the watches ---- */
static void *on_painted_stack(void *memory) {
    (void)memory;
    call_all(REPEATS);
    return NULL;
}

static void stack(void) { /* how deep the calls go on a thread's stack of their own */
    const size_t size = 256 * 1024;
    unsigned char *memory = aligned_alloc(4096, size);
    memset(memory, 0xA5, size);
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, memory, size);
    if (pthread_create(&thread, &attributes, on_painted_stack, NULL)) exit(3);
    pthread_join(thread, NULL);
    size_t untouched = 0;
    while (untouched < size && memory[untouched] == 0xA5) ++untouched;
    printf("stack %zu wrong %d\n", size - untouched, wrong);
}

static void environment(void) { /* the bits of the outputs, and the modes behind the calls, under every mode of the caller */
    static const int directions[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    float expected[64];
    const size_t bytes = out[0].count < 64 ? out[0].count * sizeof(float) : sizeof expected;
    int differ = 0, lost = 0;
    for (int n = 0; n < 16; ++n) {
        fesetround(directions[n % 4]);
#if defined(__x86_64__)
        const unsigned flags = (n & 4 ? 0x8000u : 0) | (n & 8 ? 0x0040u : 0); /* flush to zero, denormals are zero */
        _mm_setcsr((_mm_getcsr() & ~0x8040u) | flags);
        const unsigned before = _mm_getcsr();
#endif
        expect(ltc_vm_reset(vm, 0, NULL), LTC_OK);
        expect(ltc_vm_run_steps(vm, 0, STEPS, long_in, n_in, long_out, n_out, NULL), LTC_OK);
        expect(ltc_vm_run(vm, 0, in, n_in, out, n_out, NULL), LTC_OK);
#if defined(__x86_64__)
        lost += _mm_getcsr() != before;
#endif
        lost += fegetround() != directions[n % 4];
        if (n == 0) memcpy(expected, out[0].data, bytes);
        differ += memcmp(expected, out[0].data, bytes) != 0;
    }
    fesetround(FE_TONEAREST);
    printf("differ %d lost %d wrong %d\n", differ, lost, wrong);
}

int main(int count, char **arguments) {
    if (count != 3) return 1;
    prepare(arguments[2]);
    if (strcmp(arguments[1], "stack") == 0) {
        stack();
    } else if (strcmp(arguments[1], "environment") == 0) {
        environment();
    } else if (strcmp(arguments[1], "memory") == 0) {
        const long before = taken, before_locked = locked;
        call_all(REPEATS);
        printf("taken %ld locked %ld counted %d wrong %d\n", taken - before, locked - before_locked, before > 0, wrong);
    } else if (strcmp(arguments[1], "calls") == 0) {
        if (prctl(PR_SET_SECCOMP, 1 /* strict */)) return 77;
        call_all(REPEATS);
        static const char text[] = "no calls wrong 0\n";
        const ssize_t written = write(1, text, sizeof text - 1);
        syscall(SYS_exit, written < 0 || wrong);
    } else if (strcmp(arguments[1], "one") == 0) { /* that the filter is at work */
        if (prctl(PR_SET_SECCOMP, 1)) return 77;
        syscall(SYS_getppid);
    }
    return 0;
}
