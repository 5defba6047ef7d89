# mypy: ignore-errors
"""The peer of ``make attacks``: a real Axon of bittensor 10.5, set up as its miners set it up.

One argument, JSON: ``folder`` of the wallet, ``port`` (0 takes a free one), ``stakes`` of the validators by hotkey,
``large`` characters of base64 above which a picture takes its time, and ``judge_s``, that time. Like the miners of its
day it serves the hotkeys that it knows, takes their stake for the priority, and judges in a plain function.

Runs in the conformance environment, so it imports nothing of this project.
"""

# No `from __future__ import annotations` here, as in `bench_axon`.
import json
import sys
import time
from typing import Tuple  # noqa: UP035 - the Axon compares the annotation, and tuple[…] is not equal to it

from bench_axon import ImageSynapse, free_port, serve_until_closed, wallet_in


def main() -> None:
    job = json.loads(sys.argv[1])
    stakes = job["stakes"]

    def forward(synapse: ImageSynapse) -> ImageSynapse:
        if len(synapse.image) > job["large"]:
            time.sleep(job["judge_s"])
        synapse.prediction = 0.5
        return synapse

    def blacklist(synapse: ImageSynapse) -> Tuple[bool, str]:  # noqa: UP006
        return synapse.dendrite.hotkey not in stakes, "unrecognized hotkey"

    def priority(synapse: ImageSynapse) -> float:
        return stakes[synapse.dendrite.hotkey]

    attached = {"forward_fn": forward, "blacklist_fn": blacklist, "priority_fn": priority}
    serve_until_closed(wallet_in(job["folder"]), job["port"] or free_port(), **attached)


if __name__ == "__main__":
    main()
