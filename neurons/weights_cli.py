"""``deepfake-miner weights``: the store and what a running miner makes of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

EXIT_WEIGHTS = 4

_Wait = Annotated[
    float | None,
    typer.Option(min=0, metavar="SECONDS", help="Wait until every running miner has taken it up or refused it."),
]

app = typer.Typer(help="Weights on disk and what running miners make of them.", no_args_is_help=True)


@app.command("list")
def listing(store: Annotated[Path | None, typer.Option(show_default="weights")] = None) -> None:
    """Every version in the store, an asterisk at the active ones; then what each running miner serves."""
    from neurons.commands import weights as command  # noqa: PLC0415

    for line in command.listing(store):
        typer.echo(line)


@app.command("verify")
def verify(store: Annotated[Path | None, typer.Option(show_default="weights")] = None) -> None:
    """Hashes, keys, golden scores and the pointer. Exit code 4 where something is wrong."""
    from neurons.commands import weights as command  # noqa: PLC0415

    problems = command.problems(store)
    for problem in problems:
        _complain(problem)
    raise typer.Exit(EXIT_WEIGHTS if problems else 0)


@app.command("activate")
def activate(
    key: Annotated[str, typer.Argument(metavar="NAME@VERSION", show_default=False)],
    store: Annotated[Path | None, typer.Option(show_default="weights")] = None,
    wait: _Wait = None,
) -> None:
    """Point a name at a version that is in the store and intact. Running miners check it before they take it up.

    Exit codes: 0 done, with --wait: every miner serves it; 4 the version is missing or altered, or a miner refused
    it (it says why and goes on with the old weights; the pointer stays: see `weights rollback`); 9 not every miner
    had answered in time, or none runs.
    """
    from neurons.commands import weights as command  # noqa: PLC0415

    since = time.time()
    typer.echo(command.activate(key, store))
    name, _, version = key.partition("@")
    raise typer.Exit(_waited(store, {name: version}, since, wait))


@app.command("rollback")
def rollback(store: Annotated[Path | None, typer.Option(show_default="weights")] = None, wait: _Wait = None) -> None:
    """Undo the last activation; again, the one before it.

    Exit codes: 0 done, with --wait: every miner serves it; 4 there is nothing to go back to, or it is missing or
    altered, or a miner refused it; 9 not every miner had answered in time, or none runs.
    """
    from neurons.commands import weights as command  # noqa: PLC0415

    since = time.time()
    pointer = command.rollback(store)
    typer.echo("active: " + ", ".join(f"{name}@{version}" for name, version in sorted(pointer.items())))
    raise typer.Exit(_waited(store, pointer, since, wait))


def _waited(store: Path | None, pointer: Mapping[str, str], since: float, wait: float | None) -> int:
    """The exit code of a command that changed the pointer."""
    from neurons.commands import weights as command  # noqa: PLC0415

    if wait is None:
        return 0
    return command.wait(store, pointer, since=since, seconds=wait, say=typer.echo, complain=_complain)


def _complain(text: str) -> None:
    typer.echo(f"deepfake-miner: {text}", err=True)


@app.command("import")
def import_file(  # noqa: PLR0917 - typer calls it by name
    file: Annotated[Path, typer.Argument(help=".pth, .pt, .ckpt, .tar or .safetensors.", show_default=False)],
    preset: Annotated[str, typer.Option(help="Whose conventions: e.g. npr, npr-bitmind, ucf, xception, tall.")],
    version: Annotated[str, typer.Option(help="Of the new weights.")] = "1.0.0",
    name: Annotated[str | None, typer.Option(help="Of the new weights.", show_default="the preset")] = None,
    option: Annotated[list[str] | None, typer.Option(help="KEY=VALUE of the constructor; repeatable.")] = None,
    store: Annotated[Path | None, typer.Option(show_default="weights")] = None,
) -> None:
    """Bring a published checkpoint in as safetensors, with a strict report of its keys. Does not activate it."""
    from neurons.commands import weights as command  # noqa: PLC0415

    typer.echo(command.import_file(file, preset=preset, version=version, name=name, options=option or [], store=store))


@app.command("shadow")
def shadow(  # noqa: PLR0917 - typer calls it by name
    key: Annotated[str | None, typer.Argument(metavar="[NAME@VERSION]", show_default=False)] = None,
    count: Annotated[int, typer.Option(min=1, max=1_000_000, help="Challenges to judge.")] = 200,
    promote: Annotated[bool, typer.Option("--promote-if-better", help="Activate it if its reward is better.")] = False,
    profile: Annotated[str, typer.Option(help="Whose reward.")] = "sn34-2.0",
    report: Annotated[bool, typer.Option("--report", help="How it goes, by running miner.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="End what is in the shadow.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
    store: Annotated[Path | None, typer.Option(show_default="weights")] = None,
) -> None:
    """Let a version judge live traffic beside the active one without answering. Exit code 4: it does not load."""
    import json  # noqa: PLC0415

    from neurons.commands import shadow as command  # noqa: PLC0415

    if (key is not None) + report + stop != 1:
        raise typer.BadParameter("give NAME@VERSION, or --report, or --stop")
    if report:
        found = command.reports(store)
        for line in [json.dumps(found)] if as_json else command.lines(found):
            typer.echo(line)
    elif stop:
        typer.echo(command.stop(store))
    else:
        typer.echo(command.order(str(key), store, count=count, promote=promote, profile=profile))


@app.command("pull")
def pull(  # noqa: PLR0917 - typer calls it by name
    where: Annotated[str, typer.Argument(metavar="OWNER/NAME|DIR", help="Model repository.", show_default=False)],
    revision: Annotated[str | None, typer.Option(help="Commit hash; no branch, no tag.", show_default=False)] = None,
    file: Annotated[str | None, typer.Option(help="Path in the repository.", show_default="the only weights")] = None,
    preset: Annotated[str | None, typer.Option(help="For weights of others: their conventions, e.g. npr.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the imported weights.", show_default="the preset")] = None,
    version: Annotated[str | None, typer.Option(help="Of the imported weights.", show_default="1.0.0")] = None,
    sha256: Annotated[str | None, typer.Option(help="Of the file, besides the hub's.", show_default=False)] = None,
    trust: Annotated[str | None, typer.Option(help="SHA-256 of a pickle that may be read.", show_default=False)] = None,
    store: Annotated[Path | None, typer.Option(show_default="weights")] = None,
    to: Annotated[Path | None, typer.Option(help="Download folder.", show_default="build/pulled/…")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Another hub's address.", show_default=False)] = None,
) -> None:
    """Download weights pinned by commit and hash, check and store them. Does not activate them."""
    from neurons.commands import weights_pull as command  # noqa: PLC0415

    typer.echo(
        command.pull(
            where,
            store=store,
            revision=revision,
            file=file,
            preset=preset,
            name=name,
            version=version,
            sha256=sha256,
            trust=trust,
            to=to,
            endpoint=endpoint,
        )
    )
