"""What the console refuses: who is not signed in, other sites, other names, large bodies, odd paths."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator

import httpx
import pytest

from neurons.console.app import create_app
from neurons.console.bridge import Ops
from tests.neurons.console.kit import (
    MOST,
    TOKEN,
    Bench,
    press,
    secret,
)

PAGES = ("/", "/challenges", "/weights", "/access", "/analyse")
BUTTONS = ("/weights/activate", "/weights/rollback", "/weights/shadow", "/weights/shadow/stop", "/analyse", "/logout")

# Who gets in


@pytest.mark.parametrize("path", PAGES)
def test_pages_lead_who_is_not_signed_in_to_the_login(nobody: httpx.Client, path: str) -> None:
    response = nobody.get(path)
    assert (response.status_code, response.headers["location"]) == (303, "/login")
    assert response.content == b""


@pytest.mark.parametrize("path", ["/part/overview", "/part/nonsense", "/thumbnail/x-1", *BUTTONS])
def test_nothing_else_is_there_for_who_is_not_signed_in(nobody: httpx.Client, path: str) -> None:
    method = "POST" if path in BUTTONS else "GET"
    assert nobody.request(method, path, data={"csrf": ""}).status_code == 401


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/nonsense", "/part/nonsense", "/thumbnail/gone"])
def test_there_are_no_other_pages(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_only_get_and_post_are_served(client: httpx.Client, method: str) -> None:
    assert client.request(method, "/weights").status_code == 405


def test_the_token_opens_a_session_and_leaves_the_address(nobody: httpx.Client) -> None:
    response = nobody.get("/", params={"token": TOKEN})
    assert (response.status_code, response.headers["location"]) == (303, "/")
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    page = nobody.get("/")
    assert page.status_code == 200
    assert TOKEN not in page.text


def test_a_wrong_token_opens_nothing(nobody: httpx.Client) -> None:
    for response in (nobody.post("/login", data={"token": "wrong"}), nobody.get("/", params={"token": "wrong"})):
        assert response.status_code == 403
        assert "set-cookie" not in response.headers
        assert "That is not the token." in response.text
    assert nobody.get("/").status_code == 303


def test_too_many_attempts_have_to_wait(nobody: httpx.Client) -> None:
    for _ in range(5):
        nobody.post("/login", data={"token": "wrong"})
    response = nobody.post("/login", data={"token": TOKEN})
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) >= 1


def test_a_link_on_somebodys_page_costs_no_attempt(nobody: httpx.Client) -> None:
    for _ in range(20):
        response = nobody.get("/", params={"token": "wrong"}, headers={"sec-fetch-site": "cross-site"})
        assert response.status_code == 303
    assert nobody.post("/login", data={"token": TOKEN}).status_code == 303


def test_a_session_ends(home: Bench, client: httpx.Client) -> None:
    assert client.get("/").status_code == 200
    home.clock.now += 12 * 3600
    assert client.get("/").headers["location"] == "/login"
    assert client.get("/part/overview").status_code == 401
    assert client.post("/weights/rollback", data={"csrf": secret(client)}).status_code == 401


def test_signing_out_ends_the_session_not_only_the_cookie(home: Bench, client: httpx.Client) -> None:
    cookies = dict(client.cookies)
    press(client, "/logout")
    with httpx.Client(base_url=home.url, cookies=cookies, trust_env=False, verify=False) as thief:
        assert thief.get("/").status_code == 303


# Other sites


@pytest.mark.parametrize("path", BUTTONS)
@pytest.mark.parametrize("given", [None, "", "wrong", "another"])
def test_every_button_needs_the_secret_of_its_session(
    home: Bench, client: httpx.Client, path: str, given: str | None
) -> None:
    before = (home.store.root / "active.json").read_text()
    fields = {"key": "tiny@2.0.0", "count": "5"}
    if given == "another":
        with home.signed_in() as (_, other):
            fields["csrf"] = other
    elif given is not None:
        fields["csrf"] = given
    if path == "/analyse":
        response = client.post(path, data=fields, files={"file": ("x.jpg", b"x")})
    else:
        response = client.post(path, data=fields)
    assert response.status_code == 403
    assert (home.store.root / "active.json").read_text() == before
    assert client.get("/").status_code == 200  # still signed in


def test_every_form_route_is_covered_above(home: Bench) -> None:
    app = create_app(Ops(home.recent, home.store.load("tiny"), home.store.root, home.health), TOKEN)
    posts = {getattr(r, "path", "") for r in app.routes if "POST" in (getattr(r, "methods", None) or ())}
    assert posts == {*BUTTONS, "/login"}


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_forms_of_other_sites_are_refused_even_with_the_secret(client: httpx.Client, headers: dict[str, str]) -> None:
    response = client.post("/weights/activate", data={"csrf": secret(client), "key": "tiny@2.0.0"}, headers=headers)
    assert response.status_code == 403
    assert "another site" in response.text


def test_our_own_origin_is_taken(home: Bench, client: httpx.Client) -> None:
    headers = {"origin": home.url.rstrip("/"), "sec-fetch-site": "same-origin"}
    response = client.post("/weights/shadow/stop", data={"csrf": secret(client)}, headers=headers)
    assert response.status_code == 303


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "192.0.2.7", "[::2]", "0.0.0.0"]
)
def test_a_name_that_is_not_ours_is_refused_before_anything_else(client: httpx.Client, host: str) -> None:
    for path in ("/", "/login", "/healthz", "/static/console.css"):
        assert client.get(path, headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9109", "127.0.0.1:1", "[::1]:9109"])
def test_names_of_loopback_are_ours(nobody: httpx.Client, host: str) -> None:
    assert nobody.get("/healthz", headers={"host": host}).status_code == 200


def test_a_request_without_a_host_is_refused(home: Bench) -> None:
    with socket.create_connection(("127.0.0.1", home.server.port), 5) as plain:
        plain.sendall(b"GET /login HTTP/1.0\r\n\r\n")
        assert plain.recv(100).split()[1] == b"421"


@pytest.mark.parametrize(
    "path", [*PAGES, "/login", "/healthz", "/static/console.js", "/thumbnail/gone", "/part/access"]
)
def test_every_answer_carries_the_headers(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cache-control"] == ("max-age=3600" if path.startswith("/static/") else "no-store")
    assert "server" not in headers


# Sizes and paths


@pytest.mark.parametrize(
    "name",
    [
        "../app.py",
        "..%2fapp.py",
        "%2e%2e/app.py",
        "....//app.py",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "console.css%00",
        "",
    ],
)
def test_no_path_leads_out_of_the_static_files(home: Bench, name: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", home.server.port, timeout=5)  # sends the path as it is
    connection.request("GET", f"/static/{name}")
    response = connection.getresponse()
    body = response.read()
    connection.close()
    assert response.status in (303, 404)
    assert b"create_app" not in body
    assert b"root:" not in body


def test_static_files_are_what_they_say(nobody: httpx.Client) -> None:
    for name, kind in (("console.css", "text/css"), ("console.js", "text/javascript"), ("icon.svg", "image/svg+xml")):
        response = nobody.get(f"/static/{name}")
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(kind)


@pytest.mark.parametrize("path", ["/analyse", "/weights/activate", "/login"])
def test_a_body_that_says_it_is_too_large_is_refused_unread(client: httpx.Client, home: Bench, path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {MOST + 10**6}\r\n"
    cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    with socket.create_connection(("127.0.0.1", home.server.port), 5) as plain:
        plain.sendall(f"{head}cookie: {cookie}\r\n\r\n".encode())
        assert plain.recv(100).split()[1] == b"413"  # though nothing of it was sent


@pytest.mark.parametrize("path", ["/analyse", "/weights/activate", "/login"])
def test_a_body_that_does_not_say_its_size_is_cut_off(client: httpx.Client, path: str) -> None:
    def endless() -> Iterator[bytes]:
        yield f'--b\r\ncontent-disposition: form-data; name="csrf"\r\n\r\n{secret(client)}\r\n'.encode()
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\n'
        for _ in range(40):
            yield bytes(10_000)

    response = client.post(path, content=endless(), headers={"content-type": "multipart/form-data; boundary=b"})
    assert response.status_code == 413


@pytest.mark.parametrize("value", ["-1", "1e3", "9" * 30, "٣"])
def test_a_nonsense_length_is_refused(client: httpx.Client, home: Bench, value: str) -> None:
    with socket.create_connection(("127.0.0.1", home.server.port), 5) as plain:
        plain.sendall(f"POST /login HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {value}\r\n\r\n".encode())
        assert plain.recv(100).split()[1] in (b"400", b"413")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"--b\r\nnonsense\r\n\r\n--b--"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nx\r\n--b--"),
        ("application/x-www-form-urlencoded", b"&".join(b"a=1" for _ in range(100))),
    ],
)
def test_a_broken_form_is_a_bad_request(client: httpx.Client, kind: str, body: bytes) -> None:
    assert client.post("/analyse", content=body, headers={"content-type": kind}).status_code in (400, 403)
