"""A run of notebooks: a folder, `runs/<id>/`, with a manifest of each step."""

from helpers.runs.manifest import Run, start

__all__ = ["Run", "start"]
