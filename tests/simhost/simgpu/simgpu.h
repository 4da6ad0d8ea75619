/* Copyright (c) 2026, the difyops.gpu authors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What the simulated libraries share: the profile (which GPUs, which faults) and the state of the simulated kernel
 * module (what the boot loaded). Both are plain `key=value` files; README.md lists the keys.
 */
#ifndef SIMGPU_H
#define SIMGPU_H

#include <stdbool.h>

/* Set at compile time by the unit tests, so that they need neither root nor a simulated host. */
#ifndef SIMGPU_PROFILE
#define SIMGPU_PROFILE "/etc/simgpu/profile"
#endif
#ifndef SIMGPU_LOADED
#define SIMGPU_LOADED "/run/simgpu/module/loaded"
#endif
#ifndef SIMGPU_DEV
#define SIMGPU_DEV "/dev"
#endif

#define SIM_MAX_GPUS 16
#define SIM_NA (-1)

struct sim_gpu {
    char pci[32];                 /* 0000:3b:00.0 */
    unsigned domain, bus, slot, class_code;
    unsigned device_id, vendor_id, sub_device, sub_vendor;
    char name[96], uuid[96], serial[32], vbios[32];
    int minor;                    /* /dev/nvidia<minor> */
    int architecture;             /* NVML's number */
    int cc_major, cc_minor;
    int multiprocessors, clock_khz;
    unsigned long long total, used, reserved; /* bytes */
    int persistence, compute_mode;
    int ecc_current, ecc_pending; /* 0, 1 or SIM_NA */
    int mig_current, mig_pending; /* 0, 1 or SIM_NA */
    int error;                    /* NVML code that calls about this GPU return; 0: none */
    bool error_at_handle;         /* already asking for the handle fails */
};

struct sim_state {
    char loaded[32];              /* version of the loaded kernel module; empty: none is loaded */
    char library[32];             /* version of these user-space libraries */
    int cuda_version;             /* 12020 for 12.2, from the library's branch */
    int gpu_count;
    struct sim_gpu gpu[SIM_MAX_GPUS];
    int nvml_init_error, cu_init_error;
    char hang[32];                /* nvml_init, nvml_query or cu_init */
};

/* Reads profile and module state afresh. */
void sim_read(struct sim_state *state);
/* Opens a device node as the genuine library does: 0, or the errno value. */
int sim_open_node(const char *name);
int sim_open_gpu(const struct sim_gpu *gpu);
/* Never returns when the profile says that this call hangs. */
void sim_maybe_hang(const struct sim_state *state, const char *where);
/* 535 for 535.274.02 */
int sim_branch(const char *version);

#endif
