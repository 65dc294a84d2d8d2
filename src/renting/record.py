"""What all that is rented has in common: what must be set, what is kept on disk (`runs/<id>/rented.json`, no secrets in
it), and what can be said of it."""

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from secrets import token_hex
from typing import Any

from filelock import FileLock

from elle import hub
from elle.base import paths, storage
from elle.base.errors import ElleError
from elle.base.yaml_files import config_table

FILE = "rented.json"
Say = Callable[[str], None]
Confirm = Callable[[str], bool]

#: Environment variables: what each is for, and which commands need it.
VARIABLES = {
    "RUNPOD_API_KEY": ("rents on RunPod, in your name", "pod"),
    "HF_TOKEN": ("writes to your repositories on the Hugging Face Hub", "pod"),
    "HF_USERNAME": ("the Hub account that repositories without a user in their name belong to", "pod"),
    "HF_DATASET_REPO": ("the private repository that data, recipe and results go to", "pod up"),
    "HF_MODEL_REPO": ("the private repository that weights go to", "pod up"),
}

#: Every state that a rental can be seen in: `costs`, `sentence` and, where it does not change any more, `final`.
STATES = config_table("rental_states")
FINAL = tuple(name for name, state in STATES.items() if state.get("final"))


@dataclass
class Rental:
    """What is kept of a rental, written before and after every step that costs: another process can go on from it.

    kind: pod or endpoint; state: of STATES; mark: what tells it from another of its run's name; pod: RunPod's id of it;
    ids: all that RunPod ever gave it; creates: requests for it that RunPod took up, or may have; asked: when the last
    one was sent (`uptime`); stop: it is to end, whoever watches it; hourly: dollars; limit: seconds that it may take,
    start included; other times are seconds of the epoch; remark: what its state's sentence says beside; account: of
    `runpod.account` when it was last seen, or begun.
    """

    run_id: str
    kind: str
    state: str = "preparing"
    mark: str = field(default_factory=lambda: token_hex(4))
    pod: str | None = None
    ids: list[str] = field(default_factory=list)
    creates: int = 0
    stop: bool = False
    hourly: float = 0.0
    limit: float = 0.0
    created: float = field(default_factory=time.time)
    asked: float | None = None
    rented: float | None = None
    ended: float | None = None
    remark: str = ""
    dataset: str = ""
    models: list[str] = field(default_factory=list)
    account: str = ""

    @property
    def name(self) -> str:
        """Its name at RunPod, by which it is found again; nothing else ever has it."""
        return f"elle-{self.run_id}-{self.mark}"

    def from_pod(self, file: str) -> bytes | None:
        """What its pod has put into the dataset repository, this rental's alone: result.json or log.txt."""
        return hub.read_remote(self.dataset, "dataset", f"runs/{self.run_id}/{self.mark}/{file}")

    @property
    def file(self) -> Path:
        return paths.runs() / self.run_id / FILE

    @property
    def costs(self) -> bool:
        """Whether it costs money, or may."""
        return STATES[self.state]["costs"]

    @property
    def sentence(self) -> str:
        """What its state means."""
        state = STATES[self.state]
        return state.get(self.kind, state["sentence"]).format(
            run=self.run_id,
            latest="now" if self.rented is None else time.strftime("%H:%M", time.localtime(self.rented + self.limit)),
            remark=self.remark or "see its log",
            weights=", ".join(self.models),
            nothing="Nothing is rented any more.",
        )

    @property
    def cost_so_far(self) -> float | None:
        """Dollars; None of an endpoint, whose workers come and go."""
        if self.kind != "pod":
            return None
        since = 0.0 if self.rented is None else (self.ended or time.time()) - self.rented
        return round(since / 3600 * self.hourly, 6)

    @property
    def weights(self) -> tuple[str, ...]:
        """The model repositories that hold checked weights."""
        return tuple(self.models) if self.state == "succeeded" else ()

    def to_json(self) -> dict[str, Any]:
        """For programs: its state, explained."""
        names = ("run_id", "state", "sentence", "pod", "cost_so_far", "weights", "costs")
        return {name: getattr(self, name) for name in names}

    def save(self, *, anew: bool = False, **changes: Any) -> "Rental":
        """Write it with these changes, upon what another process has kept of it meanwhile: what is settled stays so.
        An ElleError where another rental's record stands there, but for one that is to be written anew."""
        vars(self).update(changes)  # first of all: what is known counts, even where it cannot be written
        with FileLock(self.file.with_suffix(".lock")):
            kept = storage.read_json(self.file) if self.file.exists() else {}
            if not anew and kept:
                if kept.get("mark", self.mark) != self.mark:
                    what = f"run {self.run_id!r} has been rented anew meanwhile"
                    raise ElleError(what, where=paths.shown(self.file), fix="another --run-id")
                if kept["state"] in FINAL and changes.get("state") not in FINAL:
                    changes.pop("state", None)
                vars(self).update(kept | changes)
            storage.write_json(self.file, asdict(self))
        return self

    def settle(self, state: str, remark: str = "") -> "Rental":
        """Write a state that does not change any more."""
        return self.save(state=state, remark=remark or self.remark, ended=self.ended or time.time())

    def seen(self, state: str, remark: str = "") -> "Rental":
        """The same in a state that is not kept: it says nothing lasting."""
        return replace(self, state=state, remark=remark or self.remark)


def uptime() -> float:
    """Seconds since this machine started, those it slept included. Whoever sets its clock does not change it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def load(path: Path) -> Rental:
    """The record in a file, one of an older version too; an ElleError where it holds none."""
    kept = storage.read_json(path)
    try:
        record = Rental(**{name: kept[name] for name in Rental.__dataclass_fields__ if name in kept})
        if record.state not in STATES or record.run_id != path.parent.name:
            raise ValueError(record.state)
        record.created = float(record.created)
    except (TypeError, ValueError) as error:
        fix = "end what it rented in RunPod's console, then delete this file"
        raise ElleError("this is no record of what was rented", where=paths.shown(path), fix=fix) from error
    if record.pod and not record.ids:  # of a version that kept one id alone
        record.ids, record.creates = [record.pod], 1
    return record


def rentals(kind: str | None = None, say: Say = lambda _: None) -> dict[str, Rental]:
    """By run, oldest first: what is kept of each rental of that kind (None: any), begun or over. `say` is told of a
    record that cannot be read, which is left out."""
    records = []
    for path in paths.runs().glob(f"*/{FILE}"):
        try:
            records.append(load(path))
        except ElleError as error:
            say(str(error))
    records.sort(key=lambda each: each.created)
    return {each.run_id: each for each in records if kind in (None, each.kind)}


def load_rental(run_id: str | None, kind: str | None = None, say: Say = lambda _: None) -> Rental:
    """The record of a run; None: of the newest one of that kind that costs, or else the newest; `say` is told which
    others cost. An ElleError where there is none."""
    if run_id and (path := paths.runs() / checked_id(run_id) / FILE).exists():
        record = load(path)
        if kind in (None, record.kind):
            return record
    known = rentals(kind, say)
    costly = [name for name, each in known.items() if each.costs]
    if run_id or not known:
        what = f"nothing was rented by run {run_id!r}" if run_id else "nothing was rented from here"
        fix = f"one of: {', '.join([*known][-5:])}" if known else "`elle pod up RECIPE --dry-run` shows what would be"
        raise ElleError(what, where=paths.shown(paths.runs()), fix=fix)
    if costly[:-1]:
        say(f"these cost too, or may: {', '.join(costly[:-1])}")
    return known[(costly or [*known])[-1]]


@contextmanager
def beginning(run_id: str) -> Iterator[None]:
    """Rent by this name alone: an ElleError where another process does."""
    busy = f"another `elle pod up` or `deploy` is at work on run {run_id!r}"
    with storage.locked(paths.runs() / run_id / ".renting", busy=busy):
        yield


def check_over(run_id: str) -> None:
    """An ElleError where the run has a record that is not over."""
    path = paths.runs() / run_id / FILE
    if path.exists() and load(path).state not in (*FINAL, "preparing"):
        fix = f"`elle pod status {run_id}`, `elle pod down {run_id}`, or another --run-id"
        raise ElleError(f"run {run_id!r} is rented already", where=paths.shown(path), fix=fix)


def begin(run_id: str, kind: str, **values: Any) -> Rental:
    """A new record, written; nothing is rented yet. An ElleError where the run has one that is not over."""
    check_over(run_id)
    return Rental(run_id, kind, **values).save(anew=True)


def checked_id(run_id: str) -> str:
    """A run's name as it may stand in a path, a pod's name and a repository; an ElleError where it may not."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", run_id) or ".." in run_id:
        raise ElleError(f"{run_id!r} is not a valid run name", where="--run-id", fix="letters, digits, '-', '_', '.'")
    return run_id


def environment() -> list[dict[str, str]]:
    """The environment variables that renting needs, as rows of a table: never their values."""
    return [
        {"variable": name, "for": what, "needed by": who, "set": "yes" if os.environ.get(name, "").strip() else "no"}
        for name, (what, who) in VARIABLES.items()
    ]


def needed(*names: str) -> None:
    """Check what must be set before anything is sent.

    Raises:
        ElleError: with every variable that is missing, and what it is for.
    """
    repositories = [os.environ.get(name, "") for name in ("HF_DATASET_REPO", "HF_MODEL_REPO") if name in names]
    missing = [name for name in names if not os.environ.get(name, "").strip()]
    if "HF_USERNAME" in missing and repositories and all("/" in each for each in repositories):
        missing.remove("HF_USERNAME")  # each repository names its user
    if missing:
        lines = "".join(f"\n    {name}: {VARIABLES[name][0]}" for name in missing)
        raise ElleError(
            f"not set, nothing was sent:{lines}",
            where="environment",
            fix="export them (docs/runpod.md says where to get each); --dry-run needs none",
        )


def confirmed(confirm: Confirm, question: str, where: str) -> None:
    """Ask before anything is sent; an ElleError where the answer is no."""
    if not confirm(question):
        raise ElleError("not confirmed: nothing was sent, nothing is rented", where=where, fix="--yes")


def own_repository(variable: str) -> str:
    """HF_DATASET_REPO or HF_MODEL_REPO under HF_USERNAME; where it is not set (a dry run), the variables' own names."""
    if os.environ.get(variable, "").strip():
        return hub.repository(None, variable)
    return f"{os.environ.get('HF_USERNAME', '').strip() or '$HF_USERNAME'}/${variable}"


def token_secret() -> str:
    """The name of the RunPod account secret that holds HF_TOKEN: another token is another secret."""
    token = os.environ.get("HF_TOKEN", "").strip()
    return f"elle_hf_token_{hashlib.sha256(token.encode()).hexdigest()[:8] if token else '{of the token}'}"
