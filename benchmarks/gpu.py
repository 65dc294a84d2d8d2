"""Memory and speed of recipes on the GPU at hand, under the real trainer: random weights, nothing downloaded, no disk.

python benchmarks/gpu.py RECIPE[,KEY=VALUE,...] ... [--data FOLDER] [--steps 6] [--micro 1,2,4] [--out ROWS.jsonl]
python benchmarks/gpu.py --compare [ROWS.jsonl]    rows beside the planner's figures (default: those it is held to)
python benchmarks/gpu.py --missing                 what this machine lacks of the lock, to carry it there
python benchmarks/gpu.py --pack FILE.tar.xz NAME ... those packages of this environment, to unpack there

A recipe trains a few steps as it is shipped, but for KEY=VALUE (null removes a key): its base is made of zeros that the
file system does not store and filled with noise on the GPU; nothing is validated or saved. While one trains, the next
imports its packages. Each becomes a row of ROWS.jsonl, as in tests/fixtures/gpu-rows.jsonl, to which the planner is
held: `states_gb` allocated before the first step, `after_step_gb` after it, `peak_gb` and `reserved_gb` torch's,
`driver_gb` nvidia-smi's; the first step is not in `median_step_s`; `row_tokens_per_s` counts padding. --micro also
measures a forward and backward pass of other micro batches, up to the one that does not fit.
"""

import argparse
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
from datetime import date
from importlib import metadata
from pathlib import Path

import gpu_rows
import yaml

from elle.base import machine, paths, storage, yaml_files
from elle.base.errors import ElleError
from elle.base.process import interruptible
from elle.base.tables import markdown
from elle.briefings import dataset
from elle.plan import hardware, models, recipe
from elle.plan.axolotl import trainer_environment
from elle.training.launch import PACKAGES

PROBE = Path(__file__).with_name("gpu_probe.py")
#: What a training by Axolotl imports beyond what PyTorch's own images hold.
IMPORTED = """
    accelerate addict annotated-types axolotl axolotl-contribs-lgpl axolotl-contribs-mit backoff bitsandbytes cwevals
    datasets deepspeed defusedxml dill distro einops evaluate fastcore fire googleapis-common-protos hjson
    huggingface-hub kernels liger-kernel msgpack multiprocess opentelemetry-api opentelemetry-exporter-otlp-proto-common
    opentelemetry-exporter-otlp-proto-http opentelemetry-proto opentelemetry-sdk opentelemetry-semantic-conventions peft
    platformdirs posthog psutil py-cpuinfo pydantic pydantic-core sniffio termcolor tokenizers transformers trl
    typing-inspection wandb
""".split()  # noqa: SIM905
CUDA = "cu130"
VERSIONS = (*PACKAGES, "liger-kernel", "triton")
#: Seconds that a run may take once it loads.
CAP = 240.0


def make_base(model: models.Model, folder: Path, tokenizer: Path) -> None:
    """A checkpoint of `model`'s shape whose weights are holes in the files: zeros that take no disk."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    kinds = (Qwen2Config, Qwen2ForCausalLM) if model.qkv_bias else (LlamaConfig, LlamaForCausalLM)
    config = kinds[0](
        vocab_size=model.vocab,
        hidden_size=model.hidden,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.kv_heads,
        intermediate_size=model.ffn,
        tie_word_embeddings=model.tied,
        max_position_embeddings=32768,
        dtype="bfloat16",
    )
    config.architectures = [kinds[1].__name__]
    config.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    with torch.device("meta"):
        shapes = {name: list(p.shape) for name, p in kinds[1](config).named_parameters()}  # tied ones once
    files: list[dict[str, tuple[list[int], int]]] = [{}]
    for name, shape in shapes.items():
        size = 2 * torch.Size(shape).numel()
        if sum(bytes_ for _, bytes_ in files[-1].values()) + size > 8e9:
            files.append({})
        files[-1][name] = (shape, size)
    index = {}
    for number, content in enumerate(files):
        name = f"model-{number + 1:05d}-of-{len(files):05d}.safetensors"
        header, end = {}, 0
        for key, (shape, size) in content.items():
            header[key] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
            end += size
            index[key] = name
        head = json.dumps({"__metadata__": {"format": "pt"}} | header).encode()
        head += b" " * (-len(head) % 8)
        with (folder / name).open("wb") as file:
            file.write(struct.pack("<Q", len(head)) + head)
            file.truncate(8 + len(head) + end)
    storage.write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})


def make_tokenizer(train: Path, folder: Path) -> Path:
    """A tokenizer of the data: which tokens fill a row decides neither memory nor speed."""
    from elle.training import nano

    texts = (turn["value"] for row in storage.read_lines(train) for turn in row["conversations"])
    nano.train_tokenizer(texts, 1024).save_pretrained(folder)
    return folder


def prepared(named: str, work: Path, number: int, options: argparse.Namespace, tokenizer: Path) -> dict:
    """What is to be run: the recipe's own content with the changes asked for, in a file of its own."""
    file, *changes = named.split(",")
    given = {key: yaml.safe_load(value) for key, _, value in (change.partition("=") for change in changes)}
    config = recipe.merged(yaml_files.read_yaml(paths.located(file), "recipe"), given)
    model = models.find(str(config.get("base_model")))
    if model is None:
        raise ElleError("nothing says how large this base is", where=file, fix="add it to configs/models.yaml")
    base = work / model.name.rpartition("/")[2]
    if not base.exists():
        make_base(model, base, tokenizer)
    zero = recipe.zero(config)[0].stage
    config = recipe.merged(
        config,
        {
            "base_model": str(base),
            "datasets": [config["datasets"][0] | {"path": str(options.data / "train.jsonl")}],
            "plugins": [*(config.get("plugins") or []), "gpu_probe.Probe"],
            "max_steps": options.steps,
            "output_dir": str(work / f"out-{number}"),
            "dataset_prepared_path": str(work / "prepared"),
            "deepspeed": _found(config["deepspeed"]) if zero else None,
            **{"save_strategy": "no", "eval_strategy": "no", "val_set_size": 0, "logging_steps": 1},
            **dict.fromkeys(("save_steps", "eval_steps", "save_total_limit", "save_only_model", "test_datasets")),
        },
    )
    path = work / f"run-{number}.yaml"
    path.write_text(yaml_files.dump(config))
    return {"named": named, "config": config, "model": model, "zero": zero, "path": path, "changes": given}


def _found(deepspeed: str | dict) -> str | dict:
    """A DeepSpeed file by its whole path; a configuration within the recipe as it is."""
    return str(paths.located(deepspeed).resolve()) if isinstance(deepspeed, str) else deepspeed


def start(run: dict, after: subprocess.Popen | None, options: argparse.Namespace) -> subprocess.Popen:
    path, gpus = run["path"], options.gpus
    variables = {
        "PROBE_OUT": str(path.with_suffix(".json")),
        "PROBE_AFTER": str(after.pid) if after else "none",
        "PROBE_MICRO": "" if run["zero"] else options.micro,
        "PYTHONPATH": os.pathsep.join([str(path.parent), str(paths.root() / "src"), os.environ.get("PYTHONPATH", "")]),
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    command = [sys.executable, "-m", "axolotl.cli.train", str(path)]
    if run["zero"] or gpus > 1:
        port = str(29600 + int(path.stem.rpartition("-")[2]))
        launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(gpus), "--master-port", port]
        command[1:1] = launcher
    with path.with_suffix(".log").open("w") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=trainer_environment() | variables, start_new_session=True
        )


def end(process: subprocess.Popen) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def follow(run: dict, process: subprocess.Popen, deadline: float) -> dict | None:
    """The measurements of a run, once it has ended; it is ended where it takes longer than it may."""
    out, began = run["path"].with_suffix(".json"), None
    while process.poll() is None:
        time.sleep(0.1)
        if began is None and out.with_suffix(".loading").exists():
            began = time.monotonic()
        if time.monotonic() > deadline or (began and time.monotonic() - began > CAP):
            break
    end(process)
    return storage.read_json(out) if out.exists() else None


def row(run: dict, found: dict, options: argparse.Namespace) -> dict:
    """A row: what was run, on what, and what was measured."""
    c, computer = run["config"], machine.inspect(paths.root())
    versions = machine.versions(VERSIONS)
    today = date.today().isoformat()
    setting = {
        "source": f"{gpu_rows.MEASURED}, {today}: Axolotl {versions.get('axolotl')}, torch {versions.get('torch')}",
        "run": run["named"],
        "date": today,
        "gpu": hardware.here(computer, hardware.DISK_GB).name,
        "card": computer.gpus[0].name if computer.gpus else computer.cpu_name,
        "gpus": options.gpus,
        "driver": computer.gpus[0].driver if computer.gpus else None,
        "versions": versions,
        "model": run["model"].name,
        "adapter": c.get("adapter") or "full",
        "rank": c.get("lora_r") if c.get("adapter") else None,
        "dropout": c.get("lora_dropout") if c.get("adapter") else None,
        "micro": c["micro_batch_size"],
        "accumulation": c["gradient_accumulation_steps"],
        "sequence": c["sequence_len"],
        "optimizer": c["optimizer"],
        "checkpointing": bool(c.get("gradient_checkpointing")),
        "liger": bool(c.get("liger_fused_linear_cross_entropy")),
        "deepspeed": paths.shown(Path(named)) if isinstance(named := c.get("deepspeed"), str) else named,
        "zero": run["zero"],
        "lora_kernels": c.get("lora_mlp_kernel") is not False if c.get("adapter") else None,
        "changed": run["changes"],
    }
    tokens = c["micro_batch_size"] * c["gradient_accumulation_steps"] * c["sequence_len"] * options.gpus
    return setting | found | {"row_tokens_per_s": round(tokens / found["median_step_s"])}


def missing() -> list[str]:
    """What this machine lacks, or has in another version than the lock, of what a training imports."""
    text = (paths.root() / "requirements" / "lock.txt").read_text(encoding="utf-8")
    locked = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE))
    here = machine.versions(IMPORTED)
    return [f"{name}=={locked[name]}" for name in IMPORTED if here.get(name) != locked[name]]


def pack(out: Path, names: list[str]) -> None:
    """Those packages of this environment as one archive, without tests, and of bitsandbytes the locked CUDA's part."""
    cuda = metadata.version("torch").partition("+")[2] or CUDA
    skipped = re.compile(rf"\.pyc$|(^|/)tests?/|libbitsandbytes_(?!{cuda.replace('cu', 'cuda')}\b)|/csrc/|^wandb/bin/")
    with tarfile.open(out, "w:xz") as archive:
        for name in names:
            for file in metadata.distribution(name).files or []:
                if not skipped.search(str(file)) and ".." not in file.parts:
                    archive.add(file.locate(), str(file))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*")
    parser.add_argument("--data", type=Path, help="a data set's folder (default: the basic set)")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--micro", default="", help="micro batches to measure beside the recipe's own")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--out", type=Path, default=Path("gpu-rows.jsonl"))
    parser.add_argument("--compare", nargs="?", const=gpu_rows.file(), type=Path, help="rows beside the plan, and end")
    parser.add_argument("--missing", action="store_true", help="what this machine lacks, and end")
    parser.add_argument("--pack", type=Path, help="pack the packages named in place of recipes, and end")
    options = parser.parse_args(arguments)
    if options.compare:
        compared = gpu_rows.compare_all(options.compare)
        print(markdown(gpu_rows.table(compared)), gpu_rows.summary(compared), sep="\n\n")
        return 0
    if options.missing:
        print("\n".join(missing()))
        return 0
    if options.pack:
        pack(options.pack, options.recipes)
        return 0
    deadline = time.monotonic() + 60 * options.minutes
    measured = []
    with interruptible(), tempfile.TemporaryDirectory(prefix="elle-gpu-") as folder:
        work = Path(folder)
        shutil.copy(PROBE, work)  # by itself: beside it stand files named as packages are
        if options.data is None:
            options.data = work / "data"
            dataset.build("basic", 3000, 42, options.data)
        tokenizer = make_tokenizer(options.data / "train.jsonl", work / "tokenizer")
        runs = [prepared(named, work, number, options, tokenizer) for number, named in enumerate(options.recipes)]
        processes: list[subprocess.Popen] = []
        try:
            for number, run in enumerate(runs):
                while len(processes) < min(number + 2, len(runs)):
                    processes.append(start(runs[len(processes)], processes[-1] if processes else None, options))
                found = follow(run, processes[number], deadline)
                if found and "median_step_s" in found:
                    measured.append(row(run, found, options))
                    with options.out.open("a") as file:
                        file.write(json.dumps(measured[-1]) + "\n")
                    print(said(measured[-1]), flush=True)
                else:
                    log = run["path"].with_suffix(".log").read_text(errors="replace")
                    print(f"{run['named']}: no measurement\n{log[-1500:]}", flush=True)
        finally:
            for process in processes:
                end(process)
    return int(len(measured) < len(options.recipes))


def said(one: dict) -> str:
    return (
        f"{one['run']}: {one['peak_gb']:.1f} GB torch, {one['driver_gb'] or 0:.1f} GB nvidia-smi, "
        f"{one['median_step_s']:.2f} s a step, {one['row_tokens_per_s']:,} tokens/s"
    )


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ElleError as failure:
        sys.exit(f"error: {failure}")
