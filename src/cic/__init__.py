"""The CIC framework (Compression-Integration-Causality): its measures, well posed, and its claims, on trial.

Every figure here has one of two faces, never mixed: `seed_formulas` holds the formulas of the documents that proposed
the framework, exactly; every other module holds the field's own, under the field's names. numpy and scipy only. Bad
input raises ValueError with what is wrong and what to give instead.
"""
