"""What an operator writes in ``configs/camo.yaml``. Unknown keys are refused, with the nearest known one."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from detectors.curve import Curve
from detectors.errors import ConfigError
from detectors.merge import Rule
from detectors.types import Modality
from detectors.yaml_file import read_yaml

__all__ = [
    "GENERAL",
    "CamoConfig",
    "CurveConfig",
    "DeadlineConfig",
    "ExpertConfig",
    "VideoConfig",
    "did_you_mean",
    "load_config",
]

GENERAL = "general"
"""The content that is always there."""

_BINS = 10
_IDENTITY = Curve()
_SUM_TOLERANCE = 1e-3  # shares are written with a few digits
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
_Share = Annotated[float, Field(ge=0.0, le=1.0)]
_Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
_Number = Annotated[float, Field(allow_inf_nan=False)]


def _whole(shares: tuple[float, ...]) -> tuple[float, ...]:
    if len(shares) != _BINS or abs(math.fsum(shares) - 1.0) > _SUM_TOLERANCE:
        raise ValueError(f"must be {_BINS} shares that sum to 1, not {len(shares)} that sum to {math.fsum(shares):.4f}")
    return shares


_Shares = Annotated[tuple[_Share, ...], AfterValidator(_whole)]
_Slope = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CurveConfig(_Strict):
    """A calibration, as ``deepfake-miner train`` of a merge recipe writes it; see :class:`detectors.curve.Curve`.

    Attributes:
        method: which family it was fitted as; ``isotonic`` has knots and the others have none.
        slope, intercept: of the calibrated logit.
        knots: (logit, P(fake)) pairs.
    """

    method: Literal["identity", "temperature", "platt", "isotonic"] = "platt"
    slope: _Weight = 1.0
    intercept: _Number = 0.0
    knots: tuple[tuple[float, float], ...] = ()

    @model_validator(mode="after")
    def _holds(self) -> CurveConfig:
        if bool(self.knots) != (self.method == "isotonic"):
            raise ValueError("`method: isotonic` needs knots, and no other method has them")
        try:
            self.curve  # noqa: B018 - built once, here, so that a slip is told at start
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    @cached_property
    def curve(self) -> Curve:
        return Curve(self.slope, self.intercept, self.knots)


def _either(calibration: CurveConfig | None, platt: bool) -> None:
    if calibration is not None and platt:
        raise ValueError("merge_calibration stands in place of merge_slope and merge_intercept: say one of the two")


class ExpertConfig(_Strict):
    """One expert's part.

    Attributes:
        weights: ``NAME`` (the active version) or ``NAME@VERSION`` in the weights folder.
        content: what must be there for it to run: ``general`` (always) or the name of a gate.
        gate: whose cut-out it is shown, which then must have fired too; null shows it the whole image.
        media: what it judges. A clip network (card with ``frames > 1``) judges videos only, whatever is said here.
        weight: in the learned merge, relative to the others.
        video_weight: the same for videos; null takes `weight`.
        calibration: of its logit before the merge, on top of its card's; null changes nothing.
        video_calibration: the same for videos (of the mean over frames); null takes `calibration`.
        budget_ms: expected milliseconds an image (or, of a clip network, a video), until it has been measured here.
    """

    weights: Annotated[str, Field(min_length=1)]
    content: str = GENERAL
    gate: str | None = None
    media: Literal["image", "video", "both"] = "both"
    weight: _Weight = 1.0
    video_weight: _Weight | None = None
    calibration: CurveConfig | None = None
    video_calibration: CurveConfig | None = None
    budget_ms: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 20.0

    @property
    def needs(self) -> frozenset[str]:
        """The gates that must have fired."""
        return frozenset(name for name in (self.content, self.gate) if name is not None and name != GENERAL)

    def calibrated(self, logit: float, modality: Modality) -> float:
        """The logit that enters the merge."""
        return float(self.curve(modality).logits(logit))

    def curve(self, modality: Modality) -> Curve:
        """From its logit to the one that enters the merge."""
        video = modality == "video" and self.video_calibration is not None
        found = self.video_calibration if video else self.calibration
        return _IDENTITY if found is None else found.curve

    def weight_in(self, modality: Modality) -> float:
        """Its weight in the merge of a modality."""
        return self.weight if modality == "image" or self.video_weight is None else self.video_weight


class VideoConfig(_Strict):
    """How videos are judged.

    Attributes:
        frames: evenly spaced frames that image experts are shown.
        gate_frames: on how many of those the gates look; null looks at all. A gate's experts see only these.
        clip_frames: frames that a clip network is shown at most, in whole clips; null shows it all.
        gate_share: a gate counts as fired when it fires on at least this share of the frames it looked at.
        merge_slope, merge_intercept, merge_calibration, merge_spread: null takes those for images.
        gate_calibration: by gate; for videos it stands in place of the images' one, and is empty unless said.
    """

    frames: Annotated[int, Field(ge=1, le=144)] = 8
    gate_frames: Annotated[int, Field(ge=1, le=144)] | None = None
    clip_frames: Annotated[int, Field(ge=1, le=144)] | None = 8
    gate_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.25
    merge_slope: _Slope | None = None
    merge_intercept: _Number | None = None
    merge_calibration: CurveConfig | None = None
    merge_spread: _Weight | None = None
    gate_calibration: dict[str, CurveConfig] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_calibration(self) -> VideoConfig:
        _either(self.merge_calibration, self.merge_slope is not None or self.merge_intercept is not None)
        return self


class DeadlineConfig(_Strict):
    """When an expert is left out.

    Attributes:
        margin_ms: kept free before the deadline, for encoding and sending.
        smoothing: of the running mean of each expert's cost; 1 believes the last measurement alone.
    """

    margin_ms: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 20.0
    smoothing: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2


class CamoConfig(_Strict):
    """The gating network.

    Attributes:
        merge: ``learned`` weighs all experts that ran; ``max`` is the original CAMO.
        merge_slope, merge_intercept: calibrate the learned merge (Platt); or
        merge_calibration: in their place, with any method.
        merge_spread: how much disagreement of experts takes off, see :func:`detectors.merge.learned`.
        gate_calibration: by gate, in place of the merge's calibration where that gate fired; the first written of
            those that fired counts.
        gates: the gates that look, by name, each with the options of its ``load``; ``kind`` (``face``, ``content``)
            where the name is another, e.g. ``people: {kind: content, content: people}``.
        experts: by name.
        semisynthetic: by content, the share of P(fake) given to "semi-synthetic"; where several gates fired the
            largest. Nothing said means none.
        video, deadline: see there.
        reference: by modality, the shares of answers on held-out media in ten equal bins of P(fake), for telling drift
            (``scripts/reference.py``). Changes no answer, so it is no part of what the card's version is made of.
    """

    merge: Rule = "learned"
    merge_slope: _Slope = 1.0
    merge_intercept: _Number = 0.0
    merge_calibration: CurveConfig | None = None
    merge_spread: _Weight = 0.0
    gate_calibration: dict[str, CurveConfig] = Field(default_factory=dict)
    gates: dict[str, dict[str, Any]] = Field(default_factory=dict)
    experts: Annotated[dict[_Name, ExpertConfig], Field(min_length=1)]
    semisynthetic: dict[str, _Share] = Field(default_factory=dict)
    video: VideoConfig = VideoConfig()
    deadline: DeadlineConfig = DeadlineConfig()
    reference: dict[Modality, _Shares] = Field(default_factory=dict, exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _bare_gates(cls, raw: Any) -> Any:
        """``face:`` with nothing behind it means a gate without options."""
        if isinstance(raw, Mapping) and isinstance(raw.get("gates"), Mapping):
            return {**raw, "gates": {name: {} if v is None else v for name, v in raw["gates"].items()}}
        return raw

    @model_validator(mode="after")
    def _names_exist(self) -> CamoConfig:
        contents = (GENERAL, *self.gates)
        for name, expert in self.experts.items():
            if expert.gate is not None and expert.gate not in self.gates:
                raise ValueError(f"experts.{name}.gate: {did_you_mean(expert.gate, tuple(self.gates), 'gate')}")
            if expert.content not in contents:
                raise ValueError(f"experts.{name}.content: {did_you_mean(expert.content, contents, 'content')}")
        for name in self.semisynthetic:
            if name not in contents:
                raise ValueError(f"semisynthetic: {did_you_mean(name, contents, 'content')}")
        for where, curves in (("", self.gate_calibration), ("video.", self.video.gate_calibration)):
            for name in curves:
                if name not in self.gates:
                    raise ValueError(f"{where}gate_calibration: {did_you_mean(name, tuple(self.gates), 'gate')}")
        _either(self.merge_calibration, self.merge_slope != 1.0 or self.merge_intercept != 0.0)
        for kind in ("image", "video"):
            if not any(not e.needs and e.media in (kind, "both") for e in self.experts.values()):
                raise ValueError(
                    f"experts: none judges every {kind}; one needs `content: general`, `gate: null` "
                    f"and `media: both` or `media: {kind}`"
                )
        return self

    def curve(self, modality: Modality, fired: Collection[str] = ()) -> Curve:
        """What calibrates the learned merge of a modality where these gates fired."""
        video = modality == "video"
        by_gate = self.video.gate_calibration if video else self.gate_calibration
        for name, found in by_gate.items():
            if name in fired:
                return found.curve
        return self._video_curve if video else self._image_curve

    def spread(self, modality: Modality) -> float:
        """How much disagreement takes off in that modality."""
        own = self.video.merge_spread if modality == "video" else None
        return self.merge_spread if own is None else own

    @cached_property
    def _image_curve(self) -> Curve:
        said = self.merge_calibration
        return Curve(self.merge_slope, self.merge_intercept) if said is None else said.curve

    @cached_property
    def _video_curve(self) -> Curve:
        own = self.video
        if own.merge_calibration is not None:
            return own.merge_calibration.curve
        if own.merge_slope is None and own.merge_intercept is None:
            return self._image_curve
        slope = self.merge_slope if own.merge_slope is None else own.merge_slope
        intercept = self.merge_intercept if own.merge_intercept is None else own.merge_intercept
        return Curve(slope, intercept)


def did_you_mean(name: str, known: tuple[str, ...], kind: str) -> str:
    """A sentence that says what is unknown, and what was perhaps meant."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known)) or 'none'}"
    return f"unknown {kind} {name!r}; {hint}"


def load_config(path: Path) -> CamoConfig:
    """Reads and checks a file.

    Raises:
        ConfigError: the file is missing, not YAML, or says something that cannot be; names every key at fault.
    """
    try:
        raw = read_yaml(path)
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path.name}: must hold keys such as `experts:`")
    try:
        return CamoConfig.model_validate(raw)
    except ValidationError as error:
        problems = "; ".join(_sentence(detail) for detail in error.errors(include_url=False))
        raise ConfigError(f"{path.name}: {problems}") from error


_MODELS: Mapping[str, type[_Strict]] = {"experts": ExpertConfig, "video": VideoConfig, "deadline": DeadlineConfig}


def _sentence(detail: Any) -> str:
    where = tuple(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        model = _MODELS.get(where[0], CamoConfig) if len(where) > 1 else CamoConfig
        if any(part.endswith("calibration") for part in where[:-1]):
            model = CurveConfig
        return f"{'.'.join(where)}: {did_you_mean(where[-1], tuple(model.model_fields), 'key')}"
    text = str(detail["msg"]).removeprefix("Value error, ")
    return f"{'.'.join(where)}: {text}" if where else text
