"""Elle's laboratory: the small tested package behind the notebooks.

Importing it is cheap: the heavy libraries (torch, transformers, axolotl, vllm) are imported inside the functions
that need them.
"""

__version__ = "0.1.0"
