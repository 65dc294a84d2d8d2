"""A training before and after it runs: what is refused, which command is started, what is read from its progress, how
a failure is explained."""

import dataclasses
import json
import math
import os
import re
import shlex
import signal
import struct
import subprocess
import sys
from pathlib import Path

import click
import pydantic
import pytest
import yaml
from click.testing import CliRunner
from test_hub import wait_for

from elle.base import machine, paths, storage, yaml_files
from elle.base.errors import ElleError
from elle.evaluation import audit
from elle.plan import hardware
from elle.training import checkpoints, diagnosis, health, history, launch, resolution
from helpers import cli

FIXTURES = Path(__file__).parent / "fixtures"
REFUSALS = yaml_files.read_yaml(FIXTURES / "refusals.yaml")
LAPTOP = machine.Machine("a", 2, 16.0, 50.0)


def a_pod(count, name="NVIDIA H200", gb=150.8):
    return machine.Machine("a", 64, 2000.0, 900.0, [machine.Gpu(name, gb, "580.95")] * count)


@pytest.fixture
def prepare_on(monkeypatch, tmp_path, small_data):
    """`launch.prepare` of the 7B recipe on another machine: prepare_on(machine, **options)."""

    def make(computer, **options):
        monkeypatch.setattr(machine, "inspect", lambda *_: computer)
        files = {split: small_data / f"{split}.jsonl" for split in ("train", "validation")}
        return launch.prepare("configs/config.yaml", tmp_path, **files, **options)

    return make


# Preparing


def test_the_same_inputs_lead_to_the_same_folder_and_others_elsewhere(tmp_path, prepare, small_data):
    first = prepare(tmp_path)
    assert prepare(tmp_path).folder == first.folder
    assert prepare(tmp_path, seed=8).folder != first.folder
    assert prepare(tmp_path, train=small_data / "test.jsonl").folder != first.folder
    written = yaml.safe_load((first.folder / "axolotl.yaml").read_text())
    assert written == first.config
    assert written["datasets"][0]["path"] == str(small_data / "train.jsonl")
    assert written["test_datasets"][0]["split"] == "train[:16]"


def test_on_gpus_deepspeed_is_found_from_where_axolotl_is_started_and_the_data_is_prepared_first(prepare_on):
    one, two = prepare_on(a_pod(1), force=True), prepare_on(a_pod(2))
    assert "deepspeed" not in one.config
    assert any("deepspeed is left out" in remark for remark in one.remarks)
    assert Path(two.config["deepspeed"]) == paths.root() / "deepspeed" / "zero2.json"
    assert "deepspeed" in two.inputs
    assert [command[1] for command in two.commands] == ["preprocess", "train"]
    assert shlex.split(two.said(exact=True)[0].partition(" ")[2]) == two.preprocess
    (two.folder / launch.COUNTS).write_text('{"train": {"rows": 5, "kept": 5}}')
    assert two.commands == [two.command]  # it is done already


def test_a_killed_build_of_an_extension_is_named_before_a_training_waits_for_it(tmp_path, monkeypatch, prepare_on):
    """torch's next start waits for the lock that it left, for ever and in silence."""
    one, two = prepare_on(a_pod(1), force=True), prepare_on(a_pod(2))
    monkeypatch.setattr(launch, "_run", lambda *_: "started")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    (tmp_path / "tiny.cpp").touch()
    compiler, never = tmp_path / "c++", tmp_path / "never"
    os.mkfifo(never)
    held = os.open(never, os.O_RDWR)
    compiler.write_text(f'#!/bin/sh\ncase "$*" in *tiny.cpp*) read line <{never}; exit 1;; esac\nexec c++ "$@"\n')
    compiler.chmod(0o755)
    command = [sys.executable, "-c", "from torch.utils import cpp_extension as it; it.load('tiny', ['tiny.cpp'])"]
    options = {"cwd": tmp_path, "stderr": subprocess.PIPE, "process_group": 0}
    build = subprocess.Popen(command, env=os.environ | {"CXX": str(compiler)}, **options)
    try:
        wait_for(lambda: any(tmp_path.glob("torch_extensions/*/tiny/lock")), build)
        assert launch.start_training(two) == "started"  # a living build ends by itself
    finally:
        os.killpg(build.pid, signal.SIGKILL)
        never.unlink()
        os.close(held)  # ninja gave the compiler a group of its own: it ends by this
        build.communicate()
    (lock,) = tmp_path.glob("torch_extensions/*/tiny/lock")
    for name, place in (("XDG_CACHE_HOME", tmp_path), ("TORCH_EXTENSIONS_DIR", lock.parents[1])):
        monkeypatch.setenv(name, str(place))
        with pytest.raises(ElleError, match="extension tiny was killed") as caught:
            launch.start_training(two)
        assert caught.value.where == str(lock)
        assert f"rm {lock}" in caught.value.fix
    assert launch.start_training(one) == "started"  # without DeepSpeed nothing is built
    lock.unlink()
    assert launch.start_training(two) == "started"


def test_a_validation_file_takes_the_place_of_val_set_size_and_that_is_said(tmp_path, prepare, changed_recipe):
    # A bug: it was dropped without a word.
    recipe = changed_recipe(tmp_path / "share.yaml", val_set_size=0.05, test_datasets=None)
    replaced = prepare(tmp_path, recipe_file=recipe)
    assert "val_set_size" not in replaced.config
    assert any("val_set_size: 0.05 is left out" in remark for remark in replaced.remarks)
    kept = prepare(tmp_path, recipe_file=recipe, validation=None)
    assert kept.config["val_set_size"] == 0.05
    assert "test_datasets" not in kept.config
    without = prepare(tmp_path, validation=None)  # the recipe's own validation file is another run's
    assert without.config["eval_strategy"] == "no"
    assert "test_datasets" not in without.config


@pytest.mark.parametrize(("option", "files", "what", "where", "fix"), REFUSALS["inputs"])
def test_what_cannot_train_is_refused_before_anything_starts(tmp_path, prepare, option, files, what, where, fix):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    value = {"train": tmp_path / "x.jsonl", "base_model": tmp_path / "x", "recipe_file": "configs/nanno.yaml"}[option]
    with pytest.raises(ElleError, match=what) as caught:
        prepare(tmp_path, **{option: value})
    assert caught.value.where.endswith(where)
    assert fix in caught.value.fix


@pytest.mark.parametrize(("changes", "said"), REFUSALS["recipes"])
def test_training_refuses_what_the_preflight_refuses_unless_forced(tmp_path, prepare, changed_recipe, changes, said):
    recipe = changed_recipe(tmp_path / "bad.yaml", **changes)
    options = {"base_model": None} if "base_model" in changes else {}
    with pytest.raises(ElleError, match="refused") as caught:
        prepare(tmp_path, recipe_file=recipe, **options)
    assert said in caught.value.what
    assert "--force" in caught.value.fix
    assert not list(tmp_path.glob("bad-*"))
    forced = prepare(tmp_path, recipe_file=recipe, force=True, **options)
    assert any(said in reason for reason in forced.forced)
    assert forced.variables[launch.FORCE] == "1"


def test_a_full_disk_is_foreseen(tmp_path, prepare, monkeypatch):
    assert not prepare(tmp_path).forced  # the packages that the planner counts are installed already
    full = dataclasses.replace(machine.inspect(tmp_path), disk_free_gb=0.0)
    monkeypatch.setattr(machine, "inspect", lambda *_: full)
    with pytest.raises(ElleError, match="GB of disk"):
        prepare(tmp_path)


def test_elle_train_refuses_a_set_that_fails_its_audit(tmp_path, small_data, small_base, prepare, monkeypatch):
    monkeypatch.setattr(audit, "verdict", lambda folder: ["3 wrong figures"])
    arguments = ["train", "configs/smoke.yaml", "--data", str(small_data), "--base", str(small_base)]
    done = CliRunner().invoke(cli.cli, [*arguments, "--out", str(tmp_path)])
    assert "fails its audit: 3 wrong figures" in str(done.exception)
    assert prepare(tmp_path, refusals=["the audit"], force=True).forced == ["the audit"]


def test_qlora_on_a_processor_switches_off_what_needs_cuda(tmp_path, prepare, changed_recipe, monkeypatch):
    monkeypatch.setattr(machine, "inspect", lambda *_: LAPTOP)
    prepared = prepare(tmp_path, recipe_file="configs/nano_qlora.yaml")
    assert all(prepared.config[key] is False for key in resolution.LORA_KERNELS)
    assert prepared.config["load_in_4bit"] is True
    assert any("kernels for LoRA" in remark for remark in prepared.remarks)
    packed = prepare(tmp_path, recipe_file=changed_recipe(tmp_path / "packed.yaml", sample_packing=True))
    assert packed.config["sample_packing"] is False
    assert any("not packed" in remark for remark in packed.remarks)
    assert prepare(tmp_path).precision == "fp32, because the processor has no bf16 arithmetic."


def test_data_for_a_large_model_can_be_prepared_on_a_small_machine(prepare_on):
    with pytest.raises(ElleError, match="refused"):
        prepare_on(LAPTOP)
    prepared = prepare_on(LAPTOP, data_only=True)
    assert prepared.preprocess[:2] == ["axolotl", "preprocess"]
    assert prepared.said(data_only=True)[0].startswith("command    axolotl preprocess ")


def test_without_an_optimizer_in_its_checkpoints_a_run_is_not_resumed(tmp_path, prepare, changed_recipe):
    # A bug: under DeepSpeed such a checkpoint cannot be resumed, and the trainer was told to.
    prepared = prepare(tmp_path, recipe_file=changed_recipe(tmp_path / "only.yaml", save_only_model=True))
    assert prepared.config["auto_resume_from_checkpoints"] is False
    assert any("starts over" in remark for remark in prepared.remarks)
    assert prepare(tmp_path).config["auto_resume_from_checkpoints"] is True


# The machine


@pytest.mark.parametrize(
    ("name", "gb", "expected"),
    [("NVIDIA H200", 150.8, "h200"), ("NVIDIA A10", 24.1, "a10"), ("NVIDIA H100 80GB HBM3", 85.5, "h100"),
     ("NVIDIA A100-PCIE-40GB", 42.9, "gpu"), ("NVIDIA A10G", 24.1, "gpu")],
)  # fmt: skip
def test_this_machine_is_known_by_its_gpu(monkeypatch, name, gb, expected):
    monkeypatch.delenv(hardware.PRICE, raising=False)
    found = hardware.here(a_pod(4, name, gb), 500.0)
    assert (found.name, found.count, found.memory_gb) == (expected, 4, gb)
    assert (found.price == (0, 0)) is (expected == "gpu")
    monkeypatch.setenv(hardware.PRICE, "2.5")
    assert hardware.here(a_pod(4, name, gb), 500.0).price == (2.5, 2.5)


# Commands, read by the real programs' own parsers


def test_a_merge_ends_with_its_owner_as_a_training_does(tmp_path, monkeypatch):
    """It outlived the `elle run` that had started it."""
    started = {}
    monkeypatch.setattr(launch.Job, "start", lambda _folder, _command, **options: started.update(options))
    monkeypatch.setattr(launch, "_wait", lambda job: None)
    monkeypatch.setenv(launch.OWNER, "12")
    storage.write_text(tmp_path / "weights" / "adapter_config.json", "{}")
    launch.merge_adapter(launch.Trained(tmp_path, tmp_path / "weights", 1, 1.0, [], {}))
    assert (started["owner"], started["scratch"]) == (12, True)


def parsed_by_axolotl(command):
    """(arguments, what follows `--`) as Axolotl's own command line reads them."""
    from axolotl.cli.main import cli as axolotl

    assert command[0] == "axolotl"
    verb = axolotl.commands[command[1]]
    context = verb.make_context(command[1], command[2:])
    return context.params, context.args


@pytest.mark.real
def test_commands_are_understood_by_axolotl_accelerate_and_torchrun(prepare_on):
    from accelerate.commands.launch import launch_command_parser
    from axolotl.cli.utils import train as launcher
    from torch.distributed.run import get_args_parser

    one = prepare_on(a_pod(1), force=True)
    params, extra = parsed_by_axolotl(one.command)
    assert (params["launcher"], extra) == ("python", [])
    config = str(one.folder / "axolotl.yaml")
    for command in (one.command, one.preprocess, ["axolotl", "merge-lora", config]):
        assert parsed_by_axolotl(command)[0]["config"] == config
    with pytest.raises(click.UsageError):
        parsed_by_axolotl(["axolotl", "train", config, "--launcher", "none"])

    params, extra = parsed_by_axolotl(prepare_on(a_pod(8), force=True).command)
    assert params["launcher"] == "accelerate"
    script = ["-m", "axolotl.cli.train", config]
    read = launch_command_parser().parse_args([*extra, *script])
    assert (read.num_processes, read.num_machines, read.multi_gpu, read.main_process_port) == (8, 1, True, 0)
    assert read.training_script == "axolotl.cli.train"

    # Over several machines, by hand. Without an id of its own each node would wait for the others for ever.
    page = (paths.root() / "docs" / "pod.md").read_text().replace("\\\n", " ")
    command = re.search(r"^axolotl train .*torchrun.*$", page, re.MULTILINE)[0].split()
    params, extra = parsed_by_axolotl([*command[:2], config, *command[3:]])
    assert params["launcher"] == "torchrun"
    read = get_args_parser().parse_args([*launcher._add_default_rdzv_args(extra), *script])
    assert (read.nnodes, read.node_rank, read.nproc_per_node) == ("2", 0, "8")
    assert (read.rdzv_backend, read.rdzv_endpoint, read.rdzv_id) == ("static", "HOST:29500", "elle")


# Progress


def test_history_joins_the_attempts_of_an_interrupted_run(tmp_path):
    rows = history.read_history(FIXTURES / "progress.jsonl")
    # Step 3 of the broken attempt is gone: live progress would else speak of work that was lost.
    assert [(row["step"], row["seconds"]) for row in rows] == [(1, 10.0), (1, 10.5), (2, 40.0), (2, 42.0)]
    assert [row["wall"] for row in rows] == [15.0, 15.5, 52.0, 54.0]
    assert rows[1]["saved"] is True
    assert (rows[2]["loss"], rows[3]["eval_loss"], rows[3]["digit_accuracy"]) == (2.5, 2.4, 0.95)
    assert (history.copying_learned(rows), history.copying_learned(rows[:3])) == (2, None)
    assert history.resumed(rows) == [1]
    assert history.read_history(tmp_path / "none") == []


def run_of(steps=100, loss=lambda step: 3 * math.exp(-step / 20) + 0.1, **series):
    """A made-up history: 1,000 tokens a second, an evaluation of 50 s each ten steps that is none of the training."""
    rows, seconds = [], 0.0
    for step in range(1, steps + 1):
        seconds += 1.0
        values = {"loss": loss(step), "grad_norm": 0.5, "learning_rate": 1e-3 * min(step / 5, 1, (steps - step) / 50)}
        values |= {name: value(step) for name, value in series.items() if name != "eval_loss"}
        values |= {history.TOTAL: 1000 * step, history.TRAINED_ON: 400 * step}
        rows.append({"step": step, "of": steps, "seconds": seconds, "wall": seconds + 20} | values)
        if step % 10 == 0:
            seconds += 50.0
            valid = series.get("eval_loss", loss)(step)
            done = {"eval_loss": valid, "digit_accuracy": 0.95 if step > 50 else 0.2}
            rows.append({"step": step, "of": steps, "seconds": seconds, "wall": seconds + 20} | done)
    return rows


def test_speed_and_moments_are_those_of_training_without_evaluation_and_a_line_says_where_it_is():
    rows = run_of()
    assert history.rate(rows) == pytest.approx(1000)
    assert {round(pace) for _, pace in history.rates(rows)} == {1000}
    assert history.tokens(rows) == (100_000, 40_000)
    assert history.rate(rows[:1]) is None
    moments = {"copying learned": 60, "warm-up ends": 5, "decay begins": 50, "best validation": 100}
    assert history.moments(rows).items() >= moments.items()
    assert history.moments([]) == {}
    first = rows[:22]  # 20 steps and two evaluations: 140 s of wall-clock
    said = history.line(first, 36.0)
    assert said.startswith("step 20 of 100, loss 1.2036, 1,000 tokens/s (40% of them trained on), ")
    assert said.endswith("$1.40 so far")
    assert history.line(first).endswith("free")
    assert "$" not in history.line(first, None)
    assert history.line([]) == "the trainer is starting …"


# Health


def verdicts(rows, kept=5):
    rows = health.check_health(rows, {"train": {"rows": 5, "kept": kept}} if rows else None)
    return {row.measure: row.verdict for row in rows}


@pytest.mark.parametrize(
    ("measure", "changes"),
    [
        ("loss", {"loss": lambda step: 3.0}),
        ("loss", {"loss": lambda step: 3.0 if step < 90 else math.nan}),
        ("spikes", {"loss": lambda step: 9.0 if step == 70 else 1 + 1 / step}),
        ("validation", {"eval_loss": lambda step: 1 + abs(step - 40) / 40}),
        ("gradient norm", {"grad_norm": lambda step: 0.5 * 1.2 ** max(0, step - 70)}),
        ("gradient norm", {"grad_norm": lambda step: math.inf if step == 99 else 0.5}),
        ("warm-up", {"learning_rate": lambda step: step / 100}),
        ("decay", {"learning_rate": lambda step: 1e-3}),
    ],
)
def test_what_is_wrong_is_flagged(measure, changes):
    assert verdicts(run_of(**changes))[measure] == "red flag"


def test_a_healthy_run_raises_no_flag_and_lost_examples_or_a_slowing_machine_do():
    rows = run_of()
    assert set(verdicts(rows).values()) == {"healthy"}
    assert verdicts([]) == dict.fromkeys(yaml_files.config_table("health"), "not measured")
    assert verdicts(rows, kept=4)["examples kept"] == "red flag"
    assert verdicts(rows[:50])["figures copied"] == "red flag"
    for row in rows:
        row["seconds"] *= 1 + row["step"] / 50
    assert verdicts(rows)["tokens/s"] == "red flag"


# Checkpoints


def checkpoint(folder, step):
    """A whole checkpoint, as the trainer leaves it."""
    import torch

    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"a": torch.zeros(500)}, path / name)
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return path


@pytest.mark.parametrize(("name", "kept", "why"), REFUSALS["checkpoints"])
def test_an_incomplete_checkpoint_is_set_aside(tmp_path, name, kept, why):
    whole, file = checkpoint(tmp_path, 3), checkpoint(tmp_path, 10) / name
    assert checkpoints.set_aside(tmp_path) == []
    content = file.read_bytes()
    file.unlink()
    if kept:
        file.write_bytes(content[:kept])
    (said,) = checkpoints.set_aside(tmp_path)
    assert "checkpoint-10 is incomplete" in said
    assert why in said
    assert [path for _, path in checkpoints.steps_of(tmp_path)] == [whole]
    assert (tmp_path / "incomplete-10").is_dir()
    assert checkpoints.set_aside(tmp_path / "none") == []


def test_deepspeeds_checkpoints_are_judged_by_their_own_states(tmp_path):
    path = checkpoint(tmp_path, 4)
    (path / "optimizer.pt").unlink()
    (path / "latest").write_text("global_step4")
    assert "optimizer states are missing" in checkpoints.fault(path)
    states = path / "global_step4" / "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"
    states.parent.mkdir()
    states.write_bytes(b"x")
    assert checkpoints.fault(path) is None


# Failures


LOGS = yaml_files.read_yaml(FIXTURES / "failed_logs.yaml")


@pytest.mark.parametrize("case", diagnosis.cases(), ids=lambda case: case.name)
def test_a_failure_is_recognised_and_explained(case):
    text = f"[2026-11-22] [INFO] [axolotl.train] Starting trainer...\nTraceback:\n{LOGS[case.name]}\n"
    assert diagnosis.diagnose(text, 1) == case
    assert f"| {case.means} | {case.fix} |" in (paths.root() / "docs" / "troubleshooting.md").read_text()


def test_an_ordinary_log_speaks_of_no_failure_and_a_kill_without_a_word_is_one():
    planning = (paths.root() / "docs" / "planning.md").read_text()  # not a log, but much about memory and disks
    for log in (planning, "step 5\nTraining completed! Saving trained model\n"):
        assert diagnosis.diagnose(log, 1) is None
    assert diagnosis.diagnose("", -9).name == "killed"
    # What was only warned of is not the cause where the last exception names another.
    later = f"{LOGS['no-gpu']}\nTraceback (most recent call last):\n{LOGS['disk']}\n"
    assert diagnosis.diagnose(later, 1).name == "disk"


@pytest.mark.parametrize("entry", [{"paterns": ["x"]}, {"patterns": ["("]}, {"fix": None}])
def test_a_faulty_case_is_refused(entry):
    with pytest.raises(pydantic.ValidationError):
        diagnosis.Case(**{"name": "a", "patterns": ["x"], "means": "b", "fix": "c"} | entry)
