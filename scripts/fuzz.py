"""Feeds every byte parser with hostile input for a bounded time; see ``tests/fuzz``.

``python scripts/fuzz.py --seconds 600 --seed 1`` prints a table and ends with 1 where something was found, with the
inputs under ``build/fuzz/findings``. A finding becomes a file in ``tests/fuzz/cases`` once it is mended.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.fuzz.supervise import campaign, markdown, save
from tests.fuzz.table import all_targets


def main() -> int:
    """Runs it; 1 where there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--seconds", type=float, default=600.0, help="of wall time, all targets together (default: 600)"
    )
    parser.add_argument("--seed", type=int, default=None, help="of everything random (default: another every time)")
    parser.add_argument("--targets", default="", help="names, comma separated (default: all)")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="folder (default: build/fuzz)")
    args = parser.parse_args()
    seed = secrets.randbelow(1 << 31) if args.seed is None else args.seed
    shares = {target.name: target.share for target in all_targets()}
    chosen = [name for name in args.targets.split(",") if name] or list(shares)
    unknown = [name for name in chosen if name not in shares]
    if unknown:
        parser.error(f"unknown targets {', '.join(unknown)}; known are {', '.join(shares)}")
    print(f"seed {seed}, {args.seconds:g} s, {len(chosen)} targets")
    tallies = campaign({name: shares[name] for name in chosen}, seconds=args.seconds, out=args.out, seed=seed)
    found = save(tallies, args.out)
    print(markdown(tallies))
    for path in found:
        print(f"{path}: {path.read_text().strip().splitlines()[-1][:200]}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
