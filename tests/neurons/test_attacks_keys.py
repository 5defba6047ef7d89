"""Attacks on identity: spellings of an address, mixed-up schemes, keys without a secret, our own key, replays."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import time
import uuid
from typing import Any

import pytest
from bittensor import http_auth, sp_core
from bittensor.sp_core import Keypair

from detectors.errors import ConfigError
from neurons import keys, miner
from neurons.access import AccessRules
from neurons.limits import RateLimited
from neurons.pipeline import TrivialJudge
from neurons.settings import Axon, Blacklist, MinerSettings
from neurons.wire.base import Refusal, Request
from neurons.wire.client import WIRES
from neurons.wire.dendrite import EMPTY_BODY_HASH
from tests.neurons.loopback import ALICE, BOB, GOOD, MINER, Client, against, ask

ED25519, SR25519 = 0, 1
SECOND = 10**9
HOTKEY = {
    "dendrite": "bt_header_dendrite_hotkey",
    "btauth": "x-bittensor-hotkey",
    "epistula": "epistula-signed-by",
}
REFUSED = {"dendrite": 401, "btauth": 401, "epistula": 400}
FULL_WIDTH = "".join(chr(ord(c) + 0xFEE0) for c in ALICE.ss58_address)


def signed(
    name: str, *, spelled: str, key: Any, receiver: str = MINER.ss58_address, crypto: str | None = None
) -> Request:
    """A challenge signed by `key` over `spelled` as the sender's address, written from the published formulas."""
    now, tag = time.time_ns(), str(uuid.uuid4())
    request = ask(name)
    if name == "dendrite":
        text = f"{now}.{spelled}.{receiver}.{tag}.{EMPTY_BODY_HASH}"
        own = {
            "bt_header_dendrite_nonce": str(now),
            "bt_header_dendrite_uuid": tag,
            "bt_header_dendrite_hotkey": spelled,
            "bt_header_axon_hotkey": receiver,
            "bt_header_dendrite_signature": "0x" + bytes(key.sign(text.encode())).hex(),
        }
    elif name == "epistula":
        ms = now // 10**6
        text = f"{hashlib.sha256(GOOD).hexdigest()}.{tag}.{ms}.{receiver}"
        own = {
            "epistula-timestamp": str(ms),
            "epistula-uuid": tag,
            "epistula-signed-by": spelled,
            "epistula-signed-for": receiver,
            "epistula-request-signature": "0x" + bytes(key.sign(text.encode())).hex(),
        }
    else:
        scheme = crypto or "sr25519"
        payload = "\n".join(
            ("btauth/1", scheme, "POST", request.target, hashlib.sha256(GOOD).hexdigest(), str(now), spelled, receiver)
        )
        own = {
            "x-bittensor-nonce": str(now),
            "x-bittensor-hotkey": spelled,
            "x-bittensor-receiver": receiver,
            "x-bittensor-signature": "0x" + bytes(key.sign(payload.encode())).hex(),
        }
        own |= {} if crypto is None else {"x-bittensor-crypto": crypto}
    return dataclasses.replace(request, headers={**request.headers, **own})


@pytest.mark.parametrize("name", WIRES)
def test_the_formulas_used_here_are_the_wires(name: str) -> None:
    async def body(client: Client) -> None:
        assert (await client.send(signed(name, spelled=ALICE.ss58_address, key=ALICE)))[0] == 200

    against(body)


def spellings(key: keys.Hotkey) -> list[str]:
    """Other ways to write the address of `key`, as bytes that fit into a header."""
    address = key.ss58_address
    other_networks = [sp_core.ss58_encode(key.public_key, form) for form in (0, 2, 7, 63)]
    return [
        *other_networks,
        address.lower(),
        address.upper(),
        address.swapcase(),
        address + "1",
        "1" + address,
        address[:-1],
        address[:20] + " " + address[20:],
        address + "\u00a0",
        "\u00a0" + address,
        address + "\u00ad",
        address + "\x0b",
        address + ",",
        f'"{address}"',
        "0x" + key.public_key.hex(),
        key.public_key.hex(),
    ]


@pytest.mark.parametrize("name", WIRES)
def test_a_denied_hotkey_gets_in_under_no_other_spelling(name: str) -> None:
    """With its own valid signature, also over the spelling it uses."""
    requests = [(other, signed(name, spelled=other, key=ALICE)) for other in spellings(ALICE)]

    async def body(client: Client) -> None:
        for other, request in requests:
            _, writer = await client.raw()
            writer.close()
            status, _, answer = await send_latin1(client, request)
            assert status in (400, 401), (other, answer)  # 400 where the parser refuses the octet
            assert b"prediction" not in answer
        assert (await client.send(ask(name)))[0] == 403
        assert (await client.send(ask(name, key=BOB)))[0] == 200

    against(body, rules=AccessRules(offline=True, deny=frozenset({ALICE.ss58_address})))


async def send_latin1(client: Client, request: Request) -> tuple[int, dict[str, str], bytes]:
    """As it is, octet by octet: clients encode such headers in ways of their own, or refuse to."""
    from tests.neurons.loopback import read_response  # noqa: PLC0415

    lines = [f"{request.method} {request.target} HTTP/1.1", "host: miner"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    lines += [f"content-length: {len(request.body)}", "", ""]
    reader, writer = await client.raw()
    try:
        writer.write("\r\n".join(lines).encode("latin-1") + request.body)
        return await read_response(reader)
    except UnicodeEncodeError:  # beyond octets: as UTF-8
        writer.write("\r\n".join(lines).encode() + request.body)
        return await read_response(reader)
    except (asyncio.IncompleteReadError, KeyError):  # refused by the parser itself
        return REFUSED["dendrite"], {}, b""
    finally:
        writer.close()


@pytest.mark.parametrize("name", WIRES)
def test_an_allowed_hotkey_is_nobody_elses_look_alike(name: str) -> None:
    """Full-width digits, Cyrillic letters, another case: Bob signs, and writes what looks like Alice."""
    cyrillic = ALICE.ss58_address.translate({ord("a"): "\u0430", ord("e"): "\u0435", ord("p"): "\u0440"})
    alikes = [FULL_WIDTH, cyrillic, ALICE.ss58_address.lower(), ALICE.ss58_address]
    requests = [(alike, signed(name, spelled=alike, key=BOB)) for alike in alikes]

    async def body(client: Client) -> None:
        for alike, request in requests:
            status, _, answer = await send_latin1(client, request)
            assert status in (400, 401), (alike, answer)
        # Blanks before a value are no part of it (RFC 9110): this is Alice, spelled as she is.
        request = ask(name)
        before = {**request.headers, HOTKEY[name]: f" \t{ALICE.ss58_address}"}
        assert (await send_latin1(client, dataclasses.replace(request, headers=before)))[0] == 200

    against(body, rules=AccessRules(allow=frozenset({ALICE.ss58_address})))


class Ed25519:
    """The same seed under the other scheme: another key, whose signatures look alike."""

    def __init__(self, uri: str) -> None:
        self._pair = Keypair.create_from_uri(uri, ED25519)
        self.ss58_address = str(self._pair.ss58_address)

    def sign(self, payload: bytes) -> bytes:
        return bytes(self._pair.sign(payload))


@pytest.mark.parametrize("name", WIRES)
def test_one_schemes_signature_is_not_anothers(name: str) -> None:
    other = Ed25519("//Alice")
    assert other.ss58_address != ALICE.ss58_address
    tries = [
        signed(name, spelled=ALICE.ss58_address, key=other),  # the seed's other key for this address
        signed(name, spelled=other.ss58_address, key=other),  # an ed25519 key that does not say so
        signed(name, spelled=other.ss58_address, key=ALICE),
    ]
    if name == "btauth":
        tries += [
            signed(name, spelled=ALICE.ss58_address, key=ALICE, crypto="ed25519"),
            signed(name, spelled=ALICE.ss58_address, key=other, crypto="ed25519"),
            signed(name, spelled=other.ss58_address, key=other, crypto="sr25519"),
            # The scheme is in the signed text: what was signed for one cannot be relabelled.
            relabelled(signed(name, spelled=ALICE.ss58_address, key=ALICE), "ed25519"),
            relabelled(signed(name, spelled=other.ss58_address, key=other, crypto="ed25519"), "sr25519"),
            *(
                signed(name, spelled=ALICE.ss58_address, key=ALICE, crypto=c)
                for c in ("SR25519", "1", "0", "ecdsa", "")
            ),
        ]
    else:  # a scheme is nothing that these wires could be told
        tries = [relabelled(request, crypto) for request in tries for crypto in ("ed25519", "0")]

    async def body(client: Client) -> None:
        for index, request in enumerate(tries):
            status, _, answer = await client.send(request)
            assert status == REFUSED[name], (index, answer)
        if name == "btauth":  # the scheme exists, so its keys may ask in their own name
            mine = signed(name, spelled=other.ss58_address, key=other, crypto="ed25519")
            assert (await client.send(mine))[0] == 200

    against(body)


def relabelled(request: Request, crypto: str) -> Request:
    extra = {"x-bittensor-crypto": crypto, "epistula-crypto": crypto, "bt_header_dendrite_crypto_type": crypto}
    return dataclasses.replace(request, headers={**request.headers, **extra})


_P = 2**255 - 19
_EIGHT = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
SMALL = [
    ((y | sign << 255) % 2**256).to_bytes(32, "little")
    for y in (0, 1, _P - 1, _P, _P + 1, _EIGHT, _P - _EIGHT)
    for sign in (0, 1)
]


class Nobody:
    """Signs for keys of small order without any secret: the signature is the group's identity and zero."""

    def __init__(self, scheme: int) -> None:
        self._scheme = scheme

    def sign(self, payload: bytes) -> bytes:
        return bytes(63) + b"\x80" if self._scheme == SR25519 else b"\x01" + bytes(63)


def test_keys_of_small_order_are_really_anybodys() -> None:
    """The library takes these signatures, so refusing such addresses is up to us."""
    held = {
        (scheme, public.hex())
        for scheme in (ED25519, SR25519)
        for public in SMALL
        for message in (b"one", b"two", b"three")
        if _holds(message, Nobody(scheme).sign(message), sp_core.ss58_encode(public, 42), scheme)
    }
    assert (SR25519, bytes(32).hex()) in held
    assert {public for scheme, public in held if scheme == ED25519} == {public.hex() for public in SMALL}


def _holds(message: bytes, signature: bytes, address: str, scheme: int) -> bool:
    with contextlib.suppress(ValueError):
        return bool(sp_core.verify(message, signature, address, scheme))
    return False


@pytest.mark.parametrize("name", WIRES)
def test_a_key_that_anybody_can_sign_for_is_nobodys(name: str) -> None:
    tries = []
    for public in SMALL:
        address = sp_core.ss58_encode(public, 42)
        tries.append(signed(name, spelled=address, key=Nobody(SR25519)))
        if name == "btauth":
            tries.append(signed(name, spelled=address, key=Nobody(ED25519), crypto="ed25519"))

    async def body(client: Client) -> None:
        for request in tries:
            assert (await client.send(request))[0] == REFUSED[name], request.headers[HOTKEY[name]]

    # Even where the chain lists it and the operator allows it.
    everybody = frozenset(sp_core.ss58_encode(public, 42) for public in SMALL)
    against(body, rules=AccessRules(offline=True, allow=everybody))


@pytest.mark.parametrize("name", WIRES)
def test_our_own_hotkey_is_not_served_even_with_its_signature(name: str) -> None:
    """A miner never asks itself: who has that signature has copied the key, or reflects what was once signed."""

    async def body(client: Client) -> None:
        status, _, answer = await client.send(ask(name, key=MINER))
        assert (status, json.loads(answer)["reason"]) == (403, "own_hotkey")

    for rules in (
        AccessRules(own=MINER.ss58_address, offline=True),
        AccessRules(own=MINER.ss58_address, allow=frozenset({MINER.ss58_address})),
    ):
        against(body, rules=rules)


def test_a_miner_knows_its_own_hotkey() -> None:
    app = miner.build(MinerSettings(offline=True), MINER, TrivialJudge())
    wire = miner.wires(MINER.ss58_address)["dendrite"]
    with pytest.raises(Refusal) as caught:
        app._gate.admit(wire, ask(key=MINER))
    assert caught.value.reason == "own_hotkey"


@pytest.mark.parametrize("flag", ["allow", "deny"])
@pytest.mark.parametrize("spelling", ["alice", ALICE.ss58_address.lower(), sp_core.ss58_encode(ALICE.public_key, 0)])
def test_a_list_does_not_take_what_it_could_never_match(flag: str, spelling: str) -> None:
    """A denied hotkey in another spelling would be served without a word."""
    blacklist = Blacklist.model_validate({flag: (BOB.ss58_address, spelling)})
    with pytest.raises(ConfigError, match=f"blacklist.{flag}"):
        miner.build(MinerSettings(offline=True, blacklist=blacklist), MINER, TrivialJudge())


def test_the_limits_are_the_settings() -> None:
    axon, blacklist = Axon(address_rate=0.001, address_burst=2), Blacklist(hotkey_rate=0.001, hotkey_burst=1)
    app = miner.build(MinerSettings(offline=True, axon=axon, blacklist=blacklist), MINER, TrivialJudge())
    wire = miner.wires(MINER.ss58_address)["dendrite"]
    app._gate.admit(wire, ask())
    with pytest.raises(RateLimited, match="hotkey_rate"):
        app._gate.admit(wire, ask())
    app._gate.knock("192.0.2.1")
    app._gate.knock("192.0.2.1")
    with pytest.raises(RateLimited, match="address_rate"):
        app._gate.knock("192.0.2.1")


def test_json_with_a_name_twice_is_read_once_and_the_same_everywhere() -> None:
    """The last counts, for the hash as for the media: there is no second reader here that could differ."""
    good = ask()
    fields = json.loads(good.body)
    doubled = good.body[:-1] + b',"image":"AAAA"}'
    hashed = hashlib.sha3_256(hashlib.sha3_256(fields["image"].encode()).hexdigest().encode()).hexdigest()
    now, tag = time.time_ns(), str(uuid.uuid4())
    text = f"{now}.{ALICE.ss58_address}.{MINER.ss58_address}.{tag}.{hashed}"
    own = {
        "bt_header_dendrite_nonce": str(now),
        "bt_header_dendrite_uuid": tag,
        "computed_body_hash": hashed,
        "bt_header_dendrite_signature": "0x" + ALICE.sign(text.encode()).hex(),
    }
    covered = dataclasses.replace(good, headers={**good.headers, **own})

    async def body(client: Client) -> None:
        status, _, answer = await client.send(dataclasses.replace(covered, body=doubled))
        assert (status, json.loads(answer)["reason"]) == (401, "altered_body")
        # Uncovered, it is what the last one says: no image.
        assert (await client.send(dataclasses.replace(good, body=doubled)))[0] == 422
        names = b'"dendrite":{"hotkey":"x"},"dendrite":{"hotkey":"%s"}' % BOB.ss58_address.encode()
        fresh = ask()
        twice = dataclasses.replace(fresh, body=fresh.body[:-1] + b"," + names + b"}")
        status, headers, _ = await client.send(twice)
        assert (status, headers["bt_header_dendrite_hotkey"]) == (200, ALICE.ss58_address)

    against(body)


def test_the_peer_agrees_on_the_text_that_is_signed_here() -> None:
    """So that a refusal above is for the reason it gives: the same text under the right key is taken by the peer."""
    request = signed("btauth", spelled=ALICE.ss58_address, key=ALICE)
    caller = http_auth.verify(
        request.headers, request.body, method="POST", path=request.target, self_hotkey_ss58=MINER.ss58_address
    )
    assert caller.hotkey_ss58 == ALICE.ss58_address
