"""The experiments that put the framework's claims on trial; each takes sizes and a seed, and returns what it saw."""
