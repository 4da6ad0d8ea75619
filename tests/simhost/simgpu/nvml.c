/* Copyright (c) 2026, the difyops.gpu authors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A SIMULATED libnvidia-ml.so.1: the part of NVML's C interface that nvidia-ml-py and nvidia-smi need to describe a
 * host. It answers from a profile; there is no GPU behind it.
 */
#include "simgpu.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int nvmlReturn_t;
typedef struct sim_gpu *nvmlDevice_t;

enum {
    OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, LIB_RM_VERSION_MISMATCH = 18,
    ARGUMENT_VERSION_MISMATCH = 25, UNKNOWN = 999,
};

#define EXPORT __attribute__((visibility("default")))

static struct sim_state state;
static struct sim_gpu *visible[SIM_MAX_GPUS]; /* those whose device node can be opened here */
static unsigned visible_count;
static unsigned init_count;

static nvmlReturn_t node_error(int error) {
    switch (error) {
    case 0: return OK;
    case ENOENT: case ENXIO: case ENODEV: return DRIVER_NOT_LOADED;
    case EACCES: return NO_PERMISSION;
    default: return UNKNOWN; /* EPERM of the device cgroup: the well-known "Unknown Error" in a container */
    }
}

static nvmlReturn_t start(void) {
    sim_read(&state);
    sim_maybe_hang(&state, "nvml_init");
    if (state.nvml_init_error)
        return state.nvml_init_error;
    if (!state.loaded[0])
        return DRIVER_NOT_LOADED;
    nvmlReturn_t result = node_error(sim_open_node("nvidiactl"));
    if (result)
        return result;
    if (strcmp(state.loaded, state.library))
        return LIB_RM_VERSION_MISMATCH;
    visible_count = 0;
    for (int i = 0; i < state.gpu_count; i++)
        if (!state.gpu[i].foreign && !sim_open_gpu(&state.gpu[i]))
            visible[visible_count++] = &state.gpu[i];
    return OK;
}

EXPORT nvmlReturn_t nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    if (init_count) {
        init_count++;
        return OK;
    }
    nvmlReturn_t result = start();
    if (result == OK)
        init_count = 1;
    return result;
}

EXPORT nvmlReturn_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
EXPORT nvmlReturn_t nvmlInit(void) { return nvmlInitWithFlags(0); }

EXPORT nvmlReturn_t nvmlShutdown(void) {
    if (!init_count)
        return UNINITIALIZED;
    init_count--;
    return OK;
}

static const struct { nvmlReturn_t code; const char *text; } error_texts[] = {
    {0, "Success"}, {1, "Uninitialized"}, {2, "Invalid Argument"}, {3, "Not Supported"}, {4, "Insufficient Permissions"},
    {5, "Already Initialized"}, {6, "Not Found"}, {7, "Insufficient Size"}, {8, "Insufficient External Power"},
    {9, "Driver Not Loaded"}, {10, "Timeout"}, {11, "Interrupt Request Issue"}, {12, "NVML Shared Library Not Found"},
    {13, "Function Not Found"}, {14, "Corrupted infoROM"}, {15, "GPU is lost"}, {16, "GPU requires reset"},
    {17, "GPU access blocked by the operating system"}, {18, "Driver/library version mismatch"},
    {19, "In use by another client"}, {20, "Insufficient Memory"}, {21, "No data"}, {23, "Insufficient Resources"},
    {24, "Frequency Not Supported"}, {25, "Argument Version Mismatch"}, {26, "Deprecated"}, {27, "Not Ready"},
    {28, "GPU Not Found"}, {29, "Invalid State"}, {999, "Unknown Error"},
};

EXPORT const char *nvmlErrorString(nvmlReturn_t code) {
    for (size_t i = 0; i < sizeof error_texts / sizeof *error_texts; i++)
        if (error_texts[i].code == code)
            return error_texts[i].text;
    return "Unknown Error";
}

/* --- helpers of the calls below ------------------------------------------------------------------------------- */

static nvmlReturn_t text(char *buffer, unsigned size, const char *value) {
    if (!buffer)
        return INVALID_ARGUMENT;
    if (strlen(value) + 1 > size)
        return INSUFFICIENT_SIZE;
    strcpy(buffer, value);
    return OK;
}

static nvmlReturn_t ready(void) {
    if (!init_count)
        return UNINITIALIZED;
    sim_maybe_hang(&state, "nvml_query");
    return OK;
}

static nvmlReturn_t query(nvmlDevice_t gpu) {
    nvmlReturn_t result = ready();
    if (result)
        return result;
    return gpu ? gpu->error : INVALID_ARGUMENT;
}

/* Entry points that came with a branch are missing in the libraries before it: simgpu_profile.py takes them out when a
 * library is installed. */

#define CHECK(call) do { nvmlReturn_t check_result = (call); if (check_result) return check_result; } while (0)
#define NEEDS(pointer) do { if (!(pointer)) return INVALID_ARGUMENT; } while (0)

/* --- system --------------------------------------------------------------------------------------------------- */

EXPORT nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned length) {
    CHECK(ready());
    return text(version, length, state.loaded);
}

EXPORT nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned length) {
    char value[64];
    CHECK(ready());
    snprintf(value, sizeof value, "%d.%s", state.cuda_version / 1000, state.library);
    return text(version, length, value);
}

EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) {
    NEEDS(version);
    /* Answered before nvmlInit too, as the genuine library does. */
    if (!init_count)
        sim_read(&state);
    *version = state.cuda_version;
    return OK;
}

EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) { return nvmlSystemGetCudaDriverVersion(version); }

EXPORT nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count) {
    CHECK(ready());
    NEEDS(count);
    *count = visible_count;
    return OK;
}

EXPORT nvmlReturn_t nvmlDeviceGetCount(unsigned *count) { return nvmlDeviceGetCount_v2(count); }

/* --- handles -------------------------------------------------------------------------------------------------- */

static nvmlReturn_t give(struct sim_gpu *gpu, nvmlDevice_t *device) {
    if (gpu->error && gpu->error_at_handle)
        return gpu->error;
    *device = gpu;
    return OK;
}

/* A MIG device of a GPU that may be used here; NULL where there is none. */
static struct sim_gpu *mig_device(const struct sim_gpu *gpu, unsigned slot) {
    struct sim_gpu *device = gpu->mig_current == 1 && slot < SIM_MAX_MIG ? gpu->mig[slot] : NULL;
    return device && !sim_open_device(device) ? device : NULL;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device) {
    CHECK(ready());
    if (!device || index >= visible_count)
        return INVALID_ARGUMENT;
    return give(visible[index], device);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned index, nvmlDevice_t *device) {
    return nvmlDeviceGetHandleByIndex_v2(index, device);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device) {
    CHECK(ready());
    NEEDS(uuid && device);
    for (unsigned i = 0; i < visible_count; i++) {
        if (!strcmp(visible[i]->uuid, uuid))
            return give(visible[i], device);
        for (int slot = 0; slot < SIM_MAX_MIG; slot++) {
            struct sim_gpu *mig = mig_device(visible[i], slot);
            if (mig && !strcmp(mig->uuid, uuid))
                return give(mig, device);
        }
    }
    return NOT_FOUND;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device) {
    unsigned domain = 0, bus = 0, slot = 0;
    CHECK(ready());
    NEEDS(bus_id && device);
    if (sscanf(bus_id, "%x:%x:%x", &domain, &bus, &slot) != 3) {
        domain = 0;
        if (sscanf(bus_id, "%x:%x", &bus, &slot) != 2)
            return INVALID_ARGUMENT;
    }
    for (unsigned i = 0; i < visible_count; i++)
        if (visible[i]->domain == domain && visible[i]->bus == bus && visible[i]->slot == slot)
            return give(visible[i], device);
    return NOT_FOUND;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *bus_id, nvmlDevice_t *device) {
    return nvmlDeviceGetHandleByPciBusId_v2(bus_id, device);
}

EXPORT nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t gpu, unsigned *index) {
    CHECK(query(gpu));
    NEEDS(index);
    for (unsigned i = 0; i < visible_count; i++)
        if (visible[i] == gpu) {
            *index = i;
            return OK;
        }
    return INVALID_ARGUMENT;
}

/* --- identity ------------------------------------------------------------------------------------------------- */

EXPORT nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t gpu, char *name, unsigned length) {
    CHECK(query(gpu));
    return text(name, length, gpu->name);
}

EXPORT nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t gpu, char *uuid, unsigned length) {
    CHECK(query(gpu));
    return text(uuid, length, gpu->uuid);
}

EXPORT nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t gpu, char *serial, unsigned length) {
    CHECK(query(gpu));
    return gpu->serial[0] ? text(serial, length, gpu->serial) : NOT_SUPPORTED;
}

EXPORT nvmlReturn_t nvmlDeviceGetVbiosVersion(nvmlDevice_t gpu, char *version, unsigned length) {
    CHECK(query(gpu));
    return gpu->vbios[0] ? text(version, length, gpu->vbios) : NOT_SUPPORTED;
}

EXPORT nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t gpu, unsigned *minor) {
    CHECK(query(gpu));
    NEEDS(minor);
    *minor = (unsigned)gpu->minor;
    return OK;
}

EXPORT nvmlReturn_t nvmlDeviceGetBrand(nvmlDevice_t gpu, int *brand) {
    CHECK(query(gpu));
    NEEDS(brand);
    *brand = strncmp(gpu->name, "Tesla", 5) == 0 ? 2 : 14;
    return OK;
}

EXPORT nvmlReturn_t nvmlDeviceGetArchitecture(nvmlDevice_t gpu, unsigned *architecture) {
    CHECK(query(gpu));
    NEEDS(architecture);
    *architecture = (unsigned)gpu->architecture;
    return OK;
}

EXPORT nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t gpu, int *major, int *minor) {
    CHECK(query(gpu));
    NEEDS(major && minor);
    *major = gpu->cc_major;
    *minor = gpu->cc_minor;
    return OK;
}

typedef struct {
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
} nvmlPciInfo_t;

typedef struct {
    unsigned version, domain, bus, device, pci_device_id, pci_subsystem_id, base_class, sub_class;
    char bus_id[32];
} nvmlPciInfoExt_v1_t;

static void bus_id(const struct sim_gpu *gpu, char *to, size_t size) {
    snprintf(to, size, "%08X:%02X:%02X.0", gpu->domain, gpu->bus, gpu->slot);
}

EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t gpu, nvmlPciInfo_t *pci) {
    CHECK(query(gpu));
    NEEDS(pci);
    memset(pci, 0, sizeof *pci);
    pci->domain = gpu->domain;
    pci->bus = gpu->bus;
    pci->device = gpu->slot;
    pci->pci_device_id = gpu->device_id << 16 | gpu->vendor_id;
    pci->pci_subsystem_id = gpu->sub_device << 16 | gpu->sub_vendor;
    bus_id(gpu, pci->bus_id, sizeof pci->bus_id);
    snprintf(pci->bus_id_legacy, sizeof pci->bus_id_legacy, "%04X:%02X:%02X.0", gpu->domain & 0xffff, gpu->bus & 0xff,
             gpu->slot & 0xff);
    return OK;
}

EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v2(nvmlDevice_t gpu, nvmlPciInfo_t *pci) { return nvmlDeviceGetPciInfo_v3(gpu, pci); }

EXPORT nvmlReturn_t nvmlDeviceGetPciInfoExt(nvmlDevice_t gpu, nvmlPciInfoExt_v1_t *pci) {
    CHECK(query(gpu));
    NEEDS(pci);
    pci->domain = gpu->domain;
    pci->bus = gpu->bus;
    pci->device = gpu->slot;
    pci->pci_device_id = gpu->device_id << 16 | gpu->vendor_id;
    pci->pci_subsystem_id = gpu->sub_device << 16 | gpu->sub_vendor;
    pci->base_class = gpu->class_code >> 16;
    pci->sub_class = gpu->class_code >> 8 & 0xff;
    bus_id(gpu, pci->bus_id, sizeof pci->bus_id);
    return OK;
}

/* --- memory, modes, load -------------------------------------------------------------------------------------- */

typedef struct { unsigned long long total, free, used; } nvmlMemory_t;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } nvmlMemory_v2_t;

EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t gpu, nvmlMemory_t *memory) {
    CHECK(query(gpu));
    NEEDS(memory);
    memory->total = gpu->total;
    memory->used = gpu->used + gpu->reserved; /* the first version of the call counts what the driver keeps as used */
    memory->free = gpu->total - memory->used;
    return OK;
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t gpu, nvmlMemory_v2_t *memory) {
    CHECK(query(gpu));
    NEEDS(memory);
    if (memory->version != (sizeof *memory | 2u << 24))
        return ARGUMENT_VERSION_MISMATCH;
    memory->total = gpu->total;
    memory->reserved = gpu->reserved;
    memory->used = gpu->used;
    memory->free = gpu->total - gpu->used - gpu->reserved;
    return OK;
}

typedef struct { unsigned long long total, free, used; } nvmlBAR1Memory_t;

EXPORT nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t gpu, nvmlBAR1Memory_t *memory) {
    CHECK(query(gpu));
    NEEDS(memory);
    memory->total = 256ull << 20;
    memory->used = 1ull << 20;
    memory->free = memory->total - memory->used;
    return OK;
}

EXPORT nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t gpu, int *mode) {
    CHECK(query(gpu));
    NEEDS(mode);
    *mode = gpu->persistence;
    return OK;
}

EXPORT nvmlReturn_t nvmlDeviceGetComputeMode(nvmlDevice_t gpu, int *mode) {
    CHECK(query(gpu));
    NEEDS(mode);
    *mode = gpu->compute_mode;
    return OK;
}

static nvmlReturn_t pair(nvmlDevice_t gpu, int now, int later, int *current, int *pending) {
    CHECK(query(gpu));
    NEEDS(current && pending);
    if (now == SIM_NA)
        return NOT_SUPPORTED;
    *current = now;
    *pending = later;
    return OK;
}

EXPORT nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t gpu, int *current, int *pending) {
    NEEDS(gpu);
    return pair(gpu, gpu->ecc_current, gpu->ecc_pending, current, pending);
}

EXPORT nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t gpu, int *current, int *pending) {
    NEEDS(gpu);
    return pair(gpu, gpu->mig_current, gpu->mig_pending, current, pending);
}

#define MOST_MIG_DEVICES 7 /* of every GPU with MIG except the A30 */

EXPORT nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t gpu, unsigned *count) {
    CHECK(query(gpu));
    NEEDS(count);
    *count = gpu->mig_current == 1 ? MOST_MIG_DEVICES : 0;
    return OK;
}

EXPORT nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t gpu, unsigned index, nvmlDevice_t *device) {
    CHECK(query(gpu));
    NEEDS(device);
    if (gpu->parent || index >= MOST_MIG_DEVICES)
        return INVALID_ARGUMENT;
    struct sim_gpu *found = mig_device(gpu, index);
    if (!found)
        return NOT_FOUND;
    *device = found;
    return OK;
}

EXPORT nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t gpu, unsigned *is_mig) {
    CHECK(query(gpu));
    NEEDS(is_mig);
    *is_mig = gpu->parent != NULL;
    return OK;
}

EXPORT nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t mig, nvmlDevice_t *device) {
    CHECK(query(mig));
    NEEDS(device && mig->parent);
    *device = mig->parent;
    return OK;
}

EXPORT nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t mig, unsigned *id) {
    CHECK(query(mig));
    NEEDS(id && mig->parent);
    *id = (unsigned)mig->gi;
    return OK;
}

EXPORT nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t mig, unsigned *id) {
    CHECK(query(mig));
    NEEDS(id && mig->parent);
    *id = (unsigned)mig->ci;
    return OK;
}

/* --- fabric and recovery -------------------------------------------------------------------------------------- */

typedef struct {
    unsigned char cluster_uuid[16];
    nvmlReturn_t status;
    unsigned clique_id;
    unsigned char state;
} nvmlGpuFabricInfo_t;

typedef struct {
    unsigned version;
    unsigned char cluster_uuid[16];
    nvmlReturn_t status;
    unsigned clique_id;
    unsigned char state;
    unsigned health_mask;
    unsigned char health_summary; /* from version 3 on */
} nvmlGpuFabricInfo_v3_t;

#define FABRIC_V2 (36 | 2u << 24)
#define FABRIC_V3 (sizeof(nvmlGpuFabricInfo_v3_t) | 3u << 24)

EXPORT nvmlReturn_t nvmlDeviceGetGpuFabricInfo(nvmlDevice_t gpu, nvmlGpuFabricInfo_t *info) {
    CHECK(query(gpu));
    NEEDS(info);
    memset(info, 0, sizeof *info);
    info->state = (unsigned char)sim_fabric_state(&state, gpu);
    info->status = gpu->fabric_status;
    return OK;
}

EXPORT nvmlReturn_t nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t gpu, nvmlGpuFabricInfo_v3_t *info) {
    CHECK(query(gpu));
    NEEDS(info);
    if (info->version != FABRIC_V2 && info->version != FABRIC_V3)
        return ARGUMENT_VERSION_MISMATCH;
    memset(info->cluster_uuid, 0, sizeof info->cluster_uuid);
    info->state = (unsigned char)sim_fabric_state(&state, gpu);
    info->status = gpu->fabric_status;
    info->clique_id = info->health_mask = 0;
    if (info->version == FABRIC_V3)
        info->health_summary = 0;
    return OK;
}

typedef struct {
    unsigned field, scope;
    long long timestamp, latency_us;
    int type;
    nvmlReturn_t result;
    union { unsigned number; unsigned long long whole; } value;
} nvmlFieldValue_t;

#define FIELD_RECOVERY_ACTION 230
#define TYPE_UNSIGNED_INT 1
#define RECOVERY_SINCE 565 /* the branch whose NVML has the field */

EXPORT nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t gpu, int count, nvmlFieldValue_t *values) {
    CHECK(query(gpu));
    NEEDS(values && count > 0);
    for (int i = 0; i < count; i++) {
        values[i].timestamp = values[i].latency_us = 0;
        values[i].type = TYPE_UNSIGNED_INT;
        values[i].value.whole = 0;
        if (values[i].field == FIELD_RECOVERY_ACTION && sim_branch(state.library) >= RECOVERY_SINCE) {
            values[i].value.number = (unsigned)gpu->recovery_action;
            values[i].result = OK;
        } else
            values[i].result = NOT_SUPPORTED;
    }
    return OK;
}

/* --- load ------------------------------------------------------------------------------------------------------ */

typedef struct { unsigned gpu, memory; } nvmlUtilization_t;

EXPORT nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t gpu, nvmlUtilization_t *utilization) {
    CHECK(query(gpu));
    NEEDS(utilization);
    if (gpu->mig_current == 1)
        return NOT_SUPPORTED;
    utilization->gpu = utilization->memory = 0;
    return OK;
}

EXPORT nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t gpu, int sensor, unsigned *temperature) {
    CHECK(query(gpu));
    NEEDS(temperature);
    if (sensor != 0)
        return INVALID_ARGUMENT;
    *temperature = 35;
    return OK;
}

EXPORT nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t gpu, unsigned *milliwatts) {
    CHECK(query(gpu));
    NEEDS(milliwatts);
    *milliwatts = 20000;
    return OK;
}

EXPORT nvmlReturn_t nvmlDeviceGetPerformanceState(nvmlDevice_t gpu, int *pstate) {
    CHECK(query(gpu));
    NEEDS(pstate);
    *pstate = 8;
    return OK;
}

EXPORT nvmlReturn_t nvmlDeviceGetDisplayMode(nvmlDevice_t gpu, int *mode) {
    CHECK(query(gpu));
    NEEDS(mode);
    *mode = 0;
    return OK;
}

EXPORT nvmlReturn_t nvmlDeviceGetDisplayActive(nvmlDevice_t gpu, int *active) { return nvmlDeviceGetDisplayMode(gpu, active); }

/* --- processes ------------------------------------------------------------------------------------------------- */

typedef struct { unsigned pid; unsigned long long used; } nvmlProcessInfo_v1_t;
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } nvmlProcessInfo_v2_t;

#define MOST_PROCESSES SIM_MAX_PROCESSES

/* Fills `found` with the processes that there are and returns how many. */
static unsigned processes_of(const struct sim_gpu *gpu, bool graphics, nvmlProcessInfo_v2_t found[MOST_PROCESSES]) {
    unsigned count = 0;
    for (int i = 0; i < gpu->process_count; i++) {
        const struct sim_process *process = &gpu->process[i];
        unsigned pid = process->graphics == graphics ? sim_find_process(process->who) : 0;
        if (pid)
            found[count++] = (nvmlProcessInfo_v2_t){pid, process->used, (unsigned)process->gi, (unsigned)process->ci};
    }
    return count;
}

static nvmlReturn_t processes(nvmlDevice_t gpu, bool graphics, int version, unsigned *count, void *infos) {
    CHECK(query(gpu));
    NEEDS(count);
    nvmlProcessInfo_v2_t found[MOST_PROCESSES];
    unsigned room = *count;
    *count = processes_of(gpu, graphics, found);
    if (*count > room)
        return INSUFFICIENT_SIZE;
    if (*count && !infos)
        return INVALID_ARGUMENT;
    for (unsigned i = 0; i < *count; i++) {
        if (version == 1)
            ((nvmlProcessInfo_v1_t *)infos)[i] = (nvmlProcessInfo_v1_t){found[i].pid, found[i].used};
        else
            ((nvmlProcessInfo_v2_t *)infos)[i] = found[i];
    }
    return OK;
}

EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t gpu, unsigned *count, void *infos) {
    return processes(gpu, false, 1, count, infos);
}

EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t gpu, unsigned *count, void *infos) {
    return processes(gpu, false, 2, count, infos);
}

EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t gpu, unsigned *count, void *infos) {
    return processes(gpu, false, 2, count, infos); /* of the same layout */
}

EXPORT nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses(nvmlDevice_t gpu, unsigned *count, void *infos) {
    return processes(gpu, true, 1, count, infos);
}

EXPORT nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v2(nvmlDevice_t gpu, unsigned *count, void *infos) {
    return processes(gpu, true, 2, count, infos);
}

EXPORT nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t gpu, unsigned *count, void *infos) {
    return processes(gpu, true, 2, count, infos);
}

EXPORT nvmlReturn_t nvmlSystemGetProcessName(unsigned pid, char *name, unsigned length) {
    CHECK(ready());
    if (!name || !length)
        return INVALID_ARGUMENT;
    return sim_process_name(pid, name, length) ? OK : NOT_FOUND;
}
