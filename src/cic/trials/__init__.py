"""The experiments on which the framework's claims are tried. Each takes sizes and a seed, and returns its figures."""
