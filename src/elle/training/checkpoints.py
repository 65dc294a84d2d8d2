"""Checkpoints: which are whole. A trainer that is killed while it saves leaves one that is not."""

import json
import shutil
import zipfile
from pathlib import Path

#: In place of "checkpoint-": the trainer does not look there.
ASIDE = "incomplete-"


def steps_of(folder: Path) -> list[tuple[int, Path]]:
    """(step, folder) of the checkpoints in a training's output folder, in order of steps."""
    named = ((path.name.removeprefix("checkpoint-"), path) for path in folder.glob("checkpoint-*") if path.is_dir())
    return sorted((int(step), path) for step, path in named if step.isdecimal())


def fault(checkpoint: Path) -> str | None:
    """Why a training cannot be resumed from `checkpoint`; None if it can.

    The trainer writes weights, optimizer, random state, and `trainer_state.json` last; none of them atomically.
    """
    weights = sorted(checkpoint.glob("*.safetensors"))
    zero = checkpoint / "latest"  # DeepSpeed names its own folder in it, and writes it last
    sharded = zero.exists() or (checkpoint / "pytorch_model_fsdp_0").exists()
    if not weights and not sharded:
        return "no weights"
    for path in weights:
        if not whole_safetensors(path):
            return f"{path.name} is cut short"
    if zero.exists():
        states = checkpoint / zero.read_text(encoding="utf-8").strip()
        if not any(states.glob("*optim_states.pt")):
            return "DeepSpeed's optimizer states are missing"
    elif not any((checkpoint / name).exists() for name in ("optimizer.pt", "optimizer.bin", "optimizer_0")):
        return "no optimizer state"
    for path in (checkpoint / "optimizer.pt", checkpoint / "scheduler.pt"):
        # A file of `torch.save` is a zip, whose directory is written last, at the end.
        if path.exists() and not zipfile.is_zipfile(path):
            return f"{path.name} is cut short"
    if not any(checkpoint.glob("rng_state*.pth")):
        return "no random state"
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["global_step"]
    except (OSError, ValueError, KeyError):
        return "trainer_state.json is missing or cut short"
    return None


def whole_safetensors(path: Path) -> bool:
    """Whether a safetensors file has all the bytes that its header speaks of."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy"):
            return True
    except (OSError, SafetensorError):
        return False


def set_aside(folder: Path) -> list[str]:
    """Rename the checkpoints that nothing can resume from, so that the trainer takes the newest whole one; what was
    done, in sentences. Only the newest of them is kept: they may be large."""
    remarks = []
    for step, path in steps_of(folder):
        if why := fault(path):
            for older in folder.glob(f"{ASIDE}*"):
                shutil.rmtree(older)
            path.rename(folder / f"{ASIDE}{step}")
            remarks.append(f"checkpoint-{step} is incomplete ({why}): set aside as {ASIDE}{step}")
    return remarks
