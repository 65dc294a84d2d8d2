"""Shared by all tests: runs go to a folder of their own, and the smallest real model is made once."""

import signal
import socket

import pytest
import qwen_tokens
from contract import Server
from contract.hub import Hub

from elle.base import paths, yaml_files
from elle.briefings import dataset
from elle.training import launch, nano

# In the background of a script SIGINT is ignored, and so it would be in every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_runs(tmp_path, monkeypatch, request):
    """No test writes into the user's runs; an owner left by `elle run` must not bind a test's jobs."""
    for name in ("ELLE_OWNER", "ELLE_API_KEY", "ELLE_API_URL"):
        monkeypatch.delenv(name, raising=False)
    if "ELLE_RUNS" not in request.fixturenames:
        monkeypatch.setenv("ELLE_RUNS", str(tmp_path / "runs"))


@pytest.fixture
def loopback_only(monkeypatch):
    """Fails the test if it connects to any other machine."""
    elsewhere, connect = [], socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            elsewhere.append(address)
            raise OSError(f"no test goes to {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    yield
    assert not elsewhere


@pytest.fixture(scope="session")
def small_data(tmp_path_factory):
    """A real data set of 200 examples."""
    folder = tmp_path_factory.mktemp("data")
    dataset.build("basic", 200, 7, folder)
    return folder


@pytest.fixture(scope="session")
def small_base(tmp_path_factory, small_data):
    """A real, untrained Qwen2 of the smoke profile's size, with its tokenizer."""
    folder = tmp_path_factory.mktemp("model") / "base"
    nano.resolve_base("configs/smoke_base.yaml", small_data / "train.jsonl", folder)
    return folder


@pytest.fixture(scope="session")
def qwen_base(tmp_path_factory):
    """A folder that the planner takes for a Qwen2.5: its tokenizer, and nothing else."""
    return qwen_tokens.save(tmp_path_factory.mktemp("model") / "qwen")


@pytest.fixture
def hub():
    """A Hub in memory, behind a server of its own: `hub.server`."""
    service = Hub()
    with Server(service) as service.server:
        yield service


@pytest.fixture(scope="session")
def prepare(small_data, small_base):
    """`launch.prepare` of the smoke recipe on the small data and base: prepare(parent, **what to change)."""

    def make(parent, **changes):
        options = {
            "recipe_file": "configs/smoke.yaml",
            "base_model": small_base,
            "train": small_data / "train.jsonl",
            "validation": small_data / "validation.jsonl",
        } | changes
        return launch.prepare(options.pop("recipe_file"), parent, **options)

    return make


@pytest.fixture(scope="session")
def changed_recipe():
    """A recipe with other values (None: without the key): changed_recipe(path, **changes), of configs/smoke.yaml."""

    def make(path, recipe="configs/smoke.yaml", **changes):
        content = yaml_files.read_yaml(paths.root() / recipe) | changes
        path.write_text(yaml_files.dump({key: value for key, value in content.items() if value is not None}))
        return path

    return make


@pytest.fixture(scope="session")
def trained(prepare, tmp_path_factory):
    """The smoke recipe, really trained, without a break."""
    prepared = prepare(tmp_path_factory.mktemp("trained"))
    return launch.follow(prepared, launch.start_training(prepared))


@pytest.fixture(scope="session")
def small_adapter(small_base, tmp_path_factory):
    """A LoRA adapter of rank 8 on the small base, of random weights: what it serves differs from the base."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("model") / "adapter"
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(small_base), lora)
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data = torch.randn(weight.shape, generator=generator)
    model.save_pretrained(folder)
    return folder
