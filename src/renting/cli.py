"""`elle pod`: what is rented on RunPod. No verb holds logic of its own (`renting` does)."""

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from renting.endpoints import EndpointOrder
    from renting.orders import Order
    from renting.record import Rental

# Looked for and not imported, which takes half a second: without the extra `rent`, `elle pod` says what to install.
for _name in ("httpx", "tenacity"):
    if find_spec(_name) is None:
        raise ModuleNotFoundError(f"No module named {_name!r}", name=_name)

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")
yes = click.option("--yes", is_flag=True, help="Do not ask: the figures shown are accepted.")
dry = click.option("--dry-run", is_flag=True, help="Only show every request: no account, no network.")
run_of = click.argument("run_id", metavar="[RUN]", required=False)
dollars = click.FloatRange(0, min_open=True)


def _say(text: str) -> None:
    click.echo(text, err=True)


def _confirm(accepted: bool) -> Callable[[str], bool]:
    """Show what is to be confirmed, and ask (or take it as accepted). Where nobody can answer, nothing is confirmed."""

    def confirm(text: str) -> bool:
        order, _, question = text.rpartition("\n")
        _say(order)
        return accepted or (sys.stdin.isatty() and click.confirm(question.strip(), err=True))

    return confirm


def _show(rental: "Rental", as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(rental.to_json()))
        return
    cost = f" (${rental.cost_so_far:.2f} so far)" if rental.cost_so_far is not None and rental.costs else ""
    click.echo(f"{rental.run_id}: {rental.state}{cost}\n{rental.sentence}")


def _dry(order: "Order | EndpointOrder", as_json: bool) -> None:
    """Every request that would be sent."""
    uploads, requests = order.uploads(), order.requests()
    if as_json:
        shown = {"order": order.to_json(), "uploads": uploads, "requests": [request.to_json() for request in requests]}
        click.echo(json.dumps(shown, ensure_ascii=False))
        return
    click.echo(order.text())
    for each in uploads:
        size = "made first" if each["bytes"] is None else f"{each['bytes']:,} bytes"
        click.echo(f"upload      {each['repository']}: {each['file']} ({size})")
    for request in requests:
        click.echo(f"\n{request.text()}")


@click.group()
def pod() -> None:
    """Train on a rented pod that ends itself; deploy what was trained. docs/runpod.md has the details."""


@pod.command()
@click.argument("target", metavar="RECIPE_OR_PROFILE")
@click.option("--data", type=click.Path(path_type=Path), help="A data set's folder (default: the target's).")
@click.option("--gpu", help="Such as h200 (configs/gpus.yaml); default: what the recipe is meant for.")
@click.option("--count", type=int, help="How many GPUs.")
@click.option("--disk", type=float, metavar="GB", help="The pod's volume.")
@click.option("--price", type=dollars, help="Dollars per GPU-hour, at most.")
@click.option("--cloud", type=click.Choice(["SECURE", "COMMUNITY"]), default="SECURE", show_default=True)
@click.option("--max-dollars", type=dollars, help="The pod ends before it costs more.")
@click.option("--image", help="Another image; it needs bash, curl, Python 3.12 and CUDA.")
@click.option("--run-id", help="The run's name (default: the target's, with the time).")
@click.option("--detach", is_flag=True, help="Return when the pod is rented, without watching it.")
@click.option("--poll", type=click.FloatRange(0.01), default=15.0, show_default=True, help="Seconds between two looks.")
@dry
@yes
@as_json
def up(target, detach, poll, dry_run, yes, as_json, **wishes) -> None:
    """Train on a pod: plan, price, upload, rent, watch, check the weights, end. Ctrl-C terminates the pod.

    Exit code 0 only when checked weights are on the Hub (with --detach: when it is rented).
    """
    import renting

    order = renting.order(target, live=not dry_run, **wishes)
    if dry_run:
        _dry(order, as_json)
        return
    _show(renting.up(order, confirm=_confirm(yes), detach=detach, poll=poll, say=_say), as_json)


@pod.command()
@run_of
@as_json
def status(run_id, as_json) -> None:
    """What a run (default: the newest that costs) has rented, its state and its costs. Exit code 1 if it failed."""
    import renting

    rental = renting.status(run_id, _say)
    _show(rental, as_json)
    sys.exit(0 if rental.costs or rental.state in ("succeeded", "stopped", "preparing") else 1)


@pod.command()
@run_of
@click.option("--tail", type=click.IntRange(1, 5000), default=100, show_default=True, help="Lines.")
def logs(run_id, tail) -> None:
    """The last lines of a pod's log; after its end, of the log that it sent to the Hub."""
    import renting

    for line in renting.logs(run_id, tail):
        click.echo(line)


@pod.command()
@run_of
@as_json
def down(run_id, as_json) -> None:
    """End everything that a run (default: the newest that costs) rents: pod, endpoint. Safe to repeat."""
    import renting

    _show(renting.down(run_id, _say), as_json)


@pod.command()
@click.argument("model", required=False)
@click.option("--trained", metavar="TARGET", help="Instead of MODEL: what `elle pod up TARGET` has trained.")
@click.option("--config", default="configs/vllm_deploy.json", show_default=True, help="The deployment.")
@click.option("--adapter", "adapters", multiple=True, metavar="NAME=REPO", help="An adapter on the Hub, and its name.")
@click.option("--run-id", "name", default="elle", show_default=True, help="The endpoint's name; changed if it exists.")
@click.option("--workers", type=(click.IntRange(0), click.IntRange(1)), metavar="MIN MAX", help="How many may run.")
@dry
@yes
@as_json
def deploy(trained, dry_run, yes, as_json, **what) -> None:
    """Serve a model of the Hub on a serverless vLLM endpoint; `elle pod down` deletes it."""
    import renting
    from renting.app import App, served

    if trained:
        if what["model"] or what["adapters"]:
            raise click.UsageError("--trained says what is served: give it without MODEL and --adapter")
        order = renting.order(trained, live=False, max_dollars=1e9)  # whatever it was allowed to cost
        what |= served(order, what["config"])
    order = renting.endpoint(**what)
    if dry_run:
        _dry(order, as_json)
        return
    rental = renting.deploy(order, confirm=_confirm(yes), say=_say)
    app = App.of(order, str(rental.pod))
    if as_json:
        click.echo(json.dumps(rental.to_json() | {"endpoint": app.endpoint, "model": app.model}))
        return
    _show(rental, False)
    click.echo(f"\nFor an app:\n{app.variables()}")
