"""Evaluation: reading a model's output (`parsing`), checking its numbers against its prompt (`faithfulness`),
an answer's own arithmetic (`arithmetic`), intervals (`statistics`), the verdict on one output (`records`), the figures
over a data set (`scorecard`), the audit of a set before it trains (`audit`), a page for one failure (`failures`).

With them: two models on the same rows (`compare`), where errors gather (`gather`), all failures to leaf through
(`browser`), figures as text (`tables`), reading rows and outputs (`answers`), and the same task for
lm-evaluation-harness (`harness/`)."""
