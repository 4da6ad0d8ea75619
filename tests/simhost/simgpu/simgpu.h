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
#ifndef SIMGPU_FABRIC
#define SIMGPU_FABRIC "/run/simgpu/module/fabric"
#endif
#ifndef SIMGPU_DEV
#define SIMGPU_DEV "/dev"
#endif

#define SIM_MAX_GPUS 16
#define SIM_MAX_MIG 8
#define SIM_MAX_PROCESSES 8
#define SIM_NA (-1)
#define SIM_ARCHITECTURE_HOPPER 9

enum { FABRIC_NOT_SUPPORTED, FABRIC_NOT_STARTED, FABRIC_IN_PROGRESS, FABRIC_COMPLETED };

struct sim_process {
    char who[64];                 /* a number, or a part of the command line of a process to look for */
    unsigned long long used;      /* bytes; ULLONG_MAX: the driver does not tell */
    bool graphics;
    int gi, ci;                   /* MIG instances it runs on; SIM_NA: none */
};

/* Which kernel driver the profile binds to a GPU. A rival is one that a blacklist keeps out: nouveau, nova_core. */
enum sim_owner { OWNER_DEFAULT, OWNER_NVIDIA, OWNER_RIVAL, OWNER_OTHER };

/* A GPU, or a MIG device of one (then `parent` is it). */
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
    enum sim_owner owner;         /* as the profile says it for this GPU */
    bool foreign;                 /* another driver than nvidia is bound to it, so the libraries do not see it */
    int fabric_state, fabric_status; /* NVML's numbers; state SIM_NA: follows the fabric manager */
    int recovery_action;          /* NVML's number */
    double slow_factor;           /* how many times slower than its clock tells */
    struct sim_process process[SIM_MAX_PROCESSES];
    int process_count;
    struct sim_gpu *parent, *mig[SIM_MAX_MIG];
    char mig_profile[24];         /* 1g.5gb */
    int gi, ci;
};

struct sim_state {
    char loaded[32];              /* version of the loaded kernel module; empty: none is loaded */
    char library[32];             /* version of these user-space libraries */
    int cuda_version;             /* 12020 for 12.2, from the library's branch */
    int gpu_count;
    struct sim_gpu gpu[SIM_MAX_GPUS];
    struct sim_gpu mig[SIM_MAX_GPUS * SIM_MAX_MIG];
    int nvswitches;
    enum sim_owner owner;         /* of the GPUs of which the profile says nothing else */
    bool rivals_gone;             /* nouveau and nova_core were kept out at this boot */
    bool fabric;                  /* the GPUs are in an NVLink fabric, which needs its manager */
    char fabric_manager[32];      /* version of the running one; empty: none runs */
    int nvml_init_error, cu_init_error;
    char hang[32];                /* nvml_init, nvml_query or cu_init */
};

/* Reads profile and module state afresh. */
void sim_read(struct sim_state *state);
/* Opens a device node as the genuine library does: 0, or the errno value. */
int sim_open_node(const char *name);
int sim_open_gpu(const struct sim_gpu *gpu);
/* Those that a program may have, of a GPU or a MIG device: 0, or the errno value. */
int sim_open_device(const struct sim_gpu *device);
/* NVML's number for the state of a GPU in its fabric. */
int sim_fabric_state(const struct sim_state *state, const struct sim_gpu *gpu);
/* The number of a process, 0 when there is none such. */
unsigned sim_find_process(const char *who);
/* The command by which a process was started; false when it cannot be read. */
bool sim_process_name(unsigned pid, char *name, unsigned size);
/* Never returns when the profile says that this call hangs. */
void sim_maybe_hang(const struct sim_state *state, const char *where);
/* 535 for 535.274.02 */
int sim_branch(const char *version);

#endif
