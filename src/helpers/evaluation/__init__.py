"""Evaluation: reading a model's output (`parsing`), checking its numbers against its prompt (`faithfulness`),
intervals (`statistics`), the verdict on one output (`records`), the figures over a data set (`scorecard`), and a page
for one failure (`failures`)."""
