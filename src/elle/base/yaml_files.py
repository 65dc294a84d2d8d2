"""YAML, read with care, the project's own tables in `configs/`, and such values as a pydantic model."""

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from elle.base import paths
from elle.base.errors import ElleError, unknown


class _Loader(yaml.CSafeLoader):
    """YAML with YAML 1.2's numbers (PyYAML reads `1e-5` as a string) and without duplicate keys."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if repeated := next((key for key in keys if keys.count(key) > 1 and key != "<<"), None):
            raise yaml.constructor.ConstructorError(None, None, f"the key {repeated!r} appears twice", node.start_mark)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Texts that `_Loader` would read as numbers get quotation marks."""


_FLOAT = re.compile(r"^[-+]?((\d+\.\d*|\.\d+|\d+)[eE][-+]?\d+|\d+\.\d*|\.\d+|\.(inf|Inf|INF))$|^\.(nan|NaN)$")
_STANDARD = yaml.SafeLoader.yaml_implicit_resolvers
for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = {key: list(value) for key, value in _STANDARD.items()}
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def dump(recipe: dict) -> str:
    """A recipe as YAML that `read_yaml` reads as the same."""
    return yaml.dump(recipe, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read_yaml(path: Path | str, kind: str = "file") -> dict:
    """A YAML mapping from a file.

    Raises:
        ElleError: with file and line, where it is missing, is not YAML, repeats a key, or is not a mapping.
    """
    path = Path(path)
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        known = [other.name for other in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise unknown(kind, path.name, known, where=str(path)) from error
    except Exception as error:  # PyYAML's own errors, and whatever its constructors let through (`!!int ""`)
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error)
        raise ElleError(f"not valid YAML: {problem}", where=where, fix="correct this line") from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ElleError(f"this {kind} is not a mapping of names to values", where=str(path), fix="see configs/")
    return value


def config_table(name: str) -> dict:
    """One of the project's own tables, `configs/NAME.yaml`; read again only when it changes."""
    path = paths.configs() / f"{name}.yaml"
    return _table(path, path.stat().st_mtime_ns if path.exists() else 0)


@functools.lru_cache(maxsize=32)
def _table(path: Path, changed: int) -> dict:
    return read_yaml(path)


def validated[M: BaseModel](model: type[M], values: Mapping[str, Any], kind: str, where: str, fix: str) -> M:
    """`values` as a model.

    Raises:
        ElleError: a key that the model does not have (with the nearest name), a missing one, or one of another type.
    """
    for key in values:
        if key not in model.model_fields:
            raise unknown(f"{kind} key", key, model.model_fields, where=where)
    try:
        return model(**values)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ElleError(f"not a {kind}: {faults}", where=where, fix=fix) from error
