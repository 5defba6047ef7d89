"""The command ``deepfake-miner``. Heavy packages are imported by the commands that need them, never by ``--help``."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from neurons import console_cli, data_cli, weights_cli
from neurons.threads import sleep_while_waiting

__all__ = ["app", "main"]

EXIT_USAGE = 2
EXIT_UNREADABLE = 3
EXIT_WEIGHTS = 4

app = typer.Typer(
    name="deepfake-miner",
    help="Is this image or video real, synthetic or semi-synthetic? Detect, serve, simulate, train.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(weights_cli.app, name="weights")
app.add_typer(data_cli.app, name="data")

_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


class _Merge(StrEnum):
    learned = "learned"
    max = "max"


def main() -> None:
    """Entry point of the console script; errors of ours end in one line on standard error and an exit code."""
    from detectors.errors import ConfigError, DetectorError  # noqa: PLC0415 - light, but only needed here

    sleep_while_waiting()
    try:
        app()
    except ConfigError as error:
        _say(str(error))
        sys.exit(EXIT_USAGE)
    except DetectorError as error:
        _say(str(error))
        sys.exit(EXIT_WEIGHTS)


def _say(text: str) -> None:
    typer.echo(f"deepfake-miner: {text}", err=True)


@app.command()
def detect(
    files: Annotated[list[Path], typer.Argument(help="Images and videos, any mixture.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line and file.")] = False,
    camo: Annotated[Path | None, typer.Option(help="Another camo.yaml.", show_default="configs/camo.yaml")] = None,
    merge: Annotated[_Merge | None, typer.Option(help="Overrides the merge of the configuration.")] = None,
    heatmap: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for NAME.heatmap.png: what spoke for fake, and where.")
    ] = None,
) -> None:
    """Judge images and videos: P(fake), class, route, milliseconds.

    Exit codes: 0 all judged, 2 bad usage or a folder that cannot be written, 3 at least one file is not readable media,
    4 the weights do not load.
    """
    from neurons.commands import detect as command  # noqa: PLC0415 - imports torch

    unreadable = command.detect(
        files, as_json=as_json, camo=camo, merge=merge.value if merge else None, heatmap=heatmap
    )
    raise typer.Exit(EXIT_UNREADABLE if unreadable else 0)


app.command(context_settings=_PASS_ON)(console_cli.console)


@app.command(context_settings=_PASS_ON)
def miner(context: typer.Context) -> None:
    """Run the miner; takes the flags of `python neurons/miner.py` (see `deepfake-miner miner --help`)."""
    from neurons import miner as entry  # noqa: PLC0415

    entry.leave(entry.main(context.args))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def doctor(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    ask_chain: Annotated[bool, typer.Option("--chain", help="Ask the chain whether this clock is right.")] = False,
) -> None:
    """Print what a bug report needs, secrets masked; takes the miner's flags. Exit code 0 whatever it finds."""
    from neurons.commands import doctor as command  # noqa: PLC0415

    command.run(context.args, typer.echo, as_json=as_json, ask_chain=ask_chain)


@app.command()
def wallet(
    name: Annotated[str, typer.Argument(help="Of the wallet.", show_default=False)],
    path: Annotated[Path, typer.Option(help="Folder of wallets.")] = Path("build/wallets"),
) -> None:
    """Make a throw-away wallet for trials with --offline; its key is not encrypted: never send funds to it."""
    from neurons.keys import create_throwaway  # noqa: PLC0415

    typer.echo(create_throwaway(path, name).ss58_address)


@app.command(context_settings=_PASS_ON)
def simulate(context: typer.Context) -> None:
    """Ask running miners as a validator would, and pay them (see `deepfake-miner simulate --help`)."""
    from neurons import validator  # noqa: PLC0415

    raise typer.Exit(validator.main(context.args))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the reports.")] = Path("build/demo"),
    data: Annotated[Path | None, typer.Option(help="Your own folder or manifest.", show_default="made here")] = None,
    challenges: Annotated[int, typer.Option(min=1, help="How many.")] = 60,
    seed: Annotated[int, typer.Option(help="Same seed, same challenges.")] = 0,
    profile: Annotated[str, typer.Option(help="Reward profile.")] = "sn34-2.0",
) -> None:
    """Start the miner, stand-ins and a mock validator on this machine, and compare what they earn."""
    from neurons.demo import run_demo  # noqa: PLC0415

    run_demo(out, challenges=challenges, seed=seed, data=data, profile=profile)


@app.command()
def train(  # noqa: PLR0917 - typer calls it by name
    recipe: Annotated[Path, typer.Argument(help="A file of configs/train.", show_default=False)],
    data: Annotated[Path, typer.Option(help="Folder or manifest of real and fake media.")] = Path("../shared/data"),
    backbones: Annotated[Path | None, typer.Option(help="Folder of pretrained trunks.")] = None,
    store: Annotated[Path | None, typer.Option(help="Where weights go.", show_default="weights")] = None,
    run: Annotated[Path | None, typer.Option(help="State of the run.", show_default="build/train/NAME")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch.")] = None,
    activate: Annotated[bool, typer.Option(help="Point the store at the result.")] = False,
    leave_out: Annotated[
        list[str] | None, typer.Option(help="Source or generator to measure on only; repeatable.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="In place of the recipe's.")] = None,
) -> None:
    """Train one recipe, calibrate it, measure it on held-out groups, save weights and card."""
    from neurons.commands import train as command  # noqa: PLC0415

    command.train(
        recipe,
        data=data,
        backbones=backbones,
        store=store,
        run=run,
        threads=threads,
        activate=activate,
        say=typer.echo,
        left_out=leave_out or (),
        steps=steps,
    )


@app.command()
def evaluate(  # noqa: PLR0917 - typer calls it by name
    data: Annotated[Path | None, typer.Option(help="Manifest or folder.", show_default=False)] = None,
    detector: Annotated[
        list[str] | None,
        typer.Option(
            help="camo, camo:FILE, 'expert NAME', always-real, random or format-probe; repeatable, on the same views.",
            show_default="camo",
        ),
    ] = None,
    level: Annotated[str, typer.Option(help="0, 1, 2, 3, mix-2.0, mix-2.2, or none: files as they are.")] = "mix-2.0",
    json_file: Annotated[Path | None, typer.Option("--json", help="Every figure.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="The same as tables.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder of PNG plots.")] = None,
    predictions: Annotated[Path | None, typer.Option(help="Every answer, as JSON Lines.")] = None,
    dump: Annotated[Path | None, typer.Option("--from", help="Report such a file in place of --data.")] = None,
    compare: Annotated[list[Path] | None, typer.Option(help="Such files to compare with; repeatable.")] = None,
    split: Annotated[Path | None, typer.Option(help="Split file (groups by side).")] = None,
    only: Annotated[str | None, typer.Option(help="Side of it.", show_default="validation")] = None,
    views: Annotated[int, typer.Option(min=1, help="Challenges drawn of each file.")] = 1,
    most: Annotated[int | None, typer.Option(min=1, help="Files of each source.", show_default="all")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same views and intervals.")] = 0,
    grid: Annotated[bool, typer.Option("--grid", help="Also scale x JPEG quality x blur x noise.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch and of decoding.")] = None,
    store: Annotated[Path | None, typer.Option(show_default="weights")] = None,
    leave_one_out: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE.json", help="Compose reports of runs that left NAME out; repeatable."),
    ] = None,
) -> None:
    """Measure detectors behind the validators' augmentation, with intervals and the reward they would earn."""
    from neurons.commands import evaluate as command  # noqa: PLC0415

    if leave_one_out:
        found = command.leave_one_out(leave_one_out, json_file=json_file, markdown_file=markdown)
        typer.echo(json.dumps({word: found[word] for word in ("mean", "least")}))
        return
    command.evaluate(
        command.Options(
            data=data,
            dump=dump,
            detectors=tuple(detector or ()),
            level=level,
            json=json_file,
            markdown=markdown,
            plots=plots,
            predictions=predictions,
            compare=tuple(compare or ()),
            split=split,
            only=only,
            views=views,
            most=most,
            seed=seed,
            grid=grid,
            threads=threads,
            weights=store,
            command=shlex.join(["deepfake-miner", *sys.argv[1:]]),
        )
    )


def run(arguments: Sequence[str]) -> int:
    """Runs the command line in this process and returns its exit code; for tests and scripts."""
    saved, sys.argv = sys.argv, ["deepfake-miner", *arguments]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    finally:
        sys.argv = saved
    return 0


if __name__ == "__main__":
    main()
