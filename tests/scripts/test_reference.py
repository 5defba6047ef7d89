"""``scripts/reference.py``: from a prediction dump to the ``reference`` that camo.yaml takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from detectors.camo_config import CamoConfig
from detectors.evaluation.scores import Answer, Seen, dump_line
from detectors.types import Label, Modality, Prediction
from scripts.reference import main

Row = tuple[Modality, bool, float | None]


def dump(path: Path, rows: list[Row]) -> Path:
    lines = []
    for number, (modality, fake, p_fake) in enumerate(rows):
        seen = Seen(f"{number}#0", modality, Label.SYNTHETIC if fake else Label.REAL, "general", "g", "s", f"{number}")
        answer = Answer(None if p_fake is None else Prediction.split(p_fake))
        lines.append(dump_line(seen, {"camo": answer, "other": Answer((1.0, 0.0, 0.0))}))
    path.write_text("".join(lines), encoding="utf-8")
    return path


def test_fakes_and_reals_are_weighed_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[Row] = []
    some: tuple[tuple[Row, int], ...] = (
        (("image", False, 0.05), 300),
        (("image", True, 0.95), 100),
        (("image", True, None), 50),
    )
    for row, count in some:
        rows += [row] * count
    rows += [("video", True, 0.5)] * 20
    file = dump(tmp_path / "dump.jsonl", rows)
    assert main(["--from", str(file)]) == 0
    out, err = capsys.readouterr()
    assert yaml.safe_load(out) == {"reference": {"image": [0.5] + [0] * 8 + [0.5]}}
    assert err == "video: 20 answered views are too few; left out\n"
    CamoConfig.model_validate({"experts": {"general": {"weights": "general"}}} | yaml.safe_load(out))
    assert main(["--from", str(file), "--fake-share", "0.25"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == {"reference": {"image": [0.75] + [0] * 8 + [0.25]}}


def test_rounded_shares_are_still_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[Row] = [("image", bool(n % 2), (n % 7) / 7) for n in range(301)]
    assert main(["--from", str(dump(tmp_path / "dump.jsonl", rows))]) == 0
    said = yaml.safe_load(capsys.readouterr().out)
    CamoConfig.model_validate({"experts": {"general": {"weights": "general"}}} | said)


def test_what_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[Row] = [("image", True, 0.5)] * 300
    file = dump(tmp_path / "dump.jsonl", rows)
    assert main(["--from", str(file)]) == 2
    assert "both real and fake" in capsys.readouterr().err
    assert main(["--from", str(file), "--fake-share", "1"]) == 0
    assert main(["--from", str(file), "--fake-share", "1", "--least", "301"]) == 1
    assert main(["--from", str(file), "--detector", "none"]) == 2
    assert main(["--from", str(tmp_path / "missing.jsonl")]) == 2
    with pytest.raises(SystemExit):
        main(["--from", str(file), "--fake-share", "2"])
