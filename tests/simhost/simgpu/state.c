/* Copyright (c) 2026, the difyops.gpu authors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 */
#include "simgpu.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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

/* <number or part of the command line>,<MiB or na>[,compute|graphics[,<gpu instance>,<compute instance>]] */
static void set_process(struct sim_gpu *gpu, const char *value) {
    char text[256], *rest = text;
    if (gpu->process_count == SIM_MAX_PROCESSES)
        return;
    struct sim_process *process = &gpu->process[gpu->process_count++];
    copy(text, sizeof text, value);
    *process = (struct sim_process){.gi = SIM_NA, .ci = SIM_NA};
    for (int part = 0; rest; part++) {
        const char *word = strsep(&rest, ",");
        if (part == 0) copy(process->who, sizeof process->who, word);
        else if (part == 1) process->used = strcmp(word, "na") ? mib(word) : ULLONG_MAX;
        else if (part == 2) process->graphics = !strcmp(word, "graphics");
        else if (part == 3) process->gi = number(word);
        else if (part == 4) process->ci = number(word);
    }
}

/* Streaming multiprocessors of one of the seven slices of a GPU that has MIG. */
static int slice_multiprocessors(int architecture) {
    return architecture >= 10 ? 18 : architecture == SIM_ARCHITECTURE_HOPPER ? 16 : 14;
}

/* <profile>,<gpu instance>,<compute instance>,<uuid>,<MiB>; its other properties are the GPU's, see link_mig. */
static void set_mig_device(struct sim_gpu *gpu, struct sim_gpu *device, const char *value) {
    char text[256], *rest = text;
    copy(text, sizeof text, value);
    memset(device, 0, sizeof *device);
    for (int part = 0; rest; part++) {
        const char *word = strsep(&rest, ",");
        if (part == 0) copy(device->mig_profile, sizeof device->mig_profile, word);
        else if (part == 1) device->gi = number(word);
        else if (part == 2) device->ci = number(word);
        else if (part == 3) copy(device->uuid, sizeof device->uuid, word);
        else if (part == 4) device->total = mib(word);
    }
    device->parent = gpu;
}

static void link_mig(struct sim_gpu *gpu) {
    for (int i = 0; i < SIM_MAX_MIG; i++) {
        struct sim_gpu *device = gpu->mig[i];
        if (!device)
            continue;
        struct sim_gpu own = *device;
        *device = *gpu;
        copy(device->mig_profile, sizeof device->mig_profile, own.mig_profile);
        copy(device->uuid, sizeof device->uuid, own.uuid);
        size_t length = strlen(device->name);
        snprintf(device->name + length, sizeof device->name - length, " MIG %s", own.mig_profile);
        device->parent = gpu;
        device->gi = own.gi;
        device->ci = own.ci;
        device->total = own.total;
        device->used = device->reserved = 0;
        device->process_count = 0;
        device->multiprocessors = atoi(own.mig_profile) * slice_multiprocessors(gpu->architecture);
        memset(device->mig, 0, sizeof device->mig);
        for (int p = 0; p < gpu->process_count; p++)
            if (gpu->process[p].gi == device->gi && gpu->process[p].ci == device->ci)
                device->process[device->process_count++] = gpu->process[p];
    }
}

/* What processes hold is used, whatever else the profile says. */
static void add_up_memory(struct sim_gpu *gpu) {
    unsigned long long held = 0;
    for (int i = 0; i < gpu->process_count; i++)
        if (gpu->process[i].used != ULLONG_MAX)
            held += gpu->process[i].used;
    if (gpu->used < held)
        gpu->used = held;
}

static enum sim_owner owner(const char *driver) {
    if (!strcmp(driver, "nvidia"))
        return OWNER_NVIDIA;
    return !strcmp(driver, "nouveau") || !strcmp(driver, "nova_core") ? OWNER_RIVAL : OWNER_OTHER;
}

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
    else if (!strcmp(key, "bound_driver")) gpu->owner = owner(value);
    else if (!strcmp(key, "fabric_state")) gpu->fabric_state = number(value);
    else if (!strcmp(key, "fabric_status")) gpu->fabric_status = number(value);
    else if (!strcmp(key, "recovery_action")) gpu->recovery_action = number(value);
    else if (!strcmp(key, "slow_factor")) gpu->slow_factor = strtod(value, NULL);
    else if (!strncmp(key, "process.", 8)) set_process(gpu, value);
}

static struct sim_gpu *gpu_at(struct sim_state *state, int index) {
    while (state->gpu_count <= index) {
        struct sim_gpu *gpu = &state->gpu[state->gpu_count];
        memset(gpu, 0, sizeof *gpu);
        gpu->minor = state->gpu_count++;
        gpu->vendor_id = gpu->sub_vendor = 0x10de;
        gpu->class_code = 0x030200;
        gpu->ecc_current = gpu->ecc_pending = gpu->mig_current = gpu->mig_pending = SIM_NA;
        gpu->fabric_state = SIM_NA;
        gpu->slow_factor = 1;
    }
    return &state->gpu[index];
}

static void set_key(struct sim_state *state, const char *key, const char *value) {
    int index, slot, used = 0;
    if (sscanf(key, "gpu.%d.%n", &index, &used) == 1 && used && index >= 0 && index < SIM_MAX_GPUS) {
        struct sim_gpu *gpu = gpu_at(state, index);
        if (sscanf(key + used, "mig_device.%d", &slot) == 1 && slot >= 0 && slot < SIM_MAX_MIG) {
            gpu->mig[slot] = &state->mig[index * SIM_MAX_MIG + slot];
            set_mig_device(gpu, gpu->mig[slot], value);
        } else
            set_gpu(gpu, key + used, value);
    }
    else if (!strcmp(key, "driver_version")) copy(state->library, sizeof state->library, value);
    else if (!strcmp(key, "cuda_version")) {
        int major = 0, minor = 0;
        sscanf(value, "%d.%d", &major, &minor);
        state->cuda_version = major * 1000 + minor * 10;
    } else if (!strcmp(key, "nvml_init_error")) state->nvml_init_error = number(value);
    else if (!strcmp(key, "cu_init_error")) state->cu_init_error = number(value);
    else if (!strcmp(key, "nvswitches")) state->nvswitches = number(value);
    else if (!strcmp(key, "fabric")) state->fabric = !strcmp(value, "yes");
    else if (!strcmp(key, "bound_driver")) state->owner = owner(value);
    else if (!strcmp(key, "hang")) copy(state->hang, sizeof state->hang, value);
}

static void set_loaded(struct sim_state *state, const char *key, const char *value) {
    if (!strcmp(key, "driver_version"))
        copy(state->loaded, sizeof state->loaded, value);
    else if (!strcmp(key, "fabric_manager"))
        copy(state->fabric_manager, sizeof state->fabric_manager, value);
    else if (!strcmp(key, "rivals"))
        state->rivals_gone = !strcmp(value, "gone");
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
    read_pairs(SIMGPU_FABRIC, state, set_loaded);
    state->fabric = state->fabric || state->nvswitches;
    for (int i = 0; i < state->gpu_count; i++) {
        struct sim_gpu *gpu = &state->gpu[i];
        enum sim_owner bound = gpu->owner != OWNER_DEFAULT ? gpu->owner : state->owner;
        gpu->foreign = bound == OWNER_OTHER || (bound == OWNER_RIVAL && !state->rivals_gone);
        add_up_memory(gpu);
        link_mig(gpu);
        for (int slot = 0; slot < SIM_MAX_MIG; slot++)
            if (gpu->mig[slot])
                add_up_memory(gpu->mig[slot]);
    }
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

/* The numbers of the nodes that guard MIG instances, as /proc/driver/nvidia-caps/mig-minors lists them. */
static int sim_open_capability(int minor_of_gpu, int gi, int ci) {
    char name[64];
    int minor = 3 + minor_of_gpu * 135 + gi * 9 + (ci == SIM_NA ? 0 : 1 + ci);
    snprintf(name, sizeof name, "nvidia-caps/nvidia-cap%d", minor);
    return sim_open_node(name);
}

int sim_open_device(const struct sim_gpu *device) {
    int error = sim_open_gpu(device);
    if (!error && device->parent) {
        error = sim_open_capability(device->minor, device->gi, SIM_NA);
        if (!error)
            error = sim_open_capability(device->minor, device->gi, device->ci);
    }
    return error;
}

int sim_fabric_state(const struct sim_state *state, const struct sim_gpu *gpu) {
    if (gpu->fabric_state != SIM_NA)
        return gpu->fabric_state;
    if (!state->fabric || gpu->architecture < SIM_ARCHITECTURE_HOPPER)
        return FABRIC_NOT_SUPPORTED;
    return state->fabric_manager[0] ? FABRIC_COMPLETED : FABRIC_IN_PROGRESS;
}

static bool runs(unsigned pid, const char *part) {
    char path[64], line[4096];
    snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    size_t length = fread(line, 1, sizeof line - 1, file);
    fclose(file);
    for (size_t i = 0; i < length; i++)
        if (!line[i])
            line[i] = ' ';
    line[length] = 0;
    return strstr(line, part) != NULL;
}

unsigned sim_find_process(const char *who) {
    char *end;
    unsigned long pid = strtoul(who, &end, 10);
    unsigned found = 0;
    if (end != who && !*end)
        return (unsigned)pid;
    DIR *processes = opendir("/proc");
    for (struct dirent *entry; processes && !found && (entry = readdir(processes));) {
        pid = strtoul(entry->d_name, &end, 10);
        if (pid && !*end && pid != (unsigned long)getpid() && runs((unsigned)pid, who))
            found = (unsigned)pid;
    }
    if (processes)
        closedir(processes);
    return found;
}

bool sim_process_name(unsigned pid, char *name, unsigned size) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    size_t length = fread(name, 1, size - 1, file);
    name[length] = 0; /* the arguments after the first end it by themselves */
    fclose(file);
    return length > 0;
}

void sim_maybe_hang(const struct sim_state *state, const char *where) {
    while (!strcmp(state->hang, where))
        pause();
}
