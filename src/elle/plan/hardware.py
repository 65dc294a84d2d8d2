"""What can be rented (`configs/gpus.yaml`): memory, speed, price; and the prices read anew from the provider.

Units: GB = 1e9 bytes; prices in dollars per GPU-hour.
"""

import math
import os
import re
from dataclasses import dataclass, replace

from elle.base import paths
from elle.base.errors import ElleError, finite, unknown
from elle.base.machine import Machine
from elle.base.yaml_files import config_table

#: Environment variable: dollars per GPU-hour, in place of the list prices.
PRICE = "ELLE_GPU_PRICE"
DISK_GB = 200.0


class NotCovered(ElleError):
    """Nothing is known: on which GPUs a recipe is to run, what such a GPU is, what a key makes of the figures."""


@dataclass(frozen=True)
class Hardware:
    """`count` GPUs of one kind (`memory_gb` and `tflops` of each), their host, and a disk.

    price: (lowest, highest) dollars per GPU-hour; priced: where that is from.
    """

    name: str
    title: str
    count: int
    memory_gb: float
    tflops: float
    host_gb: float
    disk_gb: float
    price: tuple[float, float]
    priced: str
    generation: str = ""  # of NVIDIA's GPUs, as coefficients.yaml names them

    @property
    def is_cpu(self) -> bool:
        return self.name == "cpu"

    def __str__(self) -> str:
        return self.title if self.is_cpu else f"{self.count} x {self.title}"


def find(name: str, count: int = 1, disk_gb: float = DISK_GB, price: float | None = None) -> Hardware:
    """`count` GPUs called `name` in `configs/gpus.yaml`; `price` and ELLE_GPU_PRICE override the list price.

    Raises:
        ElleError: no such GPU (with the nearest name); an invalid count, disk or price.
    """
    listed, name = config_table("gpus"), name.lower()
    if name not in listed["gpus"]:
        failure = unknown("GPU", name, listed["gpus"], where=str(paths.configs() / "gpus.yaml"))
        raise NotCovered(f"not covered: {failure.what}", where=failure.where, fix=f"{failure.fix} Or add a row there.")
    if not 1 <= count <= 1024:
        raise ElleError(f"{count} GPUs cannot be rented", where="--count", fix="from 1 to 8 on one machine")
    row = listed["gpus"][name]
    origin = row.get("source") or f"{listed['source']}, {listed['priced']}"
    where, given = ("--price", price) if price is not None else (PRICE, os.environ.get(PRICE) or None)
    if given is not None:
        price, origin = finite(given, "price", where, "dollars a GPU-hour, such as 3.75"), "as given"
    if not (math.isfinite(disk_gb) and disk_gb > 0):
        raise ElleError(f"a disk of {disk_gb} GB", where="--disk", fix="gigabytes, such as 500")
    low, high = row["price"] if price is None else (price, price)
    return Hardware(
        name=name,
        title=row["title"],
        count=count,
        memory_gb=float(row["memory_gb"]),
        tflops=float(row["tflops"]),
        host_gb=float(row["host_gb"]) * count,
        disk_gb=float(disk_gb),
        price=(float(low), float(high)),
        priced=origin,
        generation=row.get("generation", ""),
    )


def here(computer: Machine, disk_gb: float) -> Hardware:
    """This computer as hardware to plan with: its own memory and disk; speed and price by its GPU's name.

    A GPU that is not listed has the speed of the slowest that is, and no price but ELLE_GPU_PRICE.

    Raises:
        ElleError: ELLE_GPU_PRICE is not a price.
    """
    if not computer.gpus:
        title = f"processor ({computer.cores} cores)"
        cpu = find("cpu", 1, disk_gb, 0.0)
        return replace(cpu, title=title, memory_gb=computer.ram_gb, host_gb=computer.ram_gb)
    gpu = min(computer.gpus, key=lambda gpu: gpu.memory_gb)
    listed = config_table("gpus")["gpus"]
    # nvidia-smi's names: "NVIDIA H200", "NVIDIA A100-SXM4-80GB".
    known = {name: row.get("catalogue") or f"NVIDIA {row['title']}" for name, row in listed.items() if name != "cpu"}
    named = [name for name, title in known.items() if re.match(rf"{re.escape(title)}\b", gpu.name)]
    slowest = min(known, key=lambda name: listed[name]["tflops"])
    found = find(named[0] if named else slowest, len(computer.gpus), disk_gb)
    found = replace(found, memory_gb=gpu.memory_gb, host_gb=computer.ram_gb)
    if not named:
        found = replace(found, name="gpu", title=gpu.name)
        if not os.environ.get(PRICE):
            found = replace(found, price=(0.0, 0.0), priced=f"unknown: set {PRICE}")
    return found


def hourly(hardware: Hardware) -> tuple[float, float]:
    """Dollars an hour for all of it, lowest and highest."""
    return hardware.price[0] * hardware.count, hardware.price[1] * hardware.count
