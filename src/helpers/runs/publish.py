"""`elle publish`: a run's executed notebooks as the project's own, and its figures for the pages."""

import base64

import nbformat

from elle.base import paths, storage
from elle.base.errors import ElleError, unknown
from helpers.runs import parameters, profile
from helpers.runs.report import smaller_png
from helpers.runs.results import read_manifest

#: What the published figures of a run leave out: raw outputs, and the ledger, which is in docs/measured.md.
UNPUBLISHED = ("worst", "claims")


def publish(run_id: str) -> list[str]:
    """Copy a run's executed notebooks over the project's own, so that they are committed with their outputs; and, where
    it left out no step, its figures into docs/, where `make docs` reads them. Returns the notebooks' names.

    What papermill added (the injected cell, times, paths) and warnings are left out, and pictures are made smaller. A
    stamp of the code is put in, so that a test can tell when the outputs are no longer those of the code.

    Raises:
        ElleError: no such run, a notebook that it has not executed, or one that has changed since.
    """
    folder = paths.run_folder(run_id)
    if not (folder / "run.json").exists():
        raise unknown("run", run_id, [path.parent.name for path in paths.runs().glob("*/run.json")])
    chosen = profile.load_profile(storage.read_json(folder / "run.json")["profile"])
    for step in chosen.notebooks:
        executed, own = folder / "notebooks" / f"{step}.ipynb", parameters.file_of(step)
        stamp = parameters.stamp(own)
        if not executed.exists() or read_manifest(folder / "manifests" / f"{step}.json")[0].code != stamp:
            what = f"notebook {step} has not been executed in this run as it now stands"
            fix = f"elle run {chosen.name} --resume --run-id {run_id}"
            raise ElleError(what, where=paths.shown(folder), fix=fix)
        book = nbformat.read(executed, as_version=4)
        book.cells = [cell for cell in book.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
        for cell in book.cells:
            cell.metadata = {"tags": tags} if (tags := cell.metadata.get("tags")) else {}
            if "outputs" in cell:  # without a library's warnings, which frighten
                cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.get("outputs", []):
                if picture := output.get("data", {}).get("image/png"):
                    output["data"]["image/png"] = base64.b64encode(smaller_png(base64.b64decode(picture))).decode()
        book.metadata = {
            "kernelspec": book.metadata["kernelspec"],
            "language_info": {"name": "python"},
            "elle": {"profile": chosen.name, "stamp": stamp},
        }
        storage.write_text(own, nbformat.writes(book) + "\n")
    card = storage.read_json(folder / "report.json")
    if not card["not_run"]:
        with storage.atomic(paths.published().parent / "images" / "loss.png", "wb") as file:
            file.write(smaller_png((folder / "figures" / "loss.png").read_bytes()))
        storage.write_json(paths.published(), {name: value for name, value in card.items() if name not in UNPUBLISHED})
    return chosen.notebooks
