/* Prints the size of every struct of ltc.h and the place of every field, as a caller's compiler lays them out. */
#include <ltc.h>
#include <stdio.h>

#define SIZE(type) printf(#type " %zu\n", sizeof(type))
#define FIELD(type, name) printf(#type "." #name " %zu\n", offsetof(type, name))

int main(void) {
    SIZE(ltc_status), SIZE(ltc_error), SIZE(ltc_load_options), SIZE(ltc_machine_info), SIZE(ltc_model_info), SIZE(ltc_port_info);
    SIZE(ltc_cycles), SIZE(ltc_trace_record), SIZE(ltc_input), SIZE(ltc_output), SIZE(ltc_vm_options), SIZE(ltc_batch_options);
    FIELD(ltc_error, what), FIELD(ltc_error, where), FIELD(ltc_error, remedy);
    FIELD(ltc_load_options, max_work);
    FIELD(ltc_machine_info, clock_mhz), FIELD(ltc_machine_info, name), FIELD(ltc_machine_info, configuration);
    FIELD(ltc_model_info, name), FIELD(ltc_model_info, max_steps), FIELD(ltc_model_info, can_reset);
    FIELD(ltc_port_info, shape), FIELD(ltc_port_info, count), FIELD(ltc_port_info, name), FIELD(ltc_port_info, role);
    FIELD(ltc_port_info, streaming_axis), FIELD(ltc_port_info, tail);
    FIELD(ltc_cycles, interval), FIELD(ltc_cycles, host_us);
    FIELD(ltc_trace_record, iterations), FIELD(ltc_trace_record, issue), FIELD(ltc_trace_record, stall);
    FIELD(ltc_vm_options, kernels), FIELD(ltc_batch_options, streams), FIELD(ltc_batch_options, threads);
    return 0;
}
