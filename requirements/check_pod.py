"""Whether this machine will do as a pod: its GPUs and driver, its memory and disk, and the volume that outlasts it.

The standard library only: `make pod` asks this before anything is installed.
"""

import argparse
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from elle.base import machine
from elle.base.errors import ElleError
from elle.base.machine import Machine

# torch 2.13, as PyPI has it, is built for CUDA 13, which no older NVIDIA driver can run.
MINIMUM_DRIVER = 580
DEFAULT_VOLUME = "/workspace/data"
# The packages take about 10 GB, and uv keeps as much in its cache when that is on another disk.
MINIMUM_DISK_GB = 25.0
# One 7B model in bf16 with a LoRA checkpoint and its merge; a 72B full fine-tune wants over ten times that.
MINIMUM_VOLUME_GB = 60.0


@dataclass(frozen=True)
class MachineFault:
    level: Literal["ok", "warn", "error"]
    message: str
    fix: str = ""


def _gpu_findings(computer: Machine) -> list[MachineFault]:
    if not computer.gpus:
        hidden = "CUDA_VISIBLE_DEVICES" in computer.gpu_note
        fix = "unset CUDA_VISIBLE_DEVICES" if hidden else "rent a pod with a GPU; on a laptop use `make setup`"
        return [MachineFault("error", f"no GPU can be used: {computer.gpu_note or 'none is visible'}", fix)]
    findings = [MachineFault("ok", machine.describe(computer.gpus))]
    if len({gpu.name for gpu in computer.gpus}) > 1:
        fix = "set CUDA_VISIBLE_DEVICES to those of one kind"
        findings.append(MachineFault("warn", "the GPUs differ: the smallest one sets the pace and the limit", fix))
    driver, needs = computer.gpus[0].driver, f"needs {MINIMUM_DRIVER} or newer"
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
    free = machine.disk_free_gb(volume)
    fine = f"{where} can be written to, {free:.0f} GB free"
    short = f"{where} has {free:.0f} GB free: less than a 7B model with checkpoints takes ({MINIMUM_VOLUME_GB:.0f})"
    fix = "enlarge the volume, or remove old runs and models from it"
    return [*findings, _room(free, MINIMUM_VOLUME_GB, fine, short, fix)]


def pod_findings(computer: Machine, volume: Path | str) -> list[MachineFault]:
    """Whether this machine will do as a pod, with `volume` as the folder for what must outlast it.

    The memory that a particular model needs is the planner's business (`elle plan`), not asked here.
    """
    ram, disk, on_gpus = computer.ram_gb, computer.disk_free_gb, sum(gpu.memory_gb for gpu in computer.gpus)
    fine = f"{ram:.0f} GB of memory, {computer.cores} cores"
    short = f"{ram:.0f} GB of memory beside {on_gpus:.0f} GB on the GPUs: too little to offload to"
    fix = "ask `elle plan` whether your recipe offloads, or rent a larger host"
    memory = _room(ram, on_gpus / 2, fine, short, fix)
    fine = f"{disk:.0f} GB free on this disk"
    short = f"{fine}; the packages may take {MINIMUM_DISK_GB:.0f}"
    packages = _room(disk, MINIMUM_DISK_GB, fine, short, "give the pod a larger container disk")
    return [*_gpu_findings(computer), memory, packages, *_volume_findings(Path(volume).absolute())]


def main(arguments: list[str] | None = None) -> int:
    """Print what this machine is, and the findings; 1 if one is an error, else 0."""
    parser = argparse.ArgumentParser(prog="requirements/check_pod.py", description="Whether this will do as a GPU pod.")
    parser.add_argument("--volume", metavar="DIR", help=f"the pod's volume (ELLE_VOLUME, else {DEFAULT_VOLUME})")
    options = parser.parse_args(arguments)
    computer = machine.inspect()
    bf16 = "with" if computer.bf16_on_cpu else "without"
    print(f"processor  {computer.cpu_name}, {computer.cores} cores, {bf16} bf16 arithmetic")
    print(f"memory     {computer.ram_gb:.1f} GB, and {computer.disk_free_gb:.0f} GB of disk free")
    print(f"device     {computer.device_reason}")
    findings = pod_findings(computer, options.volume or os.environ.get("ELLE_VOLUME") or DEFAULT_VOLUME)
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
