/* The initialisers of ltc.h in C99 and in C++, and a program of a wrong version: the names of the statuses that come of it. */
#include <ltc.h>
#include <stdio.h>

int main(void) {
    ltc_error error = LTC_ERROR_INIT;
    ltc_load_options load = LTC_LOAD_OPTIONS_INIT;
    ltc_machine_info machine = LTC_MACHINE_INFO_INIT;
    ltc_model_info model = LTC_MODEL_INFO_INIT;
    ltc_port_info port = LTC_PORT_INFO_INIT;
    ltc_cycles cycles = LTC_CYCLES_INIT;
    ltc_vm_options vm = LTC_VM_OPTIONS_INIT;
    ltc_batch_options batch = LTC_BATCH_OPTIONS_INIT;
    ltc_program *program = NULL;
    ltc_status status = ltc_program_load_memory(LTC_API_VERSION, "no program", 10, &load, &program, &error);
    printf("%s %s %d\n", ltc_status_name(status), ltc_status_name(error.status), program == NULL);
    printf("%s\n", ltc_status_name(ltc_program_load(LTC_API_VERSION + 1, "x", NULL, &program, NULL)));
    printf("%s %d\n", ltc_status_name(99), ltc_api_version() == LTC_API_VERSION);
    printf("%d\n", load.max_work == (uint64_t)1 << 33 && machine.size == sizeof machine && model.size == sizeof model &&
                       port.streaming_axis == LTC_NO_AXIS && cycles.size == sizeof cycles && vm.plain_fp32 == 0 &&
                       batch.streams == 1 && batch.threads == 1);
    return 0;
}
