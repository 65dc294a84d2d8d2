"""Evaluation: an object is found in a model's output (`parsing`), and its texts are read by a closed grammar
(`grammar`: configs/grammar.yaml compiled; `clauses`: a sentence's; `reading`: a text's). What is read is held against
the prompt's figures (`statements`); what is not is unread, and only names, years and confidences are looked for in it
(`fabrication`). All of it makes the verdict on one output (`verdict`).

Over a data set: the figures (`scorecard`) with their intervals (`statistics`), two models on the same rows (`compare`),
where errors gather (`gather`), a page for one failure (`failures`), what a request took (`cost`), the audit of a set
before it trains (`audit`), and the files that are read (`inputs`)."""
