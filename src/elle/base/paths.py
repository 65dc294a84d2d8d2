"""Where things live. Nothing else in the package spells a path of the repository out."""

import os
import re
import tempfile
from pathlib import Path

from elle.base.errors import ElleError


def root() -> Path:
    """The repository: `ELLE_ROOT` if set, else the checkout that this package is installed from (editable)."""
    if override := os.environ.get("ELLE_ROOT"):
        return Path(override).resolve()
    here = Path(__file__).resolve().parents[3]
    if not (here / "configs").is_dir():
        raise ElleError(
            "the repository cannot be found from the installed package",
            where=str(here),
            fix="install with `make setup` (editable), or set ELLE_ROOT to the checkout",
        )
    return here


def located(path: Path | str) -> Path:
    """A file as a user names it: as it stands if it exists there, else relative to the repository."""
    path = Path(path)
    return path if path.exists() else root() / path


def hub_cache(*, kernels: bool = False) -> Path:
    """Where the Hub's files are kept on this machine (kernels: compiled ones, which may have a folder of their own)."""
    own = os.environ.get("KERNELS_CACHE") if kernels else None
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    return Path(own or os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")


def runs() -> Path:
    """The folder of all runs: `ELLE_RUNS` (a pod's volume, say) if set, else `runs/` in the repository."""
    return Path(os.environ.get("ELLE_RUNS") or root() / "runs").resolve()


def run_folder(run_id: str) -> Path:
    """The folder of a run; an ElleError where the id is no plain name: it could lead out of the folder of all runs."""
    if not re.fullmatch(r"[\w-][\w.-]{0,59}", run_id):
        fix = "at most 60 letters, digits, - and _"
        raise ElleError(f"run_id {run_id!r} is not a plain name", where="run_id", fix=fix)
    return runs() / run_id


def temporary(room: int) -> str:
    """The folder for temporary files, or /tmp where it leaves less than `room` of a socket's 107 characters."""
    return place if len(place := tempfile.gettempdir()) < 107 - room else "/tmp"


def configs() -> Path:
    return root() / "configs"


def profiles() -> Path:
    return configs() / "profiles"


def notebooks() -> Path:
    return root() / "notebooks"


def published() -> Path:
    """The figures of the run whose outputs the committed notebooks show."""
    return root() / "docs" / "course.json"


def server_python() -> Path:
    """The interpreter of the CPU server's own environment (`ELLE_SERVER_PYTHON` overrides it)."""
    return Path(os.environ.get("ELLE_SERVER_PYTHON") or root() / ".venv-server" / "bin" / "python")


def shown(path: Path | str) -> str:
    """A path as it may stand in a committed notebook or a report: relative to the repository or its runs, never
    absolute."""
    path = Path(path).resolve()
    for base in (root(), runs().parent):
        if path.is_relative_to(base):
            return str(path.relative_to(base))
    return path.name
