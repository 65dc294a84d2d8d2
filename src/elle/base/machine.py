"""What this computer is: processor, memory, disk, GPUs.

The standard library only: `requirements/check_pod.py` asks this before anything is installed. Units: GB = 1e9 bytes.
"""

import contextlib
import math
import os
import platform
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal

from elle.base.errors import ElleError

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


def disk_free_gb(path: Path) -> float:
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
        disk_free_gb=disk_free_gb(Path(path or ".")),
        gpus=gpus,
        bf16_on_cpu=bool(flags and {"avx512_bf16", "amx_bf16"} & set(flags[1].split())),
        gpu_note=note,
    )
