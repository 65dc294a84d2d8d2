"""Briefings: what one is (`schema`), what it is written from (`metrics`), the simulated world the metrics come from
(`scenario`), how an answer is worded (`writer`), and sets of examples on disk (`dataset`)."""
