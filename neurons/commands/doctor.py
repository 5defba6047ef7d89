"""``deepfake-miner doctor``: prints :mod:`neurons.doctor`'s sections as they come."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict

from detectors.errors import ConfigError
from neurons import doctor
from neurons.settings import FlagError

__all__ = ["run"]

_WIDTH = 22


def run(argv: Sequence[str], say: Callable[[str], None], *, as_json: bool, ask_chain: bool) -> None:
    """Says everything.

    Args:
        argv: the miner's flags.
        say: takes one line.
        as_json: one JSON object of all sections in place of text.
        ask_chain: compares the clock with the chain's; the only thing that leaves the machine.

    Raises:
        ConfigError: a flag is unknown or has an impossible form.
    """
    chains = None
    if ask_chain:
        from neurons.chain import open_chain  # noqa: PLC0415

        chains = open_chain
    try:
        sections = doctor.examine(argv, os.environ, chains=chains)
        if as_json:
            say(json.dumps({part.name: _plain(part) for part in sections}, indent=1, ensure_ascii=False))
            return
        for part in sections:
            say(part.name)
            for what, value in part.rows:
                say(f"  {what:<{_WIDTH}} {value}")
            if part.problem:
                say(f"  {'PROBLEM':<{_WIDTH}} {part.problem}")
    except FlagError as error:
        raise ConfigError(doctor.clean(str(error))) from None


def _plain(part: doctor.Section) -> dict[str, object]:
    found = asdict(part)
    return {"rows": dict(found["rows"]), "problem": found["problem"]}
