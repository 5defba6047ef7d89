"""``deepfake-miner weights``: the store and what a running miner makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

EXIT_WEIGHTS = 4

app = typer.Typer(help="Weights on disk: list, verify, import, activate.", no_args_is_help=True)


@app.command("list")
def listing(store: Annotated[Path | None, typer.Option(show_default="weights")] = None) -> None:
    """Every version in the store; an asterisk marks the active ones."""
    from neurons.commands import weights as command  # noqa: PLC0415

    for line in command.listing(store):
        typer.echo(line)


@app.command("verify")
def verify(store: Annotated[Path | None, typer.Option(show_default="weights")] = None) -> None:
    """Hashes, keys, golden scores and the pointer. Exit code 4 where something is wrong."""
    from neurons.commands import weights as command  # noqa: PLC0415

    problems = command.problems(store)
    for problem in problems:
        typer.echo(f"deepfake-miner: {problem}", err=True)
    raise typer.Exit(EXIT_WEIGHTS if problems else 0)


@app.command("activate")
def activate(
    key: Annotated[str, typer.Argument(metavar="NAME@VERSION", show_default=False)],
    store: Annotated[Path | None, typer.Option(show_default="weights")] = None,
) -> None:
    """Point a name at a version that is in the store and intact."""
    from neurons.commands import weights as command  # noqa: PLC0415

    typer.echo(command.activate(key, store))


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
