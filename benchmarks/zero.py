"""Whether DeepSpeed trains here with a given file as it should, and what each rank then holds.

python benchmarks/zero.py [deepspeed/zero3.json ...] [--ranks 2] [--optimizer adamw_bnb_8bit] [--json OUT]

A nano Qwen2 of random weights is trained by transformers' Trainer: in one process without DeepSpeed, and on several
ranks with each file as it stands (in fp32: but for its bf16), on the same rows in the same order. Held against each
other: the losses; a run resumed from its checkpoint and the unbroken one; the logits of the trained model and of what
it saved; the bytes that each rank holds and the planner's terms (elle.plan.memory). Exit code 0 only if all
agree within LIMITS. Ranks are GPUs where there are enough, else processes on the CPU (gloo). The first time, DeepSpeed
compiles its CPU operators.
"""

import argparse
import gc
import json
import math
import os
import re
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from elle.base import machine, paths, storage
from elle.base.errors import ElleError
from elle.base.process import Job
from elle.plan import axolotl, memory, models, recipe

SIZES = {
    "vocab_size": 512,
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 384,
    "tie_word_embeddings": True,
}
STEPS, SAVED, BATCH, LENGTH, RATE = 10, 5, 8, 64, 3e-3

#: How far losses may be apart at any step (they fall by 1.2), and logits (up to about 3). fp32: the same sums in
#: another order, and DeepSpeed's own Adam where the optimizer is offloaded; fp32_rounded: gradients reduced in bf16
#: (communication_data_type), or an 8-bit optimizer, whose blocks lie elsewhere in a partition; bf16: the reference
#: keeps fp32 weights and multiplies in bf16, DeepSpeed's weights are bf16 themselves; resumed_offload: DeepSpeed's CPU
#: Adam multiplies the powers of its betas up step by step, and takes them by pow() after a resume; saved: at stage 3 a
#: bias is added with a rounding of its own, 1/64 for logits over 2.
LIMITS = {"fp32": 1e-4, "fp32_rounded": 0.01, "bf16": 0.05, "resumed": 1e-6, "resumed_offload": 0.005, "saved": 0.04}
#: The share by which bytes may differ from the planner's: padding, and 8-bit Adam's 32-bit states of small tensors.
BYTES = 0.02
TERMS = ("weights", "gradients", "master", "optimizer", "step")
#: Torch compiles an operator under a lock that a killed process leaves behind; no compilation takes this long.
STALE = 900.0
TIMEOUT = 1200.0


# On a rank


def train(job: dict, case: dict, cpu: bool) -> None:
    """One training, of which each rank writes `out/<name>/rank<n>.json`: losses, bytes, seconds."""
    import numpy as np
    import torch
    from accelerate.state import AcceleratorState
    from transformers import Qwen2ForCausalLM, Trainer, TrainerCallback, TrainingArguments
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    began, out = time.perf_counter(), Path(job["out"]) / case["name"]
    ranks, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    file, bf16 = case.get("file"), case["bf16"]
    gc.collect()
    before = _tensors()
    arguments = TrainingArguments(  # before the model: at stage 3 it is read into its partitions
        output_dir=str(out / "checkpoints"),
        deepspeed=file,
        use_cpu=cpu,
        bf16=bf16,
        optim=job["optimizer"],
        per_device_train_batch_size=BATCH // ranks,
        max_steps=STEPS,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        train_sampling_strategy="sequential",
        logging_steps=1,
        save_strategy="steps" if case.get("save") else "no",
        save_steps=SAVED,
        report_to=[],
        disable_tqdm=True,
    )
    dtype = torch.bfloat16 if file and bf16 else torch.float32
    model = Qwen2ForCausalLM.from_pretrained(job["base"], dtype=dtype)
    held: dict[str, Any] = {}

    class Watch(TrainerCallback):
        def on_train_begin(self, *_, **__):
            if file:
                _watch(trainer.deepspeed, held, before)

    trainer = Trainer(model=model, args=arguments, train_dataset=_rows(), callbacks=[Watch()])
    trainer.train(resume_from_checkpoint=case.get("resume"))
    losses = {log["step"]: log["loss"] for log in trainer.state.log_history if "loss" in log}
    result = {"losses": losses, "held": held}

    if file and case.get("save"):
        tokens = torch.tensor([_rows()[0]["input_ids"]], device=arguments.device)
        trainer.model_wrapped.eval()
        with torch.no_grad():
            logits = trainer.model_wrapped(input_ids=tokens).logits.float().cpu().numpy()
        trainer.save_model(str(out / "final"))
        unset_hf_deepspeed_config()  # else it would be read into partitions again
        if rank == 0:
            saved = Qwen2ForCausalLM.from_pretrained(out / "final", dtype=dtype).to(arguments.device).eval()
            with torch.no_grad():
                again = saved(input_ids=tokens).logits.float().cpu().numpy()
            result["saved"] = float(np.abs(again - logits).max())
    unset_hf_deepspeed_config()
    storage.write_json(out / f"rank{rank}.json", result | {"seconds": time.perf_counter() - began})
    if file:
        trainer.deepspeed.destroy()
    AcceleratorState._reset_state()  # the next case brings a DeepSpeed configuration of its own


def _rows() -> list[dict]:
    """Sixteen random texts, drawn again and again: what is to be learned is learned by heart."""
    import torch

    dice = torch.Generator().manual_seed(7)
    texts = torch.randint(SIZES["vocab_size"], (16, LENGTH), generator=dice).tolist()
    drawn = torch.randint(16, (STEPS * BATCH,), generator=dice).tolist()
    return [{"input_ids": texts[i], "labels": texts[i]} for i in drawn]


def _tensors() -> set[int]:
    """The addresses of all storages that tensors of this process hold."""
    return set(_storages(item for item in gc.get_objects() if _is_tensor(item)))


def _is_tensor(item) -> bool:
    import torch

    return issubclass(type(item), torch.Tensor) and type(item).__name__ != "FakeTensor"


def _storages(tensors) -> dict[int, int]:
    """Bytes by address: tensors that are views of one buffer count once, with its padding."""
    storages = (t.untyped_storage() for t in tensors if t is not None and t.numel())
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def _watch(engine, held: dict, before: set[int]) -> None:
    """Note what the engine holds around its optimizer's step, in bytes: the gradients of the backward pass before it,
    the fp32 gradient within it (with the flat copy in 16 bits that it is made of), all the rest after it; `all`: every
    tensor of the process, `named`: those below."""
    import torch

    zero, parameters = engine.optimizer, list(engine.module.parameters())
    stage3 = hasattr(zero, "fp32_partitioned_groups_flat")
    masters = zero.fp32_partitioned_groups_flat if stage3 else zero.single_partition_of_fp32_groups
    weights = [p.ds_tensor for p in parameters] if stage3 else parameters
    outer, inner, flatten, flat = zero.step, zero.optimizer.step, zero.flatten, [0]
    held["dtype"] = sorted({str(tensor.dtype) for tensor in weights})

    def gradients() -> list:
        if stage3:
            return [zero.grad_partitions_flat_buffer]
        return [tensor for group in zero.averaged_gradients.values() for tensor in group or ()]

    def size(tensors) -> int:
        return sum(_storages(tensors).values())

    def copied(tensors):
        made = flatten(tensors)
        flat[0] = size([made])
        return made

    def step(*arguments, **options):
        held["steps"] = held.get("steps", 0) + 1
        held["gradients"] = size(gradients())
        zero.flatten = copied  # during the step alone
        result = outer(*arguments, **options)
        zero.flatten = flatten
        states = [v for s in zero.optimizer.state.values() for v in s.values() if torch.is_tensor(v) and v.dim()]
        groups = {"weights": weights, "master": masters, "optimizer": states}
        held.update({name: size(tensors) for name, tensors in groups.items()})
        named = [*weights, *masters, *states, *gradients(), *(m.grad for m in masters)]
        held["named"] = size(named)
        if engine.global_steps == STEPS - 1:  # once: looking at every object takes a while
            every = _storages(item for item in gc.get_objects() if _is_tensor(item))
            held["all"] = sum(bytes for address, bytes in every.items() if address not in before)
        return result

    def within(*arguments, **options):
        held["step"] = max(held.get("step", 0), size(master.grad for master in masters) + flat[0])
        return inner(*arguments, **options)

    zero.step, zero.optimizer.step = step, within


def rank(job: dict) -> None:
    """Train all cases of a job, one after the other: most of the time a process starts."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM, set_seed

    cpu = job["cpu"]
    if not Path(job["base"]).exists():
        set_seed(42)
        Qwen2ForCausalLM(Qwen2Config(**SIZES, max_position_embeddings=LENGTH)).save_pretrained(job["base"])
    if cpu and any(case.get("file") for case in job["cases"]):
        import deepspeed

        deepspeed.init_distributed("gloo")  # by itself, Trainer asks for NCCL where torch is built for CUDA
    for case in job["cases"]:
        train(job, case, cpu)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


# The check


def launch(folder: Path, name: str, job: dict, ranks: int) -> dict[str, list[dict]]:
    """Train a job's cases on so many ranks; by case, what each rank wrote.

    Raises:
        ElleError: a rank failed, or it took longer than TIMEOUT.
    """
    described = storage.write_json(folder / f"{name}.json", job)
    variables = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"}
    if job["cpu"]:
        variables |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    elif ranks == 1:
        variables["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
    command = [sys.executable, *several, __file__, "--job", str(described)]
    running = Job.start(folder / f"{name}-job", command, env=variables, owner=os.getpid())
    try:
        code = running.wait(TIMEOUT)
    finally:
        running.stop()
    if code is None:
        fix = f"a lock that a killed compilation left? (remove {operators()}/*/lock)"
        raise ElleError(f"not done after {TIMEOUT:.0f} s: {running.tail(1)}", where=name, fix=fix)
    if code:
        # What torchrun says last is only that a rank failed; the rank itself says why.
        text = running.log.read_text(errors="replace")
        said = re.findall(r"^\[rank\d+\]: ([\w.]*(?:Error|Exception)\b.*)$", text, re.MULTILINE)
        fix = "`elle plan RECIPE --full` asks DeepSpeed's own parser about the file that a recipe names"
        raise ElleError(f"training fails: {said[-1] if said else running.reason()}", where=name, fix=fix)
    out = Path(job["out"])
    return {
        case["name"]: [storage.read_json(out / case["name"] / f"rank{n}.json") for n in range(ranks)]
        for case in job["cases"]
    }


def operators() -> Path:
    """Where torch keeps the operators that DeepSpeed compiles (once a machine, a minute or two)."""
    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or Path.home() / ".cache" / "torch_extensions")


def check(files: list[str], ranks: int, optimizer: str) -> dict:
    """Train with each file and without; what came out, to be judged by `faults`.

    Raises:
        ElleError: no such file; a training that failed.
    """
    zeros = {}
    for file in files:
        zeros[file], found = recipe.zero({"deepspeed": file})
        for finding in found:
            if finding.severity == "error":
                raise ElleError(finding.message, where=finding.where, fix=finding.fix)
    for lock in operators().glob("**/lock"):
        if time.time() - lock.stat().st_mtime > STALE:
            lock.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="zero-") as name:
        folder = Path(name)
        shared = {"base": str(folder / "base"), "out": str(folder / "out"), "optimizer": optimizer}
        shared["cpu"] = len(machine.inspect().gpus) < ranks
        alone = [{"name": f"alone-{p}", "bf16": p == "bf16"} for p in ("fp32", "bf16")]
        reference = launch(folder, "alone", shared | {"cases": alone}, 1)
        cases = []
        for file in files:
            stem, located = file.replace("/", "_"), str(paths.located(file).resolve())
            open_file = storage.write_json(folder / f"{stem}-fp32.json", open_precision(axolotl.read_deepspeed(file)))
            checkpoint = str(folder / "out" / f"{stem}-bf16" / "checkpoints" / f"checkpoint-{SAVED}")
            cases += [
                {"name": f"{stem}-bf16", "file": located, "bf16": True, "save": True},
                {"name": f"{stem}-fp32", "file": str(open_file), "bf16": False},
                {"name": f"{stem}-resumed", "file": located, "bf16": True, "resume": checkpoint},
            ]
        found = launch(folder, "ranks", shared | {"cases": cases}, ranks)
        model = models.find(shared["base"])
        largest = model.embedding

    losses = {precision: reference[f"alone-{precision}"][0]["losses"] for precision in ("fp32", "bf16")}
    results = []
    for file in files:
        stem = file.replace("/", "_")
        runs = {kind: found[f"{stem}-{kind}"] for kind in ("bf16", "fp32", "resumed")}
        apart = {kind: _apart(runs[kind][0]["losses"], losses[kind]) for kind in ("fp32", "bf16")}
        apart["resumed"] = _apart(runs["resumed"][0]["losses"], runs["bf16"][0]["losses"])
        apart["saved"] = runs["bf16"][0]["saved"]
        results.append(
            {
                "file": file,
                "stage": zeros[file].stage,
                "offload": zeros[file].offload_optimizer,
                "low_precision_reduction": axolotl.read_deepspeed(file).get("communication_data_type") == "bf16",
                "losses": {kind: run[0]["losses"] for kind, run in runs.items()},
                "apart": apart,
                "planned": planned(model, zeros[file], ranks, optimizer),
                "held": [one["held"] for one in runs["bf16"]],
                "largest": 2 * largest,
                "resumed_steps": runs["resumed"][0]["held"]["steps"],
                "seconds": sum(run[0]["seconds"] for run in runs.values()),
            }
        )
    names = ("torch", "transformers", "accelerate", "deepspeed", "bitsandbytes")
    return {
        "device": "cpu" if shared["cpu"] else "cuda",
        "ranks": ranks,
        "optimizer": optimizer,
        "parameters": model.parameters,
        "versions": {name: metadata.version(name) for name in names},
        "alone": losses,
        "files": results,
    }


def open_precision(content: dict) -> dict:
    """A DeepSpeed configuration whose precision is the trainer's: one that says bf16 would refuse to train in fp32."""
    return content | {"bf16": {"enabled": "auto"}}


def planned(model: models.Model, zero: recipe.Zero, ranks: int, optimizer: str) -> dict[str, float]:
    """The planner's bytes of each state on a rank, in bf16; offloaded ones are those it puts into the host's memory."""
    setup = memory.Setup(
        model=model,
        method="full",
        trained=model.parameters,
        gpus=ranks,
        zero=zero,
        optimizer=optimizer,
        micro=BATCH // ranks,
        sequence=LENGTH,
        fused_loss=False,
        checkpointing=False,
        offload_activations=False,
    )
    said = memory.estimate(setup)
    parts = said.components
    terms = {name: parts[name] * 1e9 for name in TERMS}
    # Gradients and the step are parts of the peak only in some phases of a step: they are asked for by themselves.
    terms["gradients"] = 0.0 if zero.offload_optimizer else memory._states(setup)["gradients"]
    whole = (said.phases["step"] - parts["driver"]) / (1 + memory.RESERVE_LOGITS) * 1e9
    terms["step"] = whole - terms["gradients"] - sum(parts[name] for name in ALWAYS) * 1e9
    if abs(terms["step"]) < 1:  # a byte
        terms["step"] = 0.0
    if "offload" in said.host:
        terms["offload"] = said.host["offload"] * 1e9 / ranks
    return terms


#: Components that are there in every phase of a step.
ALWAYS = ("weights", "adapter", "master", "optimizer", "workspace")


def _apart(one: dict, other: dict) -> float:
    """The largest difference of two losses at the same step; infinite if a step is missing."""
    steps = [str(step) for step in range(1, STEPS + 1)]
    if not set(steps) <= one.keys() & other.keys():
        return math.inf
    differences = [abs(one[step] - other[step]) for step in steps]
    return math.inf if any(map(math.isnan, differences)) else max(differences)


def faults(result: dict) -> list[str]:
    """What is not as it should be, one sentence each."""
    found = []
    for one in result["files"]:
        file = one["file"]
        if one["resumed_steps"] != STEPS - SAVED:  # trained anew, it would agree as well
            found.append(f"{file}: resumed: {one['resumed_steps']} steps trained, {STEPS - SAVED} were left")
        limits = dict(LIMITS)
        if one["low_precision_reduction"] or "8bit" in result["optimizer"]:
            limits["fp32"] = LIMITS["fp32_rounded"]
        if one["offload"]:
            limits["resumed"] = LIMITS["resumed_offload"]
        for kind, apart in one["apart"].items():
            if not apart <= limits[kind]:
                found.append(f"{file}: {kind}: {apart:.2g} apart, {limits[kind]:g} allowed")
        for number, (held, planned) in enumerate(compared(one)):
            if held["dtype"] != ["torch.bfloat16"]:
                found.append(f"{file}: rank {number}: weights in {', '.join(held['dtype'])}, bf16 was asked for")
            for term, expected in planned.items():
                # ZeRO-2 keeps the whole of a matrix that lies on the border of two ranks' shares.
                more = one["largest"] if term == "gradients" and one["stage"] == 2 else 0
                if not (1 - BYTES) * expected <= held[term] <= (1 + BYTES) * expected + more:
                    found.append(f"{file}: rank {number}: {term}: {held[term]:,} bytes, {expected:,.0f} planned")
    return found


def compared(one: dict) -> list[tuple[dict, dict]]:
    """For each rank: bytes held and planned, of the same terms. Where the host takes states over, both are theirs in
    sum: the planner does not split them."""
    planned, pairs = one["planned"], []
    for held in one["held"]:
        if "offload" not in planned:
            pairs.append((held, planned))
            continue
        moved = [term for term in TERMS if not planned[term]]
        pairs.append(
            (
                held | {"offload": sum(held[term] for term in moved)},
                {term: planned[term] for term in TERMS if planned[term]} | {"offload": planned["offload"]},
            )
        )
    return pairs


def table(result: dict) -> str:
    """Two tables, in markdown."""
    lines = [
        f"{result['ranks']} ranks on {result['device']}, {result['optimizer']}, {result['parameters']:,} parameters; "
        + ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
        "",
        "| file | loss | apart, fp32 | apart, bf16 | resumed | saved | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in result["files"]:
        loss = one["losses"]["bf16"]
        apart = " | ".join(f"{one['apart'][kind]:.1g}" for kind in ("fp32", "bf16", "resumed", "saved"))
        lines.append(f"| {one['file']} | {loss['1']:.2f} → {loss[str(STEPS)]:.2f} | {apart} | {one['seconds']:.0f} |")
    columns = " | ".join(f"rank {number}" for number in range(result["ranks"]))
    lines += ["", f"| file | bytes per parameter | planned | {columns} |"]
    lines.append("|---|---|---|" + "---|" * result["ranks"])
    size = result["parameters"]
    for one in result["files"]:
        pairs = compared(one)
        for term, expected in pairs[0][1].items():
            held = " | ".join(f"{held[term] / size:.3f}" for held, _ in pairs)
            lines.append(f"| {one['file']} | {term} | {expected / size:.3f} | {held} |")
        held = " | ".join(f"{held['all'] / size:.3f}" for held, _ in pairs)
        lines.append(f"| {one['file']} | all tensors after a step | {pairs[0][0]['named'] / size:.3f} | {held} |")
    return "\n".join(lines)


def main() -> int:
    shipped = [f"deepspeed/{path.name}" for path in sorted((paths.root() / "deepspeed").glob("*.json"))]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", default=shipped, help="DeepSpeed configurations (all shipped ones)")
    parser.add_argument("--ranks", type=int, default=2, help="processes: 2, 4 or 8 (2)")
    parser.add_argument("--optimizer", default="adamw_torch", help="as in a recipe, such as adamw_bnb_8bit")
    parser.add_argument("--json", help="write everything to this file")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job:
        rank(json.loads(Path(given.job).read_text()))
        return 0
    try:
        if given.ranks < 2 or BATCH % given.ranks:
            raise ElleError(f"{given.ranks} ranks cannot share a batch of {BATCH}", where="--ranks", fix="2, 4 or 8")
        result = check(given.files, given.ranks, given.optimizer)
    except ElleError as error:
        print(error, file=sys.stderr)
        return 1
    result["faults"] = faults(result)
    if given.json:
        storage.write_json(given.json, result)
    print(table(result))
    print("\n" + ("\n".join(result["faults"]) or "All agree."))
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
