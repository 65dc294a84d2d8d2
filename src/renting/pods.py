"""A training on a rented pod as one act: plan, price, upload, rent, watch, check, end.

The pod does the work by itself (`start.sh`): this machine only watches, and may go. Whatever happens, the pod ends: by
itself when it is done or has failed, by its own timer at the latest, by `up` when that is interrupted, and by `down`.
"""

import io
import json
import math
import os
import re
import shutil
import tarfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elle import hub
from elle.base import paths, secrets, storage, yaml_files
from elle.base.errors import ElleError
from elle.base.process import interruptible
from elle.briefings import dataset
from elle.plan import preflight
from elle.plan.preflight import Plan, span
from helpers.runs import planning, profile
from renting import record as records
from renting import runpod
from renting.record import Confirm, Rental, Say, Status

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
#: Seconds that RunPod may take until the pod runs; seconds after its own limit when this machine ends it.
START, OVERDUE = 900.0, 300.0
#: Seconds after which a request whose answer was lost is not expected to be taken up any more.
LATE = 600.0
#: What of the repository a pod needs.
CODE = ("src", "configs", "deepspeed", "requirements", "pyproject.toml", "README.md", "LICENSE", "Makefile")
GENERATED = re.compile(r"data/generated/(basic|cic)-(\d+)-(\d+)(/train\.jsonl)?$")


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
    notes: tuple[str, ...] = field(default=())

    @property
    def dollars(self) -> tuple[float, float]:
        return self.hours[0] * self.hourly, self.hours[1] * self.hourly

    @property
    def name(self) -> str:
        return f"elle-{self.run_id}"

    @property
    def repositories(self) -> list[str]:
        """The model repository of each recipe."""
        named = records.model_repository()
        return [named] if len(self.plans) == 1 else [f"{named}-{plan.file.stem}" for plan in self.plans]

    @property
    def secret(self) -> str:
        return records.token_secret()

    def body(self) -> dict[str, Any]:
        """The request that rents the pod. It holds no secret: RunPod puts the token in when the pod boots."""
        host = max((plan.memory.host_total for plan in self.plans if plan.memory), default=0.0)
        env = {
            "HF_TOKEN": runpod.secret_reference(self.secret),
            "ELLE_RUN": self.run_id,
            "ELLE_SECONDS": str(round(self.limit_hours * 3600)),
            "ELLE_DATASET_REPO": records.dataset_repository(),
            "ELLE_START": Path(__file__).with_name("start.sh").read_text(encoding="utf-8"),
            "ELLE_VOLUME": VOLUME,
            "AXOLOTL_DO_NOT_TRACK": "1",
        }
        env |= {name: os.environ[name] for name in ("HF_ENDPOINT", runpod.REST) if os.environ.get(name)}
        gpu = {"id": self.gpu, "count": self.count, "minCudaVersion": CUDA}
        if host:
            gpu["minRamPerGpu"] = math.ceil(host / self.count)
        return {
            "name": self.name,
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
        """What goes to RunPod, in order: the last but one again and again, until it shows no pod; then the last."""
        return [
            runpod.list_gpus(self.count, self.cloud, cuda=CUDA),
            runpod.find_secret(self.secret),
            runpod.create_secret(self.secret),
            runpod.list_pods(),
            runpod.create_pod(self.body()),
            runpod.list_pods(),
            runpod.get_pod("{pod}"),
        ]

    def uploads(self) -> list[dict[str, Any]]:
        """What goes to the Hub before anything is rented; bytes are None for what is made then."""
        repo = records.dataset_repository()
        names = [*_split_files(self.data), "order.json", "elle.tar.gz", *(f"recipes/{p.file.name}" for p in self.plans)]
        sizes = {f"data/{p.name}": p.stat().st_size for p in (self.data.glob("*") if self.data.is_dir() else ())}
        sizes |= {f"recipes/{p.file.name}": p.file.stat().st_size for p in self.plans}
        kind = {"repository": repo, "kind": "private dataset"}
        return [kind | {"file": f"runs/{self.run_id}/{name}", "bytes": sizes.get(name)} for name in names]

    def text(self) -> str:
        """What it is, what it costs, and what happens in every case."""
        lines = [plan.short() for plan in self.plans]
        lines += [
            "",
            f"pod         {self.name}: {self.count} x {self.gpu}, {self.cloud.lower()} cloud, {self.image}",
            f"price       ${self.hourly:.2f} an hour ({self.priced})",
            f"planned     {span(self.hours, 'h')}, {span(self.dollars, '$')}, and up to {SETUP:g} h to set up and push",
            f"at most     ${self.max_dollars:.2f}: after {self.limit_hours:.2f} h the pod ends itself, done or not",
            f"data        {paths.shown(self.data)} -> {records.dataset_repository()} (private), runs/{self.run_id}/",
            f"weights     -> {', '.join(self.repositories)} (private), once they were loaded and answered",
            "success     the pod pushes the weights and terminates itself",
            "failure     the pod pushes its log and terminates itself",
            "Ctrl-C      the pod is terminated, and what it has not pushed is lost",
            "no network  the pod goes on and ends itself; `elle pod status` says how it went",
        ]
        return "\n".join([*lines, *(f"note        {note}" for note in self.notes)])

    def to_json(self) -> dict[str, Any]:
        """For programs; no secrets."""
        return {
            "run_id": self.run_id,
            "target": self.target,
            "recipes": [
                {"file": f"recipes/{plan.file.name}", "base": base, "repository": repository}
                for plan, base, repository in zip(self.plans, self.bases, self.repositories, strict=True)
            ],
            "gpu": self.gpu,
            "count": self.count,
            "cloud": self.cloud,
            "hourly": round(self.hourly, 4),
            "priced": self.priced,
            "hours": list(self.hours),
            "dollars": list(self.dollars),
            "limit_hours": self.limit_hours,
            "max_dollars": round(self.max_dollars, 2),
        }


def chosen(target: str, data: Path | str | None, options: dict[str, Any]) -> tuple[list[str], list[str], Path, dict]:
    """The recipes that a target comes to, the base of each, the folder of the data, and the options of their plans.

    Raises:
        ElleError: no such target, or nothing says on which data it trains.
    """
    given = {name: value for name, value in options.items() if value is not None}
    limit = None
    if target in profile.profile_names():
        named = profile.load_profile(target)
        options = profile.plan_options(named) | given
        limit = options.pop("limit", None)
        files, values = profile.recipes(named), named.parameters
        bases = [str(values.get("base") or "")] * len(files)
        folder = paths.root() / f"data/generated/{values.get('kind')}-{values.get('count')}-{values.get('seed')}"
    else:
        options, files = given, [target]
        config = yaml_files.read_yaml(paths.located(target), "recipe")
        bases = [yaml_files.config_table("recipes")["recipes"].get(Path(target).name, {}).get("base", "")]
        sets = config.get("datasets")
        first = sets[0] if isinstance(sets, list) and sets and isinstance(sets[0], dict) else {}
        folder = paths.located(str(first.get("path") or "")).parent
    if data is not None:
        folder = Path(data).resolve()
    if not (folder / dataset.MANIFEST).is_file() and not GENERATED.search(folder.as_posix()):
        raise ElleError(
            "nothing says which data it is to train on", where=str(data or target), fix="--data FOLDER (`elle data`)"
        )
    if (folder / dataset.MANIFEST).is_file():
        options = options | {"data": str(folder), "examples": None}
    elif "data" not in options:
        kind, count, _ = GENERATED.search(folder.as_posix()).groups()[:3]
        options = options | {"data": kind, "examples": int(count) * 18 // 20}
    return files, bases, folder, options | {"limit": limit}


def order(
    target: str,
    *,
    data: Path | str | None = None,
    gpu: str | None = None,
    count: int | None = None,
    disk: float | None = None,
    price: float | None = None,
    cloud: str = "SECURE",
    max_dollars: float | None = None,
    run_id: str | None = None,
    image: str = IMAGE,
    live: bool = True,
    client: runpod.Client | None = None,
) -> Order:
    """Plan a recipe or a profile, and what it takes to run it on a pod. Nothing is rented or uploaded.

    Args:
        target: a recipe's file, or a profile. data: a set's folder; by default the recipe's or the profile's own.
        price: dollars a GPU-hour, in place of the catalogue's. max_dollars: the pod ends itself before it costs more;
            by default what the plan's highest hours and a margin come to, within the profile's budget.
        live: ask RunPod's catalogue for price and stock; else list prices are taken, and nothing is sent.

    Raises:
        ElleError: something is not set (live); the plan is refused; it is for a processor; RunPod has no such GPU, or
            none left; the limit is less than the plan needs.
    """
    if live:
        records.needed(*NEEDED)
    run_id = records.checked_id(run_id or records.new_id(Path(target).stem))
    options = {"gpu": gpu, "count": count, "disk": disk, "price": price}
    files, bases, folder, options = chosen(target, data, options)
    budgeted = options.pop("limit")
    plans = [preflight.plan(path, **options) for path in files]
    machine = max((plan.hardware for plan in plans), key=lambda each: each.count)
    row = yaml_files.config_table("gpus")["gpus"].get(machine.name, {})
    if machine.is_cpu or "catalogue" not in row:
        what = "is for a processor: there is nothing to rent" if machine.is_cpu else f"asks for {machine.title}"
        rented = ", ".join(
            name for name, each in yaml_files.config_table("gpus")["gpus"].items() if "catalogue" in each
        )
        raise ElleError(f"{target} {what}", where="--gpu", fix=f"one that RunPod has: {rented}")
    each, priced = machine.price[1 if cloud == "SECURE" else 0], machine.priced
    if live:
        client = client or runpod.Client()
        each, priced = _offer(client, row["catalogue"], machine.count, cloud, price)
        plans = [preflight.plan(path, **options | {"price": each}) for path in files]
    planning.require(preflight.together(target, plans, budgeted))
    for plan in plans:
        _portable(plan)
    hourly = each * machine.count
    high = sum(plan.budget.hours[1] for plan in plans)
    hours = sum(plan.budget.hours[0] for plan in plans), high
    limit, start = high * MARGIN + SETUP, START / 3600
    if max_dollars is None:
        max_dollars = min(hourly * (limit + start), budgeted or math.inf)
    limit = min(limit, max_dollars / hourly - start) if hourly else limit
    least = high + SETUP / 2
    if limit < least:
        raise ElleError(
            f"${max_dollars:.2f} may not be enough: the plan takes up to {high:.2f} h of ${hourly:.2f} each, and the "
            "pod has to be set up",
            where="--max-dollars",
            fix=f"${hourly * (least + start):.2f} or more",
        )
    max_dollars = min(max_dollars, hourly * (limit + start))  # a higher limit than its own timer's costs no more
    notes = [] if (folder / dataset.MANIFEST).is_file() else [f"{paths.shown(folder)} is made and audited first"]
    return Order(
        run_id, target, plans, bases, folder, row["catalogue"], machine.count, cloud, image, hourly, priced, hours,
        limit, max_dollars, tuple(notes),
    )  # fmt: skip


def _offer(client: runpod.Client, gpu: str, count: int, cloud: str, price: float | None) -> tuple[float, str]:
    """Dollars an hour of one GPU by the catalogue, and where that is from."""
    offers = {offer["id"]: offer for offer in client.gpus(count, cloud, cuda=CUDA)["gpus"]}
    offer, tier = offers.get(gpu, {}), cloud.lower()
    if not offer.get(tier) or offer.get("availability", "NONE") == "NONE":
        known = {row.get("catalogue"): name for name, row in yaml_files.config_table("gpus")["gpus"].items()}
        free = [
            known[name]
            for name, other in offers.items()
            if name in known and other.get(tier) and other.get("availability", "NONE") != "NONE"
        ]
        also = f"--gpu {' or '.join(free)}, " if free else ""
        raise ElleError(
            f"RunPod has no {count} x {gpu} left in its {tier} cloud",
            where="RunPod's catalogue",
            fix=f"{also}--cloud {'COMMUNITY' if cloud == 'SECURE' else 'SECURE'}, or later",
        )
    found = float(offer["price"][tier])
    if price is not None and found > price * 1.001:
        raise ElleError(
            f"it costs ${found:.2f} a GPU-hour now, and you gave ${price:.2f}", where="--price", fix="leave it out"
        )
    return found, f"RunPod's catalogue, {time.strftime('%Y-%m-%d %H:%M')}, stock {offer['availability'].lower()}"


def _portable(plan: Plan) -> None:
    """Check that a recipe needs no file that the pod will not have."""
    zero = plan.config.get("deepspeed")
    if isinstance(zero, str) and not paths.located(zero).resolve().is_relative_to(paths.root()):
        raise ElleError("this DeepSpeed file is not in the repository", where=zero, fix="put it into deepspeed/")
    base = plan.config.get("base_model")
    if isinstance(base, str) and not plan.sizes and Path(base).is_dir():
        raise ElleError("this base is a folder of this machine", where=base, fix="push it to the Hub, and name it so")


# ---- what goes to the Hub


def _split_files(folder: Path) -> list[str]:
    if (folder / dataset.MANIFEST).is_file():
        files = [facts["file"] for facts in dataset.load_manifest(folder)["splits"].values()]
    else:
        files = [f"{split}.jsonl" for split in dataset.SPLITS]
    return [f"data/{name}" for name in (*files, dataset.MANIFEST, *hub.AUDITED)]


def archive(out: Path) -> Path:
    """The part of this repository that a pod needs, as a compressed archive that depends on its content alone."""
    import gzip

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if "__pycache__" in entry.name or entry.name.endswith(".egg-info"):
            return None
        entry.uid = entry.gid = 0
        entry.uname, entry.gname, entry.mtime = "", "", 0
        return entry

    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for name in CODE:
            if (path := paths.root() / name).exists():
                tar.add(path, name, filter=plain)
    with storage.atomic(out, "wb") as file:
        file.write(buffer.getvalue())
    return out


def prepare_data(folder: Path, say: Say) -> None:
    """Make the set if it is one that this project generates, and audit it; nothing is done where that was done.

    Raises:
        ElleError: it fails its audit.
    """
    from elle.evaluation import audit

    if not (folder / dataset.MANIFEST).is_file():
        kind, count, seed = GENERATED.search(folder.as_posix()).groups()[:3]
        say(f"making {paths.shown(folder)}")
        dataset.build(kind, int(count), int(seed), folder)
    if audit.verdict(folder) is None:
        say(f"auditing {paths.shown(folder)}")
        audit.audit(folder)
    if refusals := audit.refusals(folder):
        raise ElleError(refusals[0], where=paths.shown(folder), fix="correct the set; nothing was rented")


def stage(order: "Order", say: Say) -> hub.UploadPlan:
    """The run's files in one folder as they will stand in the dataset repository, and the plan of their going."""
    prepare_data(order.data, say)
    folder = paths.runs() / order.run_id / "upload"
    shutil.rmtree(folder, ignore_errors=True)
    inside = folder / "runs" / order.run_id
    (inside / "recipes").mkdir(parents=True)
    for plan in order.plans:
        shutil.copyfile(plan.file, inside / "recipes" / plan.file.name)
    (inside / "data").mkdir()
    for name in _split_files(order.data):
        (inside / name).symlink_to((order.data / Path(name).name).resolve())
    storage.write_json(inside / "order.json", order.to_json())
    archive(inside / "elle.tar.gz")
    names = sorted(path.relative_to(folder).as_posix() for path in inside.rglob("*") if not path.is_dir())
    return hub.of_files(folder, names, None, kind="dataset", message=f"Run {order.run_id}: what it trains, and on what")


# ---- the act


def up(
    order: Order,
    *,
    confirm: Confirm,
    dry_run: bool = False,
    detach: bool = False,
    poll: float = 15.0,
    start_timeout: float = START,
    say: Say = print,
    client: runpod.Client | None = None,
) -> Status:
    """Upload, rent, watch until the pod has ended, and check what it left.

    confirm: asked with the whole order and its cost; nothing is sent to anyone before it says yes. detach: return once
    the pod is rented. poll: seconds between two looks.

    An interrupt (Ctrl-C, SIGTERM), and a failure on this side, terminate the pod; a lost connection does not.

    Raises:
        ElleError: something is not set or not confirmed; the Hub or RunPod refuses; the training failed.
    """
    if dry_run:
        return Rental(order.run_id, "pod", order.name).status("dry-run")
    records.needed(*NEEDED)
    question = f"{order.text()}\n\nRent it, for at most ${order.max_dollars:.2f}?"
    records.confirmed(confirm, question, "elle pod up")
    client = client or runpod.Client(say=say)
    record = records.begin(
        order.run_id, "pod", hourly=order.hourly, limit=order.limit_hours * 3600 + start_timeout,
        dataset=records.dataset_repository(), models=order.repositories,
    )  # fmt: skip
    with interruptible():
        planned = stage(order, say)
        for repository in order.repositories:  # before it costs: one that is public would refuse the weights
            hub.ensure_uploaded(repository, "model", say=say)
        say(f"uploading {planned.size:,} bytes to {record.dataset} (private)")
        hub.send(planned, say=say)
        try:
            client.ensure_secret(order.secret)
            record.save(state="asked", asked=time.time())
            pod = client.create_pod(order.body())
            record.save(state="provisioning", id=pod["id"], rented=time.time())
            say(f"rented pod {pod['id']} at ${pod['cost']:.2f} an hour; `elle pod down {order.run_id}` ends it")
            if pod["cost"] > order.hourly * 1.01 + 0.001:
                raise ElleError(
                    f"the pod costs ${pod['cost']:.2f} an hour, and ${order.hourly:.2f} was confirmed: it is ended",
                    where=pod["id"],
                    fix="give the command again, and see the new price",
                )
            if detach:
                return status(order.run_id, client=client)
            found = watch(record, client, poll, start_timeout, say)
        except BaseException as error:
            _give_up(record, client, error, say)
            raise
    if found.state != "succeeded":
        raise ElleError(found.sentence, where=f"run {order.run_id}", fix=f"elle pod logs {order.run_id}")
    return found


def _give_up(record: Rental, client: runpod.Client, error: BaseException, say: Say) -> None:
    """End what is rented, or say what becomes of it."""
    stopped = isinstance(error, KeyboardInterrupt)
    what = "interrupted" if stopped else str(getattr(error, "what", None) or error or type(error).__name__)
    if record.state == "preparing" or (isinstance(error, runpod.Refused) and record.state == "asked"):
        if record.state == "asked":
            record.settle("refused", secrets.redacted(what))
        return  # nothing was rented
    say("ending the pod")
    try:
        _terminate_all(record, client)
    except ElleError as failure:
        record.save(remark=f"{what}; and it could not be ended: {failure.what}"[:500])
        say(f"it could not be ended: {failure.what}\nit ends by itself; `elle pod down {record.run_id}` ends it sooner")
        return
    reported = None
    with suppress(ElleError):  # it may have been done at this very moment
        reported = _reported(record)
    found = record.settle(*(reported or ("stopped" if stopped else "refused", secrets.redacted(what)[:500])))
    say("the pod is terminated" + ("; what it had not pushed is lost" if stopped else ""))
    if reported:
        say(found.sentence)


def _terminate_all(record: Rental, client: runpod.Client) -> None:
    """End every pod of the run, whatever is known of it, and see that none is left."""
    for _ in range(3):
        pods = {pod["id"] for pod in client.pods(record.name)}
        if not pods:
            return
        for pod in pods:
            client.terminate(pod)
    if client.pods(record.name):
        raise ElleError("the pod is still there", where=record.name, fix="give the command again")


def watch(record: Rental, client: runpod.Client, poll: float, start_timeout: float, say: Say) -> Status:
    """Look until the pod has ended; what stays behind is ended, what it left is checked."""
    told, cut_off = "", False
    while True:
        try:
            found = look(record, client)
            cut_off = False
        except ElleError as error:  # a refusal too: what trains is not ended for a key that was changed meanwhile
            if not cut_off:
                say(f"{error.what}\n{record.status('unreachable', 'no connection').sentence} Still trying.")
            cut_off, found = True, None
        now = time.time()
        if found is not None:
            if not found.costs:
                return found
            if found.state != told:
                told = found.state
                say(f"{time.strftime('%H:%M:%S')} {found.sentence}")
            if found.state in ("exited", "error"):
                return _ended(record, client, "lost", f"its container ended ({found.state})")
            if found.state in ("provisioning", "starting") and now - record.rented > start_timeout:
                return _ended(record, client, "never-started", "")
        if now - record.rented > record.limit + OVERDUE:
            if cut_off:
                raise ElleError(
                    "RunPod could not be asked since before the pod's limit", where=record.name, fix="elle pod status"
                )
            return _ended(record, client, "expired", "it outlived its own limit and was ended from here")
        time.sleep(poll)


def _ended(record: Rental, client: runpod.Client, state: str, remark: str) -> Status:
    """End what is left, and settle: what the pod reported counts more than how it ended."""
    _terminate_all(record, client)
    reported = _reported(record)
    return record.settle(*(reported or (state, remark)))


def look(record: Rental, client: runpod.Client) -> Status:
    """The state of a pod's run as it is now; a settled one is not asked for again."""
    if record.state in ("lost", "stopped"):
        with suppress(ElleError):
            if late := _reported(record):  # taken up after the pod was gone
                return record.settle(*late)
    if record.state in records.FINAL:
        return record.status()
    pods = client.pods(record.name)
    if not pods and record.id and (pod := client.pod(record.id)):  # a list may lag behind
        pods = [pod]
    if pods:
        if record.id is None or record.rented is None:
            record.save(id=pods[0]["id"], rented=record.rented or time.time())
        for other in pods[1:]:  # a request whose answer was lost, taken up late
            client.terminate(other["id"])
        state = pods[0]["status"].lower()
        record.save(state=state if state in records.STATES else "running")
        return record.status()
    if record.state == "preparing":
        return record.status()
    if reported := _reported(record):
        return record.settle(*reported)
    if record.id is None and time.time() - (record.asked or record.created) < LATE:
        return record.status("asked")
    if record.id is None:
        return record.settle("refused", "RunPod was asked, and no pod came of it")
    return record.settle("lost")


def _reported(record: Rental) -> tuple[str, str] | None:
    """(state, remark) by what the pod put into the Hub, where that holds; None where it reported nothing."""
    raw = hub.read_remote(record.dataset, "dataset", f"runs/{record.run_id}/result.json")
    if raw is None:
        return None
    try:
        result = json.loads(raw)
        state, reason = result["state"], secrets.redacted(str(result.get("reason") or ""))[:500]
        weights = [(each["repository"], each["files"]) for each in result.get("weights", [])]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return "failed", f"its report cannot be read ({type(error).__name__})"
    if state != "succeeded":
        return ("expired" if state == "expired" else "failed"), reason
    wrong = [f"{repo}: {name}" for repo, files in weights for name in records.in_hub(repo, files)]
    tensors = [name for _, files in weights for name in files if name.endswith(".safetensors")]
    if wrong or not tensors:
        said = f"the Hub does not hold {wrong[0]} as it was pushed" if wrong else "it reports success without weights"
        return "failed", said
    record.save(models=[repo for repo, _ in weights])
    return "succeeded", ""


def status(run_id: str | None = None, *, client: runpod.Client | None = None) -> Status:
    """The state of a pod's run, from any process; it costs nothing but two requests."""
    record = records.load_rental(run_id, ("pod",))
    try:
        return look(record, client or runpod.Client(retries=2))
    except ElleError as error:
        return record.status("unreachable", error.what)


def down(run_id: str | None = None, *, client: runpod.Client | None = None) -> Status:
    """End all pods of a run. What it has reported counts; else it is stopped. Safe to repeat.

    Raises:
        ElleError: RunPod cannot be reached: it is not known whether the pod is gone.
    """
    record = records.load_rental(run_id, ("pod",))
    if record.state == "preparing":
        record.save(state="asked")  # whatever the record says: look
    _terminate_all(record, client or runpod.Client())
    if record.state in records.FINAL:
        return record.status()
    reported = None
    with suppress(ElleError):
        reported = _reported(record)
    return record.settle(*(reported or ("stopped", "")))


def logs(run_id: str | None = None, tail: int = 100, *, client: runpod.Client | None = None) -> list[str]:
    """The last lines of a run's log: of the pod while it is there, then of what it reported to the Hub.

    Raises:
        ElleError: neither has any.
    """
    record = records.load_rental(run_id, ("pod",))
    client = client or runpod.Client(retries=2)
    pods = client.pods(record.name) if record.state not in records.FINAL else []
    if pods and (lines := client.logs(pods[0]["id"], tail)):
        return lines
    raw = hub.read_remote(record.dataset, "dataset", f"runs/{record.run_id}/log.txt")
    if raw is None:
        raise ElleError(
            "there is no log", where=f"run {record.run_id}", fix="a pod that never ran has none: elle pod status"
        )
    return secrets.redacted(raw.decode("utf-8", errors="replace")).splitlines()[-tail:]
