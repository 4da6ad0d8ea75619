# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of what can be wrong with the GPU chain of a host, by code.

DG1xx the host, DG2xx engine and container, DG3xx device and CUDA driver API, DG4xx PyTorch, DG5xx the computation,
DG6xx speed. The plan's own codes (DG7xx) are the planner's. A code never changes its meaning; docs/diagnosis.md
has a page entry for each.

This is private to difyops.gpu.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Diagnosis(NamedTuple):
    """One thing that can be wrong. ``remedy`` is one line, with {names} that the finder fills in."""

    code: str
    title: str
    meaning: str
    remedy: str


class _Known(dict):  # type: ignore[type-arg]
    """Values of a remedy; one that nobody knows reads as such, since half a remedy beats a traceback."""

    def __missing__(self, key: str) -> str:
        return f"<{key}>"


def remedy(code: str, **values: Any) -> str:
    """Return the one-line remedy of a code with its values filled in."""
    return DIAGNOSES[code].remedy.format_map(_Known(values))


_TABLE = (
    # -- the host ------------------------------------------------------------------------------------------------
    Diagnosis(
        "DG101",
        "No NVIDIA GPU on the PCI bus",
        "A GPU was wanted here, and the kernel lists no NVIDIA display or 3D controller.",
        "check with lspci -d 10de: that the card is seated and powered, enabled in the firmware, or passed through to this virtual machine",
    ),
    Diagnosis(
        "DG102",
        "Fewer GPUs on the PCI bus than expected",
        "Some NVIDIA GPUs are there, but not as many as this host should have.",
        "look for a card that dropped out (journalctl -k -g 'fallen off|AER'), or correct the expected number of GPUs",
    ),
    Diagnosis(
        "DG103",
        "The GPU is held by nouveau or nova_core",
        "The open driver of the Linux kernel took the GPU, so NVIDIA's driver cannot have it and CUDA cannot work.",
        "blacklist {driver}, rebuild the initramfs and reboot; then install NVIDIA's driver if it is not there",
    ),
    Diagnosis(
        "DG104",
        "The GPU is handed to another driver",
        "The GPU is bound to a driver that is not NVIDIA's, most often vfio-pci for a virtual machine.",
        "leave it if it belongs to a virtual machine; otherwise take {address} away from {driver} and reboot",
    ),
    Diagnosis(
        "DG105",
        "NVIDIA's driver is loaded but does not drive the GPU",
        "The kernel module is there and has refused this card, so the card has no driver.",
        "read why with journalctl -k -g NVRM: the branch does not know the card, or it needs the other flavour of modules "
        "(open or proprietary)",
    ),
    Diagnosis(
        "DG106",
        "NVIDIA's driver is not loaded",
        "The GPU is on the bus, and no NVIDIA kernel module is loaded for it.",
        "{action}",
    ),
    Diagnosis(
        "DG107",
        "Loaded driver and user-space library differ",
        "The driver's files were upgraded while the old kernel module stayed loaded (NVML error 18).",
        "reboot, or unload and load the nvidia modules while nothing uses the GPU; then pin the driver packages as one set",
    ),
    Diagnosis(
        "DG108",
        "NVML reports an error",
        "NVIDIA's management library is there and could not talk to the driver.",
        "run nvidia-smi on the host and read journalctl -k -g 'NVRM|Xid' for the cause of {name}",
    ),
    Diagnosis(
        "DG109",
        "NVML does not answer",
        "Asking the driver took longer than its time limit: it hangs, usually after a fault of the GPU.",
        "read journalctl -k -g 'NVRM|Xid', stop what uses the GPU, and reboot the host",
    ),
    Diagnosis(
        "DG110",
        "NVML cannot be asked on this host",
        "Neither NVML through pynvml nor nvidia-smi is there, so nobody can say whether driver and GPU are well.",
        "install the driver's own user-space tools (the package with nvidia-smi) in the version of the loaded driver",
    ),
    Diagnosis(
        "DG111",
        "A GPU is lost",
        "The driver can no longer reach a GPU that it had (fallen off the bus).",
        "reboot the host; if it comes back, check power, cooling, the slot and the card of {address}",
    ),
    Diagnosis(
        "DG112",
        "A GPU needs a reset",
        "The driver says that a GPU is in a state only a reset ends.",
        "stop what uses the GPU and run nvidia-smi --gpu-reset -i {address}, or reboot the host",
    ),
    Diagnosis(
        "DG113",
        "A package installation was not finished",
        "A driver or toolkit package is unpacked and not configured, so what is on disk may be half of two versions.",
        "run dpkg --configure -a and read why it stopped",
    ),
    Diagnosis(
        "DG114",
        "The installed packages cannot be listed",
        "The package database of the host could not be read, so nobody knows which driver and toolkit are installed.",
        "run dpkg-query -W or rpm -qa on the host and repair what it complains about",
    ),
    Diagnosis(
        "DG115",
        "The container toolkit's packages have different versions",
        "The four packages of the toolkit belong together and are released as one set.",
        "install all four packages of the toolkit in the same version",
    ),
    Diagnosis(
        "DG116",
        "Facts were gathered without root",
        "What only root may read is null, which can hide a fault.",
        "gather facts with become: true",
    ),
    Diagnosis(
        "DG117",
        "The fabric manager does not serve the NVSwitches",
        "GPUs joined by NVSwitch need the fabric manager in exactly the driver's version; it is missing, not running or of another one.",
        "install nvidia-fabricmanager in the version of the loaded driver, then run systemctl enable --now nvidia-fabricmanager",
    ),
    Diagnosis(
        "DG118",
        "The kernel that boots next has no NVIDIA module",
        "Another kernel is to start at the next boot, and no NVIDIA module was built for it: the GPUs are gone after that boot.",
        "build the module for {kernel} (dkms autoinstall -k {kernel}, or the package of modules for that kernel) before the next reboot",
    ),
    Diagnosis(
        "DG119",
        "A reboot is pending",
        "Something that was installed or configured takes effect at the next boot only.",
        "reboot when the host is free; what asks for it: {reasons}",
    ),
    Diagnosis(
        "DG120",
        "MIG mode is on and no MIG device exists",
        "A GPU in MIG mode without instances offers nothing that CUDA could compute on.",
        "make instances (nvidia-smi mig -cgi <profile> -C -i {address}), or switch MIG off (nvidia-smi -i {address} -mig 0)",
    ),
    Diagnosis(
        "DG121",
        "A change of MIG mode is pending",
        "MIG mode was switched, and the GPU was not reset since, so the old mode is still in force.",
        "stop what uses the GPU and run nvidia-smi --gpu-reset -i {address}, or reboot the host",
    ),
    Diagnosis(
        "DG122",
        "The installed driver is not the loaded one",
        "A driver was installed and the kernel still runs the one from before; the next boot or module load changes it.",
        "reboot when the host is free, and until then start no new GPU containers: their libraries may be of the new version already",
    ),
    # -- engine and container ------------------------------------------------------------------------------------
    Diagnosis(
        "DG201",
        "The container engine does not answer",
        "Docker is not installed, not running, or refuses to talk.",
        "start it (systemctl start docker) and read journalctl -u docker; the error was: {error}",
    ),
    Diagnosis(
        "DG202",
        "CDI is switched off in the engine",
        "The container asks for its GPU by CDI, and this engine does not use CDI.",
        'set {{"features": {{"cdi": true}}}} in /etc/docker/daemon.json (Docker 25 or newer) and restart Docker when the host is free',
    ),
    Diagnosis(
        "DG203",
        "No CDI specification describes the GPU",
        "CDI is on, and no readable file in its directories describes the device that the container asks for.",
        "generate it with nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml, with the driver loaded that will be used",
    ),
    Diagnosis(
        "DG204",
        "The container is not there",
        "The engine knows no container of this name.",
        "start the service; if its name was changed, give gpu_verify the new one",
    ),
    Diagnosis(
        "DG205",
        "The container is not running",
        "The container exists, and its process has ended or keeps ending.",
        "read docker logs {container} for the reason",
    ),
    Diagnosis(
        "DG206",
        "The container is unhealthy",
        "The container runs and its health check says no, though the GPU chain below it is good.",
        "read docker logs {container} and the answer of the health check in docker inspect {container}",
    ),
    Diagnosis(
        "DG207",
        "The container did not become healthy in time",
        "The health check was still in its starting phase when the wait was over.",
        "read docker logs {container}; if it only loads a large model, raise health_timeout_s (dify_gpu_health_timeout in the playbook)",
    ),
    Diagnosis(
        "DG208",
        "No Python in the image",
        "The probe needs a Python 3.8 or newer inside the container, and found none, so nothing in there could be tested.",
        "name the image's interpreter in option python, or use an image that has one",
    ),
    Diagnosis(
        "DG209",
        "The probe could not be started in the container",
        "The engine refused to run a program in the container, so nothing in there could be tested.",
        "try docker exec {container} true on the host; the error was: {error}",
    ),
    Diagnosis(
        "DG210",
        "The container was started without a GPU",
        "Nothing in the container's configuration asks for a GPU, so it can only compute on the CPU.",
        "add the GPU to the service (devices: [nvidia.com/gpu=all]) and create the container again",
    ),
    Diagnosis(
        "DG211",
        "The nvidia runtime is not known to the engine",
        "The container asks for its GPU through NVIDIA's runtime, and the engine has none of that name.",
        "install nvidia-container-toolkit and run nvidia-ctk runtime configure --runtime=docker, or ask for the GPU by CDI",
    ),
    Diagnosis(
        "DG212",
        "The NVIDIA container toolkit is not installed",
        "The host has a GPU and a container engine, and not the packages that bring the one into the other.",
        "install nvidia-container-toolkit, all four packages in the same version, 1.19.1 or newer",
    ),
    Diagnosis(
        "DG213",
        "The container toolkit has a known container escape",
        "Versions below 1.19.1 have known holes by which a container can take over the host, CVE-2024-0132, CVE-2025-23266 and "
        "CVE-2026-24260 among them.",
        "upgrade all four packages of the toolkit from {version} to 1.19.1 or newer",
    ),
    Diagnosis(
        "DG214",
        "A CDI specification is out of date",
        "It was generated for another driver, or for GPUs and MIG devices that are not those of now.",
        "generate it again with nvidia-ctk cdi generate --output={path}, then recreate the containers that use it",
    ),
    Diagnosis(
        "DG215",
        "A CDI specification cannot be read",
        "A file in a CDI directory is no valid specification, so the engine ignores it or refuses every device.",
        "read what is wrong with it ({error}), and generate it again or remove it: {path}",
    ),
    Diagnosis(
        "DG216",
        "Docker's configuration file is broken",
        "The file daemon.json cannot be read or is no valid JSON: the engine will not start again with it.",
        "repair the file before Docker is restarted; dockerd --validate --config-file {path} checks it",
    ),
    Diagnosis(
        "DG217",
        "The engine cannot give GPUs to containers",
        "Docker has neither CDI switched on nor the nvidia runtime nor the toolkit's hook, so no container can have a GPU.",
        'set {{"features": {{"cdi": true}}}} in /etc/docker/daemon.json (Docker 25 or newer) and restart Docker when the host is free',
    ),
    Diagnosis(
        "DG218",
        "A CDI device is defined twice",
        "Two specifications describe the same device: the one of higher priority hides the other, or neither can be used.",
        "keep one of the files: remove the old one, usually the copy in /etc/cdi; {path}",
    ),
    # -- device and CUDA driver API ------------------------------------------------------------------------------
    Diagnosis(
        "DG301",
        "GPU device files are missing in the container",
        "The container has no /dev/nvidia* file, or not all that CUDA needs.",
        "generate the CDI specification again and recreate the container; on the host, nvidia-modprobe -u -c 0 makes missing device files",
    ),
    Diagnosis(
        "DG302",
        "Access to the GPU was revoked",
        "The device file is there and opening it is forbidden (EPERM): the device rules of the container's cgroup were rewritten, "
        "as a systemctl daemon-reload does with the legacy runtime.",
        "recreate the container to give it back; to keep it, ask for the GPU by CDI and use a toolkit that is not affected",
    ),
    Diagnosis(
        "DG303",
        "A GPU device file cannot be opened",
        "The device file is there and opening it fails for another reason than revoked access.",
        "{hint}",
    ),
    Diagnosis(
        "DG304",
        "libcuda.so.1 is missing in the container",
        "The driver's CUDA library was not brought into the container.",
        "check that the host has libcuda (the driver's compute package), generate the CDI specification again, recreate the container",
    ),
    Diagnosis(
        "DG305",
        "libcuda.so.1 cannot be loaded",
        "The library is there and the loader refuses it.",
        "generate the CDI specification again after a driver change and recreate the container; the loader said: {error}",
    ),
    Diagnosis(
        "DG310",
        "cuInit fails",
        "The CUDA driver API does not start.",
        "look up {name} in NVIDIA's list of CUDA driver errors, and read journalctl -k -g NVRM on the host",
    ),
    Diagnosis(
        "DG311",
        "CUDA sees no GPU (cuInit 100)",
        "The library works and finds no device it may use.",
        "check the container's device files and its variable CUDA_VISIBLE_DEVICES (here: {visible})",
    ),
    Diagnosis(
        "DG312",
        "libcuda does not fit the loaded driver (cuInit 803)",
        "The CUDA library in the container is of another version than the kernel driver.",
        "generate the CDI specification again (it names the library's version) and recreate the container; "
        "after a driver upgrade, reboot first",
    ),
    Diagnosis(
        "DG313",
        "Forward compatibility is not supported on this GPU (cuInit 804)",
        "The image brings a cuda-compat library, which works on data-center GPUs and certain driver branches only.",
        "use a variant whose CUDA the driver serves by itself, or upgrade the driver",
    ),
    Diagnosis(
        "DG314",
        "cuInit fails with an unknown error (999)",
        "The driver gave up without a reason; seen when nvidia-uvm is not loaded or the driver is wedged after a fault.",
        "on the host: modprobe nvidia-uvm, then journalctl -k -g 'NVRM|Xid'; reboot if a fault is listed",
    ),
    Diagnosis(
        "DG315",
        "The GPU system is not ready (cuInit 802)",
        "GPUs joined by NVSwitch need the fabric manager in exactly the driver's version, and their fabric is not set up.",
        "{action}",
    ),
    Diagnosis(
        "DG316",
        "libcuda is only a stub (cuInit 34)",
        "The image carries the linker's stub of libcuda, and it was found before the driver's library.",
        "remove the CUDA stubs directory from LD_LIBRARY_PATH of the image",
    ),
    Diagnosis(
        "DG317",
        "MIG is on and the container has no MIG device",
        "A GPU in MIG mode computes through its MIG devices only, and CUDA in the container reaches none.",
        "{action}",
    ),
    Diagnosis(
        "DG320",
        "CUDA sees fewer GPUs than expected",
        "CUDA works in the container with fewer GPUs than it should have.",
        "check which devices the container was given, and CUDA_VISIBLE_DEVICES (here: {visible})",
    ),
    # -- PyTorch ---------------------------------------------------------------------------------------------------
    Diagnosis(
        "DG401",
        "PyTorch is not in the image",
        "No interpreter that was tried can find the package torch.",
        "use an image with PyTorch, or name the interpreter of its virtual environment in option python",
    ),
    Diagnosis(
        "DG402",
        "PyTorch cannot be imported",
        "The package is there and importing it fails.",
        "rebuild or repair the image; the import said: {error}",
    ),
    Diagnosis(
        "DG403",
        "PyTorch is a build without CUDA",
        "The image's PyTorch was built for the CPU (or for another maker's GPUs): it will never use this GPU, whatever the driver.",
        "deploy a CUDA variant: the image was built from the wrong wheel index, or the cpu variant was deployed",
    ),
    Diagnosis(
        "DG404",
        "The driver is too old for the image's CUDA",
        "The image's PyTorch is built for a newer major version of CUDA than the driver can serve; it falls back to the CPU "
        "without a word.",
        "deploy a variant up to CUDA {highest}, the highest that driver {driver} serves, or upgrade the driver to at least "
        "{floor} for CUDA {cuda}",
    ),
    Diagnosis(
        "DG405",
        "PyTorch finds CUDA unavailable",
        "torch.cuda.is_available() is False, though driver and library are good and new enough.",
        "read what PyTorch said ({error}) and check CUDA_VISIBLE_DEVICES (here: {visible})",
    ),
    Diagnosis(
        "DG406",
        "PyTorch has no code for this GPU",
        "The image's PyTorch was compiled for other compute capabilities; is_available() is True all the same, and the first kernel fails.",
        "deploy a variant whose list covers compute capability {capability}; this one has {archs}",
    ),
    Diagnosis(
        "DG407",
        "The image is not the planned variant",
        "What runs in the container is built for another CUDA version, or is another PyTorch, than the plan says.",
        "deploy again so that the container runs {planned}; a retagged or stale image is the usual cause",
    ),
    Diagnosis(
        "DG408",
        "CUDA is in use although the CPU was planned",
        "The container was to compute on the CPU, and PyTorch in it finds a GPU.",
        "take the GPU away from the service, or plan this host with a CUDA variant",
    ),
    Diagnosis(
        "DG409",
        "PyTorch sees fewer GPUs than the driver",
        "The CUDA driver API lists more devices than torch.cuda.device_count().",
        "check CUDA_VISIBLE_DEVICES (here: {visible}); with MIG on, PyTorch uses one instance per process",
    ),
    Diagnosis(
        "DG410",
        "ONNX Runtime has no CUDA provider",
        "The image has ONNX Runtime's build for the CPU, so what it serves through ONNX Runtime never uses the GPU.",
        "install onnxruntime-gpu in place of onnxruntime (both at once hide each other), in a release for the image's CUDA",
    ),
    Diagnosis(
        "DG411",
        "ONNX Runtime fell back to the CPU",
        "ONNX Runtime has the CUDA provider, could not use it, and would compute on the CPU with no more than a line in the log.",
        "bring the CUDA and cuDNN libraries that this release needs into the image; it said: {error}",
    ),
    Diagnosis(
        "DG412",
        "TensorRT cannot start",
        "The image has TensorRT, and its builder or runtime cannot be made on this GPU.",
        "check that this TensorRT supports the GPU's compute capability and the driver's CUDA; it said: {error}",
    ),
    Diagnosis(
        "DG413",
        "ONNX Runtime does not work",
        "ONNX Runtime cannot be imported, ended, or computed a wrong product with its CUDA provider.",
        "repair or rebuild the image's ONNX Runtime; it said: {error}",
    ),
    Diagnosis(
        "DG414",
        "PyTorch and the CUDA libraries do not fit together",
        "PyTorch got CUDA libraries of another major version than its own, or lacks one that it was built against.",
        "rebuild the image with the libraries of one wheel index, and take other CUDA directories out of LD_LIBRARY_PATH ({path}); "
        "what was found: {found}",
    ),
    # -- the computation -------------------------------------------------------------------------------------------
    Diagnosis(
        "DG501",
        "The GPU could not run the test computation",
        "Everything up to PyTorch is good, and the matrix product on the GPU ended with an error.",
        "read journalctl -k -g Xid on the host; PyTorch said: {error}",
    ),
    Diagnosis(
        "DG502",
        "The GPU computes wrong results",
        "The matrix product on the GPU differs from the CPU's by more than rounding can explain.",
        "take this GPU out of service: check its memory (nvidia-smi -q -d ECC,ROW_REMAPPER), clocks and driver, then test again",
    ),
    Diagnosis(
        "DG503",
        "GPU memory is full",
        "The test needs a few hundred MiB of GPU memory and there were none, so the computation could not be tested.",
        "see with nvidia-smi what holds the memory, and verify again when it is free",
    ),
    Diagnosis(
        "DG504",
        "The GPU is in exclusive mode and taken",
        "Compute mode EXCLUSIVE_PROCESS admits one process, and it is there already (usually the service itself), so the "
        "computation could not be tested.",
        "verify while the service is stopped, or set nvidia-smi -c DEFAULT",
    ),
    Diagnosis(
        "DG505",
        "The GPU's compute mode is PROHIBITED",
        "An administrator forbade computing on this GPU.",
        "allow it with nvidia-smi -i {index} -c DEFAULT",
    ),
    Diagnosis(
        "DG506",
        "The probe timed out",
        "A step inside the container did not come back in time.",
        "{hint}",
    ),
    Diagnosis(
        "DG507",
        "The probe was ended from outside or crashed",
        "The probe stopped in the middle of a step without saying why: killed for memory, or crashed in a native library.",
        "check the container's memory limit and journalctl -k on the host; its last words were: {error}",
    ),
    Diagnosis(
        "DG508",
        "PyTorch computes wrong or not at all on the CPU",
        "The small matrix product on the CPU failed or differs from the same sum in plain Python.",
        "check that the image fits the processor (instruction sets, architecture); PyTorch said: {error}",
    ),
    Diagnosis(
        "DG509",
        "The image's PTX is newer than the driver",
        "For this GPU the image has only intermediate code (PTX), made by a newer toolkit than the driver can compile.",
        "deploy a variant with compiled code for compute capability {capability}, or upgrade the driver",
    ),
    Diagnosis(
        "DG510",
        "The probe's report is incomplete",
        "A part of what the probe reports did not arrive or cannot be read, so the link it is about was not tested.",
        "verify again; if it stays, see whether something in the container's start-up ends or rewrites programs run by docker exec",
    ),
    Diagnosis(
        "DG511",
        "The computation ran silently on the CPU",
        "PyTorch was told to compute on the GPU and computed on another device without an error.",
        "see what replaces or patches PyTorch's devices in this image (start-up files such as sitecustomize, environment variables)",
    ),
    Diagnosis(
        "DG512",
        "No process of the container uses the GPU",
        "The GPU works in the container, and none of its own processes has it open: the service may compute on the CPU without a word.",
        "read docker logs {container} for a fallback to the CPU, and restart the service: it may have started before the GPU was ready",
    ),
    # -- speed -----------------------------------------------------------------------------------------------------
    Diagnosis(
        "DG601",
        "The GPU is slower than the CPU",
        "The result is right, but the GPU took longer than the container's CPU for the same product.",
        "check clocks, power limit and temperature (nvidia-smi -q -d PERFORMANCE,CLOCK), and whether a MIG slice is meant to be this small",
    ),
    Diagnosis(
        "DG602",
        "The GPU is far slower than its class",
        "The result is right, and the rate is below a tenth of what a GPU of this kind does in theory.",
        "check power limit, temperature and clocks while it computes (nvidia-smi -q -d PERFORMANCE,POWER,TEMPERATURE,CLOCK)",
    ),
)

DIAGNOSES: dict[str, Diagnosis] = {entry.code: entry for entry in _TABLE}
