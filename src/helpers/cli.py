"""The `elle` command: one thin verb for each thing a notebook does. No verb holds logic of its own."""

import json
import os
import shlex
import sys
import textwrap
import time
from collections import Counter
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from elle.base import paths
from elle.base.errors import ElleError, finite
from elle.base.process import interruptible
from elle.base.tables import printable
from helpers import __version__

FILE = click.Path(path_type=Path)
PAIRS = {"nargs": 2, "multiple": True, "metavar": "NAME VALUE"}
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")


def show(value: Any, as_json: bool, text: str | None = None) -> None:
    """A result: one JSON value for programs; for people a text, by default `name  value` lines. Neither commands the
    terminal, whatever a model or a data file wrote into it."""
    if as_json:
        line = json.dumps(value, ensure_ascii=False)
        click.echo(line if line.isprintable() else json.dumps(value))
    else:
        click.echo(_lines(value_lines(value) if text is None else text))


def _lines(text: str) -> str:
    """The text's lines, each printable."""
    return "\n".join(map(printable, text.split("\n")))


def value_lines(values: dict) -> str:
    """Names and values in two columns."""
    width = max(map(len, values), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in values.items())


def note(text: str) -> None:
    """A line for people that is not the result."""
    click.echo(_lines(text), err=True)


def counter(label: str, quiet: bool):
    """A progress callback(done, total) that rewrites one line on a terminal; silent for programs."""
    began = time.monotonic()

    def update(done: int, total: int) -> None:
        rate = done / max(time.monotonic() - began, 1e-9)
        left = (total - done) / rate if rate else 0
        pace = f"{rate:.0f}/s" if rate >= 10 else f"{rate:.1f}/s"
        click.echo(f"\r{label}: {done}/{total}, {pace}, {left:.0f} s left   ", nl=done == total, err=True)

    return None if quiet or not sys.stderr.isatty() else update


class _Verbs(click.Group):
    """Our own verbs, and those that other packages add by the entry point `elle.verbs` (`renting` does)."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted({*super().list_commands(context), *metadata.entry_points(group="elle.verbs").names})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if command := super().get_command(context, name):
            return command
        for entry in metadata.entry_points(group="elle.verbs", name=name):
            try:
                return entry.load()
            except ModuleNotFoundError as error:
                return _missing(name, error.name)
        return None


def _missing(verb: str, module: str | None) -> click.Command:
    """The verb of a package that is not installed: it says how to install it."""

    @click.command(verb, help="Not installed: pip install -e '.[rent]'.", add_help_option=False)
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def missing(arguments) -> None:
        fix = "in the repository: pip install -e '.[rent]' (`make setup` installs it too)"
        raise ElleError(f"`elle {verb}` needs the package {module}, which is not installed", fix=fix)

    missing.context_settings = {"ignore_unknown_options": True}
    return missing


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="elle")
def cli() -> None:
    """Elle, an intelligence-briefing model: metrics in, one checked JSON briefing out."""


@cli.command()
@click.argument("profile")
@click.option("--only", help="The notebooks to run, by number or name: 03,07.")
@click.option("-p", "parameters", **PAIRS, help="Override a parameter.")
@click.option("--run-id", help="The run's name (default: the profile's, with the time).")
@click.option("--resume", is_flag=True, help="Skip what is done and unchanged in the newest run, or in --run-id's.")
@as_json
def run(profile, only, parameters, run_id, resume, as_json) -> None:
    """Run a profile's notebooks into runs/<id>/, ending with report.html and report.json."""
    from helpers.runs import pipeline

    folder = pipeline.run_profile(
        profile,
        only=[part.strip() for part in only.split(",") if part.strip()] if only else None,
        given=dict(parameters),
        run_id=run_id,
        resume=resume,
        say=note if as_json else click.echo,
    )
    if as_json:
        show({"run": folder.name, "report": paths.shown(folder / "report.json")}, True)


@cli.command()
@click.argument("run_id")
@as_json
def report(run_id, as_json) -> None:
    """Print the main figures of a run (all of them: --json)."""
    from elle.base import storage
    from helpers.runs import report as reports

    card = storage.read_json(paths.run_folder(run_id) / "report.json")
    show(card if as_json else reports.summary(card), as_json)


@cli.command()
@click.argument("run_id")
def publish(run_id) -> None:
    """Copy a run's executed notebooks over the project's own, to commit them with their outputs, and its figures."""
    from helpers.runs import publish as published

    for name in published.publish(run_id):
        click.echo(name)


@cli.command()
@as_json
def profiles(as_json) -> None:
    """List the profiles that `elle run` takes."""
    from helpers.runs import profile

    show({name: profile.load_profile(name).summary for name in profile.profile_names()}, as_json)


@cli.group()
def data() -> None:
    """Make, convert, audit and publish data sets."""


as_format = click.option("--format", default="jsonl", show_default=True, help="jsonl or parquet.")


def _maker(kind: str, summary: str):
    @data.command(kind, help=f"Make the {summary}. Interrupted, it leaves nothing: call it again.")
    @click.option("--count", default=10000 if kind == "cic" else 3000, show_default=True, help="Examples in all.")
    @click.option("--seed", default=42, show_default=True)
    @click.option("--out", type=FILE, help=f"Folder (default: data/generated/{kind}-COUNT-SEED).")
    @click.option("--workers", default=1, show_default=True, help="Processes; the bytes do not depend on it.")
    @as_format
    @as_json
    def make(count, seed, out, workers, format, as_json) -> None:
        from elle.briefings import dataset

        out = out or paths.root() / "data" / "generated" / f"{kind}-{count}-{seed}"
        update = counter("examples", as_json)
        manifest = dataset.build(kind, count, seed, out, workers=workers, format=format, progress=update)
        _show_set(out, manifest, as_json)


def _show_set(folder: Path, manifest: dict, as_json: bool) -> None:
    show({"folder": paths.shown(folder)} | {name: split["rows"] for name, split in manifest["splits"].items()}, as_json)


_maker("basic", "basic set (8 keys): train, validation and test files with a manifest")
_maker("cic", "CIC set (12 keys)")


@data.command()
@click.argument("records", type=FILE)
@click.option("--out", required=True, type=FILE, help="Folder for the new set.")
@as_format
@as_json
def convert(records, out, format, as_json) -> None:
    """Make a data set of your own records (JSONL of nations, signals, categories, briefings; see data/README.md)."""
    from elle.briefings.convert import convert as converted

    _show_set(out, converted(records, out, format=format), as_json)


@data.command()
@click.argument("folder", type=FILE)
@as_json
def audit(folder, as_json) -> None:
    """Check a data set, its targets and its figures; exit code 1 if it fails. Writes audit.json and a data card."""
    from elle.evaluation import audit as audits
    from elle.training.nano import pieces

    unit = "pieces of Qwen2's pre-tokenisation"
    result = audits.audit(folder, tokens=pieces, unit=unit, progress=counter("rows", as_json))
    show(result, as_json, (folder / audits.CARD).read_text(encoding="utf-8").partition("# ")[2].rstrip("\n"))
    if not result["passed"]:
        what = f"this set fails its audit: {result['faults'][0]}"
        raise ElleError(what, where=str(folder), fix=f"see {audits.AUDIT}")


@data.command()
@click.argument("folder", type=FILE)
@click.option("--repo", metavar="NAME", help="USER/NAME, or NAME (default: HF_DATASET_REPO, under HF_USERNAME).")
@click.option("--public", is_flag=True, help="Make it a repository that everybody can read.")
@click.option("--dry-run", is_flag=True, help="Only list what would be sent: no token, no network.")
@click.option("--force", is_flag=True, help="Publish even if the set was not audited, or failed its audit.")
@as_json
def push(folder, repo, public, dry_run, force, as_json) -> None:
    """Publish a data set on the Hugging Face Hub, private by default. The token is read from HF_TOKEN."""
    from elle import hub
    from elle.evaluation.audit import verdict

    what = {"verdict": verdict(folder), "private": not public, "force": force}
    if dry_run:
        planned = hub.upload_plan(folder, repo, **what)
        show(planned.to_json(), as_json, f"would go to a {planned.text()}")
        return
    pushed = hub.push(folder, repo, **what, progress=counter("bytes", as_json), say=note)
    show(pushed.to_json(), as_json)


@cli.command()
@click.argument("target", metavar="RECIPE_OR_PROFILE")
@click.option("--gpu", help="Such as h200 (configs/gpus.yaml); default: what the recipe is meant for.")
@click.option("--count", type=int, help="How many GPUs.")
@click.option("--disk", type=float, metavar="GB", help="Disk of the machine.")
@click.option("--price", type=float, metavar="DOLLARS", help="Per GPU-hour; default: ELLE_GPU_PRICE, else list price.")
@click.option("--data", metavar="FILE_OR_SET", help="A JSONL file, a data set's folder, or a set of recipes.yaml.")
@click.option("--budget", "limit", type=float, metavar="DOLLARS", help="What it may cost.")
@click.option("--fix", "out", type=FILE, help="Write the nearest recipe that passes.")
@click.option("--full", is_flag=True, help="Ask Axolotl's and DeepSpeed's own validators too (seconds).")
@click.option("--short", is_flag=True, help="Only the main figures, and the errors.")
@as_json
def plan(target, out, full, short, as_json, **options) -> None:
    """Know before you pay: whether it fits, how long it takes, what it costs, what is wrong with it.

    Exit code 0: it fits; 1: it does not, breaks the budget, or would be rejected; 2: not covered: its
    model, its GPUs, or what a key makes of them.
    """
    from elle.plan import fix, preflight
    from helpers.runs import planning

    try:
        plans, answer = planning.plans_of(target, full=full, **options)
        if out:
            if len(plans) > 1:
                raise ElleError("--fix takes one recipe", where=target, fix="name one of the profile's recipes")
            plans[0], changes = fix.corrected(plans[0], out)
            plans = preflight.ask_trainer(plans) if full else plans
            answer = plans[0].to_json() | {"written": str(out), "changes": [str(change) for change in changes]}
    except preflight.NotCovered as error:
        note(f"error: {error}")
        sys.exit(2)
    parts = [each.short() if short else each.text() for each in plans]
    parts += [preflight.total_text(answer, plans)] if "plans" in answer else []
    text = ("\n" if short else "\n\n").join(parts)
    text += "\n".join([f"\n\nwritten to {out}:", *(f"  {line}" for line in answer["changes"])]) if out else ""
    show(answer, as_json, text)
    sys.exit(0 if answer["ok"] else 2 if answer["verdict"] == "not covered" else 1)


@cli.command()
@click.option("-p", "changes", **PAIRS, help="Change an assumption; the last line of the output names them.")
@click.option("--run", "run_id", metavar="RUN", help="Take a briefing's tokens from a run's own outputs.")
@click.option("--trained-by", "target", metavar="RECIPE_OR_PROFILE", help="Pay off a training's planned dollars.")
@as_json
def costs(changes, run_id, target, as_json) -> None:
    """Compare what a briefing costs by an API, always on and serverless, and from which volume on each pays."""
    from helpers import economics as comparison

    given = dict(changes)
    if run_id:
        measured = comparison.measured_tokens(run_id)
        given = {name: measured[name] for name in ("tokens_in", "tokens_out")} | given
    if target:
        from helpers.runs import planning

        given["training"] = planning.plans_of(target)[1]["dollars"]["high"] or 0.0
    compared = comparison.compare_costs(comparison.Assumptions.given(given))
    show(compared, as_json, comparison.costs_text(compared))


@cli.command()
@click.argument("recipe")
@click.option("--data", "folder", type=FILE, help="A data set's folder (elle data).")
@click.option("--base", help="A nano base's sizes (YAML) or a local model's folder; empty: the recipe's own.")
@click.option("--out", type=FILE, help="Folder for training runs (default: runs/lab/train).")
@click.option("--force", is_flag=True, help="Train although the preflight or the audit refuses; the manifest says so.")
@click.option("--preprocess-only", is_flag=True, help="Only prepare and count the data, before a GPU is rented.")
@click.option("--merge", is_flag=True, help="Merge a trained adapter into its base.")
@as_json
@interruptible(hangup=True)
def train(recipe, folder, base, out, force, preprocess_only, merge, as_json) -> None:
    """Train a recipe by Axolotl. Interrupted, it continues from its last checkpoint when it is called again."""
    from elle.briefings import dataset
    from elle.evaluation import audit as audits
    from elle.training import history, launch, nano

    os.environ.setdefault(launch.OWNER, str(os.getpid()))  # however this process ends, its trainer ends too
    out = out or paths.runs() / "lab" / "train"
    files = {s: folder / dataset.load_manifest(folder)["splits"][s]["file"] for s in dataset.SPLITS} if folder else {}
    base_model = nano.resolve_base(base, files.get("train"), out.parent / "base") if base else None
    prepared = launch.prepare(
        recipe,
        out,
        base_model=base_model,
        train=files.get("train"),
        validation=files.get("validation"),
        refusals=audits.refusals(folder) if folder else [],
        force=force,
        data_only=preprocess_only,
    )
    if folder and audits.verdict(folder) is None:
        prepared.remarks.append(f"the data is not audited: `elle data audit {folder}`")
    note("\n".join(prepared.said(data_only=preprocess_only, exact=True)))
    if preprocess_only:
        splits = launch.preprocess(prepared)
        note(launch.counted(splits))
        show(splits if as_json else {name: f"{one['kept']} of {one['rows']}" for name, one in splits.items()}, as_json)
        return

    def progress(rows: list[dict]) -> None:
        if rows:
            note(history.line(rows, prepared.hourly))

    trained = launch.follow(prepared, launch.start_training(prepared), progress)
    answer = {"weights": paths.shown(trained.weights), "steps": trained.steps, "seconds": trained.seconds}
    if merge and trained.adapter:
        answer["merged"] = paths.shown(launch.merge_adapter(trained))
    show(answer | {"manifest": paths.shown(trained.folder / launch.DONE)}, as_json)


@cli.command()
@click.option("--data", required=True, type=FILE, help="A set's folder (its test split), JSONL or Parquet.")
@click.option("--outputs", type=FILE, help="JSONL of {id, output}; with --endpoint: the file to write.")
@click.option("--against", type=FILE, help="Another model's outputs: compare the two, paired.")
@click.option("--endpoint", metavar="URL", help="First ask this OpenAI-compatible server (key: ELLE_API_KEY).")
@click.option("--model", help="The model's name there.")
@click.option("--limit", type=click.IntRange(1), help="Only this many rows, the first ones.")
@click.option("--concurrency", default=16, show_default=True, help="Requests at once.")
@click.option("--max-tokens", default=700, show_default=True, help="The longest answer, in tokens.")
@click.option("--constrained", is_flag=True, help="Let the server hold the output to the briefing's JSON schema.")
@click.option("--price", type=click.FloatRange(0), metavar="DOLLARS", help="Price of the server per hour.")
@click.option("--html", "page", type=FILE, help="Write the failures as an HTML page.")
@click.option("--metrics-port", "port", type=click.IntRange(1, 65535), help="Count for Prometheus on it (monitoring/).")
@as_json
def evaluate(data, outputs, against, limit, page, as_json, **server) -> None:
    """Score a model's outputs: JSON and schema compliance, and every number that is read.

    With --endpoint the outputs come from a server, one line each as they arrive; interrupted, the same command goes on.
    """
    from elle.base import storage
    from elle.evaluation import compare, cost, failures, inputs
    from elle.evaluation.scorecard import figures_text, score
    from helpers.course import browser

    served = server["endpoint"] is not None
    if not served and outputs is None:
        raise click.UsageError("give --outputs FILE, or --endpoint URL and --model NAME")
    if not served and (server["model"] or server["constrained"] or server["price"] is not None or server["port"]):
        raise click.UsageError("--model, --constrained, --price and --metrics-port go with --endpoint")
    if served and server["model"] is None:
        raise click.UsageError("--endpoint needs --model NAME")
    rows = inputs.read_test_rows(data)
    batch, used = None, {}
    if served:
        batch, used, outputs = _ask_endpoint(rows, data, outputs, as_json, {"limit": limit, **server})
    left_out = {row["id"] for row in rows[limit:]} if limit else set()
    rows = rows[:limit]

    def scored(path):
        texts = inputs.read_outputs(path)
        return score(rows, {name: text for name, text in texts.items() if name not in left_out})

    card = scored(outputs)
    compared = compare.compare(scored(against), card) if against else None
    took = cost.request_means(line for line in storage.read_lines(outputs) if line["id"] not in left_out)
    if page:
        storage.write_text(page, browser.page(card.records, title=f"Failures: {outputs.name}"))
    result = card.to_json() | {"requests": {name: each and asdict(each) for name, each in took.items()}}
    result |= {"answers": str(outputs), "usage": used} if used else {}
    result |= {"against": {"a": str(against), "b": str(outputs)} | compared.to_json()} if compared else {}
    parts = [compare.differences_text(compared, "against", "outputs") if compared else figures_text(card)]
    if worst := [record for record in card.worst(3) if record.reasons]:
        parts.append(f"the worst{' of the outputs' if compared else ''}:\n{failures.faults_text(worst)}")
    known = {name: value for name, value in used.items() if value is not None}
    parts += [cost.requests_text(took), value_lines(known | {"outputs": outputs}) if used else ""]
    parts += [f"failures, marked: {page}"] if page else []
    show(result, as_json, "\n\n".join(filter(None, parts)))
    if batch and (failed := batch.failed):
        what = f"{len(failed)} of {len(batch.answers)} requests have no answer; the first: {failed[0].error}"
        fix = "give the same command again: only these are asked; above they count as failures"
        raise ElleError(what, where=str(outputs), fix=fix)


def _ask_endpoint(
    rows: list[dict], data: Path, outputs: Path | None, as_json: bool, options: dict
) -> tuple[Any, dict, Path]:
    """The answers of a server to the rows, what they took, and the file that holds them."""
    from elle.serving.answers import Endpoint, collect_outputs, outputs_file, usage

    model, price = options.pop("model"), options["price"] and finite(options["price"], "price", "--price", "such as 3")
    endpoint = Endpoint(options.pop("endpoint"), model)
    outputs = outputs or outputs_file(data, model, options["constrained"])
    try:
        batch = collect_outputs(endpoint, rows, outputs, progress=counter("briefings", as_json), **options)
    except KeyboardInterrupt:
        note(f"\nwhat was answered is kept in {outputs}; the same command goes on")
        raise
    return batch, usage(batch, price), outputs


@cli.command()
@click.argument("model_id", metavar="[MODEL_OR_RUN]", required=False)
@click.option("--adapter", "adapters", multiple=True, metavar="NAME=PATH", help="A LoRA adapter, served beside it.")
@click.option("--config", type=FILE, help="A deployment (configs/vllm_deploy.json).")
@click.option("--check", is_flag=True, help="Only check it, and print what would run here and on RunPod.")
@click.option("--port", type=int, help="Default: a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Its address; a public one needs ELLE_API_KEY.")
@click.option("--allow-host", "hosts", multiple=True, metavar="NAME", help="Another name by which it is asked.")
@click.option("--name", "served_name", help="The model's name in requests (default: elle).")
@click.option("--trust-remote-code", is_flag=True, default=None, help="Run code that the model brings.")
@click.option("--max-model-len", type=int, help="Longest prompt and answer, in tokens (default: 1024).")
@as_json
@interruptible(hangup=True)
def serve(adapters, config, check, port, host, hosts, as_json, **given) -> None:
    """Serve a model with vLLM on 127.0.0.1 until Ctrl-C: a folder, a run's id, or a downloaded model from the Hub."""
    from elle.serving import deployments
    from elle.serving import server as servers

    if not given["model_id"] and not config:
        raise click.UsageError("give MODEL_OR_RUN, or --config FILE")
    deployment = deployments.load_deployment(config, given) if config else deployments.made(given, "elle serve")
    deployment = deployments.with_adapters(deployment, adapters)
    if check:
        deployment = deployment if deployment.gpu else deployments.for_this_machine(deployment)
        fit = deployments.check_fit(deployment)
        endpoint = deployments.render_endpoint(deployment) if deployment.gpu else {}
        command, worker = deployments.render_command(deployment), deployments.render_worker(deployment)
        planned = {"command": command, "worker": worker, "endpoint": endpoint, "memory": fit and asdict(fit)}
        lines = {"memory": fit or "not known: nothing says the model's sizes", "command": shlex.join(command)}
        lines |= {"endpoint": json.dumps(endpoint), "worker": json.dumps(worker)}
        show(planned, as_json, value_lines(lines))
        return
    folder = paths.runs() / "serve" / time.strftime("%Y%m%d-%H%M%S")
    with servers.serve(deployment, folder, port=port, host=host, hosts=hosts, progress=note) as server:
        names = ", ".join(map(repr, server.names))
        click.echo(f"serving {names} at {server.base_url} after {server.startup_seconds:.0f} s; Ctrl-C stops it")
        while server.job.running:
            time.sleep(0.5)
        raise ElleError("the server ended by itself", where=str(server.job.log), fix="its log says why")


@cli.command()
@click.argument("names", nargs=-1)
@click.option("--fast", is_flag=True, help="Smaller experiments, wider intervals: under a minute.")
@as_json
def claims(names, fast, as_json) -> None:
    """Put the framework's claims on trial and print the ledger. NAMES: only these claims."""
    from cic import claims as ledger

    try:
        outcomes = ledger.run(names or None, fast=fast, progress=counter("claims", as_json))
    except ValueError as error:
        raise ElleError(str(error), where="elle claims") from error
    if as_json:
        show([outcome.to_json() for outcome in outcomes], True)
        return
    for outcome in outcomes:
        claim, finding = outcome.claim, outcome.finding
        click.secho(f"{claim.name}: {finding.status}", bold=True)
        for label, text in (("claim", claim.statement), ("source", claim.source), ("test", claim.prediction)):
            click.echo(f"  {label:<9}{text}")
        click.echo(textwrap.fill(finding.measured, 110, initial_indent="  measured ", subsequent_indent=" " * 11))
    tally = Counter(str(outcome.finding.status) for outcome in outcomes)
    click.echo("\n" + ", ".join(f"{count} {status}" for status, count in tally.most_common()))


def main() -> None:
    """Entry point: an ElleError ends in its message and exit code 1, Ctrl-C in 130."""
    try:
        cli(standalone_mode=False)
    except ElleError as error:
        note(f"error: {error}")
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        note("interrupted")
        sys.exit(130)


if __name__ == "__main__":
    main()
