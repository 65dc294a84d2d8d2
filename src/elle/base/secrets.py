"""Secrets: read from the environment at the moment of use, sent to safe addresses only, and shown to nobody."""

import os
import re
from urllib.parse import urlsplit

from elle.base.errors import ElleError

#: Environment variables that hold a secret.
SECRETS = ("RUNPOD_API_KEY", "HF_TOKEN", "WANDB_API_KEY", "ELLE_API_KEY", "LFBM_API_KEY")
#: Another's, which the client of a server takes where there is none of ours.
_OTHERS = ("OPENAI_API_KEY",)
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
    for name in (*SECRETS, *_OTHERS):
        if len(value := os.environ.get(name, "").strip()) >= _SHORTEST:
            text = text.replace(value, f"${name}")
    return text


def address(url: str, what: str, where: str) -> str:
    """The base URL `url`, without a slash at its end.

    Raises:
        ElleError: it is neither https nor this machine's own, or holds a user: `what` goes there.
    """
    url = url.rstrip("/")
    parts = urlsplit(url)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if not parts.hostname or parts.username or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        message = f"{what} address must begin with https:// and hold no user: a token goes there"
        raise ElleError(message, where=where, fix="correct or unset it")
    return url
