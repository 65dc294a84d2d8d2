"""The CIC framework (Compression-Integration-Causality): its measures, well defined, and its claims, on trial.

Two kinds of formula carry the same names, and are never mixed. `seed_formulas` holds those of the source plans (the
documents that proposed the framework; "documents" in the glossary), exactly as they stand there. Every other module
holds the field's own definitions, under the field's names. numpy and scipy only. Bad input raises ValueError with what
is wrong and what to give instead.
"""
