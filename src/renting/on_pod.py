"""The work of a rented pod: train each recipe of its order, check that the weights exist and load, push them, and say
so in `result.json`. Run by `start.sh`, which reports that file to the Hub and ends the pod."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from elle import hub
from elle.base import paths, secrets, storage
from elle.base.errors import ElleError
from elle.training import checkpoints

#: Files of a trained folder that are left out: what only a resumed training needs.
LEFT_OUT = ("training_args.bin", "optimizer.pt", "scheduler.pt", "debug.log", "README.md")


def weights_of(folder: Path) -> list[str]:
    """The files of a trained folder that make the model or the adapter: not its checkpoints.

    Raises:
        ElleError: there are no weights, or one of their files is cut short.
    """
    tensors = sorted(folder.glob("*.safetensors"))
    if not tensors:
        raise ElleError("the training left no weights", where=str(folder))
    for path in tensors:
        if not checkpoints.whole_safetensors(path):
            raise ElleError("this file of weights is cut short", where=str(path))
    return sorted(path.name for path in folder.iterdir() if path.is_file() and path.name not in LEFT_OUT)


def load(folder: Path) -> None:
    """Load the weights as whoever serves them would, and ask for one token.

    Raises:
        ElleError: they do not load, or answer with NaN or infinity.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"device_map": "auto"} if torch.cuda.is_available() else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
        # Of an adapter's folder, it loads the base that the adapter names, and the adapter upon it.
        model = AutoModelForCausalLM.from_pretrained(str(folder), dtype="auto", **where)
        with torch.no_grad():
            inputs = tokenizer("PIPELINE METRICS", return_tensors="pt", return_token_type_ids=False).to(model.device)
            logits = model(**inputs).logits[0, -1].float()
    except Exception as error:  # whatever it is, these weights cannot be used
        raise ElleError(f"the weights do not load: {type(error).__name__}: {error}", where=str(folder)) from error
    if not bool(torch.isfinite(logits).all()):
        raise ElleError("the weights load, and answer with NaN or infinity", where=str(folder))


def train_recipe(recipe: dict, data: Path, out: Path) -> Path:
    """Train by `elle train`, which resumes what was interrupted; the folder of the weights.

    Raises:
        ElleError: it failed.
    """
    command = [sys.executable, "-m", "helpers.cli", "train", recipe["file"], "--data", str(data), "--out", str(out)]
    command += ["--base", recipe["base"]] if recipe["base"] else []
    done = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise ElleError(f"`elle train` ended with code {done.returncode}; the log says why", where=recipe["file"])
    manifest = json.loads(done.stdout.splitlines()[-1])["manifest"]  # as it is shown: relative to the runs' parent
    return (paths.runs().parent / manifest).parent / "weights"


def work() -> dict[str, Any]:
    """Fetch, train, check and push, this as long as the pod lives; what `result.json` holds."""
    until = time.monotonic() + float(os.environ["ELLE_LEFT"]) - 30.0  # for its report
    run, home = os.environ["ELLE_RUN"], Path(os.environ["ELLE_HOME"])
    hub.download(os.environ["ELLE_DATASET_REPO"], "dataset", f"runs/{run}/*", home / "hub", say=print)
    fetched = home / "hub" / "runs" / run
    order = storage.read_json(fetched / "order.json")
    results = []
    for recipe in order["recipes"]:
        recipe = recipe | {"file": str(fetched / recipe["file"])}
        folder = train_recipe(recipe, fetched / "data", home / "train")
        names = weights_of(folder)
        print(f"{len(names)} files of weights; loading them", flush=True)
        load(folder)
        message = f"Trained by {run}: weights that were loaded before they were pushed"
        planned = hub.of_files(folder, names, recipe["repository"], kind="model", message=message)
        pushed = hub.send(planned, timeout=600.0, until=until, say=print)
        print(f"pushed to {pushed.url}", flush=True)
        results.append({"repository": pushed.repository, "commit": pushed.commit, "files": planned.files})
    return {"state": "succeeded", "reason": "", "weights": results}


def main() -> int:
    try:
        result = work()
    except ElleError as error:
        print(f"error: {secrets.redacted(str(error))}", file=sys.stderr)
        where = f" ({Path(error.where).name})" if error.where else ""
        result = {"state": "failed", "reason": secrets.redacted(error.what)[:500] + where}
    storage.write_json(Path(os.environ["ELLE_HOME"]) / "result.json", result)
    return 0 if result["state"] == "succeeded" else 1


if __name__ == "__main__":
    sys.exit(main())
