"""What a bug report needs, section by section: each says what it found or, in one line, why it could not look.

Works where things are broken, so nothing here relies on anything else having worked. No secret is read: of keys and
tokens only whether the file is there. What is shown goes through :func:`clean` all the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic.fields import FieldInfo

from detectors import paths
from neurons import doctor_machine as machine
from neurons.noticeboard import Noticeboard
from neurons.redact import redact
from neurons.settings import ENV_PREFIX, FlagError, MinerSettings, SettingsError, leaves, load, origins

if TYPE_CHECKING:
    from neurons.life import Chains

__all__ = ["Section", "clean", "examine"]

_HOSTS = re.compile(r"\b(wss?|https?)://([^\s/?#'\"<>]+)")
_LABEL = re.compile(r"[A-Za-z0-9_-]{20,}")  # a part of a host's name this long is a customer's key
_HOMES = re.compile(r"/(?:home|Users)/[^/\s'\":,;]+|(?<![\w.-])/root(?=/|$|[\s'\":,;])")
_CHAIN_S = 15.0  # for the one call to the chain
_NAMED = {"OMP_NUM_THREADS", "OMP_WAIT_POLICY", "CUDA_VISIBLE_DEVICES", "MKL_NUM_THREADS"}
_PRIVATE = {"wallet.name", "wallet.hotkey"}

Row = tuple[str, str]


@dataclass(slots=True)
class Section:
    """One part of the report.

    Attributes:
        name: of the part.
        rows: what was found: (what, value), both cleaned.
        problem: why it could not look, or not to the end; one line, empty where it could.
    """

    name: str
    rows: list[Row] = field(default_factory=list)
    problem: str = ""


def examine(argv: Sequence[str], environ: Mapping[str, str], *, chains: Chains | None = None) -> Iterator[Section]:
    """Every section, as soon as it is there; seconds, most of them for torch and the weights.

    Args:
        argv: flags of the miner that is asked about.
        environ: its environment.
        chains: makes the view of the chain, whose newest block tells whether the clock is right; None asks nobody.

    Raises:
        FlagError: the flags are wrong. Nothing else is raised.
    """
    try:
        settings = load(argv, environ)
        broken = ""
    except FlagError:
        raise
    except SettingsError as error:
        settings, broken = MinerSettings(), f"{error}; what follows is about the defaults"
    store = (settings.weights.store or paths.weights()).expanduser()
    yield _section("version", machine.version)
    yield _section("system", machine.system)
    yield _section("processor", machine.processor)
    yield _section("memory", machine.memory)
    yield _section("packages", machine.packages)
    yield _section("device", lambda: machine.device(settings.neuron.device))
    yield _section("settings", lambda: _settings(settings, argv, environ, broken))
    yield _section("environment", lambda: _environment(environ))
    yield _section("wallet", lambda: _wallet(settings))
    yield _section("configuration", lambda: _camo(settings))
    yield _section("weights", lambda: _weights(store))
    yield _section("miners", lambda: _miners(store))
    yield _section("clock", lambda: _clock(settings, chains))
    yield _section("disk", lambda: _disk(store))
    yield _section("limits", lambda: _limits(settings))
    yield _section("ports", lambda: _ports(settings))


def clean(text: str) -> str:
    """`text` in one line, without secrets (:func:`neurons.redact.redact`), long host names and home folders."""
    text = _HOSTS.sub(lambda found: f"{found[1]}://{_LABEL.sub('***', found[2])}", redact(" ".join(text.split())))
    home = str(Path.home())
    if len(home) > 1:
        text = re.sub(r"(?<![\w.-])" + re.escape(home) + r"(?![\w-])", "~", text)
    return _HOMES.sub("~", text)


def _section(name: str, look: Callable[[], Iterator[Row]]) -> Section:
    section = Section(name)
    try:
        for what, value in look():
            section.rows.append((clean(what), clean(value)))
    except Exception as error:  # noqa: BLE001 - the report about what is broken must not break on it
        kind = "" if isinstance(error, _Broken) else f"{type(error).__name__}: "
        section.problem = clean(f"{kind}{error}")
    return section


class _Broken(Exception):  # noqa: N818 - carries a section's problem, which is not ours
    """Something that the section is about is wrong; the text says all."""


def _settings(settings: MinerSettings, argv: Sequence[str], environ: Mapping[str, str], broken: str) -> Iterator[Row]:
    """Settings that are not at their defaults, each with where it comes from, and how many are."""
    if broken:
        raise _Broken(broken)
    given, plain = origins(argv, environ), 0
    for name, about in leaves(MinerSettings):
        value = _value(settings, name)
        origin = given.get(name, "default")
        if value == about.default and origin in ("default", "file"):  # the file that ships spells the defaults out
            plain += 1
        else:
            yield name, f"{_shown(name, value, about)} ({origin})"
    yield "at their defaults", str(plain)


def _value(settings: MinerSettings, name: str) -> object:
    found: object = settings
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _shown(name: str, value: object, about: FieldInfo) -> str:
    if value == about.default:
        return str(value)
    if name in _PRIVATE:
        return f"{str(value)[:1]}*** (of {len(str(value))} characters)"
    if name == "wallet.path":
        shown = clean(str(Path(str(value)).expanduser()))
        return shown if shown.startswith("~") else "a folder outside ~"
    return f"{len(value)} entries" if isinstance(value, tuple) else str(value)


def _environment(environ: Mapping[str, str]) -> Iterator[Row]:
    """Names of variables that change what a miner does; values only of those that hold nobody's secret."""
    for name in sorted(environ):
        if name in _NAMED:
            yield name, environ[name]
        elif name.upper().startswith((ENV_PREFIX, "BT_")):
            yield name, "set"


def _wallet(settings: MinerSettings) -> Iterator[Row]:
    """Whether the hotkey's file is there; it is not opened."""
    wallet = settings.wallet
    file = Path(wallet.path).expanduser() / wallet.name / "hotkeys" / wallet.hotkey
    try:
        about = file.stat()
    except OSError as error:
        raise _Broken(f"the hotkey's file cannot be found: {error.strerror}") from None
    yield "hotkey", f"{about.st_size} bytes, mode {about.st_mode & 0o777:o}, {_readable(file)}"


def _readable(file: Path) -> str:
    return "readable" if os.access(file, os.R_OK) else "not readable by this user"


def _camo(settings: MinerSettings) -> Iterator[Row]:
    """Which camo.yaml, and what it says in short."""
    path = (settings.neuron.camo or paths.configs() / "camo.yaml").expanduser()
    yield "file", str(path)
    yield "sha256", f"{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}…"
    from detectors.camo_config import load_config  # noqa: PLC0415

    config = load_config(path)
    yield "experts", ", ".join(f"{name} ({part.weights})" for name, part in config.experts.items())
    yield "gates, merge", f"{', '.join(config.gates) or 'none'}; {config.merge}"


def _weights(store: Path) -> Iterator[Row]:
    """The pointer, and everything that is wrong with the store."""
    from detectors.store import Store  # noqa: PLC0415 - torch

    yield "store", str(store)
    if not store.is_dir():
        raise _Broken("there is no such folder")
    files = Store(store)
    try:
        yield "active", ", ".join(f"{n}@{v}" for n, v in sorted(files.pointer().items())) or "nothing"
    finally:
        problems = files.verify()
        yield "verify", f"{len(problems)} problems" if problems else "all well"
        for number, problem in enumerate(problems, 1):
            yield f"problem {number}", problem


def _miners(store: Path) -> Iterator[Row]:
    """What the miners that follow the store say of themselves."""
    board, found = Noticeboard(store), False
    for notice in board.notices("swap"):  # neurons.reload's, whose import would cost torch
        found = True
        last = notice.said.get("report")
        told = "no swap yet"
        if isinstance(last, dict):
            reason = f": {last.get('reason')}" if last.get("reason") else ""
            at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(float(last.get("at") or 0)))
            told = f"last swap {at}, {'accepted' if last.get('accepted') else 'refused'} ({last.get('stage')}){reason}"
        yield f"process {notice.pid}", f"{notice.said.get('detector')}, {told}"
    for notice in board.notices("shadow"):
        report = notice.said.get("report")
        if isinstance(report, dict):
            state, key = report.get("state"), (report.get("plan") or {}).get("key")
            yield f"process {notice.pid}, shadow", f"{key} {state}, {report.get('judged')} judged"
    if not found:
        yield "running", "none that says so in this store"


def _clock(settings: MinerSettings, chains: Chains | None) -> Iterator[Row]:
    """The wall clock and, where the chain may be asked, its newest block beside it."""
    yield "UTC", time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    if chains is None or settings.offline:
        yield "against the chain", "not asked; --chain asks it"
        return
    from neurons import preflight  # noqa: PLC0415 - costs what most sections need not wait for

    async def age() -> float:
        chain = chains(settings, "")  # nothing about a hotkey is asked
        try:
            async with asyncio.timeout(_CHAIN_S):
                return time.time() - await chain.block_time()
        finally:
            await chain.close()

    found = preflight.clock(asyncio.run(age()))
    yield "against the chain", f"{found.status}: {found.text}"


def _disk(store: Path) -> Iterator[Row]:
    for what, folder in (("store", store), ("home", paths.home()), ("temporary", Path(tempfile.gettempdir()))):
        if folder.exists():
            usage = shutil.disk_usage(folder)
            writable = "" if os.access(folder, os.W_OK) else ", not writable by this user"
            yield what, f"{usage.free / 2**30:.1f} of {usage.total / 2**30:.1f} GiB free{writable}"


def _limits(settings: MinerSettings) -> Iterator[Row]:
    from neurons import preflight  # noqa: PLC0415

    for found in (preflight.open_files(settings.axon, raise_it=False), preflight.memory(settings.axon)):
        yield found.name, f"{found.status}: {found.text}"
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    yield "threads", ", ".join("any" if limit == resource.RLIM_INFINITY else str(limit) for limit in (soft, hard))


def _ports(settings: MinerSettings) -> Iterator[Row]:
    """Whether each can be bound now; a running miner holds its own."""
    from neurons import preflight_machine  # noqa: PLC0415

    listening = [("axon", settings.axon.ip, settings.axon.port, True)]
    listening += [
        (name, group.ip, group.port, group.enabled)
        for name, group in (("telemetry", settings.telemetry), ("console", settings.console))
    ]
    for name, ip, port, enabled in listening:
        if not enabled:
            yield name, "off"
            continue
        try:
            yield name, preflight_machine.reach(ip, port, None).text
        except (preflight_machine.NotBoundError, preflight_machine.NotReachedError) as error:
            yield name, str(error)
