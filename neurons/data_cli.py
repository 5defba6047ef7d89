"""The commands under ``deepfake-miner data``; what they do is in ``neurons.commands.data``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(help="Data: pull and prepare data sets of the hub, split a pool, probe it.", no_args_is_help=True)


class _Label(StrEnum):
    real = "real"
    synthetic = "synthetic"
    semisynthetic = "semisynthetic"


class _Modality(StrEnum):
    image = "image"
    video = "video"


_Data = Annotated[Path, typer.Option(help="Folder, manifest, or hub data set of real and fake media.")]


@app.command("list")
def data_list(
    pool: Annotated[Path | None, typer.Argument(help="A pool to count.", show_default="the sources")] = None,
) -> None:
    """The data sets that validators draw from; or what a pool holds."""
    from neurons.commands import data as command  # noqa: PLC0415

    for line in command.listing(pool):
        typer.echo(line.rstrip())


@app.command("pull")
def data_pull(
    name: Annotated[str, typer.Argument(help="OWNER/NAME on the hub.", show_default=False)],
    to: Annotated[Path, typer.Option(help="Directory of the data set.")],
    revision: Annotated[str | None, typer.Option(help="Commit hash.", show_default=False)] = None,
    trust_latest: Annotated[bool, typer.Option("--trust-latest", help="Resolve the branch now; record it.")] = False,
    most: Annotated[int | None, typer.Option(min=1, help="At most so many shards, archives or media files.")] = None,
) -> None:
    """Download a data set, pinned by revision, every file checked against the hub's hash."""
    from neurons.commands import data as command  # noqa: PLC0415

    typer.echo(command.pull(name, to, revision=revision, trust_latest=trust_latest, most=most))


@app.command("prepare")
def data_prepare(  # noqa: PLR0917 - typer calls it by name
    what: Annotated[str, typer.Argument(metavar="DIR|NAME", help="What was pulled.", show_default=False)],
    to: Annotated[Path, typer.Option(help="The pool; may hold other data sets already.")],
    local: Annotated[Path | None, typer.Option(help="Where the data set NAME lies.", show_default=False)] = None,
    label: Annotated[_Label | None, typer.Option(help="Of every file.", show_default="the table's")] = None,
    modality: Annotated[_Modality | None, typer.Option(help="Of every file.", show_default="the table's")] = None,
    content: Annotated[str | None, typer.Option(help="face, people, general, art.", show_default="the table's")] = None,
    generator: Annotated[str | None, typer.Option(help="What made the files.", show_default="the table's")] = None,
) -> None:
    """Extract a data set into a pool with a manifest; goes on where it was interrupted."""
    from neurons.commands import data as command  # noqa: PLC0415

    typer.echo(
        command.prepare(
            what,
            local=local,
            to=to,
            label=label.value if label else None,
            modality="image" if modality == _Modality.image else "video" if modality else None,
            content=content,
            generator=generator,
            say=typer.echo,
        )
    )


@app.command("split")
def data_split(
    data: _Data,
    out: Annotated[Path, typer.Option(help="The split file.")] = Path("configs/splits/pool.json"),
    fraction: Annotated[float, typer.Option(min=0, max=1, help="Of the groups, held out.")] = 0.15,
    seed: Annotated[int, typer.Option(help="Same seed, same sides.")] = 1,
) -> None:
    """Write the split of a pool: which groups are held out, and a hash that notices when the pool changes."""
    from neurons.commands import data as command  # noqa: PLC0415

    typer.echo(command.split(data, out, fraction=fraction, seed=seed))


@app.command("probe")
def data_probe(
    data: _Data,
    recipe: Annotated[Path | None, typer.Option(help="Probes its training views too.", show_default=False)] = None,
    views: Annotated[int, typer.Option(min=20, help="About so many files and views.")] = 3000,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same figures.")] = 0,
    out: Annotated[Path | None, typer.Option("--json", help="Also write the reports here.", show_default=False)] = None,
) -> None:
    """Can the label be told from size, compression and colour alone? Above AUC 0.6 on training views is a leak."""
    from neurons.commands import data as command  # noqa: PLC0415

    for line in command.probe(data, recipe, views=views, seed=seed, out=out):
        typer.echo(line)
