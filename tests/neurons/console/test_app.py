"""The console over plain HTTP: what its buttons do and what its pages say."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from detectors.errors import DetectorError
from detectors.types import Media
from tests.detectors.fixtures_media import encoded, movie, photo, video_frames
from tests.neurons.console.kit import (
    HOTKEY,
    MOST,
    Bench,
    analyse,
    bench,
    judged,
    prediction,
    press,
    secret,
    seen,
)

PAGES = ("/", "/challenges", "/weights", "/access", "/analyse")
BUTTONS = ("/weights/activate", "/weights/rollback", "/weights/shadow", "/weights/shadow/stop", "/analyse", "/logout")

# Buttons


def test_activating_changes_the_store_and_wakes_the_miner(home: Bench, client: httpx.Client) -> None:
    looks = home.reloads.looks
    page = press(client, "/weights/activate", key="tiny@2.0.0")
    assert json.loads((home.store.root / "active.json").read_text()) == {"tiny": "2.0.0"}
    assert home.reloads.looks == looks + 1
    assert "tiny@2.0.0 is active in the store." in page.text
    assert "The last swap was taken: tiny@2.0.0 answers now." in page.text
    back = press(client, "/weights/rollback")
    assert "active in the store: tiny@1.0.0" in back.text
    assert json.loads((home.store.root / "active.json").read_text()) == {"tiny": "1.0.0"}
    assert home.reloads.looks == looks + 2
    assert "Rolled back" not in client.get("/weights").text  # told once


def test_a_refused_swap_says_why(home: Bench, client: httpx.Client) -> None:
    home.reloads.reason = "golden score of 'noise' is <0.2>, not 0.9"
    try:
        page = press(client, "/weights/activate", key="tiny@2.0.0").text
    finally:
        home.reloads.reason = ""
        press(client, "/weights/rollback")
    assert "refused: golden" in page
    assert "is &lt;0.2&gt;, not 0.9" in page
    assert "<0.2>" not in page


@pytest.mark.parametrize("key", ["", "tiny", "tiny@9.9.9", "../x@1", "tiny@../../x", "<b>@1"])
def test_what_is_not_in_the_store_is_not_activated(home: Bench, client: httpx.Client, key: str) -> None:
    page = press(client, "/weights/activate", key=key)
    assert page.status_code == 200
    assert "Not activated" in page.text
    assert "<b>@1" not in page.text
    assert json.loads((home.store.root / "active.json").read_text()) == {"tiny": "1.0.0"}


def test_altered_weights_are_not_activated(home: Bench, client: httpx.Client) -> None:
    path = home.store.root / "tiny-2.0.0.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    try:
        assert "sha256" in press(client, "/weights/activate", key="tiny@2.0.0").text
    finally:
        path.write_bytes(whole)


def test_a_shadow_is_started_with_its_plan_and_stopped(home: Bench, client: httpx.Client) -> None:
    page = press(client, "/weights/shadow", key="tiny@2.0.0", count="50", promote="yes")
    assert home.shadows.current is not None
    plan = home.shadows.current.plan
    assert (plan.key, plan.count, plan.promote) == ("tiny@2.0.0", 50, True)
    assert "7 of 50 challenges" in page.text
    assert "88 %" in page.text
    assert "too few labels" in page.text
    press(client, "/weights/shadow/stop")
    assert home.shadows.current.state == "stopped"


@pytest.mark.parametrize("count", ["0", "-1", "1.5", "", "100001", "x", "٣"])
def test_a_shadow_over_nonsense_is_not_started(home: Bench, client: httpx.Client, count: str) -> None:
    home.shadows.current = None
    assert "Not started" in press(client, "/weights/shadow", key="tiny@2.0.0", count=count).text
    assert home.shadows.current is None


def test_a_store_that_cannot_be_read_is_said_not_a_bug(home: Bench, client: httpx.Client) -> None:
    bad = home.store.root / "bad-1.0.0.json"
    bad.write_text("{")
    try:
        page = client.get("/weights")
    finally:
        bad.unlink()
    assert page.status_code == 200
    assert "The store cannot be read." in page.text
    assert "bad-1.0.0.json" in page.text


def test_without_reloads_and_shadows_the_page_says_so(tmp_path: Path) -> None:
    with bench(tmp_path, reloads=None, shadows=None, explainer=None) as plain, plain.signed_in() as (client, csrf):
        page = client.get("/weights").text
        assert "does not follow its store" in page
        assert "Shadow" not in page
        said = client.post("/weights/activate", data={"csrf": csrf, "key": "tiny@2.0.0"}, follow_redirects=True).text
        assert "takes it up at its next start" in said
        for path in ("/weights/shadow", "/weights/shadow/stop"):
            data = {"csrf": csrf, "key": "tiny@2.0.0", "count": "5"}
            assert "runs no shadow" in client.post(path, data=data, follow_redirects=True).text


# Pages


def test_challenges_show_score_experts_and_truth(home: Bench, client: httpx.Client) -> None:
    home.recent.judged([judged("right-1", Media(photo(64, 64)))])
    assert home.recent.thumbnails.settle()
    home.recent.seen(seen("right-1", label=1, prediction=prediction(0.9, experts={"a": 0.8, "b": 0.3})))
    home.recent.seen(seen("wrong-1", label=0, prediction=prediction(0.9)))
    page = client.get("/challenges").text
    right = page.partition('id="challenge-right-1"')[2].partition("</li>")[0]
    for shown in (
        "0.900",
        "synthetic",
        "✓ right",
        "truth: synthetic",
        "0.800",
        "0.300",
        'src="/thumbnail/right-1"',
        HOTKEY,
    ):
        assert shown in right
    wrong = page.partition('id="challenge-wrong-1"')[2].partition("</li>")[0]
    assert "✗ wrong" in wrong
    assert "<img" not in wrong
    picture = client.get("/thumbnail/right-1")
    assert picture.headers["content-type"] == "image/jpeg"
    assert picture.content.startswith(b"\xff\xd8")


def test_what_strangers_wrote_is_escaped_everywhere(home: Bench, client: httpx.Client) -> None:
    evil = "<script>alert(1)</script>"
    home.recent.seen(
        seen("e", hotkey=evil, outcome=evil, wire=evil, prediction=prediction(route=(evil,), experts={evil: 0.5}))
    )
    home.recent.seen(seen("s", tier="unproven", hotkey="", outcome=evil, path=f"/{evil}", prediction=None))
    home.problems.append(evil)
    try:
        for path in PAGES:
            page = client.get(path).text
            assert evil not in page
            assert (evil.replace("<", "&lt;").replace(">", "&gt;") in page) == (path not in ("/weights", "/analyse"))
    finally:
        home.problems.clear()


def test_the_overview_says_how_the_miner_is(home: Bench, client: httpx.Client) -> None:
    home.problems.append("the metagraph is old")
    try:
        page = client.get("/").text
    finally:
        home.problems.clear()
    for shown in ("the metagraph is old", "camo@0123456789ab", "300 MiB", "12 s old", "network"):
        assert shown in page


def test_no_figure_of_too_few_labels_and_all_profiles_of_enough(tmp_path: Path) -> None:
    with bench(tmp_path) as fresh, fresh.signed_in() as (client, _):
        assert "Not enough labels: 0 of at least 10." in client.get("/").text
        assert "No challenge was answered yet." in client.get("/").text
        for k in range(10):
            fresh.recent.seen(seen(str(k), label=k % 2, prediction=prediction(0.9 if k % 2 else 0.1)))
        page = client.get("/").text
        assert "Over the last 10 labelled challenges:\naccuracy 1.000" in page
        for name in ("sn34-2.0", "sn34-2.0.1", "sn34-2.1", "sn34-2.2.0", "sn34-2.2.7"):
            assert name in page
        assert "no labels" in page  # of videos


def test_health_for_machines_needs_no_session_and_tells_little(home: Bench, nobody: httpx.Client) -> None:
    assert (nobody.get("/healthz").status_code, nobody.get("/healthz").text) == (200, "serving\n")
    home.serving = False
    try:
        assert nobody.get("/healthz").status_code == 503
    finally:
        home.serving = True


# Analysing


def test_a_picture_is_judged_with_its_heat_map(home: Bench, client: httpx.Client) -> None:
    data = encoded(photo(120, 160), "JPEG")
    expected = home.store.load("tiny").predict([Media(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))])[0]
    page = analyse(client, data, "<i>x</i>.jpg")
    assert page.status_code == 200
    assert f"{expected.p_fake:.3f}" in page.text
    assert "&lt;i&gt;x&lt;/i&gt;.jpg" in page.text
    assert "<i>x" not in page.text
    assert "tiny@1.0.0" in page.text
    assert "160 × 120 pixels" in page.text
    assert "clip has no part in it: it saw no &lt;frame&gt;" in page.text
    assert page.text.count("data:image/jpeg;base64,") == 2
    assert "<html" in page.text
    assert "<html" not in analyse(client, data, **{"x-part": "1"}).text


def test_a_video_is_judged_with_a_strip(client: httpx.Client) -> None:
    page = analyse(client, movie(video_frames(12)), "x.mp4")
    assert page.status_code == 200
    assert "12 frames" in page.text
    assert page.text.count("data:image/jpeg;base64,") == 2


@pytest.mark.parametrize(
    ("data", "reason"), [(b"not a picture", "undecodable"), (encoded(photo(4, 4), "PNG"), "too_small")]
)
def test_what_is_no_media_says_why(client: httpx.Client, data: bytes, reason: str) -> None:
    page = analyse(client, data)
    assert page.status_code == 422
    assert f"cannot be judged ({reason})" in page.text


def test_no_file_is_asked_for_again(client: httpx.Client) -> None:
    assert analyse(client, b"", "").status_code == 422
    assert client.post("/analyse", data={"csrf": secret(client), "file": "text"}).status_code == 422


def test_a_file_that_is_a_little_too_large_is_refused(client: httpx.Client) -> None:
    assert analyse(client, bytes(MOST + 1)).status_code == 413


def test_a_detector_or_a_heat_map_that_fails_is_said(tmp_path: Path) -> None:
    class Failing:
        card = None

        def predict(self, batch: Any, *, deadline: float | None = None) -> Any:
            raise DetectorError("out of <memory>")

    with bench(tmp_path, detector=Failing()) as broken, broken.signed_in() as (client, csrf):  # type: ignore[arg-type]
        files = {"file": ("x.jpg", encoded(photo(), "JPEG"))}
        page = client.post("/analyse", data={"csrf": csrf}, files=files)
        assert page.status_code == 500
        assert "The detector failed on x.jpg: out of &lt;memory&gt;" in page.text


def test_without_a_way_to_draw_there_is_a_judgement_all_the_same(tmp_path: Path) -> None:
    with bench(tmp_path, with_maps=False) as plain, plain.signed_in() as (client, csrf):
        page = client.post("/analyse", data={"csrf": csrf}, files={"file": ("x.jpg", encoded(photo(), "JPEG"))})
        assert page.status_code == 200
        assert "draws no heat maps" in page.text
        assert page.text.count("data:image/jpeg;base64,") == 1


def test_a_bug_is_not_told_to_the_browser(tmp_path: Path) -> None:
    class Buggy:
        card = None

        def predict(self, batch: Any, *, deadline: float | None = None) -> Any:
            raise AssertionError("secret details")

    with bench(tmp_path, detector=Buggy()) as broken, broken.signed_in() as (client, csrf):  # type: ignore[arg-type]
        response = client.post("/analyse", data={"csrf": csrf}, files={"file": ("x.jpg", encoded(photo(), "JPEG"))})
        assert response.status_code == 500
        assert "secret details" not in response.text
        assert client.get("/").status_code == 200
