"""What a pod fetches from the Hub: the data, the recipes and this project's code, in the run's folder there."""

import shutil
import tarfile
from pathlib import Path

from elle import hub
from elle.base import paths, storage
from elle.base.errors import ElleError
from elle.briefings import dataset
from renting.orders import GENERATED, Order
from renting.record import Say

#: What of the repository a pod needs.
CODE = ("src", "configs", "deepspeed", "requirements", "pyproject.toml", "README.md", "LICENSE", "Makefile")


def upload(order: Order, say: Say) -> None:
    """Make and audit the data where need be, and send all that the pod fetches.

    Raises:
        ElleError: the set fails its audit; the Hub refuses; a repository is public.
    """
    planned = stage(order, say)
    for repository in order.repositories:  # before it costs: one that is public would refuse the weights
        hub.ensure_uploaded(repository, "model", say=say)
    say(f"uploading {planned.size:,} bytes to {planned.repository} (private)")
    hub.send(planned, say=say)


def stage(order: Order, say: Say) -> hub.UploadPlan:
    """The run's files in one folder as they will stand in the dataset repository, and the plan to send them."""
    prepare_data(order.data, say)
    folder = paths.runs() / order.run_id / "upload"
    shutil.rmtree(folder, ignore_errors=True)
    inside = folder / "runs" / order.run_id
    files = order.files()
    for name, file in files.items():
        (inside / name).parent.mkdir(parents=True, exist_ok=True)
        if file:
            (inside / name).symlink_to(file.resolve())
    storage.write_json(inside / "order.json", order.to_json())
    archive(inside / "elle.tar.gz")
    names = sorted(f"runs/{order.run_id}/{name}" for name in files)
    return hub.of_files(folder, names, None, kind="dataset", message=f"Run {order.run_id}: what it trains, and on what")


def prepare_data(folder: Path, say: Say) -> None:
    """Make the set if it is one that this project generates, and audit it; nothing is done where that was done.

    Raises:
        ElleError: it fails its audit.
    """
    from elle.evaluation import audit

    if not (folder / dataset.MANIFEST).is_file():
        kind, count, seed, _ = GENERATED.search(folder.as_posix()).groups()
        say(f"making {paths.shown(folder)}")
        dataset.build(kind, int(count), int(seed), folder)
    if audit.verdict(folder) is None:
        say(f"auditing {paths.shown(folder)}")
        audit.audit(folder)
    if refusals := audit.refusals(folder):
        raise ElleError(refusals[0], where=paths.shown(folder), fix="correct the set; nothing was rented")


def archive(out: Path) -> None:
    """The part of this repository that a pod needs, packed; nothing in it says whose machine it is from."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if "__pycache__" in entry.name or entry.name.endswith(".egg-info"):
            return None
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    with storage.atomic(out, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name in CODE:
            if (path := paths.root() / name).exists():
                tar.add(path, name, filter=plain)
