"""Pictures of the operator's console: a real miner, offline, the default detector, labelled challenges over loopback.

    python scripts/console_screenshots.py [--out docs/console] [--seed 0]

Needs Debian's ``chromium``. The media are the demo's; the weights a copy of what ships, in which ``general`` has a
second version: the same network under another number, for the swap and the shadow. Takes about two minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from neurons.threads import sleep_while_waiting

sleep_while_waiting()  # before torch: the miner needs the cores

from detectors import paths  # noqa: E402
from detectors.datasets import Item  # noqa: E402
from detectors.store import Store  # noqa: E402
from detectors.types import Label  # noqa: E402
from neurons.console.security import load_token  # noqa: E402
from neurons.demo_media import media_set  # noqa: E402
from neurons.keys import Keypair, create_throwaway  # noqa: E402
from neurons.processes import miners  # noqa: E402
from neurons.simulation import Endpoint  # noqa: E402
from neurons.wire.client import challenge_request  # noqa: E402

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ("--no-sandbox", "--headless", "--disable-gpu", "--disable-background-networking", "--no-first-run")
MOST_BYTES = 300_000
WIRES = ("dendrite", "epistula", "btauth")
DESK, PHONE = (1100, 900), (390, 844)
SHOTS = (  # page, name, (width, height), dark
    ("", "overview", DESK, False),
    ("challenges", "challenges", DESK, False),
    ("challenges", "challenges-dark", DESK, True),
    ("weights", "weights", DESK, False),
    ("analyse", "analyse", DESK, False),
    ("analyse", "analyse-dark", DESK, True),
    ("", "overview-phone", PHONE, False),
    ("analyse", "analyse-phone-dark", PHONE, True),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/console"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if not CHROMIUM.exists():
        raise SystemExit(f"{CHROMIUM} is missing: install Debian's package `chromium`")
    out: Path = args.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="console-") as folder:
        scratch = Path(folder)
        second_version(shutil.copytree(paths.weights(), scratch / "weights", ignore=shutil.ignore_patterns(".*")))
        port = free_port()
        flags = ["--weights.store", "weights", "--telemetry.no-enabled", "--console.enabled"]
        flags += ["--console.port", str(port), "--console.token_file", "token"]
        # From inside: the page shows the store as it was named, and no folder of this machine's.
        with contextlib.chdir(scratch), miners({"miner": flags}, wallets=scratch, logs=scratch) as ready:
            items = chosen(media_set(None, scratch, args.seed).items)
            endpoint = ready()[0]
            validator = create_throwaway(scratch, "validator")
            ask(endpoint, validator, items)
            with browser() as chromium:
                address = f"http://127.0.0.1:{port}/?token={load_token(Path('token'))}"
                page = opened(chromium, address, DESK, dark=False)
                swap(page, endpoint, validator, items)
                for path, name, size, dark in SHOTS:
                    shoot(chromium, address, items, path=path, file=out / f"{name}.png", size=size, dark=dark)


def second_version(store: Path) -> None:
    """The active ``general`` once more, as 1.1.0."""
    found = Store(store)
    loaded = found.load("general")
    found.save(dataclasses.replace(loaded.card, version="1.1.0"), loaded.network)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def chosen(items: Sequence[Item]) -> list[Item]:
    """Images and videos of both kinds, of as many sources as there are, mixed."""
    found: list[Item] = []
    for modality, count in (("image", 6), ("video", 2)):
        for fake in (False, True):
            some = [i for i in items if i.modality == modality and (i.label is not Label.REAL) == fake]
            step = max(1, len(some) // count)
            found += some[::step][:count]
    return found[::3] + found[1::3] + found[2::3]


def ask(endpoint: Endpoint, validator: Keypair, items: Sequence[Item]) -> None:
    """Sends every item as a signed challenge that carries its label, and a stranger's broken one at the end."""
    with httpx.Client(timeout=30.0, trust_env=False) as client:
        for number, item in enumerate(items):
            wire = WIRES[number % 3] if item.modality == "image" else WIRES[1 + number % 2]
            request = challenge_request(
                wire,
                key=validator,
                receiver=endpoint.hotkey,
                modality=item.modality,
                payload=item.path.read_bytes(),
                timeout_s=9.0,
                uuid=str(uuid.uuid4()),
                label=int(item.label),
            )
            answer = client.post(endpoint.url + request.target, content=request.body, headers=dict(request.headers))
            answer.raise_for_status()
            time.sleep(0.8)  # so that the traffic of more than one slot is seen
        client.post(f"{endpoint.url}/detect_image", content=b"x", headers={"content-type": "image/jpeg"})


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield chromium
        finally:
            chromium.close()


def opened(chromium: Browser, address: str, size: tuple[int, int], *, dark: bool) -> Page:
    """A page that is signed in."""
    context = chromium.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light"
    )
    page = context.new_page()
    page.goto(address)
    if not page.url.endswith("/"):
        raise SystemExit(f"not signed in: {page.locator('body').inner_text()}")
    return page


def swap(page: Page, endpoint: Endpoint, validator: Keypair, items: Sequence[Item]) -> None:
    """Activates the second version, lets the first one run in its shadow, and asks again."""
    page.get_by_role("link", name="Weights").click()
    page.get_by_role("button", name="Activate general@1.1.0").click()
    expect(page.locator("#verdict")).to_contain_text("was taken", timeout=60_000)
    page.reload()
    row = page.get_by_role("row", name="general@1.0.0")
    row.get_by_text("Shadow…").click()
    row.get_by_label("challenges", exact=True).fill("200")
    page.get_by_role("button", name="Start the shadow of general@1.0.0").click()
    expect(page.locator("section[aria-labelledby=shadow]")).to_contain_text("running", timeout=60_000)
    ask(endpoint, validator, items)


def shoot(
    chromium: Browser,
    address: str,
    items: Sequence[Item],
    *,
    path: str,
    file: Path,
    size: tuple[int, int],
    dark: bool,
) -> None:
    """One picture of one page."""
    page = opened(chromium, address, size, dark=dark)
    page.goto(address.partition("?")[0] + path)
    if path == "analyse":
        fake = next(i for i in items if i.label is Label.SEMISYNTHETIC and i.modality == "image")
        page.set_input_files("#file", fake.path)
        page.get_by_role("button", name="Analyse").click()
        expect(page.locator("#result h2")).to_be_visible(timeout=60_000)
    page.wait_for_function("[...document.images].every((image) => image.complete)")
    file.write_bytes(small(page.screenshot(full_page=path != "challenges")))
    print(f"{file.name}: {file.stat().st_size // 1000} KB", flush=True)
    page.context.close()
    time.sleep(5.0)  # logins are limited


def small(png: bytes) -> bytes:
    """The picture in at most 256 colours where it would be too large for a repository."""
    if len(png) <= MOST_BYTES:
        return png
    stream = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256).save(stream, "PNG", optimize=True)
    return stream.getvalue()


if __name__ == "__main__":
    main()
