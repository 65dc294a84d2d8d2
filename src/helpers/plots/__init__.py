"""The pictures of the notebooks and of the report, by subject. Each function returns a matplotlib Figure."""

from helpers.plots import cic, course, data, evaluation, planning, serving, style, training

__all__ = ["cic", "course", "data", "evaluation", "planning", "serving", "style", "training"]
