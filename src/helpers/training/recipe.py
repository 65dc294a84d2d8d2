"""Recipes: Axolotl's YAML, read with care and checked for keys that the trainer would drop without a word."""

import json
import re
import subprocess
from importlib import metadata
from pathlib import Path

import yaml

from helpers import jsonl, paths
from helpers.errors import ElleError, unknown

_KEYS = Path(__file__).with_name("axolotl_keys.json")


class _Loader(yaml.SafeLoader):
    """YAML with YAML 1.2's numbers (PyYAML reads `1e-5` as a string) and without duplicate keys."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if repeated := next((key for key in keys if keys.count(key) > 1 and key != "<<"), None):
            raise yaml.constructor.ConstructorError(None, None, f"the key {repeated!r} appears twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)$|^[-+]?(\d+\.\d*|\.\d+)$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN)$"
    ),
    list("-+0123456789."),
)


def read_yaml(path: Path | str, kind: str = "file") -> dict:
    """A YAML mapping from a file.

    Raises:
        ElleError: with file and line, where it is missing, is no YAML, repeats a key, or is not a mapping.
    """
    path = Path(path)
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        known = [other.name for other in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise unknown(kind, path.name, known, where=str(path)) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error)
        raise ElleError(f"not valid YAML: {problem}", where=where, fix="correct this line") from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ElleError(f"this {kind} is not a mapping of names to values", where=str(path), fix="see configs/")
    return value


def known_keys() -> set[str]:
    """The keys of the locked Axolotl's own schema.

    Axolotl takes half a minute to print it, so its names are kept beside this module; `python -m
    helpers.training.recipe` (part of `make lock`) asks it again, and a test compares.
    """
    return set(jsonl.read_json(_KEYS)["keys"])


def refresh_known_keys() -> None:
    """Ask the installed Axolotl for its schema and keep the names of its keys.

    Raises:
        ElleError: it prints none.
    """
    from helpers.training.launch import environment  # that module imports this one

    done = subprocess.run(["axolotl", "config-schema"], capture_output=True, text=True, env=environment(), check=False)
    start = done.stdout.find("{\n")  # a logo comes first
    try:
        keys = sorted(json.loads(done.stdout[start:])["properties"])
    except (ValueError, KeyError) as error:
        raise ElleError(
            f"Axolotl did not print its schema: {done.stderr[-300:]}",
            where="axolotl config-schema",
            fix="run `make setup`",
        ) from error
    jsonl.write_json(_KEYS, {"axolotl": metadata.version("axolotl"), "keys": keys})


def load(path: Path | str) -> dict:
    """Read and check a recipe.

    Raises:
        ElleError: no such recipe (with the nearest name), not YAML, a key that Axolotl does not know (with the
            nearest one: the trainer itself would drop it silently), or no base model or data set.
    """
    path = paths.located(path)
    recipe = read_yaml(path, "recipe")
    known = known_keys()
    for key in recipe:
        if key not in known:
            raise unknown("recipe key", key, known, where=str(path))
    for key in ("base_model", "datasets"):
        if not recipe.get(key):
            raise ElleError(f"the recipe has no {key}", where=str(path), fix=f"add {key}; see configs/nano.yaml")
    return recipe


if __name__ == "__main__":
    refresh_known_keys()
