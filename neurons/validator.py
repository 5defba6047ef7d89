"""Entry of the mock validator: ``python neurons/validator.py --miner URL@HOTKEY --data DIR [--out build/simulation]``.

Asks miners on this machine as a validator would, pays them by a reward profile, and writes a report. It never talks
to a chain. Exit codes: 0 done, 2 a flag or the data is wrong, 4 the detector's weights do not load, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):  # run as a script: the repository's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from detectors.errors import ConfigError, DetectorError

if TYPE_CHECKING:
    from rich.console import Console

    from detectors.types import Detector
    from neurons.keys import Keypair

__all__ = ["main", "run_simulation"]

_USAGE, _WEIGHTS, _INTERRUPTED = 2, 4, 130


def run_simulation(
    miners: Sequence[str],
    *,
    data: Path | None,
    out: Path,
    console: Console,
    profiles: Sequence[str] = ("sn34-2.0",),
    count: int = 100,
    seed: int = 0,
    standins: bool = False,
    timeout_s: float = 9.0,
    in_flight: int = 1,
    in_turn: bool = False,
    camo: Path | None = None,
    key: Keypair | None = None,
    command: Sequence[str] | None = None,
) -> Path:
    """Simulates a validator against miners that already run, and writes ``report.json`` and ``report.html``.

    Args:
        miners: each ``[NAME=]URL@HOTKEY[#WIRE]``, on loopback; the first one is the report's reference.
        data: folder with ``real/ synthetic/ semisynthetic/``, or a manifest; None makes the demo's, a smoke test.
        out: folder of the report.
        console: for progress and the final table.
        profiles: reward profiles, all of one challenge mix; the first is the one that is shown.
        count: challenges.
        seed: of media, draws and request ids.
        camo: a ``camo.yaml`` to serve in this process and ask as well, so that no miner need be running; it comes
            first and its routes are in the report.
        standins: also ask always-real, always-fake and random.
        timeout_s: per request.
        in_flight: challenges under way at once.
        in_turn: ask the miners of a challenge one after the other instead of at once.
        key: the validator's hotkey; None makes one up, which a miner accepts in offline mode only.
        command: the words that repeat the run, for the report; None takes this process' own.

    Returns:
        Path of ``report.json``.

    Raises:
        ConfigError: a miner, profile, number or the data is not usable.
    """
    # numpy, aiohttp, opencv and scikit-learn: --help need not pay for them
    from neurons.conduct import Job, conduct, finish, particulars, run_to_end, terminable  # noqa: PLC0415
    from neurons.demo_media import media_set  # noqa: PLC0415
    from neurons.explain import traces_of  # noqa: PLC0415
    from neurons.keys import create_throwaway  # noqa: PLC0415
    from neurons.ledger import profiles as find_profiles  # noqa: PLC0415
    from neurons.simulation import Plan, parse_endpoint  # noqa: PLC0415
    from neurons.standins import serve_in_process  # noqa: PLC0415
    from neurons.standins import standins as make_standins  # noqa: PLC0415
    from neurons.summary import About  # noqa: PLC0415

    if count < 1:
        raise ConfigError(f"count must be at least 1, not {count}")
    chosen = find_profiles(profiles)
    endpoints = [parse_endpoint(text) for text in miners]
    started = time.time()
    with terminable(), contextlib.ExitStack() as stack:
        wallets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deepfake-miner-")))
        media = media_set(data, wallets, seed)
        ours = _ours(camo)
        endpoints = stack.enter_context(serve_in_process(ours, wallets)) + endpoints
        if standins:
            endpoints += stack.enter_context(serve_in_process(make_standins(seed), wallets))
        plan = Plan(tuple(endpoints), seed, chosen[0].answer, timeout_s, in_flight, not in_turn)
        signer = key or create_throwaway(wallets, "validator")
        title = f"{chosen[0].name} · seed {seed}"
        result = run_to_end(conduct(Job(plan, media, chosen, count, keep_payloads=bool(ours)), signer, console, title))
    traces, note = traces_of(result, ours) if ours else ({}, "")
    about = About(
        seed,
        media.description,
        smoke_test=data is None,
        routes_note=note,
        skipped=result.skipped,
        run=particulars(started, result.seconds, command),
    )
    return finish(result, about, out, console, title=title, traces=traces)


def _ours(camo: Path | None) -> dict[str, Detector]:
    if camo is None:
        return {}
    from detectors import camo as camo_module  # noqa: PLC0415 - torch

    return {"camo": camo_module.load(camo)}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the mock validator from the command line and returns the process' exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    from rich.console import Console  # noqa: PLC0415

    from neurons.keys import load_hotkey  # noqa: PLC0415
    from neurons.rewards import PROFILES  # noqa: PLC0415

    try:
        key = (
            load_hotkey(options.wallet_name, options.wallet_hotkey, options.wallet_path)
            if options.wallet_name
            else None
        )
        run_simulation(
            options.miner,
            data=options.data,
            out=options.out,
            console=Console(),
            profiles=options.profile or [next(iter(PROFILES))],
            count=options.count,
            seed=options.seed,
            standins=options.standins,
            timeout_s=options.timeout,
            in_flight=options.in_flight,
            in_turn=options.in_turn,
            camo=options.camo,
            key=key,
        )
    except ConfigError as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return _USAGE
    except DetectorError as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return _WEIGHTS
    except KeyboardInterrupt:
        sys.stderr.write(f"{parser.prog}: interrupted\n")
        return _INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    name = "deepfake-miner simulate" if Path(sys.argv[0]).stem == "deepfake-miner" else "validator.py"
    parser = argparse.ArgumentParser(prog=name, description="Asks miners on this machine as a validator would.")
    parser.add_argument(
        "--miner",
        action="append",
        default=[],
        metavar="[NAME=]URL@HOTKEY[#WIRE]",
        help="a miner on this machine, repeatable",
    )
    parser.add_argument(
        "--data", type=Path, help="folder with real/ synthetic/ semisynthetic/, or a manifest (the demo's media)"
    )
    parser.add_argument("--out", type=Path, default=Path("build/simulation"), help="folder of the report (%(default)s)")
    parser.add_argument("--profile", action="append", metavar="NAME", help="reward profile, repeatable (sn34-2.0)")
    parser.add_argument("--count", type=int, default=100, help="challenges (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same challenges (%(default)s)")
    parser.add_argument("--standins", action="store_true", help="also ask always-real, always-fake and random")
    parser.add_argument("--timeout", type=float, default=9.0, help="seconds per request (%(default)s)")
    parser.add_argument("--in-flight", type=int, default=1, help="challenges under way at once (%(default)s)")
    parser.add_argument(
        "--camo", type=Path, metavar="FILE", help="also serve and ask this camo.yaml: no miner need run"
    )
    parser.add_argument("--wallet.name", dest="wallet_name", metavar="NAME", help="sign as this wallet (a made-up key)")
    parser.add_argument("--wallet.hotkey", dest="wallet_hotkey", default="default", metavar="NAME", help="its hotkey")
    parser.add_argument(
        "--wallet.path", dest="wallet_path", default="~/.bittensor/wallets", metavar="DIR", help="folder"
    )
    parser.add_argument("--in-turn", action="store_true", help="ask the miners of a challenge one after the other")
    return parser


if __name__ == "__main__":
    sys.exit(main())
