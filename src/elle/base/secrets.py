"""Secrets: read from the environment at the moment of use, sent to safe addresses only, and shown to nobody."""

import contextlib
import ipaddress
import os
import re
from urllib.parse import SplitResult, urlsplit

from elle.base.errors import ElleError

#: Keys of model servers → the variable that holds the address which each belongs to, and that address where it is not
#: set. ELLE_API_KEY belongs to this machine's servers as well.
_HOMES = {
    "ELLE_API_KEY": ("ELLE_API_URL", ""),
    "LFBM_API_KEY": ("LFBM_ENDPOINT", "https://api.runpod.ai"),
    "RUNPOD_API_KEY": ("RUNPOD_ENDPOINT_BASE_URL", "https://api.runpod.ai"),
    "OPENAI_API_KEY": ("OPENAI_BASE_URL", "https://api.openai.com"),
}
#: Environment variables that hold a secret.
SECRETS = (*_HOMES, "HF_TOKEN", "WANDB_API_KEY", "VLLM_API_KEY")
#: Characters of a secret, at least. What is shorter ("none", for a server that wants some key) is a word of any text.
_SHORTEST = 6


def secret(name: str, what: str, fix: str) -> str:
    """The secret in the environment variable `name`.

    Raises:
        ElleError: it is not set, or holds a character that no secret has (an HTTP library would quote it whole).
    """
    value = os.environ.get(name, "").strip()
    where = f"environment variable {name}"
    if not value:
        raise ElleError(f"no {what}; nothing was sent", where=where, fix=fix)
    if not re.fullmatch(r"[!-~]+", value):
        raise ElleError(f"the {what} holds a character that no {what.split()[0]} has", where=where, fix=fix)
    return value


def redacted(text: str) -> str:
    """The text without the secrets of this environment, whoever wrote it (a server may quote what it was sent)."""
    held = [(value, name) for name in SECRETS if len(value := os.environ.get(name, "").strip()) >= _SHORTEST]
    for value, name in sorted(held, key=lambda each: -len(each[0])):  # one may be the beginning of another
        text = text.replace(value, f"${name}")
    return text


def parts_of(url: str, where: str) -> SplitResult:
    """The parts of a URL; an ElleError where it is not one."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 (it is read, and refused, here)
    except ValueError as error:
        raise ElleError(f"not an address: {error}", where=where, fix="correct or unset it") from error
    return parts


def loopback(host: str | None) -> bool:
    """Whether a host name or address is this machine's own, out of reach for all others."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address((host or "").strip("[]")).is_loopback
    return host == "localhost"


def key_for(url: str) -> str:
    """The key that belongs to the model server at `url`, "" where none that is set does; an ElleError where it would
    travel in the clear, or cannot be a key."""
    asked = parts_of(url, "the server's address")
    for name, (variable, default) in _HOMES.items():
        home = parts_of(os.environ.get(variable) or default, variable).netloc.lower()
        here = name == "ELLE_API_KEY" and loopback(asked.hostname)
        if os.environ.get(name, "").strip() and (here or (home and home == asked.netloc.lower())):
            address(url, "the server's", variable)
            return secret(name, "key of a server", f"correct {name}")
    return ""


def address(url: str, what: str, where: str) -> str:
    """The base URL `url`, without a slash at its end.

    Raises:
        ElleError: it is neither https nor this machine's own, or holds a user: `what` goes there.
    """
    url = url.rstrip("/")
    parts = parts_of(url, where)
    local = loopback(parts.hostname)
    if not parts.hostname or parts.username or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        message = f"{what} address must begin with https:// and hold no user: a token goes there"
        raise ElleError(message, where=where, fix="correct or unset it")
    return url
