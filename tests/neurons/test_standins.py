"""The stand-ins answer what their names say, over the real server, and are gone afterwards."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from detectors.types import Detector, Media
from neurons.standins import STANDINS, Constant, Random, serve_in_process, standins
from tests.detectors.fixtures_media import photo

MEDIA = [Media(photo(16, 16, seed=k)) for k in range(40)]


def test_there_are_three_and_they_are_detectors() -> None:
    assert list(STANDINS) == ["always-real", "always-fake", "random"]
    for name, detector in standins(0).items():
        assert isinstance(detector, Detector)
        assert detector.card.name == name
        assert detector.predict([]) == []


def test_constants_are_constant() -> None:
    real, fake, _ = standins(0).values()
    assert {p.p_fake for p in real.predict(MEDIA)} == {0.0}
    assert {p.p_fake for p in fake.predict(MEDIA)} == {1.0}
    assert Constant("half", 0.5).predict(MEDIA[:1])[0].route == ("half",)


def test_random_depends_on_seed_and_pixels_only() -> None:
    batch = [p.p_fake for p in Random(1).predict(MEDIA)]
    assert batch == [Random(1).predict([media])[0].p_fake for media in MEDIA]
    assert batch[::-1] == [p.p_fake for p in Random(1).predict(MEDIA[::-1])]
    assert batch != [p.p_fake for p in Random(2).predict(MEDIA)]
    assert len(set(batch)) == len(MEDIA)
    assert 0.3 < np.mean(batch) < 0.7


def test_servers_answer_and_end(tmp_path: Path) -> None:
    threads = threading.active_count()
    with serve_in_process(standins(0), tmp_path) as endpoints:
        assert [e.name for e in endpoints] == list(STANDINS)
        assert len({e.hotkey for e in endpoints}) == len({e.url for e in endpoints}) == 3
        for endpoint in endpoints:
            with urllib.request.urlopen(endpoint.url, timeout=5) as page:
                assert page.status == 200
    for endpoint in endpoints:
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(endpoint.url, timeout=5)
    assert threading.active_count() <= threads


def test_servers_end_after_an_error_inside(tmp_path: Path) -> None:
    def fail() -> None:
        with serve_in_process({"a": Constant("a", 0.5)}, tmp_path) as endpoints:
            ports.append(int(endpoints[0].url.rpartition(":")[2]))
            raise RuntimeError("inside")

    ports: list[int] = []
    with pytest.raises(RuntimeError, match="inside"):
        fail()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", ports[0]), timeout=5)
