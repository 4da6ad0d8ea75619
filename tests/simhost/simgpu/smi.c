/* Copyright (c) 2026, the difyops.gpu authors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A SIMULATED nvidia-smi over libnvidia-ml.so.1: -L, --query-gpu, --query-compute-apps, --help-query-gpu, -q -x (in
 * part), --version and a short table. The
 * sentences and exit codes that programs look at are those of the genuine tool.
 */
#include "simgpu.h"
#include "smi_fields.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_COLUMNS 128
#define LOST 15
#define FIELD_COUNT (sizeof smi_fields / sizeof *smi_fields)

typedef void *device_t;

static void *library;

/* A function of the NVML library; the process ends as nvidia-smi's does when the library lacks it. */
static void *nvml(const char *name) {
    void *function = dlsym(library, name);
    if (!function) {
        printf("NVIDIA-SMI: function %s not found in libnvidia-ml.so\n", name);
        exit(13);
    }
    return function;
}

/* Where the library is older than the function: what NVML says then. */
#define NO_FUNCTION 13
static void *nvml_or_null(const char *name) { return dlsym(library, name); }

static const char *error_text(int code) { return ((const char *(*)(int))nvml("nvmlErrorString"))(code); }

static struct sim_state state; /* only for the library's version: everything else is asked over NVML */

static int init(void) {
    library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    if (!library) {
        puts("NVIDIA-SMI couldn't find libnvidia-ml.so library in your system. Please make sure that the NVIDIA Display "
             "Driver is properly installed and present in your system.");
        return 12;
    }
    int code = ((int (*)(void))nvml("nvmlInit_v2"))();
    if (code == 9)
        puts("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest "
             "NVIDIA driver is installed and running.\n");
    else if (code) {
        printf("Failed to initialize NVML: %s\n", error_text(code));
        if (code == 18 && sim_branch(state.library) >= 525) {
            char *dot = strrchr(state.library, '.');
            printf("NVML library version: %.*s\n", dot ? (int)(dot - state.library) : 40, state.library);
        }
    }
    return code == 999 ? 255 : code;
}

/* --- values ---------------------------------------------------------------------------------------------------- */

struct value { char text[160]; const char *unit; };

static void put(struct value *value, const char *unit, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(value->text, sizeof value->text, format, arguments);
    va_end(arguments);
    value->unit = unit;
}

static int text_of(device_t device, const char *function, struct value *value) {
    char buffer[160];
    int code = ((int (*)(device_t, char *, unsigned))nvml(function))(device, buffer, sizeof buffer);
    if (!code)
        put(value, "", "%s", buffer);
    return code;
}

static int number_of(device_t device, const char *function, int *number) {
    return ((int (*)(device_t, int *))nvml(function))(device, number);
}

static int mode_of(device_t device, const char *function, bool pending, struct value *value) {
    int now, later;
    int code = ((int (*)(device_t, int *, int *))nvml(function))(device, &now, &later);
    if (!code)
        put(value, "", (pending ? later : now) ? "Enabled" : "Disabled");
    return code;
}

struct pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; };

static int pci_of(device_t device, struct pci *pci) {
    return ((int (*)(device_t, struct pci *))nvml("nvmlDeviceGetPciInfo_v3"))(device, pci);
}

struct memory { unsigned long long total, free, used, reserved; };

static int memory_of(device_t device, struct memory *memory) {
    struct { unsigned version; unsigned long long total, reserved, free, used; } v2 = {.version = 40 | 2u << 24};
    struct { unsigned long long total, free, used; } v1;
    int (*newer)(device_t, void *) = (int (*)(device_t, void *))nvml_or_null("nvmlDeviceGetMemoryInfo_v2");
    int code = newer ? newer(device, &v2) : NO_FUNCTION;
    if (!code)
        *memory = (struct memory){v2.total, v2.free, v2.used, v2.reserved};
    if (code != NO_FUNCTION)
        return code;
    code = ((int (*)(device_t, void *))nvml("nvmlDeviceGetMemoryInfo"))(device, &v1);
    if (!code)
        *memory = (struct memory){v1.total, v1.free, v1.used, 0};
    return code;
}

static int pci_field(const char *field, device_t device, struct value *value) {
    struct pci pci;
    int code = pci_of(device, &pci);
    if (code)
        return code;
    if (!strcmp(field, "pci.bus_id")) put(value, "", "%s", pci.bus_id);
    else if (!strcmp(field, "pci.domain")) put(value, "", "0x%04X", pci.domain);
    else if (!strcmp(field, "pci.bus")) put(value, "", "0x%02X", pci.bus);
    else if (!strcmp(field, "pci.device")) put(value, "", "0x%02X", pci.device);
    else if (!strcmp(field, "pci.device_id")) put(value, "", "0x%08X", pci.id);
    else if (!strcmp(field, "pci.sub_device_id")) put(value, "", "0x%08X", pci.subsystem);
    else return 3;
    return 0;
}

static int memory_field(const char *field, device_t device, struct value *value) {
    struct memory memory;
    int code = memory_of(device, &memory);
    if (code)
        return code;
    unsigned long long bytes = !strcmp(field, "memory.total") ? memory.total
                             : !strcmp(field, "memory.used") ? memory.used
                             : !strcmp(field, "memory.free") ? memory.free : memory.reserved;
    put(value, " MiB", "%llu", bytes >> 20);
    return 0;
}

static int number_field(const char *field, device_t device, struct value *value) {
    static const char *const compute_modes[] = {"Default", "Exclusive_Thread", "Prohibited", "Exclusive_Process"};
    int number, code;
    if (!strcmp(field, "persistence_mode")) {
        if (!(code = number_of(device, "nvmlDeviceGetPersistenceMode", &number)))
            put(value, "", number ? "Enabled" : "Disabled");
    } else if (!strcmp(field, "compute_mode")) {
        if (!(code = number_of(device, "nvmlDeviceGetComputeMode", &number)))
            put(value, "", "%s", compute_modes[number & 3]);
    } else if (!strcmp(field, "pstate")) {
        if (!(code = number_of(device, "nvmlDeviceGetPerformanceState", &number)))
            put(value, "", "P%d", number);
    } else if (!strcmp(field, "power.draw")) {
        if (!(code = number_of(device, "nvmlDeviceGetPowerUsage", &number)))
            put(value, " W", "%d.%02d", number / 1000, number % 1000 / 10);
    } else
        return 3;
    return code;
}

static int compute_cap(device_t device, struct value *value) {
    int major, minor;
    int code = ((int (*)(device_t, int *, int *))nvml("nvmlDeviceGetCudaComputeCapability"))(device, &major, &minor);
    if (!code)
        put(value, "", "%d.%d", major, minor);
    return code;
}

static int load_field(const char *field, device_t device, struct value *value) {
    unsigned both[2], degrees;
    int code;
    if (!strcmp(field, "temperature.gpu")) {
        code = ((int (*)(device_t, int, unsigned *))nvml("nvmlDeviceGetTemperature"))(device, 0, &degrees);
        if (!code)
            put(value, "", "%u", degrees);
        return code;
    }
    code = ((int (*)(device_t, unsigned *))nvml("nvmlDeviceGetUtilizationRates"))(device, both);
    if (!code)
        put(value, " %", "%u", both[!strcmp(field, "utilization.memory")]);
    return code;
}

static int recovery_action(device_t device, struct value *value) {
    static const char *const actions[] = {"None", "Reset", "Reboot", "Drain P2P", "Drain and Reset", "Recover IMEX Domain",
                                          "Bus Reset", "System Reboot"};
    struct { unsigned field, scope; long long timestamp, latency; int type, result; unsigned long long value; } asked = {.field = 230};
    int code = ((int (*)(device_t, int, void *))nvml("nvmlDeviceGetFieldValues"))(device, 1, &asked);
    if (code || asked.result)
        return code ? code : asked.result;
    put(value, "", "%s", actions[asked.value & 7]);
    return 0;
}

static int fabric_field(const char *field, device_t device, struct value *value) {
    static const char *const states[] = {"N/A", "Not Started", "In Progress", "Completed"};
    struct { unsigned char cluster[16]; int status; unsigned clique; unsigned char state; } info;
    int (*function)(device_t, void *) = (int (*)(device_t, void *))nvml_or_null("nvmlDeviceGetGpuFabricInfo");
    int code = function ? function(device, &info) : NO_FUNCTION;
    if (code)
        return code;
    if (!strcmp(field, "fabric.state")) put(value, "", "%s", states[info.state & 3]);
    else if (strcmp(field, "fabric.status") || info.state != FABRIC_COMPLETED) return 3;
    else put(value, "", "%s", error_text(info.status));
    return 0;
}

static int field_value(const char *field, unsigned index, unsigned count, device_t device, struct value *value) {
    if (!strcmp(field, "index")) put(value, "", "%u", index);
    else if (!strcmp(field, "count")) put(value, "", "%u", count);
    else if (!strcmp(field, "timestamp")) {
        char buffer[64];
        time_t now = time(NULL);
        strftime(buffer, sizeof buffer, "%Y/%m/%d %H:%M:%S.000", localtime(&now));
        put(value, "", "%s", buffer);
    } else if (!strcmp(field, "driver_version") || !strcmp(field, "kmd_version")) {
        char version[80];
        int code = ((int (*)(char *, unsigned))nvml("nvmlSystemGetDriverVersion"))(version, sizeof version);
        put(value, "", "%s", version);
        return code;
    }
    else if (!strcmp(field, "name")) return text_of(device, "nvmlDeviceGetName", value);
    else if (!strcmp(field, "uuid")) return text_of(device, "nvmlDeviceGetUUID", value);
    else if (!strcmp(field, "serial")) return text_of(device, "nvmlDeviceGetSerial", value);
    else if (!strcmp(field, "vbios_version")) return text_of(device, "nvmlDeviceGetVbiosVersion", value);
    else if (!strncmp(field, "pci.", 4)) return pci_field(field, device, value);
    else if (!strncmp(field, "memory.", 7)) return memory_field(field, device, value);
    else if (!strcmp(field, "compute_cap")) return compute_cap(device, value);
    else if (!strcmp(field, "ecc.mode.current")) return mode_of(device, "nvmlDeviceGetEccMode", false, value);
    else if (!strcmp(field, "ecc.mode.pending")) return mode_of(device, "nvmlDeviceGetEccMode", true, value);
    else if (!strcmp(field, "mig.mode.current")) return mode_of(device, "nvmlDeviceGetMigMode", false, value);
    else if (!strcmp(field, "mig.mode.pending")) return mode_of(device, "nvmlDeviceGetMigMode", true, value);
    else if (!strcmp(field, "gpu_recovery_action")) return recovery_action(device, value);
    else if (!strncmp(field, "fabric.", 7)) return fabric_field(field, device, value);
    else if (!strcmp(field, "temperature.gpu") || !strcmp(field, "utilization.gpu") || !strcmp(field, "utilization.memory"))
        return load_field(field, device, value);
    else return number_field(field, device, value);
    return 0;
}

/* What stands in a column when NVML gives no value. */
static void fill_gap(int code, struct value *value) {
    if (code == 3 || code == 13)
        put(value, "", "[N/A]");
    else if (code == LOST)
        put(value, "", "[GPU is lost]");
    else if (code == 16)
        put(value, "", "[GPU requires reset]");
    else
        put(value, "", "[Unknown Error]");
}

/* --- commands --------------------------------------------------------------------------------------------------- */

static int branch_bit(void) {
    int branch = sim_branch(state.library);
    return branch >= 615 ? SMI_615 : branch >= 525 ? SMI_580 : SMI_470;
}

/* Fields that came between the branches whose lists are known. */
static const struct { const char *name; int branch; } later_fields[] = {{"gpu_recovery_action", 565}, {"compute_cap", 510}};

static bool too_new(const char *name) {
    for (size_t i = 0; i < sizeof later_fields / sizeof *later_fields; i++)
        if (!strcmp(name, later_fields[i].name))
            return sim_branch(state.library) < later_fields[i].branch;
    return false;
}

static const char *canonical(const char *name) {
    if (too_new(name))
        return NULL;
    for (size_t i = 0; i < FIELD_COUNT; i++)
        if (!strcmp(smi_fields[i].name, name) && smi_fields[i].branches & branch_bit())
            return smi_fields[i].canonical;
    return NULL;
}

struct format { bool header, units; };

static bool parse_format(char *text, struct format *format) {
    bool csv = false;
    *format = (struct format){true, true};
    for (char *word = strtok(text, ","); word; word = strtok(NULL, ",")) {
        if (!strcmp(word, "csv")) csv = true;
        else if (!strcmp(word, "noheader")) format->header = false;
        else if (!strcmp(word, "nounits")) format->units = false;
        else return false;
    }
    return csv;
}

static unsigned device_count(void) {
    unsigned count = 0;
    ((int (*)(unsigned *))nvml("nvmlDeviceGetCount_v2"))(&count);
    return count;
}

static int handle(unsigned index, device_t *device) {
    return ((int (*)(unsigned, device_t *))nvml("nvmlDeviceGetHandleByIndex_v2"))(index, device);
}

static int handle_failed(unsigned index, int code) {
    const struct sim_gpu *gpu = &state.gpu[index];
    printf("Unable to determine the device handle for GPU%04X:%02X:%02X.0: %s%s\n", gpu->domain, gpu->bus, gpu->slot,
           error_text(code), code == LOST ? ".  Reboot the system to recover this GPU" : "");
    return code == 999 ? 255 : code;
}

static bool selected(const char *wanted, unsigned index, device_t device) {
    char number[16];
    struct value uuid;
    snprintf(number, sizeof number, "%u", index);
    if (!wanted || !strcmp(wanted, number))
        return true;
    return device && !text_of(device, "nvmlDeviceGetUUID", &uuid) && !strcmp(uuid.text, wanted);
}

static int query(char *fields, char *format_text, const char *wanted) {
    const char *columns[MAX_COLUMNS], *shown[MAX_COLUMNS];
    int column_count = 0;
    struct format format;
    if (!format_text || !parse_format(format_text, &format)) {
        puts("\"--format=\" switch is missing. You have to provide the output format, e.g. --format=csv");
        return 2;
    }
    for (char *name = strtok(fields, ", "); name && column_count < MAX_COLUMNS; name = strtok(NULL, ", ")) {
        columns[column_count] = canonical(name);
        if (!columns[column_count]) {
            printf("Field \"%s\" is not a valid field to query.\n\n", name);
            return 2;
        }
        shown[column_count++] = name;
    }
    int code = init();
    if (code)
        return code;
    unsigned count = device_count(), rows = 0;
    if (!count) {
        puts("No devices were found");
        return 6;
    }
    for (unsigned index = 0; index < count; index++) {
        device_t device = NULL;
        int failed = handle(index, &device);
        if (!selected(wanted, index, device))
            continue;
        if (failed) {
            code = handle_failed(index, failed);
            continue;
        }
        if (format.header && !rows) {
            struct value value;
            for (int i = 0; i < column_count; i++) {
                const char *unit = field_value(columns[i], index, count, device, &value) ? "" : value.unit;
                printf("%s%s%s%s%s", i ? ", " : "", shown[i], format.units && *unit ? " [" : "",
                       format.units && *unit ? unit + 1 : "", format.units && *unit ? "]" : "");
            }
            putchar('\n');
        }
        rows++;
        for (int i = 0; i < column_count; i++) {
            struct value value = {.unit = ""};
            int missing = field_value(columns[i], index, count, device, &value);
            if (missing)
                fill_gap(missing, &value);
            printf("%s%s%s", i ? ", " : "", value.text, format.units ? value.unit : "");
        }
        putchar('\n');
    }
    if (!rows && !code) {
        puts("No devices were found");
        return 6;
    }
    return code;
}

/* --- processes --------------------------------------------------------------------------------------------------- */

struct process { unsigned pid; unsigned long long used; unsigned gi, ci; };
#define MOST_PROCESSES 64
#define USED_UNKNOWN (~0ull)

static int processes_of(device_t device, const char *kind, struct process found[MOST_PROCESSES], unsigned *count) {
    char name[80];
    int (*function)(device_t, unsigned *, void *) = NULL;
    for (int version = 3; version >= 2 && !function; version--) {
        snprintf(name, sizeof name, "nvmlDeviceGet%sRunningProcesses_v%d", kind, version);
        function = (int (*)(device_t, unsigned *, void *))nvml_or_null(name);
    }
    *count = MOST_PROCESSES;
    return function ? function(device, count, found) : NO_FUNCTION;
}

static void process_name(unsigned pid, char *name, unsigned size) {
    if (((int (*)(unsigned, char *, unsigned))nvml("nvmlSystemGetProcessName"))(pid, name, size))
        snprintf(name, size, "[Not Found]");
}

static const char *const process_fields[][2] = {
    {"timestamp", "timestamp"}, {"gpu_name", "name"}, {"gpu_bus_id", "pci.bus_id"}, {"gpu_serial", "serial"},
    {"gpu_uuid", "uuid"}, {"pid", NULL}, {"process_name", NULL}, {"name", NULL},
    {"used_gpu_memory", NULL}, {"used_memory", NULL},
};

/* One column of a process; returns its unit. */
static const char *process_column(const char *field, unsigned index, device_t device, const struct process *process) {
    struct value value = {.unit = ""};
    for (size_t i = 0; i < sizeof process_fields / sizeof *process_fields; i++)
        if (!strcmp(field, process_fields[i][0]) && process_fields[i][1]) {
            int missing = field_value(process_fields[i][1], index, 0, device, &value);
            if (missing)
                fill_gap(missing, &value);
            fputs(value.text, stdout);
            return "";
        }
    if (!strcmp(field, "pid"))
        printf("%u", process->pid);
    else if (!strcmp(field, "process_name") || !strcmp(field, "name")) {
        char name[256];
        process_name(process->pid, name, sizeof name);
        fputs(name, stdout);
    } else if (process->used == USED_UNKNOWN)
        fputs("[N/A]", stdout);
    else {
        printf("%llu", process->used >> 20);
        return " MiB";
    }
    return "";
}

static bool is_process_field(const char *name) {
    for (size_t i = 0; i < sizeof process_fields / sizeof *process_fields; i++)
        if (!strcmp(name, process_fields[i][0]))
            return true;
    return false;
}

static int query_apps(char *fields, char *format_text, const char *wanted) {
    const char *columns[MAX_COLUMNS];
    int column_count = 0;
    struct format format;
    if (!format_text || !parse_format(format_text, &format)) {
        puts("\"--format=\" switch is missing. You have to provide the output format, e.g. --format=csv");
        return 2;
    }
    for (char *name = strtok(fields, ", "); name && column_count < MAX_COLUMNS; name = strtok(NULL, ", ")) {
        if (!is_process_field(name)) {
            printf("Field \"%s\" is not a valid field to query.\n\n", name);
            return 2;
        }
        columns[column_count++] = name;
    }
    int code = init();
    if (code)
        return code;
    for (int i = 0; format.header && i < column_count; i++) {
        bool memory = !strncmp(columns[i], "used_", 5);
        printf("%s%s%s%s", i ? ", " : "", columns[i], memory && format.units ? " [MiB]" : "", i + 1 < column_count ? "" : "\n");
    }
    for (unsigned index = 0; index < device_count(); index++) {
        device_t device = NULL;
        struct process found[MOST_PROCESSES];
        unsigned count = 0;
        int failed = handle(index, &device);
        if (!selected(wanted, index, device))
            continue;
        if (failed || processes_of(device, "Compute", found, &count)) {
            if (failed)
                code = handle_failed(index, failed);
            continue;
        }
        for (unsigned p = 0; p < count; p++)
            for (int i = 0; i < column_count; i++) {
                fputs(i ? ", " : "", stdout);
                const char *unit = process_column(columns[i], index, device, &found[p]);
                printf("%s%s", format.units ? unit : "", i + 1 < column_count ? "" : "\n");
            }
    }
    return code;
}

/* --- MIG --------------------------------------------------------------------------------------------------------- */

static unsigned mig_slots(device_t device) {
    unsigned count = 0;
    return ((int (*)(device_t, unsigned *))nvml("nvmlDeviceGetMaxMigDeviceCount"))(device, &count) ? 0 : count;
}

static bool mig_at(device_t device, unsigned slot, device_t *mig) {
    return !((int (*)(device_t, unsigned, device_t *))nvml("nvmlDeviceGetMigDeviceHandleByIndex"))(device, slot, mig);
}

/* 1g.5gb of "NVIDIA A100-SXM4-40GB (simulated) MIG 1g.5gb" */
static const char *mig_profile(const char *name) {
    const char *mark = strstr(name, " MIG ");
    return mark ? mark + strlen(" MIG ") : name;
}

static void list_mig(device_t device) {
    for (unsigned slot = 0; slot < mig_slots(device); slot++) {
        device_t mig;
        struct value name, uuid;
        if (!mig_at(device, slot, &mig) || text_of(mig, "nvmlDeviceGetName", &name) || text_of(mig, "nvmlDeviceGetUUID", &uuid))
            continue;
        printf("  MIG %-12sDevice %2u: (UUID: %s)\n", mig_profile(name.text), slot, uuid.text);
    }
}

/* --- XML --------------------------------------------------------------------------------------------------------- */

static void xml(const char *indent, const char *tag, const char *field, unsigned index, device_t device) {
    struct value value = {.unit = ""};
    int missing = field_value(field, index, 0, device, &value);
    if (missing)
        put(&value, "", missing == 3 || missing == NO_FUNCTION ? "N/A" : "Unknown Error");
    printf("%s<%s>%s%s</%s>\n", indent, tag, value.text, value.unit, tag);
}

static void xml_mig(device_t device) {
    for (unsigned slot = 0; slot < mig_slots(device); slot++) {
        device_t mig;
        struct memory memory;
        int gi = 0, ci = 0;
        if (!mig_at(device, slot, &mig) || memory_of(mig, &memory))
            continue;
        number_of(mig, "nvmlDeviceGetGpuInstanceId", &gi);
        number_of(mig, "nvmlDeviceGetComputeInstanceId", &ci);
        printf("\t\t\t<mig_device>\n\t\t\t\t<index>%u</index>\n\t\t\t\t<gpu_instance_id>%d</gpu_instance_id>\n"
               "\t\t\t\t<compute_instance_id>%d</compute_instance_id>\n\t\t\t\t<fb_memory_usage>\n"
               "\t\t\t\t\t<total>%llu MiB</total>\n\t\t\t\t\t<used>%llu MiB</used>\n\t\t\t\t\t<free>%llu MiB</free>\n"
               "\t\t\t\t</fb_memory_usage>\n\t\t\t</mig_device>\n",
               slot, gi, ci, memory.total >> 20, memory.used >> 20, memory.free >> 20);
    }
}

static void xml_processes(device_t device) {
    static const char *const kinds[][2] = {{"Compute", "C"}, {"Graphics", "G"}};
    for (int kind = 0; kind < 2; kind++) {
        struct process found[MOST_PROCESSES];
        unsigned count = 0;
        if (processes_of(device, kinds[kind][0], found, &count))
            continue;
        for (unsigned i = 0; i < count; i++) {
            char name[256], memory[32] = "N/A";
            process_name(found[i].pid, name, sizeof name);
            if (found[i].used != USED_UNKNOWN)
                snprintf(memory, sizeof memory, "%llu MiB", found[i].used >> 20);
            printf("\t\t\t<process_info>\n\t\t\t\t<pid>%u</pid>\n\t\t\t\t<type>%s</type>\n\t\t\t\t<process_name>%s</process_name>\n"
                   "\t\t\t\t<used_memory>%s</used_memory>\n\t\t\t</process_info>\n",
                   found[i].pid, kinds[kind][1], name, memory);
        }
    }
}

static void xml_gpu(unsigned index, device_t device) {
    struct value bus;
    if (field_value("pci.bus_id", index, 0, device, &bus))
        put(&bus, "", "Unknown Error");
    printf("\t<gpu id=\"%s\">\n", bus.text);
    xml("\t\t", "product_name", "name", index, device);
    puts("\t\t<mig_mode>");
    xml("\t\t\t", "current_mig", "mig.mode.current", index, device);
    xml("\t\t\t", "pending_mig", "mig.mode.pending", index, device);
    puts("\t\t</mig_mode>\n\t\t<mig_devices>");
    xml_mig(device);
    puts("\t\t</mig_devices>");
    xml("\t\t", "uuid", "uuid", index, device);
    if (sim_branch(state.library) >= 525) {
        puts("\t\t<fabric>");
        xml("\t\t\t", "state", "fabric.state", index, device);
        xml("\t\t\t", "status", "fabric.status", index, device);
        puts("\t\t</fabric>");
    }
    puts("\t\t<fb_memory_usage>");
    xml("\t\t\t", "total", "memory.total", index, device);
    xml("\t\t\t", "used", "memory.used", index, device);
    xml("\t\t\t", "free", "memory.free", index, device);
    puts("\t\t</fb_memory_usage>");
    xml("\t\t", "compute_mode", "compute_mode", index, device);
    puts("\t\t<processes>");
    xml_processes(device);
    puts("\t\t</processes>\n\t</gpu>");
}

/* Those parts of `nvidia-smi -q -x` that programs look for. */
static int query_xml(void) {
    int code = init();
    if (code)
        return code;
    char driver[80] = "";
    int cuda = 0;
    ((int (*)(char *, unsigned))nvml("nvmlSystemGetDriverVersion"))(driver, sizeof driver);
    ((int (*)(int *))nvml("nvmlSystemGetCudaDriverVersion_v2"))(&cuda);
    printf("<?xml version=\"1.0\" ?>\n<!-- SIMULATED nvidia-smi -->\n<nvidia_smi_log>\n\t<driver_version>%s</driver_version>\n"
           "\t<cuda_version>%d.%d</cuda_version>\n\t<attached_gpus>%u</attached_gpus>\n",
           driver, cuda / 1000, cuda % 1000 / 10, device_count());
    for (unsigned index = 0; index < device_count(); index++) {
        device_t device;
        int failed = handle(index, &device);
        if (failed)
            code = handle_failed(index, failed);
        else
            xml_gpu(index, device);
    }
    puts("</nvidia_smi_log>");
    return code;
}

/* --- lists and tables ---------------------------------------------------------------------------------------------- */

static int list(void) {
    int code = init();
    if (code)
        return code;
    unsigned count = device_count();
    if (!count)
        puts("No devices found.");
    for (unsigned index = 0; index < count; index++) {
        device_t device;
        struct value name, uuid;
        int failed = handle(index, &device);
        if (!failed && !(failed = text_of(device, "nvmlDeviceGetName", &name)))
            failed = text_of(device, "nvmlDeviceGetUUID", &uuid);
        if (failed)
            handle_failed(index, failed);
        else {
            printf("GPU %u: %s (UUID: %s)\n", index, name.text, uuid.text);
            list_mig(device);
        }
    }
    return 0;
}

/* The place of the next name from `from` on that this branch knows and that has this value; the end if there is none. */
static size_t next_name(size_t from, const char *value) {
    size_t i = from;
    while (i < FIELD_COUNT && !(smi_fields[i].branches & branch_bit() && !strcmp(smi_fields[i].canonical, value)))
        i++;
    return i;
}

static int help_query(void) {
    puts("List of valid properties to query for the switch \"--query-gpu=\" (SIMULATED nvidia-smi):\n");
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        const char *value = smi_fields[i].canonical;
        if (next_name(0, value) != i)
            continue; /* of another branch, or an alias */
        printf("\"%s\"", smi_fields[i].name);
        for (size_t j = next_name(i + 1, value); j < FIELD_COUNT; j = next_name(j + 1, value))
            printf(" or \"%s\"", smi_fields[j].name);
        puts("");
    }
    return 0;
}

static int version(void) {
    printf("NVIDIA-SMI version  : %s (SIMULATED)\n", state.library);
    int code = init();
    if (code)
        return code;
    char driver[80] = "";
    int cuda = 0;
    ((int (*)(char *, unsigned))nvml("nvmlSystemGetDriverVersion"))(driver, sizeof driver);
    ((int (*)(int *))nvml("nvmlSystemGetCudaDriverVersion_v2"))(&cuda);
    printf("NVML version        : %s\nDRIVER version      : %s\nCUDA Version        : %d.%d\n", state.library, driver,
           cuda / 1000, cuda % 1000 / 10);
    return 0;
}

static int table(void) {
    int code = init();
    if (code)
        return code;
    char driver[80] = "";
    int cuda = 0;
    ((int (*)(char *, unsigned))nvml("nvmlSystemGetDriverVersion"))(driver, sizeof driver);
    ((int (*)(int *))nvml("nvmlSystemGetCudaDriverVersion_v2"))(&cuda);
    printf("+%.77s+\n| SIMULATED NVIDIA-SMI %-12s Driver Version: %-12s CUDA Version: %d.%d\n",
           "-----------------------------------------------------------------------------", state.library, driver,
           cuda / 1000, cuda % 1000 / 10);
    for (unsigned index = 0; index < device_count(); index++) {
        device_t device;
        struct value name;
        struct memory memory;
        struct pci pci;
        int failed = handle(index, &device);
        if (!failed && !(failed = text_of(device, "nvmlDeviceGetName", &name)) && !(failed = pci_of(device, &pci)))
            failed = memory_of(device, &memory);
        if (failed)
            handle_failed(index, failed);
        else
            printf("| %3u  %-40s %s  %lluMiB / %lluMiB\n", index, name.text, pci.bus_id, memory.used >> 20, memory.total >> 20);
    }
    printf("+%.77s+\n", "-----------------------------------------------------------------------------");
    return 0;
}

static char *value_of(const char *argument, const char *option) {
    size_t length = strlen(option);
    return strncmp(argument, option, length) ? NULL : (char *)argument + length;
}

int main(int argc, char **argv) {
    char *fields = NULL, *apps = NULL, *format = NULL, *wanted = NULL, *found;
    bool all = false, as_xml = false;
    sim_read(&state);
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "-L") || !strcmp(argv[i], "--list-gpus")) return list();
        if (!strcmp(argv[i], "--help-query-gpu")) return help_query();
        if (!strcmp(argv[i], "--version")) return version();
        if ((found = value_of(argv[i], "--query-gpu="))) fields = found;
        else if ((found = value_of(argv[i], "--query-compute-apps="))) apps = found;
        else if (!strcmp(argv[i], "-q") || !strcmp(argv[i], "--query")) all = true;
        else if (!strcmp(argv[i], "-x") || !strcmp(argv[i], "--xml-format")) as_xml = true;
        else if ((found = value_of(argv[i], "--format="))) format = found;
        else if ((found = value_of(argv[i], "--id="))) wanted = found;
        else if (!strcmp(argv[i], "-i") && i + 1 < argc) wanted = argv[++i];
        else {
            printf("Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.\n\n");
            return 2;
        }
    }
    if (all != as_xml || (all && (fields || apps))) {
        puts("Invalid combination of input arguments. This SIMULATED nvidia-smi has -q only together with -x.\n");
        return 2;
    }
    if (all)
        return query_xml();
    if (apps)
        return query_apps(apps, format, wanted);
    return fields ? query(fields, format, wanted) : table();
}
