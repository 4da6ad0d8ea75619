/* Copyright (c) 2026, the difyops.gpu authors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 */
#include "simgpu.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The version is written into the built library by `simgpu_stub.py` (as it is compiled into the genuine one), so that
 * installing another driver package changes the library and not yet the loaded module. Unstamped (unit tests): the
 * profile's driver_version. */
#define STAMP_SIZE 40
__attribute__((used)) static const volatile char version_stamp[STAMP_SIZE] = "@@SIMGPU-LIBRARY-VERSION@@............";

static const struct { int branch, cuda; } branch_cuda[] = {
    {450, 11000}, {455, 11010}, {460, 11020}, {465, 11030}, {470, 11040}, {495, 11050}, {510, 11060}, {515, 11070},
    {520, 11080}, {525, 12000}, {530, 12010}, {535, 12020}, {545, 12030}, {550, 12040}, {555, 12050}, {560, 12060},
    {565, 12070}, {570, 12080}, {575, 12090}, {580, 13000}, {590, 13010}, {595, 13020}, {610, 13030}, {615, 13040},
};

int sim_branch(const char *version) { return atoi(version); }

static int cuda_of_branch(int branch) {
    int cuda = 0;
    for (size_t i = 0; i < sizeof branch_cuda / sizeof *branch_cuda; i++)
        if (branch_cuda[i].branch <= branch)
            cuda = branch_cuda[i].cuda;
    return cuda;
}

static void copy(char *to, size_t size, const char *from) { snprintf(to, size, "%s", from); }

static int number(const char *text) { return strcmp(text, "na") == 0 ? SIM_NA : (int)strtol(text, NULL, 0); }

static unsigned long long mib(const char *text) { return strtoull(text, NULL, 10) << 20; }

static void set_gpu(struct sim_gpu *gpu, const char *key, const char *value) {
    if (!strcmp(key, "pci")) {
        copy(gpu->pci, sizeof gpu->pci, value);
        sscanf(value, "%x:%x:%x", &gpu->domain, &gpu->bus, &gpu->slot);
    } else if (!strcmp(key, "name")) copy(gpu->name, sizeof gpu->name, value);
    else if (!strcmp(key, "uuid")) copy(gpu->uuid, sizeof gpu->uuid, value);
    else if (!strcmp(key, "serial")) copy(gpu->serial, sizeof gpu->serial, value);
    else if (!strcmp(key, "vbios")) copy(gpu->vbios, sizeof gpu->vbios, value);
    else if (!strcmp(key, "class")) gpu->class_code = (unsigned)strtoul(value, NULL, 16);
    else if (!strcmp(key, "device_id")) gpu->device_id = (unsigned)strtoul(value, NULL, 16);
    else if (!strcmp(key, "subsystem_vendor")) gpu->sub_vendor = (unsigned)strtoul(value, NULL, 16);
    else if (!strcmp(key, "subsystem_device")) gpu->sub_device = (unsigned)strtoul(value, NULL, 16);
    else if (!strcmp(key, "minor")) gpu->minor = number(value);
    else if (!strcmp(key, "architecture")) gpu->architecture = number(value);
    else if (!strcmp(key, "compute_capability")) sscanf(value, "%d.%d", &gpu->cc_major, &gpu->cc_minor);
    else if (!strcmp(key, "multiprocessors")) gpu->multiprocessors = number(value);
    else if (!strcmp(key, "clock_khz")) gpu->clock_khz = number(value);
    else if (!strcmp(key, "memory_mib")) gpu->total = mib(value);
    else if (!strcmp(key, "memory_used_mib")) gpu->used = mib(value);
    else if (!strcmp(key, "memory_reserved_mib")) gpu->reserved = mib(value);
    else if (!strcmp(key, "persistence")) gpu->persistence = number(value);
    else if (!strcmp(key, "compute_mode")) gpu->compute_mode = number(value);
    else if (!strcmp(key, "ecc")) gpu->ecc_current = gpu->ecc_pending = number(value);
    else if (!strcmp(key, "ecc_pending")) gpu->ecc_pending = number(value);
    else if (!strcmp(key, "mig")) gpu->mig_current = gpu->mig_pending = number(value);
    else if (!strcmp(key, "mig_pending")) gpu->mig_pending = number(value);
    else if (!strcmp(key, "error")) gpu->error = number(value);
    else if (!strcmp(key, "error_at")) gpu->error_at_handle = !strcmp(value, "handle");
}

static struct sim_gpu *gpu_at(struct sim_state *state, int index) {
    while (state->gpu_count <= index) {
        struct sim_gpu *gpu = &state->gpu[state->gpu_count];
        memset(gpu, 0, sizeof *gpu);
        gpu->minor = state->gpu_count++;
        gpu->vendor_id = gpu->sub_vendor = 0x10de;
        gpu->class_code = 0x030200;
        gpu->ecc_current = gpu->ecc_pending = gpu->mig_current = gpu->mig_pending = SIM_NA;
    }
    return &state->gpu[index];
}

static void set_key(struct sim_state *state, const char *key, const char *value) {
    int index, used = 0;
    if (sscanf(key, "gpu.%d.%n", &index, &used) == 1 && used && index >= 0 && index < SIM_MAX_GPUS)
        set_gpu(gpu_at(state, index), key + used, value);
    else if (!strcmp(key, "driver_version")) copy(state->library, sizeof state->library, value);
    else if (!strcmp(key, "cuda_version")) {
        int major = 0, minor = 0;
        sscanf(value, "%d.%d", &major, &minor);
        state->cuda_version = major * 1000 + minor * 10;
    } else if (!strcmp(key, "nvml_init_error")) state->nvml_init_error = number(value);
    else if (!strcmp(key, "cu_init_error")) state->cu_init_error = number(value);
    else if (!strcmp(key, "hang")) copy(state->hang, sizeof state->hang, value);
}

static void set_loaded(struct sim_state *state, const char *key, const char *value) {
    if (!strcmp(key, "driver_version"))
        copy(state->loaded, sizeof state->loaded, value);
}

static void read_pairs(const char *path, struct sim_state *state,
                       void (*set)(struct sim_state *, const char *, const char *)) {
    char line[512];
    FILE *file = fopen(path, "re");
    if (!file)
        return;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\r\n")] = 0;
        char *value = strchr(line, '=');
        if (line[0] == '#' || !value)
            continue;
        *value++ = 0;
        set(state, line, value);
    }
    fclose(file);
}

void sim_read(struct sim_state *state) {
    memset(state, 0, sizeof *state);
    read_pairs(SIMGPU_PROFILE, state, set_key);
    read_pairs(SIMGPU_LOADED, state, set_loaded);
    if (version_stamp[0] != '@')
        for (int i = 0; i < (int)sizeof state->library - 1; i++)
            state->library[i] = version_stamp[i];
    if (!state->cuda_version)
        state->cuda_version = cuda_of_branch(sim_branch(state->library));
}

int sim_open_node(const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", SIMGPU_DEV, name);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return errno;
    close(fd);
    return 0;
}

int sim_open_gpu(const struct sim_gpu *gpu) {
    char name[32];
    snprintf(name, sizeof name, "nvidia%d", gpu->minor);
    return sim_open_node(name);
}

void sim_maybe_hang(const struct sim_state *state, const char *where) {
    while (!strcmp(state->hang, where))
        pause();
}
