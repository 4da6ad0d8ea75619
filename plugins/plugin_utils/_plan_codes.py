# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The codes of the decide phase, DG700 to DG799, of engine and toolkit, DG800 to DG829, of upgrades host by host, DG850 to DG857,
and of the upstream release, DG901 to DG926.

DG70x and DG74x: why a variant of the catalog does not fit. DG71x to DG73x: why a host is blocked. DG75x and DG76x: warnings.
DG77x to DG79x: what is in the way of a change of the driver, by the plan or by the role that carries it out. DG773, DG776, DG777, DG780 to
DG784, DG787, DG788 and DG793 are told of engine and toolkit too. DG80x: the engine. DG81x: the toolkit, and how GPUs get into containers.
Every code has an entry in docs/diagnosis.md. A code never changes its meaning and is never used again for another.
"""

from __future__ import annotations

from typing import NamedTuple


class Code(NamedTuple):
    """A title for lists, and what to do when nothing more precise is known."""

    title: str
    remedy: str


NO_VARIANT_FITS = "DG701"
NAMED_VARIANT_DOES_NOT_FIT = "DG702"
DRIVER_TOO_OLD = "DG703"
NO_CODE_FOR_GPU = "DG704"
BELOW_MIN_DRIVER = "DG705"
FORWARD_COMPAT_ONLY = "DG706"
UNKNOWN_COMPUTE_CAPABILITY = "DG707"
NOT_PREFERRED = "DG708"
NEEDS_A_GPU = "DG709"

NO_GPU = "DG710"
DRIVER_NOT_LOADED = "DG711"
DRIVER_MISMATCH = "DG712"
DRIVER_SILENT = "DG713"
NO_USABLE_GPU = "DG714"
NOT_OBSERVED = "DG715"
NO_CPU_VARIANT = "DG716"
GPU_GONE = "DG717"
SICK_GPU = "DG718"
DRIVER_IMPOSSIBLE = "DG719"

NO_ENGINE = "DG720"
ENGINE_NOT_RUNNING = "DG721"
NO_COMPOSE = "DG722"
COMPOSE_TOO_OLD = "DG723"
CDI_OFF = "DG724"
NO_CDI_SPEC = "DG725"
OTHER_ENGINE = "DG726"
NO_BUILDX = "DG727"
NO_SUCH_GPU = "DG728"
NO_CDI_DEVICE = "DG729"
DIFY_NOT_READABLE = "DG730"
FLEET_MISSING = "DG731"
FLEET_NO_VARIANT = "DG732"
IMAGE_NOT_APPLIED = "DG733"

OUTSIDE_CUDA_RANGE = "DG740"
FEATURE_MISSING = "DG741"

BRANCH_ENDED = "DG750"
TOOLKIT_UNSAFE = "DG751"
TOOLKIT_MIXED = "DG752"
LEFT_ALONE = "DG753"
FORCED = "DG755"
DEGRADED = "DG756"
NEXT_KERNEL_WITHOUT_MODULE = "DG757"
REBOOT_CHANGES_DRIVER = "DG758"
CDI_SPEC_STALE = "DG759"
FORWARD_COMPAT_USED = "DG760"
DIFY_NOT_OBSERVED = "DG761"
DRIVER_WITHOUT_GPU = "DG762"
TORCH_RETIRED = "DG763"
SECURE_BOOT = "DG764"
DRIVER_NOT_PINNED = "DG765"
MIG_ONE_DEVICE = "DG766"
FABRIC_MANAGER = "DG767"
MIG_CHANGE_PENDING = "DG768"
REBOOT_PENDING = "DG769"
DRIVER_NOT_APPLIED = "DG770"
DRIVER_HELD = "DG771"
DRIVER_NOT_FROM_PACKAGES = "DG772"

NOT_A_TARGET = "DG773"
NO_SUCH_DRIVER = "DG774"
NO_CONSENT = "DG775"
GPU_IN_USE = "DG776"
HELD_BY_OTHERS = "DG777"
SECURE_BOOT_REFUSES = "DG778"
NO_HEADERS = "DG779"
PACKAGES_LOCKED = "DG780"
PACKAGES_BROKEN = "DG781"
NO_DISK_SPACE = "DG782"
REPOSITORY_UNREACHABLE = "DG783"
WRONG_KEY = "DG784"
VGPU_HOST = "DG785"
NO_FABRIC_MANAGER = "DG786"
RUN_WAS_INTERRUPTED = "DG787"
VERSION_NOT_KNOWN_YET = "DG788"
MODULE_NOT_BUILT = "DG789"
OTHER_DRIVER_LOADED = "DG790"
REBOOT_TO_LOAD = "DG791"
CONTAINERS_NOT_STARTED = "DG792"
PACKAGES_FAILED = "DG793"

NO_DOCKER_HERE = "DG801"
SOURCE_TOO_OLD = "DG802"
REMOVES_OTHERS = "DG803"
ENGINE_RESTART = "DG806"
DAEMON_CONFIG_UNREADABLE = "DG807"
DAEMON_CONFIG_REFUSED = "DG808"
ENGINE_DID_NOT_COME_BACK = "DG809"
CONTAINERS_DO_NOT_RUN = "DG810"
UNSAFE_VERSION = "DG811"
DOWNGRADE = "DG812"
NOT_IN_LOCKSTEP = "DG813"
SPECIFICATION_NOT_MADE = "DG814"
LEGACY_INJECTION = "DG815"
SPECIFICATION_LEFT = "DG816"
CONTAINERS_LOSE_GPU = "DG817"
CDI_SWITCHED_OFF = "DG818"
DAEMON_CONFIG_NOT_WRITTEN = "DG820"

# Upgrades of drivers host by host: the plan of a run, and playbook upgrade_drivers.
NOT_SAVED = "DG850"
TOO_MANY_AWAY = "DG851"
LOST = "DG852"
ROLLBACK_FAILED = "DG853"
BALANCER = "DG854"
FAILED_BEFORE = "DG855"
NOT_BEGUN = "DG856"
SERVICE_WOULD_NOT_FIT = "DG857"

# The upstream release: its plan, its role and its modules.
APP_NO_ARCHIVE = "DG901"
APP_BROKEN_ARCHIVE = "DG902"
APP_CHECKSUM = "DG903"
APP_UNKNOWN = "DG904"
APP_PORT = "DG905"
APP_DISK = "DG906"
APP_MEMORY = "DG907"
APP_IMAGE = "DG908"
APP_COMPOSE = "DG909"
APP_UNKNOWN_KEY = "DG910"
APP_NO_MODELS = "DG911"
APP_DOWNGRADE = "DG912"
APP_DEFAULT_KEPT = "DG913"
APP_NOT_READY = "DG914"
APP_MIGRATION = "DG915"
APP_BACKUP = "DG916"
APP_UNPINNED = "DG917"
APP_INTERRUPTED = "DG918"
APP_TLS = "DG919"
APP_API = "DG920"
APP_MODEL_REFUSED = "DG921"
APP_OPTION = "DG922"
APP_NO_SITE = "DG923"
APP_FOREIGN = "DG924"
APP_NO_KEY = "DG925"
APP_NOT_OF_THE_DATA = "DG926"


CODES: dict[str, Code] = {
    NO_VARIANT_FITS: Code(
        "No image variant fits this host",
        "upgrade the driver, or add a variant that fits to the catalog; the plan lists why each one was rejected",
    ),
    NAMED_VARIANT_DOES_NOT_FIT: Code(
        "The variant asked for does not fit this host",
        "leave variant (dify_image_variant) empty to let the plan choose, or upgrade the driver",
    ),
    DRIVER_TOO_OLD: Code("The driver is too old for the CUDA of the image", "upgrade the driver, or use a variant with an older CUDA"),
    NO_CODE_FOR_GPU: Code("The image has no code for the GPU", "use a variant that was compiled for this compute capability"),
    BELOW_MIN_DRIVER: Code(
        "The driver is below the minimum that the catalog sets",
        "upgrade the driver, or correct min_driver in catalog (dify_image_catalog)",
    ),
    FORWARD_COMPAT_ONLY: Code(
        "The image would need CUDA forward compatibility",
        "upgrade the driver; or, for a data center GPU and an image with the cuda-compat package, "
        "set forward_compatibility (dify_image_forward_compatibility)",
    ),
    UNKNOWN_COMPUTE_CAPABILITY: Code(
        "The GPU's compute capability is not known", "install pynvml (nvidia-ml-py) on the host so that the driver can be asked"
    ),
    NOT_PREFERRED: Code("The variant would fit, another is preferred", "name it in variant (dify_image_variant) to get it"),
    NEEDS_A_GPU: Code("A CUDA variant, and no GPU to run it on", "leave variant (dify_image_variant) empty, or name cpu"),
    NO_GPU: Code("The host has no NVIDIA GPU", "check the inventory, or set cpu_fallback (dify_image_cpu_fallback) to when_no_gpu"),
    DRIVER_NOT_LOADED: Code("The NVIDIA driver is not loaded", "install the driver first, reboot if it was just installed, then run again"),
    DRIVER_MISMATCH: Code(
        "Loaded driver and driver library have different versions", "reboot the host so that both are of the installed version"
    ),
    DRIVER_SILENT: Code(
        "The driver is loaded and does not answer", "run nvidia-smi on the host; reinstall the driver or reboot as it says"
    ),
    NO_USABLE_GPU: Code("No GPU of the host can be used", "look at the health, the MIG devices and the bound kernel driver of each GPU"),
    GPU_GONE: Code(
        "This host had a GPU",
        "look for the card with lspci -d 10de: and dmesg; to serve without it, name cpu in variant (dify_image_variant), "
        "or set cpu_fallback (dify_image_cpu_fallback) to when_gpu_unusable",
    ),
    SICK_GPU: Code(
        "A GPU of the host cannot be used",
        "repair it, or leave it out by naming the others in gpus (dify_image_gpus): a container is given all GPUs that are to be used",
    ),
    DRIVER_IMPOSSIBLE: Code(
        "The driver that is there or was asked for does not drive the GPUs",
        "set driver.branch (nvidia_driver_branch) or driver.version (nvidia_driver_version) to one that does, or to auto; "
        "or leave GPUs out with gpus (dify_image_gpus)",
    ),
    NOT_OBSERVED: Code("The host was not observed", "run difyops.gpu.nvidia_facts on the host before difyops.gpu.gpu_plan"),
    NO_CPU_VARIANT: Code("The catalog has no CPU variant", "put the default variant cpu back into catalog (dify_image_catalog)"),
    NO_ENGINE: Code("No container engine", "install Docker Engine 25 or newer with the compose plugin"),
    ENGINE_NOT_RUNNING: Code("The container engine does not answer", "start it (systemctl start docker) and look at its journal"),
    NO_COMPOSE: Code("Docker Compose is missing", "install the Docker Compose plugin, version 2.24 or newer"),
    COMPOSE_TOO_OLD: Code("Docker Compose is too old", "upgrade the Docker Compose plugin to version 2.24 or newer"),
    CDI_OFF: Code(
        "The engine does not use CDI",
        'set {"features": {"cdi": true}} in /etc/docker/daemon.json and restart Docker (Docker 25 or newer; on by default from 28.2)',
    ),
    NO_CDI_SPEC: Code(
        "No CDI specification for the GPUs",
        "install the NVIDIA Container Toolkit and run: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
    ),
    OTHER_ENGINE: Code("The container engine is not Docker", "install Docker Engine 25 or newer; other engines are not deployed to yet"),
    NO_BUILDX: Code(
        "Docker has no buildx plugin to build the image with",
        "install docker-buildx (docker-buildx-plugin from Docker's own repository), or use an image that is pulled",
    ),
    NO_SUCH_GPU: Code(
        "A GPU that was asked for is not there", "correct gpus (dify_image_gpus); without a driver only PCI addresses are known"
    ),
    NO_CDI_DEVICE: Code(
        "The CDI specification lacks a device for a GPU that was asked for",
        "run: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
    ),
    FLEET_MISSING: Code(
        "Hosts of the fleet that cannot be judged",
        "repair what is named for each, or take the hosts out of the group; "
        "or decide without them with missing (dify_image_missing): allow",
    ),
    FLEET_NO_VARIANT: Code(
        "No image variant that every GPU host can run",
        "upgrade the drivers of the hosts that are named, or let each host choose with scope (dify_image_scope): host",
    ),
    IMAGE_NOT_APPLIED: Code(
        "The image is needed and not brought by this run", "put image into apply, or bring the image to the host before"
    ),
    DIFY_NOT_READABLE: Code("The state of the service could not be read", "look at the engine on the host, then run again"),
    OUTSIDE_CUDA_RANGE: Code(
        "The CUDA of the variant is outside the range that was asked for",
        "widen min_cuda and max_cuda (dify_image_min_cuda, dify_image_max_cuda), or name the variant in variant (dify_image_variant)",
    ),
    FEATURE_MISSING: Code(
        "The variant or the GPU lacks a feature that was asked for",
        "take the feature out of require_features (dify_image_require_features), or use another GPU or image",
    ),
    BRANCH_ENDED: Code("The driver branch is past its end of life", "plan an upgrade to a supported branch, 580 for the longest support"),
    TOOLKIT_UNSAFE: Code("The container toolkit has a known container escape", "upgrade its four packages to 1.19.1 or newer"),
    TOOLKIT_MIXED: Code("The container toolkit's packages have different versions", "install all four packages in the same version"),
    LEFT_ALONE: Code("A GPU is passed through to a virtual machine", "such GPUs are never touched, and nothing is to be done"),
    FORCED: Code(
        "The variant is forced against the rules", "take force (dify_image_force) away unless the failure is what you want to see"
    ),
    DEGRADED: Code("A host with a GPU serves on the CPU", "repair what the warning names; the next run goes back to the GPU"),
    NEXT_KERNEL_WITHOUT_MODULE: Code(
        "The kernel that boots next has no NVIDIA module", "build or install the module for that kernel before the next reboot"
    ),
    REBOOT_CHANGES_DRIVER: Code(
        "Another driver is loaded than is installed", "reboot, then run again: the image is chosen for the loaded driver"
    ),
    CDI_SPEC_STALE: Code("The CDI specification is out of date", "run: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"),
    FORWARD_COMPAT_USED: Code("The image runs by CUDA forward compatibility", "upgrade the driver when you can"),
    DIFY_NOT_OBSERVED: Code("What is deployed was not observed", "run difyops.gpu.dify_facts on the host before difyops.gpu.gpu_plan"),
    DRIVER_WITHOUT_GPU: Code(
        "A driver is installed on a host without a GPU", "look for the card with lspci -d 10de:, or take the driver's packages off"
    ),
    TORCH_RETIRED: Code(
        "The PyTorch of the image gets no newer release",
        "it works and gets no fixes any more; a newer CUDA needs a newer driver or another GPU",
    ),
    SECURE_BOOT: Code(
        "Secure Boot, and a kernel module that it may refuse",
        "use modules that the distribution signs, or enrol the key of DKMS with mokutil before the reboot",
    ),
    DRIVER_NOT_PINNED: Code(
        "The driver packages are not held",
        "hold them (apt-mark hold, a file in /etc/apt/preferences.d, dnf versionlock), so that only a planned change replaces the driver",
    ),
    MIG_ONE_DEVICE: Code(
        "CUDA uses one MIG device of a container",
        "name the MIG device that is to be used in gpus (dify_image_gpus), by its UUID or as index:mig index such as 0:1",
    ),
    FABRIC_MANAGER: Code(
        "The fabric manager that NVSwitches need does not run as it should",
        "install nvidia-fabricmanager of exactly the driver's version and start it (systemctl enable --now nvidia-fabricmanager)",
    ),
    MIG_CHANGE_PENDING: Code(
        "A change of the MIG mode is pending", "reset the GPU (nvidia-smi --gpu-reset) or reboot when nothing uses it, then run again"
    ),
    REBOOT_PENDING: Code("A reboot is pending", "reboot when the host can spare it, then run again"),
    DRIVER_NOT_APPLIED: Code(
        "The driver should be another, and this run changes no driver",
        "change it with the play that changes drivers, or set driver.policy (nvidia_driver_policy) to keep",
    ),
    DRIVER_HELD: Code(
        "The driver that is to be changed is held",
        "the role that changes drivers has to take these rules away first; where another tool writes them, change them there",
    ),
    DRIVER_NOT_FROM_PACKAGES: Code(
        "The driver that is to be changed was not installed from packages",
        "uninstall it first, as its installer does (nvidia-uninstall)",
    ),
    NOT_A_TARGET: Code(
        "Drivers are not changed on this operating system",
        "change the driver by hand, or set driver.state (nvidia_driver_state) to unmanaged; the documentation lists what is supported",
    ),
    NO_SUCH_DRIVER: Code(
        "The repository has no such driver",
        "set driver.branch (nvidia_driver_branch) or driver.version (nvidia_driver_version) to one that is there, "
        "or driver.source (nvidia_driver_source) to another source",
    ),
    NO_CONSENT: Code(
        "Another driver has to be loaded, and nothing that loads it is allowed",
        "set driver.reboot (nvidia_driver_reboot) to if_needed, or driver.reload (nvidia_driver_reload) to if_possible",
    ),
    GPU_IN_USE: Code(
        "The GPUs are in use",
        "stop what is named; or set driver.busy (nvidia_driver_busy) to wait, "
        "or to drain with the containers that may be stopped in driver.drain_containers (nvidia_driver_drain_containers)",
    ),
    HELD_BY_OTHERS: Code(
        "Rules of somebody else hold the driver",
        "take them away, or set driver.foreign_pins (nvidia_driver_foreign_pins) to replace",
    ),
    SECURE_BOOT_REFUSES: Code(
        "Secure Boot would refuse the module of the driver",
        "enrol the key of DKMS: run mokutil --import /var/lib/dkms/mok.pub, reboot, confirm at the console, then run again",
    ),
    NO_HEADERS: Code(
        "The headers of a kernel are missing, so DKMS cannot build the module",
        "install the headers of the kernel that is named, or set driver.kernel_headers (nvidia_driver_kernel_headers) to present",
    ),
    PACKAGES_LOCKED: Code("The package manager is locked by another process", "let the process that is named end, then run again"),
    PACKAGES_BROKEN: Code(
        "The package database is broken",
        "repair the packages that are named (dpkg --configure -a, apt-get --fix-broken install, dnf check), then run again",
    ),
    NO_DISK_SPACE: Code("There is not enough space for the packages", "make room on the file system that is named, then run again"),
    REPOSITORY_UNREACHABLE: Code(
        "The package repository cannot be reached or read",
        "look at the network, the proxy and driver.repository (nvidia_driver_repository), then run again",
    ),
    WRONG_KEY: Code(
        "The key of the repository is not the one that was expected",
        "find out why before you trust it; then set the fingerprint in driver.repository (nvidia_driver_repository)",
    ),
    VGPU_HOST: Code("The host driver of virtual GPUs is loaded", "such a host is left alone, and nothing is to be done"),
    NO_FABRIC_MANAGER: Code(
        "The fabric manager of this driver version is not to be had",
        "ask for a version that has one in driver.version (nvidia_driver_version), "
        "or set driver.fabric_manager (nvidia_driver_fabric_manager) to unmanaged and install it yourself",
    ),
    RUN_WAS_INTERRUPTED: Code("A run that changed the driver was interrupted", "the next run of the role finishes it"),
    VERSION_NOT_KNOWN_YET: Code(
        "The driver's version is known after the repository is added", "nothing is to be done; the run itself tells the version"
    ),
    MODULE_NOT_BUILT: Code(
        "The kernel module was not built for a kernel", "read make.log under /var/lib/dkms/nvidia, mend the cause, then run again"
    ),
    OTHER_DRIVER_LOADED: Code(
        "Another driver is loaded than was to be", "look at dmesg and modinfo nvidia on the host, mend the cause, then run again"
    ),
    REBOOT_TO_LOAD: Code("A reboot is required to load the driver", "reboot when the host can spare it, then run again"),
    CONTAINERS_NOT_STARTED: Code(
        "Containers that were stopped could not be started again", "start what is named by hand when its cause is mended, or run again"
    ),
    PACKAGES_FAILED: Code(
        "The package manager ended with an error", "mend what its last lines say, then run again: what was begun is finished"
    ),
    NO_DOCKER_HERE: Code(
        "Docker cannot be brought to this host",
        "bring Docker 25 or newer with its compose plugin by other means, "
        "and set engine.state (container_engine_state) to unmanaged; the documentation lists what is supported",
    ),
    SOURCE_TOO_OLD: Code(
        "What the source of packages has is too old, or is not there",
        "name another source in engine.source (container_engine_source), or another version",
    ),
    REMOVES_OTHERS: Code(
        "Packages of others would be removed", "see what needs them, and remove them yourself where nobody does, then run again"
    ),
    ENGINE_RESTART: Code(
        "A restart of Docker would stop running containers",
        "set engine.restart (container_engine_restart) to if_needed, or stop the containers that are named, then run again",
    ),
    DAEMON_CONFIG_UNREADABLE: Code(
        "Docker's configuration file cannot be read",
        "correct /etc/docker/daemon.json by hand; "
        "or set engine.invalid_daemon_config (container_engine_invalid_daemon_config) to replace, which keeps a copy",
    ),
    DAEMON_CONFIG_REFUSED: Code(
        "Docker refuses its new configuration", "correct engine.daemon_config (container_engine_daemon_config) as Docker's own words say"
    ),
    ENGINE_DID_NOT_COME_BACK: Code(
        "Docker did not come back after the change",
        "the old configuration was put back; look at journalctl -u docker, mend the cause, then run again",
    ),
    CONTAINERS_DO_NOT_RUN: Code(
        "Containers that ran before do not run again", "look at their logs and start them by hand when the cause is mended, or run again"
    ),
    UNSAFE_VERSION: Code(
        "The toolkit version that was asked for has a known container escape",
        "name 1.19.1 or newer in toolkit.version (nvidia_container_toolkit_version), or leave it empty",
    ),
    DOWNGRADE: Code(
        "An older version than the installed one was asked for", "name the installed version or a newer one, or leave the version empty"
    ),
    NOT_IN_LOCKSTEP: Code(
        "The toolkit's four packages cannot be had in one version",
        "complete the mirror in toolkit.repository (nvidia_container_toolkit_repository), or name a version of which it has all four",
    ),
    SPECIFICATION_NOT_MADE: Code(
        "No CDI specification could be made", "run nvidia-smi and then nvidia-ctk cdi generate on the host: their words say what is missing"
    ),
    LEGACY_INJECTION: Code(
        "Containers get their GPUs the legacy way",
        "upgrade Docker to 25 or newer (engine.source (container_engine_source): docker), which gives GPUs by CDI",
    ),
    SPECIFICATION_LEFT: Code(
        "A stale or second CDI specification stays",
        "remove the file, or set toolkit.stale_specs (nvidia_container_toolkit_stale_specs) to remove, which keeps a copy",
    ),
    CONTAINERS_LOSE_GPU: Code(
        "Running containers lose their GPU at the next daemon-reload",
        "that is in this very run; recreate them afterwards (docker compose up --force-recreate), a restart helps until the next time",
    ),
    CDI_SWITCHED_OFF: Code(
        "CDI is switched off in Docker's configuration",
        "set engine.cdi (container_engine_cdi) to true to switch it on, "
        "or toolkit.injection (nvidia_container_toolkit_injection) to runtime",
    ),
    DAEMON_CONFIG_NOT_WRITTEN: Code(
        "Docker's configuration file cannot be written", "look at the disk and the attributes of /etc/docker/daemon.json, then run again"
    ),
    NOT_SAVED: Code(
        "The present driver cannot be saved, so there would be no way back",
        "bring what is missing, or consent to go without (upgrade_without_rollback)",
    ),
    TOO_MANY_AWAY: Code(
        "Too many hosts are out of service already", "bring them back, leave them out (--limit), or allow more (upgrade_max_unavailable)"
    ),
    LOST: Code(
        "A host did not come back from its reboot",
        "look at its console; when it answers again, run the same command: it is finished from where it was",
    ),
    ROLLBACK_FAILED: Code(
        "Going back to the former driver failed",
        "look at what both sentences say, then run the same command again: it goes on going back,"
        " or with upgrade_on_failure: leave forward",
    ),
    BALANCER: Code(
        "A host could not be taken out of its load balancer, or put back",
        "look at the load balancer and at upgrade_out_tasks and upgrade_back_tasks, then run the same command again",
    ),
    FAILED_BEFORE: Code("An upgrade failed on this host before", "see that the cause is gone"),
    NOT_BEGUN: Code("Not begun, since another host failed", "look after that host, then run the same command again"),
    SERVICE_WOULD_NOT_FIT: Code(
        "The image service would not fit the new driver", "bring what the image lacks before, or choose another driver"
    ),
    APP_NO_ARCHIVE: Code(
        "The release's archive cannot be had",
        "name a release of Dify that exists in dify_version, or a file on the controller in dify_archive",
    ),
    APP_BROKEN_ARCHIVE: Code(
        "The archive is broken or is no release of Dify",
        "fetch it anew (remove it from dify_archive_cache), or name another one in dify_archive",
    ),
    APP_CHECKSUM: Code(
        "The archive has another checksum", "compare it with the publisher's; then correct dify_archive_checksum, or fetch the archive anew"
    ),
    APP_UNKNOWN: Code(
        "The release has something that this collection cannot handle", "name another release in dify_version, or go without what is named"
    ),
    APP_PORT: Code(
        "A port of the site is in use", "stop what holds it, or name another one in dify_http_port, dify_https_port or dify_bind_address"
    ),
    APP_DISK: Code("Too little disk for the plan", "make room, or lead dify_home or dify_backup_dir to a larger disk"),
    APP_MEMORY: Code("Too little memory for Dify", "give the host more memory, or lower dify_resources"),
    APP_IMAGE: Code("An image cannot be had", "load it on the host, or log in to the registry that dify_registry names, then run again"),
    APP_COMPOSE: Code(
        "Docker Compose is too old for the release", "install a newer Docker Compose plugin (role container_engine brings one)"
    ),
    APP_UNKNOWN_KEY: Code(
        "A variable of dify_env is not known to the release", "look for its new name in the release's .env.example, and correct dify_env"
    ),
    APP_NO_MODELS: Code(
        "Model files are missing",
        "put them into dify_gpu_models_dir on the host of the model server, or leave it empty where it may download",
    ),
    APP_DOWNGRADE: Code(
        "An older release than the one that runs was asked for",
        "go back with rollback_dify.yml, which brings its data too; or set dify_allow_downgrade",
    ),
    APP_DEFAULT_KEPT: Code(
        "A secret is a public default or cannot be used", "give it in dify_secrets, or leave it out so that one is generated"
    ),
    APP_NOT_READY: Code("A service does not get ready", "read its log: docker compose logs in the release's folder; then run again"),
    APP_MIGRATION: Code(
        "The migration of the databases failed",
        "the former release has been brought back where dify_failed_upgrade says so; read the log that is named",
    ),
    APP_BACKUP: Code("A backup or a restore failed", "look at dify_backup_dir and its disk; nothing was changed without a whole backup"),
    APP_UNPINNED: Code("An image has no fixed version", "pin it in dify_image_pins by its digest"),
    APP_INTERRUPTED: Code("A run was interrupted", "run again to finish it; a journal that cannot be read is journal.json below dify_home"),
    APP_TLS: Code(
        "The TLS certificate or its key cannot be used",
        "correct dify_tls_certificate and dify_tls_key: PEM files on the controller that belong together",
    ),
    APP_API: Code(
        "Dify's API answers otherwise than expected",
        "look at what was expected and seen; a release that is newer than this collection may need a newer one",
    ),
    APP_MODEL_REFUSED: Code(
        "Dify refuses the model server", "ask the model server from the plugin daemon's network; its own words are in the message"
    ),
    APP_OPTION: Code("An option of the role cannot be used", "correct the variable that is named"),
    APP_NO_SITE: Code("The site does not answer", "look at the proxy's log and at the firewall between the controller and dify_url"),
    APP_FOREIGN: Code(
        "Another Dify or compose project is in the place", "name another dify_project and dify_home, or set dify_app_state to external"
    ),
    APP_NO_KEY: Code(
        "The API key of the model server is not known here", "give it in dify_gpu_api_key, or set dify_model_register to false"
    ),
    APP_NOT_OF_THE_DATA: Code(
        "Another secret is given than the one that the data was made with",
        "give the one in secrets/dify.env below dify_home, or leave it out; where there is no data to keep, remove dify_home",
    ),
}
