"""How P(fake) is spread on held-out media: the ``reference`` that ``configs/camo.yaml`` tells drift by, as YAML.

    deepfake-miner evaluate --data DIR --split configs/splits/pool.json --only reporting --detector camo --views 2 \
        --predictions build/reference.jsonl
    .venv/bin/python scripts/reference.py --from build/reference.jsonl

Real and fake views are weighed so that `--fake-share` of the answers are to fakes: validators draw them alike often,
whatever the pool holds. A modality with fewer views than `--least` is left out: chance alone would look like drift.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detectors.errors import ConfigError
from detectors.evaluation.scores import Scores, read_dump
from detectors.types import Modality
from neurons.drift import BINS, LEAST, bin_of

__all__ = ["main", "shares"]

_DIGITS = 4


def shares(scores: Scores, fake_share: float) -> list[float]:
    """The ten shares of the answered views of `scores`, rounded, with a sum of exactly 1 but for the last digit.

    Args:
        scores: of one modality.
        fake_share: of the answers, in [0, 1].

    Raises:
        ConfigError: there is no answered view of a kind that is to have a share.
    """
    found = np.zeros(BINS)
    for kind, weight in ((~scores.fake, 1.0 - fake_share), (scores.fake, fake_share)):
        p_fake: npt.NDArray[np.float64] = scores.p_fake[kind & scores.answered]
        if weight and not len(p_fake):
            raise ConfigError("a modality needs both real and fake views, or another --fake-share")
        if weight:
            found += weight * np.bincount([bin_of(p) for p in p_fake.tolist()], minlength=BINS) / len(p_fake)
    return [round(share, _DIGITS) for share in found.tolist()]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="dump", type=Path, required=True, help="written by evaluate --predictions")
    parser.add_argument("--detector", default="camo", help="one of those in the file")
    parser.add_argument("--fake-share", type=float, default=0.5, help="of live challenges, in [0, 1]")
    parser.add_argument("--least", type=int, default=LEAST, help="answered views that a modality needs")
    options = parser.parse_args(argv)
    if not 0.0 <= options.fake_share <= 1.0:
        parser.error("--fake-share must be in [0, 1]")
    lines: list[str] = []
    try:
        scores = read_dump(options.dump, [options.detector])[options.detector]
        kinds: tuple[tuple[Modality, npt.NDArray[np.bool_]], ...] = (("image", ~scores.video), ("video", scores.video))
        for modality, chosen in kinds:
            part = scores.part(chosen & scores.answered)
            if len(part) < max(1, options.least):
                sys.stderr.write(f"{modality}: {len(part)} answered views are too few; left out\n")
                continue
            lines.append(f"  {modality}: [{', '.join(f'{share:g}' for share in shares(part, options.fake_share))}]")
    except ConfigError as error:
        sys.stderr.write(f"reference: {error}\n")
        return 2
    if not lines:
        return 1
    sys.stdout.write("\n".join(["reference:", *lines]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
