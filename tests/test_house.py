"""The house: who may import whom, how large each package may be, and that each name means one thing.

`python tests/test_house.py` prints the sizes, and what breaks a rule.
"""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: Package → the packages of ours that it may import, and its most lines: about what it takes. What is added is paid for
#: by what it makes needless.
PACKAGES = {
    "cic": ({"cic"}, 2_400),
    "elle": ({"cic", "elle"}, 11_100),
    "helpers": ({"cic", "elle", "helpers"}, 3_950),
    "renting": ({"cic", "elle", "helpers", "renting"}, 1_900),
}
#: Rooms of `elle`, from the ground up: each may import those below it, and itself.
FLOORS = ("base", "briefings", "evaluation", "plan", "training", "hub", "serving")
ALL_OF_SRC, ALL_OF_TESTS = 19_320, 12_580
LONGEST, MOST_PARAMETERS = 60, 8


def modules() -> dict[str, Path]:
    """Dotted name → file, of all that lies in src."""
    found = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        parts = path.relative_to(ROOT / "src").with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
OURS = {name.partition(".")[0] for name in MODULES} | {"experiments"}


def lines(folder: str) -> int:
    """Lines of Python below a folder, blank ones and comments counted."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / folder).rglob("*.py"))


def imports(name: str) -> set[str]:
    """The modules of ours that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {
                full if (full := f"{node.module}.{alias.name}") in MODULES else node.module for alias in node.names
            }
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {module for module in found if module.partition(".")[0] in OURS} - {name}


def room(name: str) -> str:
    """A module's room: a package, or a package's subpackage."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] in ("elle", "helpers") and len(parts) > 2 else parts[0]


def functions(name: str):
    """(qualified name, node) of each function and method of a module."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{name}.{node.name}", node


def public_names() -> dict[str, set[str]]:
    """Name → rooms that define a function, a class or a module of that name for others. Not counted: verbs of a command
    line, modules of pictures (they are called as the room whose figures they draw), and what begins with "_"."""
    found = defaultdict(set)
    for name in MODULES:
        if name.endswith(".cli") or name.rpartition(".")[2][0] == "_":
            continue
        for node in TREES[name].body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name[0] != "_":
                found[node.name].add(room(name))
        if MODULES[name].name != "__init__.py" and room(name) != "helpers.plots":
            found[name.rpartition(".")[2]].add(room(name))
    found.pop("main", None)
    return found


def circles() -> list[list[str]]:
    """Modules that import one another, directly or not."""
    graph = {name: imports(name) & set(MODULES) for name in MODULES}
    found, state = [], {}

    def visit(name: str, path: list[str]) -> None:
        state[name] = "open"
        for other in sorted(graph[name]):
            if state.get(other) == "open":
                found.append([*path[path.index(other) :], other])
            elif other not in state:
                visit(other, [*path, other])
        state[name] = "done"

    for name in sorted(graph):
        if name not in state:
            visit(name, [name])
    return found


def forbidden() -> list[str]:
    """Imports that point down."""
    found = []
    for name in MODULES:
        for other in sorted(imports(name)):
            if other.partition(".")[0] not in PACKAGES[name.partition(".")[0]][0]:
                found.append(f"{name} imports {other}")
            # Else a text would be checked by the code that wrote it.
            if name.startswith("elle.evaluation.") and other.endswith("writer"):
                found.append(f"{name} imports {other}")
            if name.startswith("elle.") and other.startswith("elle."):
                mine, theirs = name.split(".")[1], other.split(".")[1]
                if FLOORS.index(theirs) > FLOORS.index(mine):
                    found.append(f"{name} imports {other}")
    return found


def too_long() -> list[str]:
    return [
        f"{name}: {size} lines"
        for module in MODULES
        for name, node in functions(module)
        if (size := node.end_lineno - node.lineno + 1) > LONGEST
    ]


def too_many_parameters() -> list[str]:
    found = []
    for module in MODULES:
        for name, node in functions(module):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = len([each for each in given if each.arg not in ("self", "cls")])
            if count > MOST_PARAMETERS:
                found.append(f"{name}: {count} parameters")
    return found


def homonyms() -> dict[str, set[str]]:
    return {name: rooms for name, rooms in sorted(public_names().items()) if len(rooms) > 1}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_stays_small(package):
    assert lines(f"src/{package}") <= PACKAGES[package][1]


def test_the_whole_stays_small():
    assert lines("src") <= ALL_OF_SRC
    assert lines("tests") <= ALL_OF_TESTS


def test_arrows_point_up():
    assert forbidden() == []
    assert circles() == []


def test_functions_are_short_and_take_few_parameters():
    assert too_long() == []
    assert too_many_parameters() == []


def test_a_name_means_one_thing():
    assert homonyms() == {}


if __name__ == "__main__":
    for package, (_, most) in PACKAGES.items():
        print(f"{package:<24}{lines(f'src/{package}'):>7,} of {most:,}")
    rooms = sorted({room(name) for name in MODULES})
    for each in rooms:
        size = sum(len(path.read_text().splitlines()) for name, path in MODULES.items() if room(name) == each)
        print(f"  {each:<22}{size:>7,}")
    print(f"{'src':<24}{lines('src'):>7,} of {ALL_OF_SRC:,}\n{'tests':<24}{lines('tests'):>7,} of {ALL_OF_TESTS:,}")
    for title, faults in (
        ("arrows", forbidden()), ("circles", [" → ".join(way) for way in circles()]), ("long", too_long()),
        ("parameters", too_many_parameters()),
        ("homonyms", [f"{name}: {', '.join(sorted(where))}" for name, where in homonyms().items()]),
    ):  # fmt: skip
        print(f"\n{title}: {len(faults)}", *faults, sep="\n  ")
