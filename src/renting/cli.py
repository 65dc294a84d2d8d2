"""`elle pod` and `elle job`: what is rented on RunPod. No verb holds logic of its own (`renting` does)."""

import json
import sys
from pathlib import Path

import click

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")
yes = click.option("--yes", is_flag=True, help="Do not ask: the figures shown are accepted.")
dry = click.option("--dry-run", is_flag=True, help="Only show every request: no account, no network.")
run_of = click.argument("run_id", metavar="[RUN]", required=False)
data_of = click.option("--data", type=click.Path(path_type=Path), help="A data set's folder (default: the target's).")
most = click.option("--max-dollars", type=click.FloatRange(0, min_open=True), help="It ends before it costs more.")
price_of = click.option("--price", type=click.FloatRange(0, min_open=True), help="Dollars a GPU-hour, at most.")


def _say(text: str) -> None:
    click.echo(text, err=True)


def _confirm(accepted: bool):
    """Show what is to be confirmed, and ask, or take it as accepted. Where nobody can answer, the answer is no."""

    def confirm(question: str) -> bool:
        text, _, asked = question.rpartition("\n")
        _say(text)
        if accepted:
            return True
        return sys.stdin.isatty() and click.confirm(asked.strip(), err=True)

    return confirm


def _show(status, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(status.to_json()))
        return
    cost = f" (${status.cost_so_far:.2f} so far)" if status.cost_so_far is not None and status.costs else ""
    click.echo(f"{status.run_id}: {status.state}{cost}\n{status.sentence}")


def _tell(status, as_json: bool) -> None:
    """Show it, and end: exit code 1 where the run failed."""
    _show(status, as_json)
    sys.exit(0 if status.costs or status.state in ("succeeded", "stopped", "preparing") else 1)


def _dry(order, as_json: bool, uploads: list[dict] | None = None) -> None:
    """What would be sent, all of it."""
    requests = order.requests()
    if as_json:
        shown = {"order": order.to_json(), "uploads": uploads or [], "requests": [r.to_json() for r in requests]}
        click.echo(json.dumps(shown, ensure_ascii=False))
        return
    click.echo(order.text())
    for each in uploads or []:
        size = "made first" if each["bytes"] is None else f"{each['bytes']:,} bytes"
        click.echo(f"upload      {each['repository']}: {each['file']} ({size})")
    for request in requests:
        click.echo(f"\n{request.text()}")


@click.group()
def pod() -> None:
    """Train on a rented pod that ends itself; deploy what was trained. docs/runpod.md says what happens when."""


@pod.command()
@click.argument("target", metavar="RECIPE_OR_PROFILE")
@data_of
@click.option("--gpu", help="Such as h200 (configs/gpus.yaml); default: what the recipe is meant for.")
@click.option("--count", type=int, help="How many GPUs.")
@click.option("--disk", type=float, metavar="GB", help="The pod's volume.")
@price_of
@click.option("--cloud", type=click.Choice(["SECURE", "COMMUNITY"]), default="SECURE", show_default=True)
@most
@click.option("--image", help="Another image: bash, curl, Python 3.12 and CUDA are needed.")
@click.option("--run-id", help="The run's name (default: the target's, with the time).")
@click.option("--detach", is_flag=True, help="Do not watch: return when it is rented.")
@click.option("--poll", type=click.FloatRange(0.01), default=15.0, show_default=True, help="Seconds between two looks.")
@dry
@yes
@as_json
def up(
    target, data, gpu, count, disk, price, cloud, max_dollars, image, run_id, detach, poll, dry_run, yes, as_json
) -> None:
    """Train on a pod: plan, price, upload, rent, watch, check the weights, end. Ctrl-C terminates the pod.

    Exit code 0 only when checked weights are on the Hub (with --detach: when it is rented).
    """
    import renting

    options = {"data": data, "gpu": gpu, "count": count, "disk": disk, "price": price, "cloud": cloud}
    options |= {"image": image} if image else {}
    order = renting.order(target, **options, max_dollars=max_dollars, run_id=run_id, live=not dry_run)
    if dry_run:
        _dry(order, as_json, order.uploads())
        return
    _show(renting.up(order, confirm=_confirm(yes), detach=detach, poll=poll, say=_say), as_json)


@pod.command()
@run_of
@as_json
def status(run_id, as_json) -> None:
    """What a run has rented, how it stands, what it costs (default: the newest). Exit code 1 where it failed."""
    import renting

    _tell(renting.status(run_id), as_json)


@pod.command()
@run_of
@click.option("--tail", type=click.IntRange(1, 5000), default=100, show_default=True, help="Lines.")
def logs(run_id, tail) -> None:
    """The last lines of a pod's log; once it has ended, of what it reported to the Hub."""
    import renting

    for line in renting.logs(run_id, tail):
        click.echo(line)


@pod.command()
@run_of
@as_json
def down(run_id, as_json) -> None:
    """End all that a run rents: pod, job, endpoint (default: the newest). Safe to repeat."""
    import renting

    _show(renting.down(run_id), as_json)


@pod.command()
@click.argument("model", required=False)
@click.option("--trained", metavar="TARGET", help="In place of MODEL: what `elle pod up TARGET` has trained.")
@click.option("--config", default="configs/vllm_deploy.json", show_default=True, help="The deployment.")
@click.option("--adapter", "adapters", multiple=True, metavar="NAME=REPO", help="An adapter of the Hub, and its name.")
@click.option(
    "--run-id", "name", default="elle", show_default=True, help="The endpoint's name; the same one is changed."
)
@click.option("--workers", type=(click.IntRange(0), click.IntRange(1)), metavar="MIN MAX", help="How many may run.")
@dry
@yes
@as_json
def deploy(model, trained, config, adapters, name, workers, dry_run, yes, as_json) -> None:
    """Serve a model of the Hub on a serverless vLLM endpoint; `elle pod down` deletes it."""
    import renting
    from renting.app import App, served

    if trained and (model or adapters):
        raise click.UsageError("--trained says what is served: give it without MODEL and --adapter")
    what = {"model": model, "adapters": list(adapters)}
    if trained:  # whatever it was allowed to cost
        what = served(renting.order(trained, live=False, max_dollars=float("inf")), config)
    order = renting.endpoint(**what, config=config, name=name, workers=workers)
    if dry_run:
        _dry(order, as_json)
        return
    found = renting.deploy(order, confirm=_confirm(yes), say=_say)
    app = App.of(order, str(found.pod))
    if as_json:
        click.echo(json.dumps(found.to_json() | {"endpoint": app.endpoint, "model": app.model}))
        return
    _show(found, False)
    click.echo(f"\nFor an app:\n{app.variables()}")


@click.group()
def job() -> None:
    """Train as a job of RunPod's Axolotl worker, on your endpoint AXOLOTL_ENDPOINT_ID."""


@job.command()
@click.argument("recipe")
@data_of
@click.option("--gpu", help="What the endpoint's workers have (default: what the recipe is meant for).")
@click.option("--count", type=int, help="How many of them.")
@price_of
@most
@click.option("--run-id", help="The run's name.")
@dry
@yes
@as_json
def submit(recipe, data, gpu, count, price, max_dollars, run_id, dry_run, yes, as_json) -> None:
    """Upload the data and queue the job; it runs by itself."""
    import renting

    options = {"data": data, "gpu": gpu, "count": count, "price": price, "max_dollars": max_dollars, "run_id": run_id}
    order = renting.job(recipe, **options)
    if dry_run:
        _dry(order, as_json)
        return
    _show(renting.submit(order, confirm=_confirm(yes), say=_say), as_json)


@job.command("status")
@run_of
@as_json
def job_status(run_id, as_json) -> None:
    """How a job stands; COMPLETED counts only with new weights on the Hub. Exit code 1 where it failed."""
    import renting

    _tell(renting.job_status(run_id), as_json)


@job.command()
@run_of
@as_json
def cancel(run_id, as_json) -> None:
    """Cancel a job. Safe to repeat."""
    import renting

    _show(renting.job_cancel(run_id), as_json)
