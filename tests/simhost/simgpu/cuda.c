/* Copyright (c) 2026, the difyops.gpu authors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A SIMULATED libcuda.so.1: the CUDA driver API up to contexts and memory. It can say which GPUs there are and hand out
 * addresses; it runs no kernel. Like the genuine one it needs the device nodes, so a container that may not open them
 * has no GPU.
 */
#include "simgpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int CUresult;
typedef int CUdevice;
typedef struct sim_gpu *CUcontext;
typedef unsigned long long CUdeviceptr;

enum {
    SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_DEVICE = 101,
    DEVICE_UNAVAILABLE = 46, INVALID_CONTEXT = 201, SYSTEM_NOT_READY = 802, SYSTEM_DRIVER_MISMATCH = 803,
};

#define EXPORT __attribute__((visibility("default")))

static struct sim_state state;
static struct sim_gpu *visible[SIM_MAX_GPUS];
static int visible_count;
static bool initialized;
static CUcontext current;

/* The GPU or MIG device that an entry of CUDA_VISIBLE_DEVICES names: a number, or the beginning of a UUID. */
static struct sim_gpu *named(const char *word, struct sim_gpu **whole, int wholes, struct sim_gpu **mig, int migs) {
    char *end;
    long index = strtol(word, &end, 10);
    if (end != word && !*end)
        return index >= 0 && index < wholes ? whole[index] : !wholes && index == 0 && migs ? mig[0] : NULL;
    if (strncmp(word, "GPU-", 4) && strncmp(word, "MIG-", 4))
        return NULL;
    for (int i = 0; i < wholes; i++)
        if (!strncmp(whole[i]->uuid, word, strlen(word)))
            return whole[i];
    for (int i = 0; i < migs; i++)
        if (!strncmp(mig[i]->uuid, word, strlen(word)))
            return mig[i];
    return NULL;
}

/* Whole GPUs; where all are split, one MIG device, since CUDA takes no more than one. With CUDA_VISIBLE_DEVICES what it
 * names; the first entry that names nothing ends the list. */
static void choose_visible(struct sim_gpu **whole, int wholes, struct sim_gpu **mig, int migs) {
    const char *wanted = getenv("CUDA_VISIBLE_DEVICES");
    char list[512];
    visible_count = 0;
    if (!wanted) {
        for (int i = 0; i < wholes; i++)
            visible[visible_count++] = whole[i];
        if (!wholes && migs)
            visible[visible_count++] = mig[0];
        return;
    }
    snprintf(list, sizeof list, "%s", wanted);
    for (char *word = strtok(list, ","); word && visible_count < SIM_MAX_GPUS; word = strtok(NULL, ",")) {
        struct sim_gpu *found = named(word, whole, wholes, mig, migs);
        if (!found)
            return;
        visible[visible_count++] = found;
        if (found->parent)
            return;
    }
}

static bool usable(const struct sim_gpu *device) {
    return !device->error && !device->foreign && !sim_open_device(device);
}

/* In an NVLink fabric no GPU computes before the fabric manager has done its work. */
static bool fabric_ready(void) {
    for (int i = 0; i < state.gpu_count; i++) {
        const struct sim_gpu *gpu = &state.gpu[i];
        int here = sim_fabric_state(&state, gpu);
        if (here == FABRIC_NOT_STARTED || here == FABRIC_IN_PROGRESS)
            return false;
        /* Before Hopper NVML does not tell. */
        if (gpu->fabric_state == SIM_NA && state.fabric && !state.fabric_manager[0])
            return false;
    }
    return true;
}

EXPORT CUresult cuInit(unsigned flags) {
    if (flags)
        return INVALID_VALUE;
    if (initialized)
        return SUCCESS;
    sim_read(&state);
    sim_maybe_hang(&state, "cu_init");
    if (state.cu_init_error)
        return state.cu_init_error;
    if (!state.loaded[0] || sim_open_node("nvidiactl"))
        return NO_DEVICE;
    if (strcmp(state.loaded, state.library))
        return SYSTEM_DRIVER_MISMATCH;
    static struct sim_gpu *whole[SIM_MAX_GPUS], *mig[SIM_MAX_GPUS * SIM_MAX_MIG];
    int wholes = 0, migs = 0;
    for (int i = 0; i < state.gpu_count; i++) {
        struct sim_gpu *gpu = &state.gpu[i];
        if (gpu->mig_current != 1) {
            if (usable(gpu))
                whole[wholes++] = gpu;
            continue;
        }
        for (int slot = 0; slot < SIM_MAX_MIG; slot++)
            if (gpu->mig[slot] && usable(gpu->mig[slot]))
                mig[migs++] = gpu->mig[slot];
    }
    choose_visible(whole, wholes, mig, migs);
    if (!visible_count)
        return NO_DEVICE;
    if (!fabric_ready())
        return SYSTEM_NOT_READY;
    initialized = true;
    return SUCCESS;
}

EXPORT CUresult cuDriverGetVersion(int *version) {
    if (!version)
        return INVALID_VALUE;
    if (!initialized)
        sim_read(&state);
    *version = state.cuda_version;
    return SUCCESS;
}

static const struct { CUresult code; const char *name, *text; } errors[] = {
    {0, "CUDA_SUCCESS", "no error"},
    {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {34, "CUDA_ERROR_STUB_LIBRARY", "CUDA driver is a stub library"},
    {46, "CUDA_ERROR_DEVICE_UNAVAILABLE", "CUDA-capable device(s) is/are busy or unavailable"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {209, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    {802, "CUDA_ERROR_SYSTEM_NOT_READY", "system not yet initialized"},
    {803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "system has unsupported display driver / cuda driver combination"},
    {804, "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE", "forward compatibility was attempted on non supported HW"},
    {999, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

static CUresult describe(CUresult code, const char **to, bool name) {
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].code == code) {
            *to = name ? errors[i].name : errors[i].text;
            return SUCCESS;
        }
    *to = NULL;
    return INVALID_VALUE;
}

EXPORT CUresult cuGetErrorName(CUresult code, const char **name) { return name ? describe(code, name, true) : INVALID_VALUE; }
EXPORT CUresult cuGetErrorString(CUresult code, const char **text) { return text ? describe(code, text, false) : INVALID_VALUE; }

#define NEEDS_INIT() do { if (!initialized) return NOT_INITIALIZED; } while (0)

static struct sim_gpu *gpu_of(CUdevice device) {
    return device >= 0 && device < visible_count ? visible[device] : NULL;
}

/* Opens a call about one device: checks, then `gpu` is it. */
#define WITH_GPU(device, out) \
    NEEDS_INIT(); \
    struct sim_gpu *gpu = gpu_of(device); \
    if (!gpu) return INVALID_DEVICE; \
    if (!(out)) return INVALID_VALUE

EXPORT CUresult cuDeviceGetCount(int *count) {
    NEEDS_INIT();
    if (!count)
        return INVALID_VALUE;
    *count = visible_count;
    return SUCCESS;
}

EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    WITH_GPU(ordinal, device);
    (void)gpu;
    *device = ordinal;
    return SUCCESS;
}

EXPORT CUresult cuDeviceGetName(char *name, int length, CUdevice device) {
    WITH_GPU(device, name);
    snprintf(name, (size_t)length, "%s", gpu->name);
    return SUCCESS;
}

static unsigned nibble(char c) { return c <= '9' ? (unsigned)(c - '0') : (unsigned)((c | 32) - 'a' + 10); }

EXPORT CUresult cuDeviceGetUuid(unsigned char uuid[16], CUdevice device) {
    WITH_GPU(device, uuid);
    int digits = 0;
    memset(uuid, 0, 16);
    for (const char *p = gpu->uuid + (strncmp(gpu->uuid + 1, gpu->parent ? "IG-" : "PU-", 3) ? 0 : 4); *p && digits < 32; p++)
        if (*p != '-') {
            uuid[digits / 2] = (unsigned char)(uuid[digits / 2] << 4 | nibble(*p));
            digits++;
        }
    return SUCCESS;
}

EXPORT CUresult cuDeviceGetUuid_v2(unsigned char uuid[16], CUdevice device) { return cuDeviceGetUuid(uuid, device); }

EXPORT CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
    WITH_GPU(device, value);
    switch (attribute) {
    case 1: *value = 1024; break;           /* threads per block */
    case 10: *value = 32; break;            /* warp size */
    case 13: *value = gpu->clock_khz; break;
    case 16: *value = gpu->multiprocessors; break;
    case 20: *value = gpu->compute_mode; break;
    case 33: *value = (int)gpu->bus; break;
    case 34: *value = (int)gpu->slot; break;
    case 50: *value = (int)gpu->domain; break;
    case 75: *value = gpu->cc_major; break;
    case 76: *value = gpu->cc_minor; break;
    default: *value = 0;
    }
    return attribute < 1 ? INVALID_VALUE : SUCCESS;
}

EXPORT CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device) {
    WITH_GPU(device, major && minor);
    *major = gpu->cc_major;
    *minor = gpu->cc_minor;
    return SUCCESS;
}

EXPORT CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
    WITH_GPU(device, bytes);
    *bytes = (size_t)(gpu->total - gpu->reserved);
    return SUCCESS;
}

EXPORT CUresult cuDeviceGetPCIBusId(char *bus_id, int length, CUdevice device) {
    WITH_GPU(device, bus_id);
    snprintf(bus_id, (size_t)length, "%04X:%02X:%02X.0", gpu->domain, gpu->bus, gpu->slot);
    return SUCCESS;
}

/* Not of CUDA: how many times slower than its clock the profile makes a GPU, in thousandths. Nothing else tells, as in
 * life; the stand-in PyTorch keeps its simulated time by it. */
EXPORT int simgpuSlowFactor(CUdevice device) {
    struct sim_gpu *gpu = gpu_of(device);
    return gpu ? (int)(gpu->slow_factor * 1000) : 1000;
}

/* Whether the compute mode keeps this process out: prohibited, or exclusive and taken by another process. */
static bool kept_out(const struct sim_gpu *gpu) {
    if (gpu->compute_mode == 0)
        return false;
    if (gpu->compute_mode == 2)
        return true;
    for (int i = 0; i < gpu->process_count; i++)
        if (!gpu->process[i].graphics)
            return true;
    return false;
}

EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    WITH_GPU(device, context);
    if (kept_out(gpu))
        return DEVICE_UNAVAILABLE;
    *context = gpu;
    return SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    NEEDS_INIT();
    return gpu_of(device) ? SUCCESS : INVALID_DEVICE;
}

EXPORT CUresult cuDevicePrimaryCtxRelease(CUdevice device) { return cuDevicePrimaryCtxRelease_v2(device); }

EXPORT CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active) {
    WITH_GPU(device, flags && active);
    *flags = 0;
    *active = current == gpu;
    return SUCCESS;
}

EXPORT CUresult cuCtxCreate_v2(CUcontext *context, unsigned flags, CUdevice device) {
    (void)flags;
    CUresult result = cuDevicePrimaryCtxRetain(context, device);
    if (!result)
        current = *context;
    return result;
}

EXPORT CUresult cuCtxDestroy_v2(CUcontext context) {
    NEEDS_INIT();
    if (!context)
        return INVALID_CONTEXT;
    if (current == context)
        current = NULL;
    return SUCCESS;
}

EXPORT CUresult cuCtxSetCurrent(CUcontext context) {
    NEEDS_INIT();
    current = context;
    return SUCCESS;
}

EXPORT CUresult cuCtxGetCurrent(CUcontext *context) {
    NEEDS_INIT();
    if (!context)
        return INVALID_VALUE;
    *context = current;
    return SUCCESS;
}

EXPORT CUresult cuCtxSynchronize(void) {
    NEEDS_INIT();
    return current ? SUCCESS : INVALID_CONTEXT;
}

/* Memory of this process only: no two processes share a simulated GPU's memory. */
static unsigned long long allocated;

struct block { CUdeviceptr address; size_t size; struct block *next; };
static struct block *blocks;

static unsigned long long available(void) {
    unsigned long long taken = current->reserved + current->used + allocated;
    return taken < current->total ? current->total - taken : 0;
}

EXPORT CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    NEEDS_INIT();
    if (!free_bytes || !total)
        return INVALID_VALUE;
    if (!current)
        return INVALID_CONTEXT;
    *total = (size_t)(current->total - current->reserved);
    *free_bytes = (size_t)available();
    return SUCCESS;
}

EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t size) {
    static CUdeviceptr next_address = 0x7f0000000000ull;
    NEEDS_INIT();
    if (!address || !size)
        return INVALID_VALUE;
    if (!current)
        return INVALID_CONTEXT;
    if (size > available())
        return OUT_OF_MEMORY;
    struct block *block = malloc(sizeof *block);
    if (!block)
        return OUT_OF_MEMORY;
    *block = (struct block){next_address, size, blocks};
    blocks = block;
    allocated += size;
    next_address += (size + 511) & ~511ull;
    *address = block->address;
    return SUCCESS;
}

EXPORT CUresult cuMemFree_v2(CUdeviceptr address) {
    NEEDS_INIT();
    for (struct block **link = &blocks; *link; link = &(*link)->next)
        if ((*link)->address == address) {
            struct block *block = *link;
            *link = block->next;
            allocated -= block->size;
            free(block);
            return SUCCESS;
        }
    return INVALID_VALUE;
}
