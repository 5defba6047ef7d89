"""What is cut from a text, and what must stay readable."""

from __future__ import annotations

import base64
import hashlib
import time

import pytest

from neurons.redact import redact, redact_values
from neurons.wire.encoding import deflate_base85
from tests.neurons.loopback import ALICE, GOOD

SIGNATURE = ALICE.sign(b"message")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("wss://user:pass@node.example:443/KEY?token=KEY#KEY is away", "wss://node.example:443/*** is away"),
        ("cannot reach 'ws://[2001:db8::1]:9944/KEY'.", "cannot reach 'ws://[2001:db8::1]:9944/***'."),
        ("(https://node.example?KEY)", "(https://node.example/***)"),
        ("wss://node.example:443 is away", "wss://node.example:443 is away"),
        ("wss://node.example/ is away", "wss://node.example/ is away"),
        ("two: ws://a/K, wss://b/K", "two: ws://a/*** wss://b/***"),
        ("seed 0x" + "ab" * 32, "seed 0xabababab...(66 hexadecimal digits)"),
        ("seed " + "ab" * 32, "seed abababab...(64 hexadecimal digits)"),
        ("short " + "ab" * 31, "short " + "ab" * 31),
        (ALICE.ss58_address, ALICE.ss58_address),
        ("got " + repr(b"\xff\xd8" * 40) + " there", "got <bytes> there"),
        ("got " + repr(b"\xff\xd8" * 40)[:70], "got <bytes>"),
        ("got b'short' there", "got b'short' there"),
        ("alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima", "<words>"),
        (" ".join(["abc"] * 12), "<words>"),  # the shortest that is cut
        ("ws://a/K", "ws://a/***"),
        ("our hotkey is not in the metagraph of block 12; looking again", None),
        ("/a/quite/long/path/of/some/file/that/an/operator/must/be/able/to/read/whole/miner", None),
        ('  File "/usr/lib/python3.11/site-packages/somewhere/neurons/scheduler.py", line 335, in _work', None),
    ],
)
def test_secrets_go_and_the_rest_stays(text: str, expected: str | None) -> None:
    assert redact(text) == (text if expected is None else expected)


@pytest.mark.parametrize(
    "secret",
    [
        SIGNATURE.hex(),
        "0x" + SIGNATURE.hex(),
        base64.b64encode(SIGNATURE).decode(),
        base64.urlsafe_b64encode(SIGNATURE).decode(),
        base64.b64encode(GOOD).decode(),
        base64.b64encode(GOOD)[100:164].decode(),
        deflate_base85(GOOD),
        GOOD.hex(),
        repr(GOOD),
        repr(GOOD[:100]),
    ],
    ids=[str(k) for k in range(10)],  # sr25519 signatures differ in every process, and tests' names must not
)
@pytest.mark.parametrize("around", ["{}", "image={}", '{{"image": "{}"}}', "[{}, 1]", "the value {} is bad"])
def test_of_what_is_sent_no_slice_of_64_characters_is_left(secret: str, around: str) -> None:
    shown = redact(around.format(secret))
    assert len(shown) < len(around) + 60
    assert not any(secret[i : i + 24] in shown for i in range(len(secret) - 24))


def test_structures_are_gone_through() -> None:
    class Odd:
        def __repr__(self) -> str:
            return f"Odd({SIGNATURE.hex()})"

    given = {"a": ["wss://h/K", {"b": GOOD}], "n": 1, "none": None, "yes": True, "odd": Odd(), 7: ("x",)}
    assert redact_values(given) == {
        "a": ["wss://h/***", {"b": f"<{len(GOOD)} bytes>"}],
        "n": 1,
        "none": None,
        "yes": True,
        "odd": f"Odd({SIGNATURE.hex()[:8]}...(128 hexadecimal digits))",
        "7": ["x"],
    }


def test_a_hash_can_still_be_told_from_another() -> None:
    one, other = (hashlib.sha256(text).hexdigest() for text in (b"1", b"2"))
    assert redact(one) != redact(other)


@pytest.mark.parametrize(
    "hostile",
    ["a", "a ", "abc ", "/", "b'", "b'\\", "wss://", "wss://@", "0x", "0" * 63 + " ", "'\\", "A" * 63 + "+"],
)
def test_no_text_takes_long(hostile: str) -> None:
    before = time.process_time()
    redact(hostile * (300_000 // len(hostile)))
    assert time.process_time() - before < 1.0
