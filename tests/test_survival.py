"""The real trainer: started, joined, killed, resumed, forced to fail, explained; an adapter trained and merged."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from elle.base import paths, storage
from elle.base.errors import ElleError
from elle.base.yaml_files import config_table
from elle.training import checkpoints, diagnosis, health, history, launch

pytestmark = pytest.mark.real


def wait_for(condition, seconds, what):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.2)


def trainers(folder):
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in part for part in process.info["cmdline"] or [])
    ]


def losses_of(run):
    return {row["step"]: row["loss"] for row in run.history if "loss" in row}


def train(prepared):
    return launch.follow(prepared, launch.start_training(prepared))


def test_a_finished_run_says_what_it_was(trained, small_base):
    """The unbroken run that others are compared with: its manifest, its history, its weights."""
    from transformers import AutoModelForCausalLM

    manifest = trained.manifest
    assert manifest == json.loads((trained.folder / launch.DONE).read_text())
    known = {"attempts": 1, "weights": "whole model", "seed": 42, "dollars": 0, "forced": []}
    known |= {"examples": {"train": {"rows": 180, "kept": 180}, "validation": {"rows": 10, "kept": 10}}}
    known |= {"config_sha256": storage.sha256(trained.folder / "axolotl.yaml")}
    assert manifest.items() >= known.items()
    assert {"axolotl", "torch", "transformers", "peft", "bitsandbytes", "deepspeed"} <= set(manifest["versions"])
    assert manifest["tokens"] > manifest["tokens_trained_on"] > 0
    assert manifest["tokens_per_second"] > 0
    assert 0.1 < manifest["peak_host_gb"] < 10
    assert manifest["seconds"] > trained.history[-1]["seconds"]
    losses = list(losses_of(trained).values())
    assert trained.steps == len(losses) == 6
    assert losses[-1] < losses[0]
    assert [row["step"] for row in trained.history if "saved" in row] == [3, 6]
    assert manifest["history"][-1]["eval_loss"] == pytest.approx(trained.history[-2]["eval_loss"])
    assert diagnosis.diagnose((trained.folder / "log.txt").read_text(), 1) is None  # nothing in a good log is a cause
    assert len(health.check_health(trained.history, manifest["examples"])) == len(config_table("health"))

    model, base = (AutoModelForCausalLM.from_pretrained(path) for path in (trained.weights, small_base))
    assert manifest["parameters"] == manifest["trained_parameters"] == model.num_parameters()
    assert manifest["weights_bytes"] > 4 * manifest["parameters"]
    assert any(not weights.equal(base.state_dict()[name]) for name, weights in model.state_dict().items())
    with pytest.raises(ElleError, match="nothing to merge"):
        launch.merge_adapter(trained)


def test_training_is_joined_and_a_killed_one_ends_where_an_unbroken_one_does(tmp_path, prepare, trained):
    """One training, through its whole life: killed after its checkpoint, resumed, joined, found done."""
    prepared = prepare(tmp_path / "train")
    job = launch.start_training(prepared)
    joined = launch.start_training(prepared)  # a re-run cell
    assert joined.pid == job.pid
    checkpoint = prepared.weights / "checkpoint-3" / "trainer_state.json"
    wait_for(lambda: checkpoint.exists() or not job.running, 900, "no checkpoint appeared")
    time.sleep(0.3)
    for process in trainers(prepared.folder):
        process.kill()
    wait_for(lambda: not job.running, 60, "the killed job still counts as running")
    # A data worker that was forked in this very moment ends by itself once it misses its parent (within 5 s).
    wait_for(lambda: not trainers(prepared.folder), 30, "a process of the killed training is left")
    with pytest.raises(ElleError, match="killed from outside") as caught:
        launch.follow(prepared, job)
    assert "checkpoint" in caught.value.fix

    # Killed again while it saved: a checkpoint without its last file.
    cut_short = prepared.weights / "checkpoint-5"
    shutil.copytree(prepared.weights / "checkpoint-3", cut_short)
    (cut_short / "trainer_state.json").unlink()
    seen = []
    again = launch.follow(prepared, launch.start_training(prepared), lambda rows: seen.append(history.line(rows)))
    assert (prepared.weights / "incomplete-5").is_dir()
    assert not cut_short.exists()
    assert "step 6 of 6, loss" in seen[-1]

    begins = [event["step"] for event in history.read_events(prepared.progress) if event["event"] == "begin"]
    assert begins[0] == 0
    assert begins[-1] in (3, 6)  # at most save_steps were lost (6: the kill came late)
    assert again.manifest["attempts"] == 2
    assert history.resumed(again.history) == [begins[-1]]

    # The same data in the same order from the same random state: the same losses as without a break.
    assert losses_of(again) == pytest.approx(losses_of(trained), rel=1e-3)
    assert sorted(losses_of(again)) == [1, 2, 3, 4, 5, 6]
    assert again.manifest["tokens"] == trained.manifest["tokens"]
    assert not trainers(prepared.folder)

    assert launch.start_training(prepared) is None  # done: nothing runs again
    assert launch.follow(prepared, None).steps == 6


def test_a_loss_that_is_no_number_ends_the_training_and_spares_its_checkpoint(tmp_path, prepare, changed_recipe):
    absurd = {"optimizer": "adamw_torch", "learning_rate": 1e30, "lr_scheduler": "constant", "warmup_steps": 0}
    short = {"save_steps": 1, "lr_scheduler_kwargs": None, "eval_strategy": "no", "eval_steps": None}
    recipe = changed_recipe(tmp_path / "nan.yaml", **absurd, **short)
    prepared = prepare(tmp_path / "train", recipe_file=recipe)
    with pytest.raises(ElleError, match=r"is not a finite number at step [23]") as caught:
        train(prepared)
    assert "lower `learning_rate`" in caught.value.fix
    faults = [checkpoints.fault(path) for _, path in checkpoints.steps_of(prepared.weights)]
    assert faults
    assert not any(faults)


def test_a_faulty_row_and_a_vanished_data_set_are_named(tmp_path, prepare, small_data):
    rows = (small_data / "train.jsonl").read_text().splitlines(keepends=True)
    file = Path(shutil.copy(small_data / "train.jsonl", tmp_path / "rows.jsonl"))
    prepared = prepare(tmp_path / "train", train=file)
    file.write_text("".join([*rows[:100], rows[100][:50] + "\n", *rows[101:]]))  # cut off
    with pytest.raises(ElleError) as caught:
        prepare(tmp_path / "train", train=file)
    assert caught.value.where == f"{file}:101"  # in a small file each row is read beforehand
    with pytest.raises(ElleError, match="not what the recipe says") as caught:
        launch.preprocess(prepared)
    assert "audit" in caught.value.fix
    file.unlink()
    with pytest.raises(ElleError, match="vanished") as caught:
        train(prepared)
    assert "elle data" in caught.value.fix


def test_examples_that_would_be_lost_are_counted_and_refuse(tmp_path, prepare, small_data):
    rows = [json.loads(line) for line in (small_data / "train.jsonl").open()]
    for row in rows[:3]:  # too long by far
        row["conversations"][1]["value"] *= 20
    for row in rows[3:5]:  # nothing to train on
        row["conversations"] = row["conversations"][:2]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ElleError, match=r"2\.8% of the data would not be trained on: 5 of 180 examples") as caught:
        launch.preprocess(prepare(tmp_path / "train", train=file))
    assert "sequence_len" in caught.value.fix
    found = launch.preprocess(prepare(tmp_path / "forced", train=file, force=True))
    assert found["train"] == {"rows": 180, "kept": 175}
    assert launch.counted(found).startswith("train: 175 of 180 rows (the rest is lost)")


def test_a_full_disk_is_explained(tmp_path, prepare, changed_recipe):
    """A limit on the size of files stands in for the disk: the optimizer's state does not fit, what comes before it
    does."""
    recipe = changed_recipe(tmp_path / "adam.yaml", optimizer="adamw_torch", eval_strategy="no", eval_steps=None)
    prepared = prepare(tmp_path / "train", recipe_file=recipe)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (800_000, hard))
    try:
        job = launch.start_training(prepared)  # limits are inherited
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(ElleError, match="the disk is full") as caught:
        launch.follow(prepared, job)
    assert "save_total_limit" in caught.value.fix
    ((step, cut_short),) = checkpoints.steps_of(prepared.weights)
    assert (step, bool(checkpoints.fault(cut_short))) == (3, True)


def test_a_failure_shows_the_logs_own_reason(tmp_path, prepare, changed_recipe):
    bad = changed_recipe(tmp_path / "bad.yaml", optimizer="no_such_optimizer")
    with pytest.raises(ElleError, match="no optimizer is called"):  # known beforehand
        prepare(tmp_path / "train", recipe_file=bad)
    prepared = prepare(tmp_path / "train", recipe_file=bad, force=True)
    with pytest.raises(ElleError, match="no_such_optimizer") as caught:
        train(prepared)
    assert caught.value.where.endswith("log.txt")


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGHUP, 130), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_elle_train_ends_its_trainer_however_it_ends(tmp_path, small_data, small_base, number, code):
    """Ctrl-C, a `kill`, a closed terminal, `kill -9`; by SIGTERM and SIGHUP it left a trainer that nobody spoke of."""
    temporary = Path(tempfile.mkdtemp())  # short, as a socket's path has to be
    environment = os.environ | {"ELLE_RUNS": str(tmp_path), "TMPDIR": str(temporary)}
    command = [sys.executable, "-m", "helpers.cli", "train", "configs/smoke.yaml", "--base", str(small_base)]
    command += ["--data", str(small_data), "--out", str(tmp_path / "train")]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, cwd=paths.root())
    wait_for(lambda: list(temporary.rglob("*wandb*")) or process.poll() is not None, 600, "the trainer does not start")
    (folder,) = (tmp_path / "train").glob("smoke-*")
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert (process.returncode, "interrupted" in said) == (code, code == 130)
    wait_for(lambda: not trainers(folder), 10, "a trainer outlived `elle train`")
    assert not (folder / launch.DONE).exists()
    temporary.rmdir()  # it is empty


def test_qlora_trains_on_a_trained_base_and_its_merge_is_what_was_trained(tmp_path, prepare, changed_recipe, trained):
    """A real NF4 base, a real adapter, merged by Axolotl: it answers as the rounded base with its adapter does.

    A bug: after its first evaluation (at step 0) the 4-bit model could not be trained any more.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    recipe = changed_recipe(tmp_path / "nano_qlora.yaml", "configs/nano_qlora.yaml", max_steps=10, warmup_steps=1,
                     eval_steps=10, save_steps=10, logging_steps=1, micro_batch_size=8)  # fmt: skip
    prepared = prepare(tmp_path / "train", recipe_file=recipe, base_model=trained.weights)
    adapted = train(prepared)
    assert adapted.manifest["weights"] == "adapter"
    assert launch.start_training(prepared) is None
    assert losses_of(adapted)[10] < losses_of(adapted)[1]
    added = adapted.manifest["parameters"] - trained.manifest["parameters"]
    assert adapted.manifest["trained_parameters"] == added == prepared.plan.setup.trained

    merged = launch.merge_adapter(adapted)
    before = (merged / "model.safetensors").stat().st_mtime_ns
    assert launch.merge_adapter(adapted) == merged
    assert (merged / "model.safetensors").stat().st_mtime_ns == before

    model = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).eval()
    kind = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": torch.float32}
    nf4 = BitsAndBytesConfig(load_in_4bit=True, **kind)
    four = AutoModelForCausalLM.from_pretrained(trained.weights, quantization_config=nf4, dtype=torch.float32)
    four = PeftModel.from_pretrained(four, adapted.weights).eval()
    for module in four.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # else its kernel multiplies in bf16
    ids = AutoTokenizer.from_pretrained(merged)("GLOBAL RISK 40%, political 74%", return_tensors="pt").input_ids
    with torch.no_grad():
        one, other = model(ids).logits, four(ids).logits
    assert torch.allclose(one, other, atol=1e-4)
