"""A form to try one's own risks: sliders, a button, the briefing that the server writes, the evaluator's verdict."""

from collections.abc import Mapping
from dataclasses import replace
from html import escape
from typing import Any

from elle.base.errors import ElleError
from elle.briefings import cic_writer, dataset, writer
from elle.briefings.metrics import Metrics, parse, render
from elle.evaluation.parsing import parse_output
from elle.evaluation.verdict import Record, judge
from elle.serving.answers import ServedModel
from elle.serving.client import ask
from helpers.course.show import batch, preformatted, text


def changed(metrics: Metrics, risks: Mapping[str, int]) -> Metrics:
    """The figures with other risks, by category or nation (0..100); trends, signals and the rest stay."""
    nations = sorted(((code, risks.get(code, risk)) for code, risk in metrics.nations), key=lambda one: -one[1])
    categories = {name: (risks.get(name, risk), arrow) for name, (risk, arrow) in metrics.categories.items()}
    return replace(metrics, nations=tuple(nations), categories=categories)


def brief(
    server: ServedModel, row: Mapping[str, Any], risks: Mapping[str, int], schema: dict, max_tokens: int
) -> Record:
    """The server's briefing of a row's figures with other risks, judged.

    Raises:
        ElleError: the server did not answer.
    """
    system, question = dataset.messages(dict(row))
    metrics = changed(parse(question["content"]), risks)
    prompt = render(metrics)
    right = (cic_writer if metrics.cic else writer).answer(metrics, lambda options: options[0])
    # No retries: somebody waits, and can press again. After "Run All Cells" the notebook has stopped the server.
    options: dict[str, Any] = {"max_tokens": max_tokens, "schema": schema, "retries": 0}
    turns = [system, question | {"content": prompt}]
    answer = ask(server.base_url, server.name, [("mine", turns)], **options).answers[0]
    return judge("mine", prompt, right, answer.output)


def show(server: ServedModel, row: Mapping[str, Any], *, schema: dict, max_tokens: int = 400) -> None:
    """Display the form, filled with a row's figures; it asks the server when its button is clicked.

    A batch run shows a line in its place: a committed notebook holds no widgets.
    """
    from IPython.display import HTML, display

    if batch():
        line = "Run this notebook yourself: here stands a form with a slider for each risk, and a button."
        display(HTML(f"<i>{line}</i>"))
        return
    import ipywidgets as widgets

    metrics = parse(dataset.messages(dict(row))[1]["content"])
    groups = {
        "Nations, risk in %": dict(metrics.nations),
        "Categories, 0 to 100": {name: risk for name, (risk, _) in metrics.categories.items()},
    }
    risks = {name: risk for group in groups.values() for name, risk in group.items()}
    sliders = {name: widgets.IntSlider(risk, 0, 100, description=name) for name, risk in risks.items()}
    button = widgets.Button(description="Brief me", button_style="primary")
    output = widgets.Output(layout={"flex": "1 1 420px", "margin": "0 0 0 16px"})
    hint = "Move a slider and press the button: while the server runs, Elle's briefing appears here."
    output.append_display_data(HTML(f"<i>{hint}</i>"))

    def clicked(_: object) -> None:
        button.disabled, button.description = True, "Asking Elle …"
        output.clear_output(wait=True)
        with output:
            try:
                chosen = {name: slider.value for name, slider in sliders.items()}
                display(HTML(_html(brief(server, row, chosen, schema, max_tokens))))
            except ElleError as error:
                display(HTML(preformatted(str(error))))
            finally:
                button.disabled, button.description = False, "Brief me"

    button.on_click(clicked)
    entries: list[widgets.Widget] = []
    for title, group in groups.items():
        entries += [widgets.HTML(f"<b>{title}</b>"), *(sliders[name] for name in group)]
    display(widgets.Box([widgets.VBox([*entries, button]), output], layout={"flex_flow": "row wrap"}))


def _html(record: Record, most: int = 8) -> str:
    """What was asked, the answer key by key (or as it came), and the verdict with at most so many objections and the
    share of the answer that it is about."""
    texts = parse_output(record.output or "").value or {"output": record.output}
    briefing = text({"key": key, "text": text} for key, text in texts.items()).data
    objections = [escape(reason) for reason in record.reasons[:most]]
    if len(record.reasons) > most:
        objections.append(f"and {len(record.reasons) - most} more")
    listed = "".join(f"<li>{objection}</li>" for objection in objections)
    read, every = record.counts["read"]
    share = f"{read} of {every} numbers and sentences"
    verdict = f"✔ All right: the form, and every number that was read ({share})."
    if objections:
        verdict = f"✘ The evaluator objects (it read {share if every else 'nothing'}):"
    prompt = preformatted(record.prompt)
    return f'{prompt}{briefing}<div class="tex2jax_ignore mathjax_ignore"><b>{verdict}</b><ul>{listed}</ul></div>'
