"""What a training on a pod will be, what it costs and what it cannot exceed, before anything is sent."""

import math
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elle import hub
from elle.base import paths, yaml_files
from elle.base.errors import ElleError, finite
from elle.briefings import dataset
from elle.plan import preflight
from elle.plan.preflight import Plan, span
from helpers.runs import planning, profile
from renting import record as records
from renting import runpod

#: The pod's image: bash, curl, git, Python 3.12 and CUDA; the packages come from this project's lock.
IMAGE = "runpod/pytorch:1.0.2-cu1281-torch280-ubuntu2404"
#: What must be set to rent.
NEEDED = ("RUNPOD_API_KEY", "HF_TOKEN", "HF_USERNAME", "HF_DATASET_REPO", "HF_MODEL_REPO")
#: The lowest CUDA that the host's driver must speak: the lock's torch is built for 13.0.
CUDA = "13.0"
#: GB of the container's own disk (image and packages; wiped when it restarts), and where the volume is mounted.
DISK, VOLUME = 80, "/workspace/data"
#: Hours beyond the plan's highest: setting up (10 GB of packages), checking and pushing; and the factor on the plan's.
SETUP, MARGIN = 0.5, 1.2
#: Seconds that RunPod may take until the pod runs.
START = 900.0
GENERATED = re.compile(r"data/generated/(basic|cic)-(\d+)-(\d+)(/train\.jsonl)?$")


@dataclass(frozen=True)
class Wishes:
    """What may be asked of a pod beside its target; None: what the recipe, the profile and the catalogue say.

    data: a set's folder. price: dollars per GPU-hour, at most. max_dollars: the pod ends itself before it costs more;
    by default what the plan's highest hours and a margin come to, within the profile's budget.
    """

    data: Path | str | None = None
    gpu: str | None = None
    count: int | None = None
    disk: float | None = None
    price: float | None = None
    cloud: str = "SECURE"
    max_dollars: float | None = None
    run_id: str | None = None
    image: str | None = None


@dataclass(frozen=True)
class Order:
    """What `up` would rent, and for what. hours and dollars: (lowest, highest) planned; hourly: dollars, all GPUs;
    limit_hours: when the pod's own timer ends it; max_dollars: what it can cost, start included."""

    run_id: str
    target: str
    plans: list[Plan]
    bases: list[str]
    data: Path
    gpu: str  # RunPod's id
    count: int
    cloud: str
    image: str
    hourly: float
    priced: str
    hours: tuple[float, float]
    limit_hours: float
    max_dollars: float

    @property
    def dollars(self) -> tuple[float, float]:
        return self.hours[0] * self.hourly, self.hours[1] * self.hourly

    @property
    def repositories(self) -> list[str]:
        """The model repository of each recipe."""
        named = records.own_repository("HF_MODEL_REPO")
        return [named] if len(self.plans) == 1 else [f"{named}-{plan.file.stem}" for plan in self.plans]

    def body(self, mark: str = "{rental}") -> dict[str, Any]:
        """What rents the pod of a rental. It holds no secret: RunPod puts the token in when the pod boots."""
        host = max((plan.memory.host_total for plan in self.plans if plan.memory), default=0.0)
        env = {
            "HF_TOKEN": runpod.secret_reference(records.token_secret()),
            "ELLE_RUN": self.run_id,
            "ELLE_MARK": mark,
            "ELLE_SECONDS": str(round(self.limit_hours * 3600)),
            "ELLE_DATASET_REPO": records.own_repository("HF_DATASET_REPO"),
            "ELLE_START": Path(__file__).with_name("start.sh").read_text(encoding="utf-8"),
            "ELLE_VOLUME": VOLUME,
            "AXOLOTL_DO_NOT_TRACK": "1",
        }
        env |= {name: os.environ[name] for name in ("HF_ENDPOINT", runpod.REST) if os.environ.get(name)}
        gpu = {"id": self.gpu, "count": self.count, "minCudaVersion": CUDA}
        if host:
            gpu["minRamPerGpu"] = math.ceil(host / self.count)
        return {
            "name": f"elle-{self.run_id}-{mark}",
            "image": self.image,
            "args": """bash -c 'printf %s "$ELLE_START" >~/start.sh && exec bash ~/start.sh'""",
            "gpu": gpu,
            "cloud": self.cloud,
            "disk": DISK,
            "mounts": {"persistent": {"size": math.ceil(max(p.hardware.disk_gb for p in self.plans)), "path": VOLUME}},
            "ports": [],
            "env": env,
        }

    def requests(self) -> list[runpod.Request]:
        """What goes to RunPod, in order, the last two again and again. `{rental}`: this one's mark; `{pod}`: its id."""
        return [
            runpod.list_gpus(self.count, self.cloud, CUDA),
            runpod.list_rented("pod"),
            *runpod.keep_secret(records.token_secret()),
            runpod.create_rented("pod", self.body()),
            runpod.list_rented("pod"),
            runpod.get_rented("pod", "{pod}"),
        ]

    def files(self) -> dict[str, Path | None]:
        """What goes to the Hub before anything is rented: the name in the run's folder there → the file here; None
        where it is made when it goes."""
        names = [f"{split}.jsonl" for split in dataset.SPLITS]
        if (self.data / dataset.MANIFEST).is_file():
            names = [facts["file"] for facts in dataset.load_manifest(self.data)["splits"].values()]
        data = {f"data/{name}": self.data / name for name in (*names, dataset.MANIFEST, *hub.AUDITED)}
        recipes = {f"recipes/{plan.file.name}": plan.file for plan in self.plans}
        return data | {"order.json": None, "elle.tar.gz": None} | recipes

    def uploads(self) -> list[dict[str, Any]]:
        """`files` as rows of a table; bytes are None for what is made then."""
        place = {"repository": records.own_repository("HF_DATASET_REPO"), "kind": "private dataset"}
        sizes = {name: path.stat().st_size if path and path.exists() else None for name, path in self.files().items()}
        return [place | {"file": f"runs/{self.run_id}/{name}", "bytes": size} for name, size in sizes.items()]

    def text(self) -> str:
        """What it is, what it costs, and what happens in every case."""
        data, repository = paths.shown(self.data), records.own_repository("HF_DATASET_REPO")
        lines = [
            *(plan.short() for plan in self.plans),
            "",
            f"pod         elle-{self.run_id}: {self.count} x {self.gpu}, {self.cloud.lower()} cloud, {self.image}",
            f"price       ${self.hourly:.2f} an hour ({self.priced})",
            f"planned     {span(self.hours, 'h')}, {span(self.dollars, '$')}, and up to {SETUP:g} h to set up and push",
            f"at most     ${self.max_dollars:.2f}: after {self.limit_hours:.2f} h the pod ends itself, done or not",
            f"data        {data} -> {repository} (private), runs/{self.run_id}/",
            f"weights     -> {', '.join(self.repositories)} (private), once they were loaded and answered",
            "success     the pod pushes the weights and terminates itself",
            "failure     the pod pushes its log and terminates itself",
            "Ctrl-C      the pod is terminated, and what it has not pushed is lost",
            "no network  the pod goes on and ends itself; `elle pod status` says how it went",
        ]
        if not (self.data / dataset.MANIFEST).is_file():
            lines.append(f"note        {data} is made and audited first")
        return "\n".join(lines)

    @property
    def recipes(self) -> list[dict[str, str]]:
        return [
            {"file": f"recipes/{plan.file.name}", "base": base, "repository": repository}
            for plan, base, repository in zip(self.plans, self.bases, self.repositories, strict=True)
        ]

    def to_json(self) -> dict[str, Any]:
        """For programs; no secrets."""
        names = "run_id target recipes gpu count cloud hourly priced hours dollars limit_hours max_dollars"
        rounded = {"hourly": round(self.hourly, 4), "max_dollars": round(self.max_dollars, 2)}
        return {name: getattr(self, name) for name in names.split()} | rounded


def sources(target: str, wished: Wishes) -> tuple[list[str], Path, dict[str, Any]]:
    """The base of each recipe that a target comes to, the folder of its data, and what `planning.plans_of` is given.

    Raises:
        ElleError: no such target, or nothing says on which data it trains.
    """
    named = {name: getattr(wished, name) for name in ("gpu", "count", "disk", "price")}
    given = {name: value for name, value in named.items() if value is not None}
    planned_on_its_set = False
    if target in profile.profile_names():
        run = profile.load_profile(target)
        values, planned_on_its_set = run.parameters, "data" in profile.plan_options(run)
        bases = [str(values.get("base") or "")] * len(profile.recipes(run))
        folder = paths.root() / f"data/generated/{values.get('kind')}-{values.get('count')}-{values.get('seed')}"
    else:
        config = yaml_files.read_yaml(paths.located(target), "recipe")
        bases = [yaml_files.config_table("recipes")["recipes"].get(Path(target).name, {}).get("base", "")]
        sets = config.get("datasets")
        first = sets[0] if isinstance(sets, list) and sets and isinstance(sets[0], dict) else {}
        folder = paths.located(str(first.get("path") or "")).parent
    if wished.data is not None:
        folder = Path(wished.data).resolve()
    generated = GENERATED.search(folder.as_posix())
    if (folder / dataset.MANIFEST).is_file():
        given["data"] = str(folder)
    elif not generated:
        where = str(wished.data or target)
        raise ElleError("nothing says which data it is to train on", where=where, fix="--data FOLDER (`elle data`)")
    elif not planned_on_its_set:
        given |= {"data": generated[1], "examples": int(generated[2]) * 18 // 20}
    return bases, folder, given


def order(target: str, *, live: bool = True, **wishes: Any) -> Order:
    """Plan a recipe or a profile, and what it takes to run it on a pod. Nothing is rented or uploaded.

    Args:
        target: a recipe's file, or a profile. wishes: of `Wishes`.
        live: ask RunPod's catalogue for price and stock; else list prices are taken, and nothing is sent.

    Raises:
        ElleError: something is not set (live); the plan is refused; it is for a processor; RunPod has no such GPU, or
            none left; the limit is less than the plan needs.
    """
    if live:
        records.needed(*NEEDED)
    wished, started = Wishes(**wishes), time.strftime("%Y%m%d-%H%M%S")
    finite(wished.max_dollars or 0, "limit", "--max-dollars", "dollars, such as 5")
    stem = re.sub(r"[^a-z0-9]+", "-", Path(target).stem.lower()).strip("-")
    run_id = records.checked_id(wished.run_id or f"{stem}-{started}")
    bases, folder, given = sources(target, wished)
    plans, answer = planning.plans_of(target, **given)
    machine = max((plan.hardware for plan in plans), key=lambda each: each.count)
    gpus = yaml_files.config_table("gpus")["gpus"]
    if machine.is_cpu or "catalogue" not in gpus.get(machine.name, {}):
        what = "is for a processor: there is nothing to rent" if machine.is_cpu else f"asks for {machine.title}"
        rented = ", ".join(name for name, row in gpus.items() if "catalogue" in row)
        raise ElleError(f"{target} {what}", where="--gpu", fix=f"one that RunPod has: {rented}")
    gpu = gpus[machine.name]["catalogue"]
    price, priced = machine.price[1 if wished.cloud == "SECURE" else 0], machine.priced
    if live:
        price, priced = _offer(gpu, machine.count, wished)
        plans, answer = planning.plans_of(target, **given | {"price": price})
    budgeted = answer.get("budget")
    planning.require(preflight.together(target, plans, budgeted))
    for plan in plans:
        _check_portable(plan)
    hourly = price * machine.count
    hours = sum(plan.budget.hours[0] for plan in plans), sum(plan.budget.hours[1] for plan in plans)
    limits = _limits(hours[1], hourly, wished.max_dollars, budgeted or math.inf)
    image = wished.image or IMAGE
    return Order(
        run_id, target, plans, bases, folder, gpu, machine.count, wished.cloud, image, hourly, priced, hours, *limits
    )


def _limits(high: float, hourly: float, max_dollars: float | None, budgeted: float) -> tuple[float, float]:
    """Hours until the pod ends itself, and the most dollars that it can cost; high: the plan's highest hours."""
    limit, start = high * MARGIN + SETUP, START / 3600
    if max_dollars is None:
        max_dollars = min(hourly * (limit + start), budgeted)
    limit = min(limit, max_dollars / hourly - start) if hourly else limit
    least = high + SETUP / 2
    if limit < least:
        raise ElleError(
            f"${max_dollars:.2f} may not be enough: the plan takes up to {high:.2f} h of ${hourly:.2f} each, and the "
            "pod has to be set up",
            where="--max-dollars",
            fix=f"${hourly * (least + start):.2f} or more",
        )
    return limit, min(max_dollars, hourly * (limit + start))  # a higher limit than its own timer's costs no more


def _offer(gpu: str, count: int, wished: Wishes) -> tuple[float, str]:
    """Dollars per hour of one GPU by the catalogue, and where that is from."""
    tier = wished.cloud.lower()
    offers = runpod.Client().listed(runpod.list_gpus(count, wished.cloud, CUDA), "gpus")
    free = {
        each.get("id"): each for each in offers if each.get(tier) and each.get("availability") not in (None, "NONE")
    }
    if gpu not in free:
        known = {row.get("catalogue"): name for name, row in yaml_files.config_table("gpus")["gpus"].items()}
        others = " or ".join(known[each] for each in free if each in known)
        other_cloud = "COMMUNITY" if wished.cloud == "SECURE" else "SECURE"
        raise ElleError(
            f"RunPod has no {count} x {gpu} left in its {tier} cloud",
            where="RunPod's catalogue",
            fix=f"{f'--gpu {others}, ' if others else ''}--cloud {other_cloud}, or later",
        )
    prices = free[gpu].get("price")
    price = prices.get(tier) if isinstance(prices, dict) else None
    price = finite(price, "price", "RunPod's catalogue", "another --gpu, or later")
    if wished.price is not None and price > wished.price * 1.001:
        what = f"it costs ${price:.2f} a GPU-hour now, and you gave ${wished.price:.2f}"
        raise ElleError(what, where="--price", fix="leave it out")
    stock = str(free[gpu]["availability"]).lower()
    return price, f"RunPod's catalogue, {time.strftime('%Y-%m-%d %H:%M')}, stock {stock}"


def _check_portable(plan: Plan) -> None:
    """Check that a recipe needs no file that the pod will not have."""
    zero = plan.config.get("deepspeed")
    if isinstance(zero, str) and not paths.located(zero).resolve().is_relative_to(paths.root()):
        raise ElleError("this DeepSpeed file is not in the repository", where=zero, fix="put it into deepspeed/")
    base = plan.config.get("base_model")
    if isinstance(base, str) and not plan.sizes and Path(base).is_dir():
        raise ElleError("this base is a folder of this machine", where=base, fix="push it to the Hub, and name it so")
