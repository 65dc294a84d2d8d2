"""What this computer is: processor, memory, disk, GPUs; and whether it will do as a pod.

The standard library only: `make pod` asks this before anything is installed. Units: GB = 1e9 bytes.
"""

import argparse
import contextlib
import math
import os
import platform
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal

from elle.base.errors import ElleError

# torch 2.13, as PyPI has it, is built for CUDA 13, which no older NVIDIA driver can run.
MINIMUM_DRIVER = 580
DEFAULT_VOLUME = "/workspace/data"
# The packages take about 10 GB, and uv keeps as much in its cache when that is on another disk.
MINIMUM_DISK_GB = 25.0
# One 7B model in bf16 with a LoRA checkpoint and its merge; a 72B full fine-tune wants over ten times that.
MINIMUM_VOLUME_GB = 60.0

NVIDIA_SMI = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits")


@dataclass(frozen=True)
class Gpu:
    name: str
    memory_gb: float
    driver: str


@dataclass(frozen=True)
class Machine:
    """A computer as a program on it may use it: a container's limits count, not those of the host around it.

    `gpus` are those that `CUDA_VISIBLE_DEVICES` leaves visible; `gpu_note` says why there are none.
    """

    cpu_name: str
    cores: int
    ram_gb: float
    disk_free_gb: float
    gpus: list[Gpu] = field(default_factory=list)
    bf16_on_cpu: bool = False
    gpu_note: str = ""

    @property
    def device(self) -> Literal["cuda", "cpu"]:
        return "cuda" if self.gpus else "cpu"

    @property
    def described(self) -> str:
        return f"{self.cpu_name}, {self.cores} cores, {self.ram_gb:.0f} GB of memory"

    @property
    def device_reason(self) -> str:
        """One sentence: the device, and why it was chosen."""
        if not self.gpus:
            return f"cpu, because {self.gpu_note or 'no NVIDIA GPU is visible'}."
        return f"cuda, because {describe(self.gpus)} can be used (driver {self.gpus[0].driver})."


@dataclass(frozen=True)
class MachineFault:
    level: Literal["ok", "warn", "error"]
    message: str
    fix: str = ""


def versions(names: Iterable[str]) -> dict[str, str]:
    """The versions of these packages here; those not installed are left out."""
    installed = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed


def describe(gpus: list[Gpu]) -> str:
    """Such as "8 x NVIDIA H200 (151 GB each)"; kinds that differ are listed one after the other."""
    kinds = Counter((gpu.name, gpu.memory_gb) for gpu in gpus)
    return ", ".join(f"{count} x {name} ({memory:.0f} GB each)" for (name, memory), count in kinds.items())


def _parse(text: str) -> list[Gpu]:
    """The GPUs in nvidia-smi's CSV (name, memory in MiB, driver); lines of any other form are passed over."""
    gpus = []
    for line in text.splitlines():
        name, _, rest = line.strip().partition(",")
        if match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)(?: MiB)?\s*,\s*(\S.*)", rest):
            gpus.append(Gpu(name.strip(), float(match[1]) * 2**20 / 1e9, match[2].strip()))
    return gpus


def _ask_nvidia_smi() -> tuple[list[Gpu], str]:
    """All GPUs of the machine, or why there are none."""
    try:
        answer = subprocess.run(
            NVIDIA_SMI, capture_output=True, text=True, errors="replace", timeout=60, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        return [], "nvidia-smi is not installed here"
    except subprocess.TimeoutExpired:
        return [], "nvidia-smi did not answer within a minute"
    except OSError as error:
        return [], f"nvidia-smi cannot be run ({error.strerror})"
    gpus = [] if answer.returncode else _parse(answer.stdout)
    message = " ".join((answer.stdout + answer.stderr).split())[:120] or "nothing"
    failure = "failed" if answer.returncode else "named no GPU"
    return gpus, "" if gpus else f"nvidia-smi {failure} and said {message!r}"


def _visible(gpus: list[Gpu], setting: str | None) -> list[Gpu]:
    """Those that CUDA would show under this `CUDA_VISIBLE_DEVICES`: it stops at the first number that does not exist.

    Names of GPUs (UUIDs) cannot be matched here; so many of them are kept as are named.
    """
    if setting is None:
        return gpus
    shown: list[Gpu] = []
    for token in (part.strip() for part in setting.split(",")):
        index = len(shown) if token.startswith(("GPU-", "MIG-")) else int(token) if token.isdecimal() else -1
        if not 0 <= index < len(gpus):
            break
        shown.append(gpus[index])
    return shown


def visible_gpus() -> tuple[list[Gpu], str]:
    """The GPUs that CUDA would show, without asking torch; or why there are none."""
    gpus, note = _ask_nvidia_smi()
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = _visible(gpus, setting)
    if gpus and not visible:
        note = f"CUDA_VISIBLE_DEVICES={setting!r} hides {describe(gpus)}"
    return visible, note


def has_gpu() -> bool:
    return bool(visible_gpus()[0])


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cores() -> int:
    """Cores this process may use: its affinity, and the container's quota where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")
    if quota.isdecimal() and period.strip().isdecimal():
        cores = min(cores, max(1, math.ceil(int(quota) / int(period))))
    return cores


def _ram_gb() -> float:
    """Memory in GB: the machine's, or the container's limit where that is less (cgroup 2, cgroup 1)."""
    amounts = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        if (limit := _read(path).strip()).isdecimal():
            amounts.append(int(limit))
    return min(amounts) / 1e9


def _disk_free_gb(path: Path) -> float:
    """Free space in GB where `path` is, or will be once it is made."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        return shutil.disk_usage(path).free / 1e9
    except OSError as error:
        raise ElleError(f"cannot read the free space: {error.strerror}", where=str(path)) from error


def inspect(path: Path | str | None = None) -> Machine:
    """Look at this computer; `disk_free_gb` is the space at `path` (default: the current folder).

    Raises:
        ElleError: the disk at `path` cannot be read.
    """
    cpuinfo = _read("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    gpus, note = visible_gpus()
    return Machine(
        cpu_name=model[1].strip() if model else platform.processor() or platform.machine(),
        cores=_cores(),
        ram_gb=_ram_gb(),
        disk_free_gb=_disk_free_gb(Path(path or ".")),
        gpus=gpus,
        bf16_on_cpu=bool(flags and {"avx512_bf16", "amx_bf16"} & set(flags[1].split())),
        gpu_note=note,
    )


def _gpu_findings(machine: Machine) -> list[MachineFault]:
    if not machine.gpus:
        hidden = "CUDA_VISIBLE_DEVICES" in machine.gpu_note
        fix = "unset CUDA_VISIBLE_DEVICES" if hidden else "rent a pod with a GPU; on a laptop use `make setup`"
        return [MachineFault("error", f"no GPU can be used: {machine.gpu_note or 'none is visible'}", fix)]
    findings = [MachineFault("ok", describe(machine.gpus))]
    if len({gpu.name for gpu in machine.gpus}) > 1:
        fix = "set CUDA_VISIBLE_DEVICES to those of one kind"
        findings.append(MachineFault("warn", "the GPUs differ: the smallest one sets the pace and the limit", fix))
    driver, needs = machine.gpus[0].driver, f"needs {MINIMUM_DRIVER} or newer"
    major = re.match(r"\d+", driver)
    if not major:
        fix = f"see what `nvidia-smi` prints: torch 2.13 (CUDA 13) {needs}"
        findings.append(MachineFault("warn", f"the NVIDIA driver's version cannot be read ({driver!r})", fix))
    elif int(major[0]) < MINIMUM_DRIVER:
        message = f"NVIDIA driver {driver} is too old: torch 2.13 is built for CUDA 13, which {needs}"
        fix = "the host sets the driver: rent another pod, and filter for CUDA 13.0 or newer when you choose it"
        findings.append(MachineFault("error", message, fix))
    else:
        findings.append(MachineFault("ok", f"NVIDIA driver {driver} (CUDA 13 {needs})"))
    return findings


def _room(gb: float, least: float, fine: str, short: str, fix: str) -> MachineFault:
    """Whether there are as many GB as there should be."""
    return MachineFault("warn", short, fix) if gb < least else MachineFault("ok", fine)


def _volume_findings(volume: Path) -> list[MachineFault]:
    where = f"the volume {volume}"
    elsewhere = f"mount the pod's volume at {DEFAULT_VOLUME}, or name another folder with ELLE_VOLUME"
    if not volume.is_dir():
        message = f"{where} is not a folder" if volume.exists() else f"{where} does not exist"
        return [MachineFault("error", message, elsewhere)]
    if not os.access(volume, os.W_OK | os.X_OK):
        fix = "mount it writable, or give this user the right to"
        return [MachineFault("error", f"{where} cannot be written to", fix)]
    findings = []
    # Anything from the volume up to (not including) the root may be the mount point itself.
    mount = next((parent for parent in (volume, *volume.parents) if os.path.ismount(parent)), Path("/"))
    if mount == Path("/"):
        fix = f"{elsewhere}, or accept that models and runs are lost when the pod is removed"
        findings.append(MachineFault("warn", f"{where} is on the container's own disk, not on a mounted volume", fix))
    if Path("/workspace") in (volume, mount):
        message = "the volume is mounted over /workspace, which hides what the image keeps there (Axolotl's checkout)"
        fix = f"set the pod's volume mount path to {DEFAULT_VOLUME}"
        findings.append(MachineFault("warn", message, fix))
    free = _disk_free_gb(volume)
    fine = f"{where} can be written to, {free:.0f} GB free"
    short = f"{where} has {free:.0f} GB free: less than a 7B model with checkpoints takes ({MINIMUM_VOLUME_GB:.0f})"
    fix = "enlarge the volume, or remove old runs and models from it"
    return [*findings, _room(free, MINIMUM_VOLUME_GB, fine, short, fix)]


def pod_findings(machine: Machine, volume: Path | str) -> list[MachineFault]:
    """Whether this machine will do as a pod, with `volume` as the folder for what must outlast it.

    The memory that a particular model needs is the planner's business (`elle plan`), not asked here.
    """
    ram, disk, on_gpus = machine.ram_gb, machine.disk_free_gb, sum(gpu.memory_gb for gpu in machine.gpus)
    fine = f"{ram:.0f} GB of memory, {machine.cores} cores"
    short = f"{ram:.0f} GB of memory beside {on_gpus:.0f} GB on the GPUs: too little to offload to"
    fix = "ask `elle plan` whether your recipe offloads, or rent a larger host"
    memory = _room(ram, on_gpus / 2, fine, short, fix)
    fine = f"{disk:.0f} GB free on this disk"
    short = f"{fine}; the packages may take {MINIMUM_DISK_GB:.0f}"
    packages = _room(disk, MINIMUM_DISK_GB, fine, short, "give the pod a larger container disk")
    return [*_gpu_findings(machine), memory, packages, *_volume_findings(Path(volume).absolute())]


def main(arguments: list[str] | None = None) -> int:
    """Print what this machine is; 1 if a finding is an error, else 0."""
    parser = argparse.ArgumentParser(prog="python -m elle.base.machine", description="What this computer is.")
    parser.add_argument("--pod", action="store_true", help="check that it will do as a GPU pod")
    parser.add_argument("--volume", metavar="DIR", help=f"the pod's volume (ELLE_VOLUME, else {DEFAULT_VOLUME})")
    options = parser.parse_args(arguments)
    machine = inspect()
    volume = options.volume or os.environ.get("ELLE_VOLUME") or DEFAULT_VOLUME
    findings = pod_findings(machine, volume) if options.pod else []
    bf16 = "with" if machine.bf16_on_cpu else "without"
    print(f"processor  {machine.cpu_name}, {machine.cores} cores, {bf16} bf16 arithmetic")
    print(f"memory     {machine.ram_gb:.1f} GB, and {machine.disk_free_gb:.0f} GB of disk free")
    print(f"device     {machine.device_reason}")
    for finding in findings:
        print(f"{finding.level:<5}  {finding.message}")
        if finding.fix:
            print(f"       fix: {finding.fix}")
    return int(any(finding.level == "error" for finding in findings))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ElleError as failure:
        sys.exit(f"error: {failure}")
