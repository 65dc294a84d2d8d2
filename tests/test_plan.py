"""Know before you pay: shapes, memory, money, findings, and the nearest recipe that passes."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import gpu_prices
import pytest
import qwen_tokens
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elle.base import paths, storage, yaml_files
from elle.base.errors import ElleError
from elle.briefings import dataset
from elle.plan import axolotl, budget, findings, fix, hardware, memory, models, preflight, recipe, speed
from elle.plan.memory import Setup
from elle.plan.recipe import Zero
from helpers import cli
from helpers.runs import profile

FIXTURES = Path(__file__).parent / "fixtures"
DOCUMENTED = FIXTURES / "documented"
CASES = yaml_files.read_yaml(FIXTURES / "plan.yaml")
RECIPES = yaml_files.config_table("recipes")["recipes"]
PARAMETERS = CASES["parameters"]
GPUS = sorted(yaml_files.config_table("gpus")["gpus"].keys() - {"cpu"})
REFUSALS = yaml_files.read_yaml(FIXTURES / "refusals.yaml")


def qwen(size: str) -> models.Model:
    return models.find(f"Qwen/Qwen2.5-{size}-Instruct")


def shipped(name: str, **changes) -> dict:
    """A recipe of configs/, changed (None removes a key)."""
    return recipe.merged(yaml_files.read_yaml(paths.configs() / f"{name}.yaml"), changes)


def original(name: str, **options) -> preflight.Plan:
    """A recipe as documented, on the documents' own data."""
    data = f"documents-{RECIPES[f'{name}.yaml']['data']}"
    with contextlib.chdir(DOCUMENTED):  # a DeepSpeed file is looked for from here: theirs comes before ours
        return preflight.plan(DOCUMENTED / f"{name}.yaml", **{"data": data} | options)


def assess(config, *, gpu="h200", count=1, data="documents-cic", examples=None, limit=None) -> preflight.Plan:
    lengths = budget.find_data(data, "", examples) if data else None
    return preflight.assess(Path("x.yaml"), config, hardware.find(gpu, count, 1000.0), lengths, limit=limit)


def codes(plan: preflight.Plan, severity: str | None = None) -> set[str]:
    return {f.code for f in plan.findings if severity in (None, f.severity)}


def only(plan: preflight.Plan, code: str) -> findings.Finding:
    """The one finding of that code."""
    (found,) = (f for f in plan.findings if f.code == code)
    return found


def elle(*arguments: str):
    return CliRunner().invoke(cli.cli, ["plan", *map(str, arguments)])


# Shapes


def test_parameters_are_counted_as_published_for_every_base_of_the_documents():
    assert {size: qwen(size).parameters for size in PARAMETERS} == PARAMETERS
    big = qwen("72B")
    assert (big.linears, big.embedding) == (70_212_648_960, 1_245_708_288)
    assert (big.lora(128), qwen("7B").lora(64)) == (1_684_275_200, 161_480_704)
    assert [qwen(size).kv_cache_bytes() for size in ("7B", "14B", "72B")] == [57_344, 196_608, 327_680]
    assert models.nf4_bytes(big) / 1e9 == pytest.approx(41.2, abs=0.05)
    # The adapter that the documents call "~100 MB", in bf16.
    assert qwen("3B").lora(64) * 2 / 1e6 == pytest.approx(239, abs=0.6)
    for name, count in (("qwen-72b-math-v1", PARAMETERS["72B"]), ("nemotron-70b-math-v1", 70_553_706_496)):
        assert models.find(f"aphoticshaman/{name}").parameters == count
    assert models.find("aphoticshaman/qwen-72b-math-nf4").quantized == "nf4"
    assert models.find("someone/else") is None


@pytest.mark.real
def test_parameters_are_those_of_pytorch():
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    names = {size: f"Qwen/Qwen2.5-{size}-Instruct" for size in PARAMETERS}
    for name in (*names.values(), "aphoticshaman/nemotron-70b-math-v1"):
        m = models.find(name)
        kinds = (Qwen2Config, Qwen2ForCausalLM) if "Qwen" in name else (LlamaConfig, LlamaForCausalLM)
        sizes = {other: getattr(m, ours) for other, ours in yaml_files.config_table("models")["names"].items()}
        with torch.device("meta"):
            net = kinds[1](kinds[0](**sizes))
        assert sum(p.numel() for p in net.parameters()) == m.parameters, name
        linears = [n for n, _ in net.named_modules() if n.rpartition(".")[2] in models.LINEARS]
        assert len(linears) == 7 * m.layers
        assert sum(net.get_submodule(n).weight.numel() for n in linears) == m.linears


# Memory: what weights and states come to, as stated elsewhere, in GB (tests/test_memory.py: what was measured)


def test_components_add_up_to_the_peak_of_the_worst_phase():
    for p in (original(name.stem) for name in DOCUMENTED.glob("*.yaml")):
        m = p.memory
        assert sum(m.components.values()) == pytest.approx(m.peak)
        assert m.torch + m.components["reserve"] == pytest.approx(m.reserved)
        answer = p.to_json()
        assert answer["torch_gb"] < answer["reserved_gb"] < answer["peak_gb"] == round(m.peak, 2)


@pytest.mark.real
def test_zero_terms_are_those_of_deepspeeds_own_estimators():
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs as zero3
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs as zero2

    def step(stage, **options):
        zero = Zero(stage, **options)
        return memory.estimate(Setup(m, "full", n, gpus, zero, "adamw_torch_fused", 1, 2048, False, True, False))

    for size, gpus in (("7B", 2), ("14B", 2), ("72B", 8)):
        m = qwen(size)
        n, largest = m.parameters, m.embedding
        ours = step(2)
        update = ours.states + 4 * n / gpus / 1e9  # they count the fp32 gradient of the step in
        assert update == pytest.approx(zero2(n, gpus, cpu_offload=False)[1] / 1e9, rel=0.05)
        # ZeRO-3: they count 4 bytes of fp32 gradient and no bf16 one; DeepSpeed keeps the bf16 one, and makes the fp32
        # one a sub-group at a time. Without that difference of 2 bytes a parameter they agree.
        ours = step(3)
        theirs = zero3(n, largest, gpus, cpu_offload=False, cpu_offload_params=False)[1]
        gathered = ours.components["gathered"] - 2 * memory.LIVE / 1e9
        assert ours.states + gathered == pytest.approx((theirs - 2 * n / gpus) / 1e9, rel=0.05)
        # Offloaded: they count 16 bytes (the optimizer) and 18 (weights too), and multiply by 1.5 for buffers; here
        # the bf16 gradient, which DeepSpeed copies to the host as well, is 2 more, and the buffers are the margin.
        for parameters in (False, True):
            theirs = zero3(n, largest, gpus, cpu_offload_params=parameters, additional_buffer_factor=1)[0]
            host = step(3, offload_optimizer=True, offload_parameters=parameters).host["offload"]
            assert host == pytest.approx((theirs + 2 * n) / 1e9, rel=0.05)


# Tokens, time, money


@pytest.mark.real
def test_pieces_are_those_of_qwen2():
    from elle.training.nano import pieces

    count, _ = budget._tokenizer("nothing/here", nano=True)
    for text in ("UKR 74%, it's ↑ -3.097\n\n  indent_ed (DPRK)  \r\n", "Überfälle 2026: ¿qué?", "", " \n \n"):
        assert count(text) == pieces(text)


def test_lengths_come_from_the_data_itself(small_data):
    data, stated = budget.find_data(str(small_data), "nothing/here"), budget.find_data("basic", "")
    assert data.examples == 180
    assert "180 rows" in data.source
    assert data.tokens / data.examples == pytest.approx(stated.tokens / stated.examples, rel=0.03)
    assert stated.source.endswith("in tokens of Qwen2.5")
    assert budget.find_data("documents-cic", "").tokens == 10_000 * 2971
    assert budget.find_data("documents-cic", "", 500).examples == pytest.approx(500, abs=2)


# How a recipe's tokens are counted: by Qwen2.5's tokenizer (`qwen_base`), or by that of a nano base not made yet.
NANO = "configs/nano_base.yaml"


@pytest.mark.parametrize(("kind", "count"), [("basic", 3000), ("cic", 256)])
def test_the_stated_lengths_are_those_of_the_sets(tmp_path, qwen_base, kind, count):
    """The set itself, counted anew (of the CIC set, its first block)."""
    dataset.build(kind, count, 42, tmp_path)
    for base, sizes in ((str(qwen_base), ""), ("", NANO)):
        counted = qwen_tokens.lengths(tmp_path, qwen_tokens.SETS[kind][1], base, sizes)
        stated = budget.find_data(kind, base, sizes=sizes)
        assert counted == stated.lengths if kind == "basic" else counted.keys() <= stated.lengths.keys()
        mean = sum(length * rows for length, rows in counted.items()) / sum(counted.values())
        assert mean == pytest.approx(stated.tokens / stated.examples, rel=0.01)


@pytest.mark.parametrize(("kind", "tokens", "pieces"), [("basic", 311.4, 286.1), ("cic", 628.7, 575.4)])
def test_the_estimate_without_a_tokenizer_is_near_the_tokens(qwen_base, kind, tokens, pieces):
    """The committed rows, with figures counted once by another program."""

    def counted(base: str, sizes: str = "") -> budget.Data:
        return budget.find_data(f"data/samples/{kind}-42.jsonl", base, sizes=sizes)

    real, estimate, nano = counted(str(qwen_base)), counted("nothing/here"), counted("nothing/here", NANO)
    assert real.tokens / 100 == pytest.approx(tokens, abs=0.06)
    assert nano.tokens / 100 == pytest.approx(pieces, abs=0.06)
    assert estimate.tokens == pytest.approx(real.tokens, rel=0.01)
    turns = 100 * 3 * budget.TURN
    assert (real.tokens - turns) / (nano.tokens - turns) == pytest.approx(budget.TOKENS_PER_PIECE, rel=0.01)
    assert f"{budget.TOKENS_PER_PIECE} tokens each" in estimate.source
    assert "nano" in nano.source


def test_a_nano_base_is_planned_in_pieces(tmp_path):
    pieces = budget.find_data("basic", "", sizes=NANO)
    assert preflight.plan("configs/nano.yaml", data="basic").data == pieces != budget.find_data("basic", "")
    (tmp_path / "nano.json").write_text("{}")  # one that is made, whatever the recipe is called
    assert budget.find_data("basic", str(tmp_path)) == pieces


def test_the_tokens_are_those_of_qwen(qwen_base):
    import tiktoken
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(qwen_base / "tokenizer.json"))
    assert tokenizer.encode("Hello world").ids == [9707, 1879]
    assert tokenizer.encode("<|im_start|>user\nHi<|im_end|>\n").ids == [151644, 872, 198, 13048, 151645, 198]
    assert tokenizer.token_to_id("<|file_sep|>") == 151_664
    known = qwen_tokens.ranks()
    assert sum(len(token) > 1 for token in known) == qwen_tokens.MERGES
    theirs = tiktoken.Encoding("qwen", pat_str=qwen_tokens.SPLIT, mergeable_ranks=known, special_tokens={})
    samples = [paths.root() / "data" / "samples" / f"{kind}-42.jsonl" for kind in dataset.KINDS]
    turns = [turn for path in samples for row in storage.read_lines(path) for turn in row["conversations"]]
    for text in [*(turn["value"] for turn in turns), "Überfälle ═════ 2,971\r\n\n 東京 🙂"]:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert ids == theirs.encode_ordinary(text)
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize(("text", "what", "told"), REFUSALS["lengths"])
def test_faulty_data_is_named_with_its_line(tmp_path, text, what, told):
    path = tmp_path / "x.jsonl"
    path.write_text(text or "")
    with pytest.raises(ElleError, match=what) as caught:
        budget.find_data("documents-cix" if text is None else str(path), "")
    assert told in str(caught.value)


def test_throughput_is_that_of_the_published_anchors_and_loading_and_saving_take_what_was_stated():
    # 7B in full on 2 H200, and 72B by QLoRA on one A100 (275 is published too: 8 % below what is planned at least).
    for name, gpu, count, published in (("config", "h200", 2, 18_728), ("config_72b_qlora", "a100", 1, 364)):
        config = yaml_files.read_yaml(DOCUMENTED / f"{name}.yaml")
        low, high = assess(config, gpu=gpu, count=count).budget.tokens_per_second
        assert low <= published <= high <= 1.6 * low * (1 + 1e-6)
    # 72B in full on 8: 0.75 h. Not counted there: the save at the last step, and the evaluation before the first.
    steps = preflight.plan("configs/config_72b_8xh200.yaml", data="documents-cic").budget.steps
    saving = {"save_steps": steps, "save_strategy": "steps", "save_only_model": True, "eval_on_start": False}
    b = assess(shipped("config_72b_8xh200", **saving), count=8).budget
    assert b.saves == 1
    assert b.other_hours == pytest.approx(0.75, abs=0.05)
    assert b.dollars == pytest.approx([hours * 8 * 4.59 for hours in b.hours])


def test_prices_can_be_overridden(monkeypatch):
    one, two = (preflight.plan("configs/config.yaml", data="basic", price=price).budget for price in (4.59, 9.18))
    assert two.dollars[1] == pytest.approx(2 * one.dollars[1])
    monkeypatch.setenv(hardware.PRICE, "4.59")
    assert "as given" in preflight.plan("configs/config.yaml").rests_on()[-1]
    monkeypatch.setenv(hardware.PRICE, "cheap")
    with pytest.raises(ElleError, match="not a price"):
        preflight.plan("configs/config.yaml")


def test_prices_are_read_anew_from_the_providers_catalogue(tmp_path, monkeypatch):
    shutil.copytree(paths.configs(), tmp_path / "configs")
    monkeypatch.setenv("ELLE_ROOT", str(tmp_path))
    offers = [
        {"id": "NVIDIA H200", "secure": True, "community": True, "price": {"secure": 4.1, "community": "3.2"}},
        {"id": "NVIDIA H100 80GB HBM3", "secure": True, "community": False, "price": {"secure": 2, "community": 0.1}},
        {"id": "another", "secure": True, "price": {"secure": 1}},
    ]
    assert gpu_prices.reprice({"gpus": offers}, "a test") == {"h200": [3.2, 4.1], "h100": [2.0, 2.0]}
    assert hardware.hourly(hardware.find("h200", 8)) == (25.6, 32.8)
    assert hardware.find("h200").priced.startswith("a test, 20")
    assert hardware.find("a100").price == (1.39, 1.79)
    for answer in ({}, [], {"gpus": "x"}):
        with pytest.raises(ElleError, match="no price"):
            gpu_prices.reprice(answer, "a test")


# What it finds, by itself


def short(case: dict) -> str:
    return f"{case['recipe']} {case['change']}"


@pytest.mark.parametrize("case", CASES["findings"], ids=short)
def test_what_is_wrong_with_a_recipe_is_named_and_put_right(case, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "kernels--fetched--kernel").mkdir()  # no other was
    plan = assess(shipped(case["recipe"], **case["change"]), count=case["gpus"], data="basic")
    found = [f for f in plan.findings if f.code == case["code"]]
    assert {f.severity for f in found} == {case["severity"]} - {"none"}
    assert any(case.get("says", "") in f.message + f.fix for f in found) or not found
    if case.get("fixed") == "none":
        with pytest.raises(ElleError, match="no change of the recipe"):
            fix.nearest_recipe(plan)
    elif values := case.get("fixed"):
        config = fix.nearest_recipe(plan)[0].config
        assert {key: config.get(key) for key in values} == values


@pytest.mark.parametrize("key", ["base_model", "tokenizer_config"])
def test_a_folder_that_brings_code_of_its_own_is_refused(tmp_path, key):
    for file, code in (("config.json", {}), ("tokenizer_config.json", {"AutoTokenizer": ["mine.Mine", None]})):
        storage.write_json(tmp_path / file, {"auto_map": code})
    found = only(assess(shipped("config", **{key: str(tmp_path)})), "remote-code")
    assert (found.severity, found.where) == ("error", key)
    assert all(part in found.message + found.fix for part in ("tokenizer_config.json", "elle train --force"))


def test_the_documents_faults_are_named_with_what_helps():
    offloaded, qlora, full = map(original, ("config_72b", "config_72b_qlora", "config_72b_8xh200"))
    assert offloaded.memory.peak < offloaded.hardware.memory_gb
    assert offloaded.memory.host_total > 4 * 276
    assert {"activation-checkpointing-block", "reentrant"} <= codes(offloaded)
    for plan in (offloaded, qlora):
        assert plan.budget.dropped == plan.data.examples == 10_000
        assert only(plan, "examples-dropped").fix.startswith("sequence_len: 3072")
    assert "--max-lora-rank 128" in only(qlora, "lora-rank").fix
    # Two, of 14 bytes a parameter: at step 200, and at the last.
    assert full.budget.disk["checkpoints"] == pytest.approx(2 * 1018, abs=1)
    assert "disk" not in codes(original("config_72b_8xh200", disk=3000))


def test_every_name_that_the_builder_takes_passes():
    known = axolotl.axolotl_schema()
    usable = [name for name, problem in known["optimizers"].items() if not problem]
    assert {"adamw_torch_fused", "adamw_bnb_8bit", "muon"} <= set(usable)
    for key, names in (("optimizer", usable), ("lr_scheduler", known["schedulers"])):
        assert not [name for name in names if recipe._name_findings({key: name})]


def test_every_finding_that_has_words_is_one_of_the_planners_and_the_other_way_round():
    source = "".join(path.read_text() for path in (paths.root() / "src" / "elle" / "plan").glob("*.py"))
    listed = yaml_files.config_table("findings")
    unused = {name for name in listed if f'"{name}"' not in source}
    assert unused == {"axolotl-rejects", "deepspeed-rejects"}  # whose names are put together
    assert set(re.findall(r'finding\("([^"]+)"', source)) <= set(listed)


# What it does not cover, what it would do better, and what decides it


@pytest.mark.parametrize("case", CASES["uncovered"], ids=short)
def test_what_is_not_covered_has_no_figure_and_is_checked_all_the_same(case, tmp_path):
    path, where = tmp_path / "mine.yaml", next(iter(case["change"]))
    path.write_text(yaml.safe_dump(shipped(case["recipe"], **case["change"]) | {"learning_rte": 1}))
    options = (path, "--gpu", "h200", "--data", "basic")
    done = elle(*options, "--json")
    answer = json.loads(done.stdout)
    assert (done.exit_code, answer["verdict"], answer["ok"]) == (2, "not covered", False)
    found = {f["where"]: f for f in answer["findings"]}
    assert found[where]["message"].startswith("not covered: ")
    assert found["learning_rte"]["code"] == "unknown-key"
    figures = ("peak_gb", "torch_gb", "reserved_gb", "host_gb", "disk_gb", "steps", "tokens", "trained_parameters")
    assert {answer[key] for key in figures} == {None}
    for key in ("hours", "training_hours", "dollars", "tokens_per_second"):
        assert answer[key] == {"low": None, "high": None}
    assert answer["components_gb"] == answer["phases_gb"] == {}
    text = elle(*options)
    assert (text.exit_code, "NOT COVERED on 1 x H200" in text.output) == (2, True)
    assert found[where]["message"] in elle(*options, "--short").output
    fixed = elle(*options, "--fix", tmp_path / "out.yaml")
    assert (fixed.exit_code, "not covered" in fixed.output) == (2, True)


def test_a_gpu_or_a_value_beside_what_is_covered_and_a_key_that_asks_for_nothing():
    done = elle("configs/config.yaml", "--gpu", "H20")
    assert (done.exit_code, "not covered: " in done.output) == (2, True)
    for gpu in ("H200", ""):  # in any case, and as if it were not there
        assert elle("configs/config_qlora.yaml", "--gpu", gpu).exit_code == 0
    for push in (None, False):
        harmless = {"tensor_parallel_size": 1, "load_in_8bit": False, "rl": None, "push_to_hub": push}
        plan = assess(shipped("config") | harmless, count=2, data="basic")
        assert (plan.verdict, plan.ok) == ("fits", True)
        assert "info    ignored-key: push_to_hub" in plan.text()
        assert "ignored-key" not in plan.short()
        assert "push_to_hub" not in fix.nearest_recipe(plan)[0].config


def test_a_config_of_another_family_is_not_guessed_at(tmp_path):
    """A mixture of experts was planned as if it were as small as one of them."""
    sizes = dict.fromkeys(("hidden_size", "intermediate_size", "vocab_size"), 256)
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    for family, bias in (("qwen3_moe", None), ("qwen3", None), ("llama", False), ("qwen2", True)):
        (tmp_path / "config.json").write_text(json.dumps(sizes | {"model_type": family}))
        found = models.find(str(tmp_path))
        assert found is None if bias is None else found.qkv_bias == bias


def test_a_batch_size_is_accumulated_as_axolotl_does():
    rows = {"micro_batch_size": 2, "gradient_accumulation_steps": None}
    plan = assess(shipped("config_3b_qlora", **rows, batch_size=32))
    assert (plan.setup.micro, plan.setup.accumulation) == (2, 16)
    same = assess(shipped("config_3b_qlora", micro_batch_size=2, gradient_accumulation_steps=16))
    assert plan.budget.steps == same.budget.steps
    assert "gpu-idle" not in codes(plan)  # accumulation beside batch_size is refused


@pytest.mark.timeout(20)
def test_a_step_of_absurdly_many_rows_is_judged_as_fast_as_another():
    config = shipped("config_qlora", gradient_checkpointing=True)
    plan = assess(config | {"micro_batch_size": 1, "gradient_accumulation_steps": 999_983}, data="basic")
    assert plan.setup.accumulation == 999_983
    assert assess(config | {"micro_batch_size": 65_536, "gradient_accumulation_steps": 10**6}).verdict == "does not fit"


def test_an_idle_gpu_is_said_with_what_it_costs_and_filled(tmp_path):
    slow = {"micro_batch_size": 2, "gradient_accumulation_steps": 4, "gradient_checkpointing": True}
    tuned = preflight.plan("configs/config_qlora.yaml", data="documents-basic")
    plan = preflight.assess(tuned.file, tuned.config | slow, tuned.hardware, tuned.data)
    changes = preflight.faster(plan.config, plan.setup, plan.hardware)
    other = preflight.assess(plan.file, recipe.merged(plan.config, changes), plan.hardware, plan.data)
    before, after = plan.budget, other.budget  # compared in the middles of their intervals
    hours, dollars = (sum(before.hours) - sum(after.hours)) / 2, (sum(before.dollars) - sum(after.dollars)) / 2
    said = f"{other.memory.peak:.0f} GB, {hours:.2f} h and ${dollars:,.2f} less"
    assert said in only(plan, "gpu-idle").message
    out = tmp_path / "filled.yaml"
    assert elle(DOCUMENTED / "config_qlora.yaml", "--data", "documents-basic", "--fix", out).exit_code == 0
    assert {key: yaml_files.read_yaml(out).get(key) for key in changes} == changes
    assert "gpu-idle" not in codes(preflight.plan(out))


batches = st.tuples(st.integers(1, 12), st.integers(1, 12))


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(sorted(RECIPES)), st.sampled_from(GPUS), st.sampled_from([1, 2, 8]), batches, st.booleans())
def test_what_is_offered_fits_saves_time_and_keeps_the_batch(name, gpu, count, batch, checkpointing):
    micro, accumulation = batch
    rows = {"micro_batch_size": micro, "gradient_accumulation_steps": accumulation}
    config = shipped(Path(name).stem, gradient_checkpointing=checkpointing, **rows)
    machine, model = hardware.find(gpu, count), qwen("7B")
    before, _ = memory.setup(config, model, machine, recipe.zero(config)[0])
    if changes := preflight.faster(config, before, machine):
        after, _ = memory.setup(recipe.merged(config, changes), model, machine, before.zero)
        assert after.micro * after.accumulation == micro * accumulation
        assert count == 1 or after.micro >= micro  # a smaller one would talk to the others more often
        assert memory.estimate(after).peak * (1 + memory.MARGIN) <= machine.memory_gb
        took, takes = (sum(speed.step(s, machine, s.micro * s.sequence)) for s in (before, after))
        assert takes <= (1 - preflight.IDLE) * took
        assert not preflight.faster(recipe.merged(config, changes), after, machine)


def test_what_axolotl_sets_by_itself_is_planned_so():
    for changes, upcast in CASES["upcast"]:  # embedding, head and norms in fp32
        assert assess(shipped("config", **changes)).setup.upcast is upcast, changes
    for changes, on in CASES["kernels"]:
        assert memory.lora_kernels(shipped("config_qlora", **changes)) is on, changes


@pytest.mark.real
def test_axolotl_itself_switches_the_kernels_on_and_off_so():
    from axolotl.utils.schemas.validation import lora_kernels_auto_enable

    for changes, on in CASES["kernels"]:
        assert lora_kernels_auto_enable(shipped("config_qlora", **changes).get) is on


# Recipes of the project


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_passes_and_its_header_says_what_it_costs(name, monkeypatch):
    monkeypatch.setattr(models, "local_file", lambda *_: None)  # whatever base was made here
    plan = preflight.plan(paths.configs() / name, data=RECIPES[name]["data"])
    assert (plan.verdict, plan.ok) == ("fits", True)
    assert "gpu-idle" not in codes(plan)
    assert f"\n# elle plan: {plan.summary()}\n" in (paths.configs() / name).read_text()


def test_every_recipe_is_listed_a_copy_is_known_by_its_name_and_another_needs_a_gpu(tmp_path):
    named = [path.name for path in paths.configs().glob("*.yaml") if "base_model" in yaml_files.read_yaml(path)]
    assert sorted(named) == sorted(RECIPES)
    assert {f"{name}.yaml" for name in CASES["originals"]} == {path.name for path in DOCUMENTED.glob("*.yaml")}
    copy = Path(shutil.copy(paths.configs() / "config_72b.yaml", tmp_path))
    assert str(preflight.plan(copy).hardware) == "4 x H200 SXM"
    other = copy.rename(tmp_path / "mine.yaml")
    answer = elle(other)
    assert (answer.exit_code, "--gpu" in answer.output) == (2, True)
    assert elle(tmp_path / "missing.yaml").exit_code == 2
    four = ("--gpu", "h200", "--count", "4")
    assert elle(other, *four, "--fix", other).exit_code == 1  # not over what it read
    assert elle(other, *four).exit_code == 0
    assert elle(other, "--gpu", "a10").exit_code == 1
    with pytest.raises(ElleError, match="unknown GPU") as caught:
        preflight.plan(other, gpu="h20")
    assert "h200" in caught.value.fix


# The command


KEYS = {"verdict", "peak_gb", "components_gb", "host_gb", "disk_gb", "hours", "dollars", "tokens", "findings"}


def test_the_json_holds_what_programs_ask_for_and_the_text_bars_intervals_and_what_they_rest_on():
    answer = json.loads(elle("configs/config_72b_8xh200.yaml", "--json").stdout)
    assert answer.keys() >= KEYS | {"dropped_examples"}
    assert answer["hours"].keys() == answer["dollars"].keys() == {"low", "high"}
    for finding in answer["findings"]:
        assert set(finding) == {"code", "severity", "where", "message", "fix"}
    done = elle(DOCUMENTED / "config_72b_8xh200.yaml", "--budget", "50")
    assert done.exit_code == 1
    for part in ("DOES NOT FIT on 8 x H200", "weights        145.4  ███", "|>", "rests on", "dollars a GPU-hour"):
        assert part in done.output
    assert elle("configs/config.yaml", "--budget", "1").exit_code == 1
    assert elle("configs/config.yaml", "--budget", "50").exit_code == 0
    assert "processor" in elle("configs/nano.yaml").output


def test_a_profile_is_planned_by_its_recipes(tmp_path, monkeypatch):
    assert elle("nano").exit_code == 0
    named = {"recipe": "configs/config.yaml", "recipe_2": "configs/config_14b.yaml", "budget": 22.5, "count": 20}
    two = profile.Profile(name="two", summary="", notebooks=[], parameters=named)
    monkeypatch.setattr(profile, "profile_names", lambda: ["two"])
    monkeypatch.setattr(profile, "load_profile", lambda name: two)
    answer = json.loads(elle("two", "--json").stdout)
    assert answer.keys() >= KEYS
    assert [one["recipe"] for one in answer["plans"]] == ["configs/config.yaml", "configs/config_14b.yaml"]
    total = sum(one["dollars"]["high"] for one in answer["plans"])
    assert answer["dollars"]["high"] == pytest.approx(total, abs=0.02)
    over = elle("two", "--budget", "3")
    assert (over.exit_code, "more than $3.00" in over.output) == (1, True)
    assert elle("two", "--fix", str(tmp_path / "x.yaml")).exit_code == 1


@pytest.mark.parametrize(("code", "heavy"), CASES["light"])
def test_planning_and_the_command_import_nothing_heavy(code, heavy):
    code += f"; import sys; print({heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=paths.root(), check=True)
    assert done.stdout.strip() == "set()"


# The nearest recipe that passes


@pytest.mark.parametrize("name", CASES["originals"])
def test_what_is_wrong_with_a_documents_recipe_is_found_and_what_fix_writes_passes(name, tmp_path):
    plan, case = original(name), CASES["originals"][name]
    assert plan.verdict == case["verdict"]
    assert {"sharegpt", *case.get("errors", ())} <= codes(plan, "error")
    assert not set(case.get("absent", ())) & codes(plan)
    out = tmp_path / "corrected.yaml"
    done = elle(DOCUMENTED / f"{name}.yaml", "--fix", out, "--json")
    assert done.exit_code == 0
    again = preflight.plan(out)  # it says itself what it is planned for
    assert again.ok
    entry = RECIPES[f"{name}.yaml"]
    assert (again.hardware.name, again.hardware.count) == (entry["gpu"], entry["count"])
    changes = json.loads(done.stdout)["changes"]
    assert all("->" in change and change.endswith(")") for change in changes)
    before, after = yaml_files.read_yaml(DOCUMENTED / f"{name}.yaml"), yaml_files.read_yaml(out)
    changed = {key for key in before.keys() | after.keys() if before.get(key, "-") != after.get(key, "-")}
    assert changed == {re.split(r"[:[]", change)[0] for change in changes}
    assert after["base_model"] == before["base_model"]
    fixed = case.get("fixed", {})
    assert {key: after.get(key) for key in fixed} == fixed
    assert fix.nearest_recipe(again) == (again, [])


@pytest.mark.parametrize(("micro", "accumulation"), [(7, 1), (5, 1), (7, 2), (6, 3)])
def test_what_fix_makes_smaller_keeps_the_rows_of_a_step(micro, accumulation):
    config = shipped("config_qlora", micro_batch_size=micro, gradient_accumulation_steps=accumulation)
    plan, changes = fix.nearest_recipe(assess(config, gpu="a10", data="basic"))
    assert changes
    assert plan.setup.micro * plan.setup.accumulation == micro * accumulation


@pytest.mark.parametrize("more", [{}, {"sub_group_size": 12345}])
def test_fix_turns_bf16_on_and_keeps_the_files_other_settings(tmp_path, more):
    content = axolotl.read_deepspeed("deepspeed/zero3.json")
    content["zero_optimization"] |= more
    own = tmp_path / "own.json"
    own.write_text(json.dumps(content | {"bf16": {"enabled": "auto"}}))
    plan, changes = fix.nearest_recipe(assess(shipped("config_72b_8xh200", deepspeed=str(own)), count=8))
    assert plan.config["deepspeed"] == (content if more else "deepspeed/zero3.json")  # a shipped file, where it is one
    written = yaml_files.read_yaml(fix.write_recipe(plan, changes, tmp_path / "out.yaml"))
    assert assess(written, count=8).ok


def test_fix_spares_money_by_fewer_epochs_and_says_where_nothing_helps():
    plan, changes = fix.nearest_recipe(original("config_72b_math_nf4_qlora", limit=100))
    assert plan.budget.dollars[1] <= 100
    assert "num_epochs" in {change.key for change in changes}
    for hopeless in (original("config_72b_math_nf4_qlora", limit=5), original("config_72b", gpu="a10")):
        with pytest.raises(ElleError, match="no change of the recipe") as caught:
            fix.nearest_recipe(hopeless)
        assert caught.value.fix


def test_fix_corrects_typing_errors():
    wrong = {"learning_rte": "1e-5", "num_epochs": "many", "micro_batch_size": 10**400, "tf32": [1]}
    config = shipped("config", learning_rate=None, **wrong)
    config["datasets"][0] |= {"pth": 1, "shards": "x"}
    plan, _ = fix.nearest_recipe(assess(config, count=2))
    assert plan.ok
    assert plan.config["learning_rate"] == "1e-5"
    assert plan.setup.micro * plan.setup.accumulation == config["gradient_accumulation_steps"]  # one at a time was idle
    assert not {"num_epochs", "tf32", "learning_rte"} & set(plan.config)
    assert "pth" not in plan.config["datasets"][0]


@pytest.mark.real
def test_axolotl_and_deepspeed_accept_the_recipes_and_what_fix_writes_and_reject_the_originals(tmp_path):
    good = [paths.configs() / name for name in RECIPES]
    originals = sorted(DOCUMENTED.glob("*.yaml"))
    for path in originals:
        plan, changes = fix.nearest_recipe(preflight.plan(path))
        good.append(fix.write_recipe(plan, changes, tmp_path / path.name))
    for path in (paths.root() / "deepspeed").glob("*.json"):  # those that no recipe names, too
        good.append(tmp_path / f"{path.stem}.yaml")
        config = shipped("config_72b_8xh200", deepspeed=str(path), optimizer="adamw_torch_fused")
        good[-1].write_text(yaml.safe_dump(config))
    bad, wrong = tmp_path / "bad.json", tmp_path / "wrong.yaml"
    bad.write_text('{"zero_optimization": {"stage": 2, "bucket": 1}}')
    wrong.write_text(yaml.safe_dump(yaml_files.read_yaml(good[0]) | {"deepspeed": str(bad)}))
    for plan in preflight.ask_trainer([preflight.plan(path, gpu="h200") for path in (*good, *originals, wrong)]):
        rejected = [f for f in plan.findings if f.code.endswith("-rejects")]
        if plan.file in good:
            assert not rejected, plan.file.name
        elif plan.file == wrong:
            assert {"deepspeed-rejects", "deepspeed-file"} <= codes(plan)  # found without asking, too
        else:
            assert "sharegpt" in rejected[0].message, plan.file.name


def test_a_text_that_looks_like_a_number_stays_one_when_it_is_written(tmp_path):
    """`0E0` was written without quotation marks, and read as 0.0."""
    config = {"hub_model_id": "0E0", "base_model": "1e-5", "output_dir": ".5", "learning_rate": 1e-5, "seed": 42}
    (tmp_path / "x.yaml").write_text(yaml_files.dump(config))
    assert yaml_files.read_yaml(tmp_path / "x.yaml") == config


# Anything thrown at it


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
leaves |= st.integers(1, 4).map(lambda power: 10 ** (power * 300)) | st.sampled_from([*CASES["values"], "x" * 5000])
small = st.text(max_size=6)
values = st.recursive(leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(small, v, max_size=3), max_leaves=6)
zero_sections = st.fixed_dictionaries(
    {}, optional={"stage": st.integers(0, 3) | values, "offload_optimizer": values, "offload_param": values}
)
deepspeed_files = st.fixed_dictionaries(
    {}, optional={"zero_optimization": zero_sections | values, "activation_checkpointing": values, "bf16": values}
)
telling = st.sampled_from(CASES["keys"])
keys = telling | st.sampled_from(sorted(axolotl.axolotl_schema()["keys"])) | st.text(max_size=8)
files = st.sampled_from([*CASES["files"], "[" * 9999, "lora_r: 0x" + "f" * 6000]) | values.map(yaml.dump)


def judged(plan: preflight.Plan) -> None:
    json.dumps(plan.to_json(), allow_nan=False)
    assert plan.text()
    assert plan.summary()
    try:
        fixed, changes = fix.nearest_recipe(plan)
    except ElleError:
        return
    assert fixed.ok
    with tempfile.TemporaryDirectory() as folder:
        written = fix.write_recipe(fixed, changes, Path(folder) / "fixed.yaml")
        assert preflight.plan(written).ok or not fixed.data


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["config.yaml", "config_72b_qlora.yaml", "config_72b.yaml", "nano.yaml"]),
    st.dictionaries(keys, values, max_size=6),
    st.just({}) | st.fixed_dictionaries({"deepspeed": deepspeed_files}),
    st.lists(telling, max_size=4),
    st.sampled_from([1, 2, 8]),
    st.sampled_from([None, "basic", "documents-cic"]),
    st.sampled_from([None, 0.0, 50.0]),
)
def test_any_recipe_ends_in_findings(name, changed, deepspeed, missing, count, data, limit):
    config = yaml_files.read_yaml(paths.configs() / name) | changed | deepspeed
    config = {key: value for key, value in config.items() if key not in missing}
    judged(assess(config, count=count, data=data, limit=limit))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60) | (st.text(max_size=60) | files).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_file_ends_in_findings_or_an_error(tmp_path, content):
    path = tmp_path / "any.yaml"
    path.write_bytes(content)
    with contextlib.suppress(ElleError):
        judged(preflight.plan(path, gpu="h200", data="basic"))
    bad = tmp_path / "any.json"
    bad.write_bytes(content)
    config = yaml_files.read_yaml(paths.configs() / "config.yaml") | {"deepspeed": str(bad)}
    judged(assess(config, count=2))
