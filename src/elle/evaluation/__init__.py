"""Evaluation: reading a model's output (`parsing`), checking its numbers against its prompt (`faithfulness`),
an answer's own arithmetic (`arithmetic`), stated confidences (`bounds`), words that follow from figures (`words`),
names and events from nowhere (`fabrication`), intervals (`statistics`), the verdict on one output (`records`), the
figures over a data set (`scorecard`), whether confidence is earned (`calibration`), what a briefing costs (`cost`), the
audit of a set before it trains (`audit`), a page for one failure (`failures`), answers made wrong on purpose
(`hostile`).

With them: two models on the same rows (`compare`), where errors gather (`gather`), all failures to leaf through
(`browser`), figures as text (`tables`), reading rows and outputs (`answers`), and the same task for
lm-evaluation-harness (`harness/`)."""
