"""The trainer's own judgement: the schema of the locked Axolotl, as kept here, and its validators in a process of their
own, as importing them takes many seconds.

    python -m elle.plan.axolotl RECIPE.yaml ...   what Axolotl and DeepSpeed object to in each, as JSON

The answer is the last line of stdout: importing Axolotl prints a logo.
"""

import functools
import json
import logging
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from elle.base import paths, storage, yaml_files
from elle.base.errors import ElleError
from elle.plan.findings import value_text

# What is kept here, and how Axolotl is asked


def keys_file() -> Path:
    return paths.configs() / "axolotl_keys.json"


@functools.cache
def axolotl_schema() -> dict:
    """What the locked Axolotl, DeepSpeed and transformers know, as requirements/axolotl_keys.py has kept it."""
    return storage.read_json(keys_file())


def known_keys(recipe: dict) -> dict[str, str]:
    """The keys (→ types) that Axolotl takes in `recipe`: its own, and those of the plugins that the recipe names."""
    plugins = recipe.get("plugins")
    found = dict(axolotl_schema()["keys"])
    for name in plugins if isinstance(plugins, list) else []:
        if isinstance(name, str):
            found |= axolotl_schema()["plugins"].get(name, {})
    return found


def read_deepspeed(path: str) -> dict:
    """A DeepSpeed configuration, looked up as Axolotl is started: from here, else from the repository.

    Raises:
        ElleError: no such file, invalid JSON, or not an object.
    """
    try:
        content = storage.read_json(paths.located(path))
    except (OSError, ValueError) as failure:  # a name that no file can have
        raise ElleError("no such file", where=value_text(path), fix="see deepspeed/") from failure
    if not isinstance(content, dict):
        raise ElleError("a DeepSpeed configuration is one JSON object", where=path, fix="see deepspeed/zero2.json")
    return content


def trainer_environment() -> dict[str, str]:
    """The variables under which Axolotl runs: this environment's programs first (its launchers call each other by
    name), and no usage reports."""
    programs = f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    return dict(os.environ) | {"PATH": programs, "AXOLOTL_DO_NOT_TRACK": "1"}


def ask_validator(*files: str) -> dict[str, list[dict[str, str]]]:
    """What Axolotl and DeepSpeed object to in each recipe, by file (`check`, in a process of its own).

    Raises:
        ElleError: they do not answer.
    """
    command = [sys.executable, "-m", "elle.plan.axolotl", *files]
    done = subprocess.run(command, capture_output=True, text=True, env=trainer_environment(), check=False)
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise ElleError(
            f"Axolotl could not be asked: {done.stderr[-300:]}", where=" ".join(command[1:]), fix="run `make setup`"
        ) from error


# What that process answers


def check(path: str) -> list[dict[str, str]]:
    """What Axolotl's validator and DeepSpeed's parser object to, as `{"by": ..., "says": ...}`; empty if nothing.

    The recipe is judged as on a machine of eight H200.
    """
    from axolotl.utils.config import prepare_plugins, validate_config
    from axolotl.utils.dict import DictDefault
    from deepspeed.runtime.config import DeepSpeedConfig

    config = yaml_files.read_yaml(path, "recipe")
    objections = []
    zero = config.get("deepspeed")
    if isinstance(zero, str):
        zero, config["deepspeed"] = read_deepspeed(zero), str(paths.located(zero))
    try:
        cfg = DictDefault(config)
        prepare_plugins(cfg)
        able = {"bf16": True, "fp8": True, "tf32": True, "n_gpu": 8, "compute_capability": "sm_90"}
        validate_config(cfg, capabilities=able, env_capabilities={"torch_version": metadata.version("torch")})
    except Exception as error:  # whatever it raises is what the user would see
        objections.append({"by": "Axolotl", "says": shorten(error)})
    if isinstance(zero, dict):
        try:
            # The trainer replaces every "auto"; a batch size stands in for what it puts there.
            DeepSpeedConfig(_without_auto(zero) | {"train_micro_batch_size_per_gpu": 1})
        except Exception as error:
            objections.append({"by": "DeepSpeed", "says": shorten(error)})
    return objections


def _without_auto(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_auto(entry) for key, entry in value.items() if entry != "auto"}
    return value


def shorten(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "errors.pydantic.dev" not in line]
    return " ".join(line for line in lines if line)[:500] or type(error).__name__


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    logging.disable(logging.WARNING)
    print("\n" + json.dumps({path: check(path) for path in sys.argv[1:]}))
