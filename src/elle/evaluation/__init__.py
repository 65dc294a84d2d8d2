"""Evaluation: a model's output is read (`parsing`), its numbers are checked against its prompt's (`numbers`), its words
against what the figures say (`words`), and what neither holds is named (`fabrication`); all of it makes the verdict on
one output (`verdict`).

Over a data set: the figures (`scorecard`) with their intervals (`statistics`), two models on the same rows (`compare`),
where errors gather (`gather`), a page for one failure (`failures`), what a request took (`cost`), the audit of a set
before it trains (`audit`), and the files that are read (`inputs`)."""
