"""Short answers of many small models, without a server: one process loads each in turn and writes greedily, all
questions at once. Starting vLLM for each of them would take longer than that."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from elle.base import storage
from elle.base.errors import ElleError
from elle.base.process import Job
from elle.briefings.dataset import messages


def answer(
    models: Mapping[str, tuple[Path, Mapping[str, Sequence[dict]]]],
    folder: Path,
    *,
    max_tokens: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[tuple[str, str], Path]:
    """Ask each of `models` (name → folder of a whole model, and sets of rows by name) for its answers to all its rows.

    Returns:
        (model, set) → a file of lines `{"id": ..., "output": ...}`, as `evaluation.answers.read_outputs` takes it.

    Raises:
        ElleError: a model cannot be loaded, with the log's own reason.
    """
    files = {(model, name): folder / f"{model}-{name}.jsonl" for model, (_, sets) in models.items() for name in sets}
    for file in files.values():
        file.unlink(missing_ok=True)
    task = [
        {
            "model": str(path.resolve()),
            "questions": [{"id": row["id"], "messages": messages(row)} for row in rows],
            "max_tokens": max_tokens,
            "file": str(files[model, name].resolve()),
        }
        for model, (path, sets) in models.items()
        for name, rows in sets.items()
    ]
    written = storage.write_json(folder / "batch" / "task.json", task)
    job = Job.start(
        folder / "batch", [sys.executable, "-m", "experiments.stacking.batch", str(written)], owner=os.getpid()
    )
    try:
        while job.wait(1.0) is None:
            if progress:
                progress(sum(file.exists() for file in files.values()), len(files))
    except KeyboardInterrupt:
        job.stop()
        raise
    if job.returncode != 0:
        raise ElleError(f"no answers: {job.reason()}", where=str(job.log), fix="the log has the rest")
    return files


def _write(tasks: list[dict]) -> None:
    """The other process's part."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for task in tasks:
        tokenizer = AutoTokenizer.from_pretrained(task["model"], padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(task["model"], dtype=torch.float32).eval()
        turns = [question["messages"] for question in task["questions"]]
        inputs = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            tokens = model.generate(**inputs, max_new_tokens=task["max_tokens"], do_sample=False)
        outputs = tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        ids = (question["id"] for question in task["questions"])
        rows = ({"id": name, "output": output} for name, output in zip(ids, outputs, strict=True))
        storage.write_lines(task["file"], rows)


if __name__ == "__main__":
    _write(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
