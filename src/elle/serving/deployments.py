"""A deployment as data (`configs/vllm_deploy.json`): checked, then rendered to what really runs.

The same flags become vLLM's command line here and the environment of RunPod's vLLM worker, which turns each upper-cased
flag back into the flag. Units: GB = 1e9 bytes; lengths in tokens.
"""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from elle.base import machine, paths, storage
from elle.base.errors import ElleError, unknown
from elle.base.yaml_files import config_table, validated
from elle.plan import budget, hardware, models
from elle.plan.hardware import Hardware

#: The ranks that vLLM reserves room for (vllm.config.lora, MaxLoRARanks).
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
#: GPUs that a model is spread over.
COUNTS = (1, 2, 4, 8)

# JSON under a schema is written compactly, as the training answers are: with white space left free, which is vLLM's
# default, a weak model fills the answer with it and never ends. `guidance` because the other backend's compact form has
# a blank after each comma and colon, which those answers have not; both are equally fast (2,050 tokens/s).
STRUCTURED = json.dumps({"backend": "guidance", "disable_any_whitespace": True})

#: vLLM's key-value cache on a CPU, in GiB: half a million tokens of a nano model.
CPU_CACHE = 1
TRUST = "`elle serve --trust-remote-code` runs it all the same"  # the model's own code
#: Tokens that vLLM works on in one step (max_num_batched_tokens), at most.
BATCHED = 8192
#: CUDA's context and NCCL's buffers of a server.
CONTEXT = 1.5e9
#: Host memory that vLLM takes on a CPU beside weights and cache: torch, the engine, the HTTP server.
CPU_PROCESS = 3e9


class Scaling(BaseModel):
    """Workers of a serverless endpoint. idle_timeout: seconds until an idle one ends; target_queue_delay: seconds that
    a request may wait before another worker starts."""

    model_config = ConfigDict(extra="forbid", strict=True)

    min_workers: int = Field(0, ge=0)
    max_workers: int = Field(3, ge=1)
    idle_timeout: int = Field(60, ge=1, le=3600)
    target_queue_delay: int = Field(2, ge=1)


class Deployment(BaseModel):
    """What is served, how, and on what."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model_id: str = Field(min_length=1)  # a folder, or a model of the Hugging Face Hub
    served_name: str = Field("elle", min_length=1)  # its name in requests
    enable_lora: bool = False
    adapters: dict[str, str] = {}  # name in requests → folder, or adapter of the Hub
    max_lora_rank: int | None = None  # None: that of the adapters, read from their adapter_config.json
    max_model_len: int = Field(1024, ge=1)  # prompt and answer together
    max_num_seqs: int = Field(32, ge=1)  # requests worked on at once; the others wait
    gpu_memory_utilization: float = Field(0.9, gt=0, lt=1)
    gpu: str = ""  # of configs/gpus.yaml; empty: this machine's
    gpus: int = Field(1, ge=1)  # the model is spread over so many (tensor parallelism)
    data: str = ""  # what it is to answer: a set of configs/recipes.yaml, a JSONL file or a data set's folder
    scaling: Scaling = Scaling()
    trust_remote_code: bool = False  # run Python files that the model's folder or repository brings


@dataclass(frozen=True)
class Fit:
    """Memory in GB of each GPU (of the host, on a CPU): what vLLM may use, and what goes to what; `tokens` fit into
    the key-value cache, which are `sequences` requests of full length."""

    usable: float
    weights: float
    adapters: float
    working: float
    cache: float
    tokens: int
    sequences: float

    def __str__(self) -> str:
        return (
            f"{self.weights:.1f} GB of weights, {self.adapters:.1f} of adapters, {self.working:.1f} to work with, of "
            f"{self.usable:.1f}; a key-value cache of {self.cache:.1f} GB holds {self.tokens:,} tokens "
            f"({self.sequences:,.0f} requests of full length)"
        )


def refuse_guided(name: str, where: str) -> None:
    """Raises an ElleError for `guided_json` and its kin."""
    if name.startswith("guided_"):
        raise ElleError(
            f"{name} does nothing: current vLLM accepts the field, answers 200 and constrains nothing",
            where=where,
            fix="constrain by response_format with json_schema: `ask(..., schema=...)`, `elle evaluate --constrained`",
        )


def load_deployment(path: Path | str, given: Mapping[str, Any] | None = None) -> Deployment:
    """Read a deployment file; what is `given` (and not None) stands in place of its values.

    Raises:
        ElleError: it is not a JSON object, it would run code of the model's, and that is not `given`, or as `made`.
    """
    path = paths.located(path)
    if not path.is_file():
        raise ElleError("there is no such file", where=str(path), fix="configs/vllm_deploy.json is an example")
    content = storage.read_json(path)
    if not isinstance(content, dict):
        raise ElleError("not a deployment: no JSON object", where=str(path), fix="see configs/vllm_deploy.json")
    given = {key: value for key, value in (given or {}).items() if value is not None}
    if content.get("trust_remote_code") and not given.get("trust_remote_code"):
        what, fix = "trust_remote_code runs code of the model's repository", f"remove it; {TRUST}"
        raise ElleError(what, where=str(path), fix=fix)
    return made(content | given, str(path))


def made(content: Mapping[str, Any], where: str) -> Deployment:
    """A deployment of these values; None stands for the default.

    Raises:
        ElleError: a key is unknown (with the nearest), missing, or of a wrong value.
    """
    for key in content:
        refuse_guided(key, where)
    given = {key: value for key, value in content.items() if value is not None or key not in Deployment.model_fields}
    return validated(Deployment, given, "deployment", where, "docs/serving.md says what each key takes")


def with_adapters(deployment: Deployment, named: Sequence[str]) -> Deployment:
    """The deployment with adapters given as NAME=PATH.

    Raises:
        ElleError: one that is not of this form.
    """
    given = {}
    for text in named:
        name, _, place = text.partition("=")
        if not name or not place:
            raise ElleError(f"{text!r} is no adapter", where="--adapter", fix="NAME=PATH, such as elle-lora=runs/x")
        given[name] = place
    changes = {"enable_lora": True, "adapters": deployment.adapters | given} if given else {}
    return deployment.model_copy(update=changes)


# ---- what is served


def resolve(model: Path | str) -> tuple[Path, dict[str, Path]]:
    """The folder of a model's weights, and the adapters that go with it by name.

    Args:
        model: a folder; the id of a run (its weights, and its adapter as "adapter"); or a model of the Hub that is in
            this machine's cache. A folder that holds an adapter stands for its base, with the adapter as "".

    Raises:
        ElleError: there is nothing of that name, or its weights are not here.
    """
    folder, run = Path(model).expanduser(), paths.runs() / str(model)
    if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        if (manifest := run / "manifests" / "05_train.json").is_file():
            try:
                training = storage.read_json(manifest)["metrics"]
                inside, merged = run / (training["weights"] or None), training.get("adapter")
            except (AttributeError, KeyError, TypeError) as error:
                what, fix = "this run does not say where its weights are", "run notebook 05 again"
                raise ElleError(what, where=str(manifest), fix=fix) from error
            weights, adapters = resolve(inside)
            if merged:  # made from the adapter in whose folder it lies
                adapters = adapters | {"adapter": (run / merged).resolve().parent}
            return weights, adapters
        folder = _cached(str(model)) or folder
    if (folder / "config.json").is_file():
        return folder.resolve(), {}
    if not (folder / "adapter_config.json").is_file():
        what = "the model's folder has no config.json" if folder.is_dir() else "there is no such model folder, or run"
        fix = "train it (`elle run nano`), or download it (`hf download NAME`), first; then give the folder of weights"
        raise ElleError(what, where=str(folder), fix=fix)
    base = str(_adapter_config(folder).get("base_model_name_or_path") or "")
    if not base or (Path(base) / "adapter_config.json").is_file():
        raise ElleError("this adapter does not say which model it is for", where=str(folder), fix="merge it first")
    return resolve(base)[0], {"": folder.resolve()}


def _cached(name: str) -> Path | None:
    """The folder of a Hub model in this machine's cache; nothing is downloaded."""
    if name.count("/") != 1 or Path(name).is_absolute() or Path(name).exists():
        return None
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, local_files_only=True))
    except (ImportError, OSError, ValueError):
        return None


def _adapter_config(folder: Path) -> dict:
    file = folder / "adapter_config.json"
    if not file.is_file():
        fix = "give the folder with adapter_config.json"
        raise ElleError("this folder holds no adapter", where=str(folder), fix=fix)
    return storage.read_json(file)


def lora_rank(deployment: Deployment) -> int:
    """The room to reserve for adapters: the smallest rank that vLLM allows and all of them fit into.

    Raises:
        ElleError: adapters without enable_lora; one whose rank is not known here, or is above what is allowed.
    """
    given, ranks = deployment.max_lora_rank, {}
    if deployment.adapters and not deployment.enable_lora:
        raise ElleError("adapters are named, and enable_lora is false", where="enable_lora", fix="set it to true")
    if given is not None and given not in RANKS:
        allowed = ", ".join(map(str, RANKS))
        raise ElleError(f"max_lora_rank is {given}", where="max_lora_rank", fix=f"vLLM allows {allowed}")
    for name, place in deployment.adapters.items():
        if name == deployment.served_name:
            raise ElleError(f"adapter and model are both called {name!r}", where="adapters", fix="rename one of them")
        folder = _cached(place) or (Path(place) if Path(place).exists() or place.count("/") != 1 else None)
        if folder is not None:
            ranks[name] = int(_adapter_config(folder).get("r") or 8)
        elif given is None:
            fix = "set max_lora_rank to its `r`, or download it first"
            raise ElleError(f"the rank of adapter {name!r} is not known here", where="max_lora_rank", fix=fix)
    name = max(ranks, key=ranks.__getitem__, default="")
    highest, most = ranks.get(name, given or 16), given or RANKS[-1]
    reserved = next((rank for rank in RANKS if rank >= highest), 0)
    if highest > most:
        fix = f"set it to {reserved}, or leave it out" if reserved else "merge it into its base"
        raise ElleError(f"adapter {name!r} has rank {highest}: more than {most}", where="max_lora_rank", fix=fix)
    return given or reserved


# ---- whether it can be


def check_fit(deployment: Deployment, on: Hardware | None = None) -> Fit | None:
    """Whether a deployment can run: its adapters, its length against the data's, its memory against the GPU's.

    Args:
        on: the hardware; by default the deployment's own GPUs, or else this machine.

    Returns:
        What goes where; None where nothing says how large the model is.

    Raises:
        ElleError: it cannot, with what would.
    """
    lora_rank(deployment)
    if not deployment.trust_remote_code and (file := models.own_code(deployment.model_id)):
        what = "this model brings code of its own (auto_map), which trust_remote_code would run"
        raise ElleError(what, where=str(file), fix=f"serve a model that vLLM knows without; {TRUST}")
    if deployment.scaling.max_workers < deployment.scaling.min_workers:
        raise ElleError("max_workers is less than min_workers", where="scaling", fix="raise max_workers")
    if deployment.data:
        data = budget.find_data(deployment.data, deployment.model_id)
        longest = max(data.lengths)
        if longest > deployment.max_model_len:
            raise ElleError(
                f"the longest prompt and answer have {longest:,} tokens together, and max_model_len is "
                f"{deployment.max_model_len:,} ({data.source})",
                where="max_model_len",
                fix=f"set it to {-(-longest // 512) * 512:,} or more",
            )
    if on is None:
        on = hardware.find(deployment.gpu, deployment.gpus) if deployment.gpu else _here()
    if (model := _model(deployment)) is None:
        return None
    fit = _fit(deployment, model, on)
    if fault := _fault(deployment, model, on):
        options = []
        for kind, row in config_table("gpus")["gpus"].items():
            of_kind = hardware.find(kind, COUNTS[-1] if row.get("nvlink") else 1)
            if not of_kind.is_cpu and (count := _fewest(deployment, model, of_kind)):
                dollars = hardware.hourly(other := hardware.find(kind, count))[0]
                options.append((dollars, f"{other} (from ${dollars:.2f} an hour)"))
        would = [text for _, text in sorted(options)[:3]]
        if 0 < fit.tokens < deployment.max_model_len:
            would.append(f"max_model_len of at most {fit.tokens:,}")
        fix = f"what would fit: {'; '.join(would)}" if would else "a smaller or a quantised model"
        raise ElleError(fault, where="gpu, gpus, max_model_len", fix=fix)
    return fit


def _here() -> Hardware:
    return hardware.here(machine.inspect(paths.root()), hardware.DISK_GB)


def _model(deployment: Deployment) -> models.Model | None:
    try:
        return models.find(deployment.model_id)
    except ElleError:  # a config.json of another kind of model: vLLM may well know it
        return None


def _fit(deployment: Deployment, model: models.Model, on: Hardware) -> Fit:
    """What goes where in the memory of each of `deployment.gpus` GPUs of this kind (or in the host's).

    Weights are split among the GPUs, and so are the key-value heads (as far as there are any); of one step's
    activations a layer's are alive at a time, and the logits of each request in fp32.
    """
    slots = len(deployment.adapters) or 1
    lora = 2.0 * model.lora(lora_rank(deployment)) * slots if deployment.enable_lora else 0.0
    if on.is_cpu:
        usable, weights, per_token = 1e9 * on.host_gb, 4.0 * model.parameters, 2.0 * model.kv_cache_bytes()
        lora, working, cache = 2 * lora, CPU_PROCESS, CPU_CACHE * 2.0**30
    else:
        n = deployment.gpus
        usable = 1e9 * on.memory_gb * deployment.gpu_memory_utilization
        weights, per_token = model.stored_bytes / n, model.kv_cache_bytes() / min(n, model.kv_heads)
        working = CONTEXT + 2 * BATCHED * (3 * model.ffn / n + 4 * model.hidden)
        working += 4 * deployment.max_num_seqs * model.vocab
        cache = usable - weights - lora - working
    tokens = max(0, math.floor(cache / per_token))
    parts = (usable, weights, lora, working, max(0.0, cache))
    return Fit(*(part / 1e9 for part in parts), tokens, tokens / deployment.max_model_len)


def _fault(deployment: Deployment, model: models.Model, on: Hardware) -> str:
    """Why a model cannot be served so, "" where it can."""
    n, name, fit = deployment.gpus, deployment.model_id, _fit(deployment, model, on)
    needed = fit.weights + fit.adapters + fit.working + (fit.cache if on.is_cpu else 0)
    if on.is_cpu:
        if needed > fit.usable:
            return f"{name} needs {needed:.1f} GB of memory on a CPU, and this machine has {fit.usable:.1f}"
    elif n > on.count:
        return f"{n} GPUs are asked for, and there are {on.count}"
    elif model.heads % n or (model.kv_heads % n and n % model.kv_heads):
        return f"{model.heads} heads with {model.kv_heads} key-value heads cannot be spread over {n} GPUs"
    elif needed > fit.usable:
        return (
            f"{name} does not fit {n} x {on.title}: {fit.weights:.1f} GB of weights and "
            f"{fit.adapters + fit.working:.1f} GB to work with, of {fit.usable:.1f} GB that vLLM may use on each"
        )
    if fit.tokens < deployment.max_model_len:
        return (
            f"the key-value cache holds {fit.tokens:,} tokens beside {name}, less than one request of "
            f"{deployment.max_model_len:,}"
        )
    return ""


def _fewest(deployment: Deployment, model: models.Model, on: Hardware) -> int | None:
    """As few of these GPUs as the model fits on; None: not even on all of them."""
    tries = {n: deployment.model_copy(update={"gpus": n}) for n in COUNTS if n <= on.count}
    return next((n for n, changed in tries.items() if not _fault(changed, model, on)), None)


def for_this_machine(deployment: Deployment) -> Deployment:
    """The deployment as it can run on this machine: its model and adapters as folders, over as few GPUs as it fits on.

    Raises:
        ElleError: a model or adapter that is not here; it does not fit, with what would.
    """
    folder, own = resolve(deployment.model_id)
    adapters = {name: str(_cached(place) or place) for name, place in deployment.adapters.items()}
    name = deployment.served_name
    if "" in own:  # the model is an adapter: its name is the adapter's, and the base has one beside it
        own, name = {name: own[""]}, f"{name}-base"
    adapters = {each: str(place) for each, place in own.items()} | adapters
    changes = {"model_id": str(folder), "adapters": adapters, "enable_lora": deployment.enable_lora or bool(adapters)}
    deployment = deployment.model_copy(update=changes | {"served_name": name})
    on, model = _here(), _model(deployment)
    most = max(n for n in COUNTS if n <= on.count)
    gpus = 1 if model is None else _fewest(deployment, model, on) or most
    deployment = deployment.model_copy(update={"gpus": gpus})
    check_fit(deployment, on)
    return deployment


# ---- what runs


def _flags(deployment: Deployment) -> dict[str, Any]:
    """vLLM's flags, by name: a value, a list of them, or True for a flag that takes none."""
    flags: dict[str, Any] = {
        "model": deployment.model_id,
        "served-model-name": deployment.served_name,
        "max-model-len": deployment.max_model_len,
        "max-num-seqs": deployment.max_num_seqs,
        "gpu-memory-utilization": deployment.gpu_memory_utilization,
        "tensor-parallel-size": deployment.gpus,
        "structured-outputs-config": STRUCTURED,
    }
    if deployment.trust_remote_code:
        flags["trust-remote-code"] = True
    if deployment.enable_lora:
        slots = max(1, len(deployment.adapters))
        flags |= {"enable-lora": True, "max-loras": slots, "max-lora-rank": lora_rank(deployment)}
        if deployment.adapters:
            modules = ({"name": name, "path": place} for name, place in deployment.adapters.items())
            flags["lora-modules"] = list(map(json.dumps, modules))
    return flags


def render_command(deployment: Deployment) -> list[str]:
    """The arguments with which vLLM serves it here (the rest of the command is `server`'s)."""
    words = []
    for name, value in _flags(deployment).items():
        values = [] if value is True else value if isinstance(value, list) else [str(value)]
        words += [f"--{name}", *values]
    return words


def render_worker(deployment: Deployment) -> dict[str, str]:
    """The environment of RunPod's vLLM worker (runpod-workers/worker-vllm) that serves it; no secrets are in it."""
    names = {"model": "MODEL_NAME", "served-model-name": "OPENAI_SERVED_MODEL_NAME_OVERRIDE"}
    flags, worker = _flags(deployment), {}
    if modules := flags.pop("lora-modules", None):
        # The worker documents LORA_MODULES as a JSON list; it hands that on as one word, and vLLM's parser refuses it.
        worker["VLLM_EXTRA_ARGS"] = shlex.join(["--lora-modules", *modules])
    for name, value in flags.items():
        worker[names.get(name, name.replace("-", "_").upper())] = "true" if value is True else str(value)
    # The worker hands on so many requests at once; vLLM queues what is beyond its own number.
    return worker | {"MAX_CONCURRENCY": str(deployment.max_num_seqs)}


def render_endpoint(deployment: Deployment) -> dict[str, Any]:
    """What a RunPod endpoint is asked for: its GPUs, workers and scaling, by the names of RunPod's REST API.

    Raises:
        ElleError: the deployment names no GPU, or one that is not in RunPod's catalogue.
    """
    listed, scaling = config_table("gpus")["gpus"], deployment.scaling
    rented = {name: row["catalogue"] for name, row in listed.items() if "catalogue" in row}
    if deployment.gpu not in rented:
        raise unknown("RunPod GPU", deployment.gpu, rented, where="gpu")
    return {
        "gpu": {"id": rented[deployment.gpu], "count": deployment.gpus},
        "workers": {"min": scaling.min_workers, "max": scaling.max_workers, "idleTimeout": scaling.idle_timeout},
        "scaling": {"type": "QUEUE_DELAY", "queueDelay": scaling.target_queue_delay},
    }
