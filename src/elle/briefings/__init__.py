"""Briefings: what one is (`schema`), what it is written from (`metrics`, `cic_figures`), the simulated worlds that the
metrics come from (`scenario`, `world`), how an answer is worded (`writer`, `cic_writer`), sets of examples on disk
(`dataset`), and sets made of a user's own records (`convert`)."""
