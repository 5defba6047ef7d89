"""The console in a real browser: Debian's Chromium without a window, driven by Playwright."""

from __future__ import annotations

import base64
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, FilePayload, Page, expect, sync_playwright

from detectors.types import Media
from tests.detectors.fixtures_media import encoded, photo
from tests.neurons.console.kit import TOKEN, Bench, judged, prediction, seen

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PAGES = ("", "challenges", "weights", "access", "analyse")
PICTURE = encoded(photo(120, 160), "JPEG")
EVIL = "<img src=x onerror=document.title='broken'><script>document.title='broken'</script>.jpg"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.fail(f"{CHROMIUM} is missing: the console is tested in it; install Debian's package `chromium`")
    with warnings.catch_warnings():
        # Playwright's driver leaves its pipes to the collector; nothing else in here makes subprocesses.
        warnings.filterwarnings("ignore", category=ResourceWarning, module="asyncio|subprocess")
        with sync_playwright() as playwright:
            started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
            yield started
            started.close()


@dataclass
class Visit:
    """A fresh profile at the console, and everything that must not happen there."""

    page: Page
    url: str
    errors: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    def open(self, path: str) -> Page:
        self.page.goto(self.url + path)
        return self.page


Visits = Callable[..., Visit]


@pytest.fixture
def visit(browser: Browser, home: Bench) -> Iterator[Visits]:
    contexts: list[BrowserContext] = []
    visits: list[Visit] = []

    def begin(*, sign_in: bool = True, width: int = 1000, dark: bool = False, scripts: bool = True) -> Visit:
        home.clock.now += 60.0
        context = browser.new_context(
            viewport={"width": width, "height": 740},
            color_scheme="dark" if dark else "light",
            java_script_enabled=scripts,
        )
        contexts.append(context)
        context.set_default_timeout(10_000)
        made = Visit(context.new_page(), home.url)
        visits.append(made)
        made.page.on("console", lambda said: made.errors.append(said.text))
        made.page.on("pageerror", lambda error: made.errors.append(str(error)))
        made.page.on("request", lambda request: made.requested.append(request.url))
        if sign_in:
            made.open(f"?token={TOKEN}")
        return made

    yield begin
    for made in visits:
        hosts = {urlsplit(url).netloc for url in made.requested if urlsplit(url).scheme not in ("data", "blob")}
        assert hosts <= {urlsplit(home.url).netloc}
    for context in contexts:
        context.close()


def pointer(home: Bench) -> dict[str, str]:
    found: dict[str, str] = json.loads((home.store.root / "active.json").read_text())
    return found


def choose(page: Page, name: str, data: bytes, kind: str = "image/jpeg") -> None:
    page.set_input_files("#file", FilePayload(name=name, mimeType=kind, buffer=data))


def test_signing_in_by_form_after_a_wrong_token(visit: Visits) -> None:
    made = visit(sign_in=False)
    page = made.open("weights")
    expect(page).to_have_url(f"{made.url}login")
    page.get_by_label("Token").fill("not the token")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert").first).to_have_text("That is not the token.")
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(f"{made.url}login")
    made.open("")
    expect(page).to_have_url(f"{made.url}login")
    assert made.errors == ["Failed to load resource: the server responded with a status of 403 (Forbidden)"]


def test_the_token_does_not_stay_in_the_address(visit: Visits) -> None:
    made = visit()
    assert made.page.url == made.url
    assert TOKEN not in made.page.content()
    cookie = made.page.context.cookies()[0]
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    assert made.page.evaluate("document.cookie") == ""


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_quiet_and_stays_at_home(visit: Visits, path: str) -> None:
    made = visit()
    page = made.open(path)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    expect(page.locator("nav a[aria-current=page]")).to_have_count(1)
    assert made.errors == []


def test_a_new_challenge_appears_by_itself(home: Bench, visit: Visits) -> None:
    made = visit()
    page = made.open("challenges")
    expect(page.locator("#challenge-live-1")).to_have_count(0)
    home.recent.judged([judged("live-1", Media(photo(80, 100)))])
    assert home.recent.thumbnails.settle()
    home.recent.seen(seen("live-1", label=1, prediction=prediction(0.91)))
    card = page.locator("#challenge-live-1")
    expect(card).to_contain_text("0.910")
    expect(card).to_contain_text("✓ right")
    picture = card.get_by_role("img")
    expect(picture).to_have_js_property("complete", True)
    expect(picture).to_have_js_property("naturalWidth", 100)
    # The next refresh shows a further one and loads the first picture no second time.
    home.recent.seen(seen("live-2", prediction=prediction(0.1)))
    expect(page.locator("#challenge-live-2")).to_contain_text("0.100")
    assert card.get_by_role("img").count() == 1  # at once, not after a further refresh
    assert sum(url.endswith("/thumbnail/live-1") for url in made.requested) == 1
    assert made.errors == []


def test_the_overview_counts_on(home: Bench, visit: Visits) -> None:
    page = visit().page
    tile = page.locator(".tile", has_text="answered").locator("b")
    before = int(tile.inner_text())
    home.recent.seen(seen("counted"))
    expect(tile).to_have_text(str(before + 1))
    page.goto("about:blank")


def test_a_page_that_lost_its_session_says_so(home: Bench, visit: Visits) -> None:
    page = visit().page
    home.clock.now += 13 * 3600
    expect(page.locator("#stale")).to_contain_text("The session has ended")


def test_activate_and_roll_back_really_change_the_pointer(home: Bench, visit: Visits) -> None:
    made = visit()
    page = made.open("weights")
    looks = home.reloads.looks
    page.get_by_role("button", name="Activate tiny@2.0.0").click()
    expect(page.locator("#told")).to_contain_text("tiny@2.0.0 is active in the store.")
    assert pointer(home) == {"tiny": "2.0.0"}
    assert home.reloads.looks == looks + 1
    expect(page.locator("#verdict")).to_have_text("The last swap was taken: tiny@2.0.0 answers now.")
    expect(page.get_by_role("row", name="tiny@2.0.0").first).to_contain_text("active")
    page.get_by_role("button", name="Roll back").click()
    expect(page.locator("#told")).to_contain_text("active in the store: tiny@1.0.0")
    assert pointer(home) == {"tiny": "1.0.0"}
    assert made.errors == []


def test_what_the_miner_refuses_is_shown_with_its_reason_as_text(home: Bench, visit: Visits) -> None:
    made = visit()
    page = made.open("weights")
    home.reloads.reason = f"golden score differs {EVIL}"
    try:
        page.get_by_role("button", name="Activate tiny@2.0.0").click()
        expect(page.locator("#verdict")).to_contain_text(EVIL)
        expect(page.get_by_text("refused: golden").first).to_be_visible()
    finally:
        home.reloads.reason = ""
        page.get_by_role("button", name="Roll back").click()
    expect(page.locator("#told")).to_contain_text("Rolled back")
    assert page.title() == "Weights · deepfake-miner"
    assert made.errors == []


def test_a_swap_that_ends_later_is_announced_without_a_reload(home: Bench, visit: Visits) -> None:
    page = visit().open("weights")
    home.reloads.reason = "no room in memory"
    try:
        home.reloads.look()
    finally:
        home.reloads.reason = ""
    expect(page.locator("#verdict")).to_contain_text("no room in memory")


def test_a_shadow_is_started_and_stopped(home: Bench, visit: Visits) -> None:
    home.shadows.current = None
    made = visit()
    page = made.open("weights")
    page.get_by_text("Shadow…").click()
    page.get_by_label("challenges", exact=True).fill("40")
    page.get_by_role("button", name="Start the shadow of tiny@2.0.0").click()
    expect(page.get_by_text("7 of 40 challenges")).to_be_visible()
    page.get_by_role("button", name="Stop the shadow").click()
    expect(page.locator("#told")).to_contain_text("stopped")
    assert made.errors == []


def test_a_chosen_picture_is_judged_on_the_page(visit: Visits) -> None:
    made = visit()
    page = made.open("analyse")
    choose(page, "holiday.jpg", PICTURE)
    page.get_by_role("button", name="Analyse").click()
    result = page.locator("#result")
    expect(result.get_by_role("heading", level=2)).to_have_text("holiday.jpg")
    expect(result.get_by_role("img", name="heat map")).to_have_js_property("naturalWidth", 160)
    expect(result.get_by_role("table")).to_contain_text("tiny@1.0.0")
    expect(result).to_have_attribute("aria-live", "polite")
    assert made.errors == []


def test_a_dropped_picture_is_judged_and_the_page_stays(visit: Visits) -> None:
    made = visit()
    page = made.open("analyse")
    transfer = page.evaluate_handle(
        """([data, name]) => {
            const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, { type: "image/jpeg" }));
            return transfer;
        }""",
        [base64.b64encode(PICTURE).decode(), EVIL],
    )
    page.dispatch_event("#drop", "dragenter", {"dataTransfer": transfer})
    expect(page.locator("#drop")).to_have_class("drop over")
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    expect(page.locator("#result h2")).to_have_text(EVIL)
    expect(page.locator("#drop")).to_have_class("drop")
    assert page.locator("#result h2 *").count() == 0
    assert page.title() == "Analyse · deepfake-miner"
    assert made.errors == []


def test_a_broken_file_and_a_large_one_say_why(visit: Visits) -> None:
    page = visit().open("analyse")
    choose(page, "broken.jpg", PICTURE[:200])
    page.get_by_role("button", name="Analyse").click()
    expect(page.locator("#result")).to_contain_text("broken.jpg cannot be judged")
    choose(page, "large.mp4", bytes(300_000), "video/mp4")
    page.get_by_role("button", name="Analyse").click()
    expect(page.locator("#result")).to_contain_text("That file is too large.")


def test_everything_works_without_scripts(home: Bench, visit: Visits) -> None:
    made = visit(scripts=False)
    page = made.open("analyse")
    choose(page, "plain.jpg", PICTURE)
    page.get_by_role("button", name="Analyse").click()
    expect(page.locator("#result h2")).to_have_text("plain.jpg")
    made.open("weights")
    page.get_by_role("button", name="Activate tiny@2.0.0").click()
    expect(page.locator("#told")).to_contain_text("is active in the store")
    page.get_by_role("button", name="Roll back").click()
    expect(page.locator("#told")).to_contain_text("Rolled back")
    assert pointer(home) == {"tiny": "1.0.0"}


def test_the_keyboard_alone_is_enough(home: Bench, visit: Visits) -> None:
    page = visit().open("")
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    made_to = page.get_by_role("link", name="Weights")
    made_to.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Weights")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('aria-label')") == "Activate tiny@2.0.0":
            break
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    home.reloads.look()  # a refresh while the focus is in the table leaves it there
    expect(page.locator("#verdict")).to_contain_text("tiny@1.0.0 answers now")
    page.keyboard.press("Enter")
    expect(page.locator("#told")).to_contain_text("tiny@2.0.0 is active")
    page.get_by_role("button", name="Roll back").press("Enter")
    expect(page.locator("#told")).to_contain_text("Rolled back")


@pytest.mark.parametrize("path", [*PAGES, "login"])
def test_a_phone_needs_no_scrolling_sideways(home: Bench, visit: Visits, path: str) -> None:
    home.recent.seen(seen("wide", prediction=prediction(route=("gate:" + "x" * 80, "late:" + "y" * 60)), wire="w" * 90))
    home.problems.append("z" * 120)
    try:
        page = visit(width=360, sign_in=path != "login").open(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.evaluate("document.body.scrollWidth") <= 360
    finally:
        home.problems.clear()


def luminance(colour: str) -> float:
    channels = [float(part) / 255 for part in colour.partition("(")[2].rstrip(")").split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("path", ["", "challenges", "weights", "access"])
def test_text_stands_out_in_light_and_in_dark(home: Bench, visit: Visits, path: str, dark: bool) -> None:
    """WCAG's contrast ratio of every piece of text with what lies behind it, at least 4.5."""
    home.recent.seen(seen("c-1", label=1, prediction=prediction(0.9, route=("general", "late:face"))))
    home.recent.seen(seen("c-2", label=1, prediction=prediction(0.2)))
    home.recent.seen(seen("c-3", tier="unproven", hotkey="", outcome="bad_signature", status=401, prediction=None))
    home.problems.append("a problem")
    try:
        page = visit(dark=dark).open(path)
    finally:
        home.problems.clear()
    assert (luminance(page.evaluate("getComputedStyle(document.body).backgroundColor")) < 0.1) == dark
    pairs = page.evaluate(
        """() => {
            const behind = (e) => {
                for (; e; e = e.parentElement) {
                    const colour = getComputedStyle(e).backgroundColor;
                    if (!/rgba\\(.*, 0\\)/.test(colour)) return colour;
                }
                return "rgb(255, 255, 255)";
            };
            const out = [];
            for (const e of document.querySelectorAll("body *")) {
                const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
                if (!own || !e.getClientRects().length) continue;
                out.push([getComputedStyle(e).color, behind(e), e.textContent.trim()]);
            }
            return out;
        }"""
    )
    assert len(pairs) > 10
    for front, back, text in pairs:
        light, low = sorted((luminance(front), luminance(back)), reverse=True)
        assert (light + 0.05) / (low + 0.05) >= 4.5, text


def test_a_script_that_got_in_all_the_same_would_not_run(visit: Visits) -> None:
    made = visit()
    page = made.page
    page.evaluate(
        """() => document.body.insertAdjacentHTML("beforeend", "<img src='data:,' onerror='document.title=1'>")"""
    )
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "document.title = 'broken'";
            document.body.append(script);
        }"""
    )
    expect(page.locator("img[onerror]")).to_have_count(1)
    assert page.title() == "Overview · deepfake-miner"
    assert any("Content Security Policy" in error for error in made.errors)
