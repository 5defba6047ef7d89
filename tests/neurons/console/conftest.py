"""One console a file of tests, and clients of it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.neurons.console.kit import MOST, Bench, bench


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("console") / "weights", max_upload_bytes=MOST) as made:
        yield made


@pytest.fixture
def client(home: Bench) -> Iterator[httpx.Client]:
    """Signed in."""
    with home.signed_in() as (signed, secret):
        signed.headers["x-test-csrf"] = secret  # the server does not look at it: where the tests keep it
        yield signed


@pytest.fixture
def nobody(home: Bench) -> Iterator[httpx.Client]:
    """Not signed in."""
    home.clock.now += 60.0
    with httpx.Client(base_url=home.url, trust_env=False, verify=False) as unsigned:
        yield unsigned
