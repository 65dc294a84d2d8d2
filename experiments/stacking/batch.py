"""Short answers of many small models, without a server: each is loaded in turn and writes greedily, all questions at
once. Starting vLLM for each of them would take longer than that."""

from collections.abc import Sequence
from pathlib import Path

from elle.base import storage
from elle.base.errors import ElleError
from elle.briefings.dataset import messages


def answer(model: Path, rows: Sequence[dict], file: Path, *, max_tokens: int) -> dict[str, str]:
    """Row id → the answer of a whole model to its prompt; kept in `file` as lines `{"id": ..., "output": ...}`.

    Raises:
        ElleError: the model cannot be loaded, with the library's own reason.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()  # one per model would fill a notebook
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    except (OSError, ValueError) as error:
        raise ElleError(f"no answers: {error}", where=str(model), fix="train the model again") from error
    inputs = tokenizer.apply_chat_template(
        [messages(row) for row in rows], add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        tokens = loaded.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
    outputs = tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    answers = {row["id"]: output for row, output in zip(rows, outputs, strict=True)}
    storage.write_lines(file, ({"id": name, "output": output} for name, output in answers.items()))
    return answers
