"""The parameters that a notebook declares, and the stamp of its code."""

import ast
import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elle.base import paths, storage
from elle.base.errors import ElleError, unknown

#: Type → how text, as a command line has it, is read as one.
TYPES: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": lambda text: {"true": True, "false": False}[str(text).lower()],
}


@dataclass(frozen=True)
class Parameter:
    name: str
    type: str  # one of TYPES
    default: Any
    help: str

    def convert(self, value: Any, where: str) -> Any:
        """`value` as this parameter's type; text is read.

        Raises:
            ElleError: it is not of this type, not finite, or no seed.
        """
        given = type(value).__name__
        with suppress(ValueError, KeyError):
            if given in (self.type, "str") or (given, self.type) == ("int", "float"):
                read = TYPES[self.type](value)
                if self.name == "seed" and not 0 <= read < 2**32:
                    raise ElleError(f"the seed {read} is not from 0 to 2^32 - 1", where=where, fix="such as 42")
                if self.type != "float" or abs(read) < float("inf"):
                    return read
        raw = f"; papermill keeps a number as text with -r {self.name} {value}" if self.type == "str" else ""
        what, fix = f"parameter {self.name} is a {self.type}, not {value!r}", f"such as {self.default!r}{raw}"
        raise ElleError(what, where=where, fix=fix)


def file_of(step: str) -> Path:
    return paths.notebooks() / f"{step}.ipynb"


def code_cells(path: Path) -> list[dict]:
    return [cell for cell in storage.read_json(path)["cells"] if cell["cell_type"] == "code"]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def stamp(path: Path) -> str:
    """A hash of a notebook's code: what has to run again when it changes."""
    return hashlib.sha256("\n\0".join(source(cell) for cell in code_cells(path)).encode()).hexdigest()[:16]


def parameters(path: Path) -> dict[str, Parameter]:
    """The parameters that a notebook declares: lines `name: type = literal  # help` in its `parameters` cell.

    Raises:
        ElleError: no such notebook, no such cell, or a line of another form (with its text).
    """
    if not path.exists():
        raise unknown("notebook", path.stem, [p.stem for p in path.parent.glob("*.ipynb")], where=str(path.parent))
    tagged = [c for c in code_cells(path) if "parameters" in c["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise ElleError(f"{len(tagged)} cells are tagged `parameters`", where=str(path), fix="tag exactly one")
    text = source(tagged[0])
    declared = {}
    for node in ast.parse(text).body:
        line = text.splitlines()[node.lineno - 1]
        try:
            match node:
                case ast.AnnAssign(target=ast.Name(name), annotation=ast.Name(kind), value=value) if kind in TYPES:
                    declared[name] = Parameter(name, kind, ast.literal_eval(value), line.partition("#")[2].strip())
                case _:
                    raise ValueError(line)
        except ValueError as error:
            fix = "write `name: type = literal  # help`"
            raise ElleError(f"not a parameter: {line!r}", where=str(path), fix=fix) from error
    return declared


def check_parameters(step: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """`given`, each converted to its declared type.

    Raises:
        ElleError: one that the notebook does not declare (papermill by itself only warns), with the nearest name.
    """
    path = file_of(step)
    declared = parameters(path)
    for name in given:
        if name not in declared:
            raise unknown("parameter", name, declared, where=f"notebooks/{path.name}")
    return {name: declared[name].convert(value, f"notebooks/{path.name}") for name, value in given.items()}


def injected(namespace: Mapping[str, Any]) -> set[str]:
    """The names that papermill set: those assigned in the cell that it starts with `# Parameters`."""
    cell = next((cell for cell in namespace.get("In", []) if cell.startswith("# Parameters\n")), "")
    assigned = [node for node in ast.parse(cell).body if isinstance(node, ast.Assign)]
    return {target.id for node in assigned for target in node.targets if isinstance(target, ast.Name)}
