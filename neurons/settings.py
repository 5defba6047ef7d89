"""What an operator can set, once: flags beat the environment, which beats the YAML file, which beats the defaults.

``--axon.port 8091``, ``DEEPFAKE_MINER_AXON__PORT=8091`` and, in YAML, ``axon: {port: 8091}`` mean the same. An unknown
name is refused in all three places, with the nearest known name in the message.
"""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NoReturn, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from detectors import paths
from detectors.errors import ConfigError
from detectors.yaml_file import read_yaml
from neurons.setting_groups import (
    Axon,
    Blacklist,
    Console,
    Logging,
    Neuron,
    Subtensor,
    Telemetry,
    Wallet,
    Weights,
)

__all__ = [
    "ENV_PREFIX",
    "PREFLIGHT",
    "Axon",
    "Blacklist",
    "Console",
    "FlagError",
    "Logging",
    "MinerSettings",
    "Neuron",
    "SettingsError",
    "Subtensor",
    "Telemetry",
    "Wallet",
    "Weights",
    "leaves",
    "load",
    "origins",
]

ENV_PREFIX = "DEEPFAKE_MINER_"
PREFLIGHT = "--preflight"
"""The one flag besides ``--config`` that is no setting: neither a file nor the environment can ask for it."""
_FOREIGN_ENV = {"DEEPFAKE_MINER_HOME"}  # read by detectors.paths, not a setting


class SettingsError(Exception):
    """A setting that cannot be used; one line that names the setting and what would be right."""


class FlagError(SettingsError):
    """The flags themselves are wrong, whatever the environment and the file say."""


class MinerSettings(BaseSettings):
    """Everything a miner can be told. Frozen; unknown names are errors. Build it with :func:`load`."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
    )

    netuid: int = Field(default=34, ge=0, le=65535, description="subnet the miner is registered on")
    offline: bool = Field(default=False, description="no chain: any valid signature may ask, nothing is published")
    wallet: Wallet = Wallet()
    subtensor: Subtensor = Subtensor()
    axon: Axon = Axon()
    blacklist: Blacklist = Blacklist()
    logging: Logging = Logging()
    neuron: Neuron = Neuron()
    weights: Weights = Weights()
    telemetry: Telemetry = Telemetry()
    console: Console = Console()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only the constructor: :func:`load` hands it flags, environment and YAML, already in order."""
        return (init_settings,)


def load(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> MinerSettings:
    """Reads the settings of a miner.

    Args:
        argv: the flags, without the program's name. ``--help`` prints and raises ``SystemExit(0)``.
        environ: the environment; None takes the process' own.

    Raises:
        SettingsError: an unknown name, an impossible value, or a YAML file that cannot be read.
    """
    environ = os.environ if environ is None else environ
    flags = vars(_parser().parse_args(list(argv)))
    config: str | None = flags.pop("config", None)
    flags.pop("preflight", None)  # the entry looks for it in the flags
    from_env = _environment(environ)
    from_yaml = _yaml(Path(config) if config else _default_config(), required=config is not None)
    merged = _merge(_merge(from_yaml, from_env), _nest(flags))
    try:
        return MinerSettings(**merged)
    except ValidationError as error:
        raise SettingsError(_one_line(error)) from error


def origins(argv: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Where the settings that somebody gave come from: ``flag``, ``environment`` or ``file``, by dotted name.

    Raises:
        SettingsError: as :func:`load`.
    """
    flags = vars(_parser().parse_args(list(argv)))
    config: str | None = flags.pop("config", None)
    flags.pop("preflight", None)
    from_yaml = _yaml(Path(config) if config else _default_config(), required=config is not None)
    found: dict[str, str] = {}
    for origin, given in (("file", from_yaml), ("environment", _environment(environ)), ("flag", _nest(flags))):
        for name, _ in leaves(MinerSettings):
            group, _, leaf = name.rpartition(".")
            holder = given.get(group) if group else given
            if isinstance(holder, Mapping) and leaf in holder:
                found[name] = origin
    return found


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every setting of `model` as (dotted name, field), in the order of the classes."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def _near(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing two screens of usage, and names the nearest flag."""

    def error(self, message: str) -> NoReturn:
        raise FlagError(message)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flag = unknown[0].partition("=")[0]
            raise FlagError(f"unknown flag {flag}{_near(flag, list(self._option_string_actions))}")
        return parsed


def _parser() -> _Parser:
    """One flag per setting; a flag that is not given leaves no trace, so that the other sources show through."""
    parser = _Parser(
        prog="miner.py",
        description="A Bittensor miner that answers whether an image or video is real, synthetic or semi-synthetic.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--config", metavar="FILE.yaml", help="settings file (default: configs/miner.yaml if present)")
    parser.add_argument(PREFLIGHT, dest="preflight", action="store_true", help="check what a start needs, and exit")
    for name, field in leaves(MinerSettings):
        text = f"{field.description} (default: {field.default})".replace("%", "%%")
        if field.annotation is bool:
            parent, _, leaf = name.rpartition(".")
            off = f"--{parent}.no-{leaf}" if parent else f"--no-{leaf}"
            switch = parser.add_mutually_exclusive_group()
            switch.add_argument(f"--{name}", dest=name, action="store_true", help=text)
            # Both spellings: people type the second, the first reads well in a group.
            offs = dict.fromkeys((off, f"--no-{name}"))
            switch.add_argument(*offs, dest=name, action="store_false", help=f"switches --{name} off")
        else:
            parser.add_argument(f"--{name}", dest=name, metavar=_metavar(field), help=text)
    return parser


def _metavar(field: FieldInfo) -> str:
    kinds = [kind for kind in get_args(field.annotation) if kind is not NoneType] or [field.annotation]
    if get_origin(field.annotation) is Literal:
        return "{" + ",".join(get_args(field.annotation)) + "}"
    kind = kinds[0]
    return {int: "N", float: "X", Path: "FILE"}.get(kind, "TEXT") if isinstance(kind, type) else "TEXT"


def _environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings in the environment, by dotted name; unknown names are refused."""
    names = {f"{ENV_PREFIX}{name.replace('.', '__').upper()}": name for name, _ in leaves(MinerSettings)}
    given: dict[str, Any] = {}
    for key, value in environ.items():
        if not key.upper().startswith(ENV_PREFIX) or key.upper() in _FOREIGN_ENV:
            continue
        if key.upper() not in names:
            raise SettingsError(f"unknown environment variable {key}{_near(key.upper(), list(names))}")
        given[names[key.upper()]] = value
    return _nest(given)


def _default_config() -> Path:
    return paths.configs() / "miner.yaml"


def _yaml(path: Path, *, required: bool) -> dict[str, Any]:
    if not required and not path.exists():
        return {}
    try:
        raw = read_yaml(path)
    except ConfigError as error:
        raise SettingsError(f"{path} is {error}" if "YAML" in str(error) else f"{path} {error}") from error
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise SettingsError(f"{path} must hold a mapping such as `axon: {{port: 8091}}`")
    return {str(key): value for key, value in raw.items() if value is not None}


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """``{"axon.port": 1}`` becomes ``{"axon": {"port": 1}}``."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        group, _, leaf = name.rpartition(".")
        (nested.setdefault(group, {}) if group else nested)[leaf] = value
    return nested


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _one_line(error: ValidationError) -> str:
    """The first thing that is wrong, in one line, without pydantic's links."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown setting {name}{_near(name, [known for known, _ in leaves(MinerSettings)])}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{name}: {message} (got {first['input']!r})"
