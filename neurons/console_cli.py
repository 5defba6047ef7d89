"""``deepfake-miner console``: the address that opens the console of a running miner."""

from __future__ import annotations

from collections.abc import Sequence

import typer

__all__ = ["addresses", "console"]

_EXIT_USAGE = 2


def console(context: typer.Context) -> None:
    """Print the address that opens the miner's console, its token included; takes the miner's own flags.

    The token is a password: whoever has the address can change what the miner answers. Exit code 2: the settings are
    wrong, or the token's file cannot be used.
    """
    from detectors.errors import ConfigError  # noqa: PLC0415
    from neurons.settings import SettingsError  # noqa: PLC0415

    try:
        found = addresses(context.args)
    except (ConfigError, SettingsError) as error:
        typer.echo(f"deepfake-miner: {error}", err=True)
        raise typer.Exit(_EXIT_USAGE) from error
    for one in found:
        typer.echo(one)


def addresses(argv: Sequence[str]) -> list[str]:
    """One address a miner that serves a console beside the same store; where none says so, that of the settings.

    Raises:
        SettingsError: a flag, the environment or the file is wrong.
        ConfigError: the token cannot be used, or nobody knows the port.
    """
    from detectors import paths  # noqa: PLC0415
    from detectors.errors import ConfigError  # noqa: PLC0415
    from neurons.console.address import TOPIC, address  # noqa: PLC0415
    from neurons.console.security import load_token  # noqa: PLC0415
    from neurons.noticeboard import Noticeboard  # noqa: PLC0415
    from neurons.settings import load  # noqa: PLC0415

    settings = load(argv)
    notices = Noticeboard(settings.weights.store or paths.weights()).notices(TOPIC)
    places = [(str(notice.said.get("ip")), notice.said.get("port")) for notice in notices]
    known = [(ip, port) for ip, port in places if isinstance(port, int)]
    if not known and settings.console.port:
        known = [(settings.console.ip, settings.console.port)]
    if not known:
        raise ConfigError("console.port: 0 takes any free port, and no running miner says which; set one")
    token = load_token(settings.console.token_file)
    return [f"{address(ip, port)}?token={token}" for ip, port in known]
