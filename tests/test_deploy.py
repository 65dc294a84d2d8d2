"""A deployment: what is refused and why, and what it is rendered to."""

import itertools
import json
import shlex

import pytest
from click.testing import CliRunner

from elle.base import paths, storage, yaml_files
from elle.base.errors import ElleError
from elle.plan import hardware, models
from elle.serving import deployments
from elle.serving.deployments import Deployment
from helpers import cli

FILE = "configs/vllm_deploy.json"
REFUSALS = yaml_files.read_yaml(paths.root() / "tests" / "fixtures" / "refusals.yaml")


def adapter(folder, rank=64, base="x"):
    storage.write_json(folder / "adapter_config.json", {"r": rank, "base_model_name_or_path": str(base)})
    return folder


def base(folder):
    shape = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
    shape |= {"intermediate_size": 384, "vocab_size": 640, "tie_word_embeddings": True}
    storage.write_json(folder / "config.json", shape)
    return folder


# What is refused


@pytest.mark.parametrize(("changes", "what", "fix"), REFUSALS["deployments"])
def test_a_faulty_file_is_refused_with_the_key(tmp_path, changes, what, fix):
    file = tmp_path / "d.json"
    with pytest.raises(ElleError, match="no such file"):
        deployments.load_deployment(file)
    content = storage.read_json(paths.root() / FILE) | changes
    storage.write_json(file, {key: value for key, value in content.items() if value is not None})
    with pytest.raises(ElleError) as caught:
        deployments.load_deployment(file)
    assert what in str(caught.value)
    assert fix in caught.value.fix
    assert caught.value.where == str(file)
    storage.write_json(file, [])
    with pytest.raises(ElleError, match="no JSON object"):
        deployments.load_deployment(file)


def test_an_adapters_rank_sets_the_room_for_it_and_one_that_cannot_be_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    adapter(tmp_path / "b", 600)
    both = {"model_id": "x", "enable_lora": True, "adapters": {"a": str(adapter(tmp_path / "a", 64))}}
    for changes, what, fix in REFUSALS["adapters"]:
        with pytest.raises(ElleError, match=what) as caught:
            deployments.lora_rank(Deployment(**both | changes))
        assert fix in caught.value.fix
    assert deployments.lora_rank(Deployment(**both | {"adapters": {"a": "some/one"}, "max_lora_rank": 128})) == 128
    for rank, reserved in ((1, 1), (2, 8), (16, 16), (17, 32), (300, 320)):
        adapter(tmp_path / "a", rank)
        assert deployments.lora_rank(Deployment(**both)) == reserved


def test_the_allowed_ranks_are_vllms_own():
    """Read from its source: the CPU server's environment cannot be imported from here."""
    import ast
    import re

    found = list(paths.server_python().parent.parent.glob("lib/*/site-packages/vllm/config/lora.py"))
    if not found:
        pytest.skip("the CPU server's environment is missing: run `make setup`")
    listed = re.search(r"MaxLoRARanks = Literal(\[[^]]+\])", found[0].read_text())
    assert tuple(ast.literal_eval(listed[1])) == deployments.RANKS


@pytest.mark.parametrize(("changes", "what", "fix"), REFUSALS["fits"])
def test_what_does_not_fit_or_cannot_be_spread_or_is_too_short_is_refused_with_what_would(changes, what, fix):
    with pytest.raises(ElleError, match=what) as caught:
        deployments.check_fit(Deployment(**{"model_id": "Qwen/Qwen2.5-7B", "gpu": "h100"} | changes))
    assert fix in (caught.value.fix or "")


def test_memory_is_counted_as_published():
    """Qwen2.5-72B: 80 layers, 8 key-value heads of 128, bf16: 327,680 bytes a token; 145.4 GB of weights."""
    deployment = Deployment(model_id="Qwen/Qwen2.5-72B", gpu="h200", gpus=4)
    found = deployments.check_fit(deployment)
    assert 4 * found.weights == pytest.approx(145.4, abs=0.1)
    assert found.tokens == pytest.approx(1e9 * found.cache / (327_680 / 4), rel=1e-4)
    assert found.usable == pytest.approx(0.9 * 150.75)
    assert found.weights + found.adapters + found.working + found.cache == pytest.approx(found.usable)
    with_lora = deployments.check_fit(deployment.model_copy(update={"enable_lora": True, "max_lora_rank": 64}))
    assert with_lora.adapters == pytest.approx(2e-9 * models.find("Qwen/Qwen2.5-72B").lora(64))
    for model, gpu, gpus in (("Qwen/Qwen2.5-72B", "h200", 2), ("qwen-72b-math-int4", "a100", 1)):
        assert deployments.check_fit(Deployment(model_id=model, gpu=gpu, gpus=gpus, max_model_len=4096)).sequences >= 1
    assert deployments.check_fit(Deployment(model_id="some/unknown-model", gpu="h100")) is None
    deployments.check_fit(deployments.load_deployment(FILE).model_copy(update={"max_model_len": 2048, "data": "cic"}))


def test_a_models_own_code_is_refused_until_it_is_asked_for(tmp_path):
    storage.write_json(tmp_path / "tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["mine.Mine", None]}})
    command = ["serve", "--check", str(base(tmp_path)), "--json"]
    refused = CliRunner().invoke(cli.cli, command).exception
    assert all(part in str(refused) for part in ("auto_map", "tokenizer_config.json", "elle serve --trust-remote-code"))
    asked = json.loads(CliRunner().invoke(cli.cli, [*command, "--trust-remote-code"]).output)
    assert ("--trust-remote-code" in asked["command"], asked["worker"]["TRUST_REMOTE_CODE"]) == (True, "true")


# What is served here


def test_a_model_is_found_by_folder_by_run_and_by_adapter_which_is_served_with_its_base_beside_it(tmp_path):
    """A run whose recipe is QLoRA has no whole model: its weights could not be served."""
    run = paths.runs() / "r"
    weights, lora = base(run / "train" / "n" / "weights"), adapter(run / "train" / "q" / "weights")
    metrics = {"weights": "train/n/weights", "adapter": "train/q/weights/merged"}
    storage.write_json(run / "manifests" / "05_train.json", {"metrics": metrics})
    assert deployments.resolve(weights) == (weights.resolve(), {})
    assert deployments.resolve("r") == (weights.resolve(), {"adapter": lora.resolve()})
    for said in ({}, [], {"metrics": []}, {"metrics": {"weights": 7}}, {"metrics": {"weights": ""}}):
        storage.write_json(paths.runs() / "odd" / "manifests" / "05_train.json", said)
        with pytest.raises(ElleError, match="this run does not say where its weights are"):
            deployments.resolve("odd")
    on_top = adapter(tmp_path / "lora", 20, weights)
    assert deployments.resolve(on_top) == (weights.resolve(), {"": on_top.resolve()})
    for name, what in (("r2", "no such model folder, or run"), (tmp_path, r"no config\.json")):
        with pytest.raises(ElleError, match=what):
            deployments.resolve(name)
    with pytest.raises(ElleError, match="which model it is for"):
        deployments.resolve(adapter(tmp_path / "lost", 8, ""))
    found = deployments.for_this_machine(Deployment(model_id=str(on_top)))
    assert (found.served_name, found.model_id) == ("elle-base", str(weights.resolve()))
    assert found.adapters == {"elle": str(on_top.resolve())}
    *before, flag, module = deployments.render_command(found)
    assert (flag, json.loads(module)) == ("--lora-modules", {"name": "elle", "path": str(on_top)})
    assert "32" in before


def test_a_machine_serves_over_as_few_of_its_gpus_as_it_takes(tmp_path, monkeypatch):
    shape = {"hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8}
    shape |= {"intermediate_size": 29568, "vocab_size": 152064}
    storage.write_json(tmp_path / "config.json", shape)
    monkeypatch.setattr(deployments, "_here", lambda: hardware.find("h200", 8))
    assert deployments.for_this_machine(Deployment(model_id=str(tmp_path))).gpus == 2
    assert deployments.for_this_machine(Deployment(model_id=str(base(tmp_path / "nano")))).gpus == 1
    monkeypatch.setattr(deployments, "_here", lambda: hardware.find("cpu"))
    with pytest.raises(ElleError, match="of memory on a CPU"):
        deployments.for_this_machine(Deployment(model_id=str(tmp_path)))


# What it is rendered to


def test_one_deployment_is_a_command_here_and_an_environment_on_runpod(tmp_path):
    deployment = deployments.load_deployment(FILE)
    deployment = deployments.with_adapters(deployment, [f"a={adapter(tmp_path)}", "b=us/er"])
    command, worker = deployments.render_command(deployment), deployments.render_worker(deployment)
    pairs = dict(itertools.pairwise(command))
    assert pairs["--model"] == worker["MODEL_NAME"] == "Qwen/Qwen2.5-3B-Instruct"
    assert pairs["--served-model-name"] == worker["OPENAI_SERVED_MODEL_NAME_OVERRIDE"] == "elle"
    for flag in ("max-model-len", "gpu-memory-utilization", "tensor-parallel-size", "max-lora-rank", "max-loras"):
        assert pairs[f"--{flag}"] == worker[flag.replace("-", "_").upper()]
    assert worker["ENABLE_LORA"] == "true"
    assert json.loads(worker["STRUCTURED_OUTPUTS_CONFIG"])["disable_any_whitespace"] is True
    modules = command[command.index("--lora-modules") + 1 :]
    assert [json.loads(text)["name"] for text in modules] == ["a", "b"]
    assert shlex.split(worker["VLLM_EXTRA_ARGS"]) == ["--lora-modules", *modules]
    assert all(isinstance(value, str) for value in worker.values())
    endpoint = deployments.render_endpoint(deployment)
    assert endpoint["gpu"] == {"id": "NVIDIA H100 80GB HBM3", "count": 1}
    assert endpoint["workers"] == {"min": 0, "max": 3, "idleTimeout": 60}
    with pytest.raises(ElleError, match="unknown RunPod GPU 'a10'"):
        deployments.render_endpoint(deployment.model_copy(update={"gpu": "a10"}))
    with pytest.raises(ElleError, match="is no adapter"):
        deployments.with_adapters(deployment, ["a"])


def test_the_command_checks_without_starting_anything():
    def elle(*arguments):
        return CliRunner().invoke(cli.cli, ["serve", *arguments])

    done = elle("--check", "--config", FILE, "--json")
    assert done.exit_code == 0
    assert set(json.loads(done.output)) == {"command", "worker", "endpoint", "memory"}
    done = elle("--check", "--config", FILE, "Qwen/Qwen2.5-72B-Instruct", "--max-model-len", "5000")
    assert isinstance(done.exception, ElleError)
    assert "2 x H200" in done.exception.fix
    assert "give MODEL_OR_RUN" in elle().output
    assert not paths.runs().exists()
