"""Attacks on who asks and when: signatures, bodies, nonces, replays, and what a refusal gives away."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

from bittensor import sp_core

from neurons import keys
from neurons.wire import dendrite
from neurons.wire.base import Request
from scripts.attacks_peers import NOBODY, RICH, STAKES, STRANGER, WORTHY, Duel, Miner
from scripts.attacks_table import Attack, Seen, not_applicable, row
from scripts.attacks_wire import Talk, changed, claiming, resigned, signed, small_jpeg, talk

__all__ = ["ATTACKS", "AT_THE_END", "until_served"]

_DAY_NS = 86_400 * 10**9
_PATIENCE_S = 30.0
# An honest clock may be ahead, so what was accepted before a restart may be dated this long after it. Refusing that
# cannot cost more than as long again, and what a busy machine needs to start a process.
_LONGEST_AHEAD_S = dendrite.FUTURE_S
_START_S = 4.0


async def until_served(miner: Miner) -> tuple[float, int]:
    """Asks honestly until it is served; (seconds, honest requests that were refused meanwhile).

    Raises:
        RuntimeError: it never is.
    """
    began, refused = time.monotonic(), 0
    while time.monotonic() - began < _PATIENCE_S:
        try:
            answer = await talk(miner.address, signed(RICH, miner.hotkey))
        except OSError:
            answer = Talk((), True, 0.0)
        if answer.served:
            return time.monotonic() - began, refused
        refused += 1
    raise RuntimeError(f"an honest request is not served but {answer.text}")


def _told(talk_: Talk) -> Seen:
    """An attack that must not be served."""
    return row(talk_.text, talk_.served, status=talk_.status)


async def honest(side: Duel) -> Seen:
    answer = await talk(side.miner.address, signed(RICH, side.miner.hotkey))
    return row(answer.text, not answer.served, status=answer.status)


async def unsigned(side: Duel) -> Seen:
    good = signed(RICH, side.miner.hotkey)
    bare = {h: v for h, v in good.headers.items() if h != "bt_header_dendrite_signature"}
    return _told(await talk(side.miner.address, dataclasses.replace(good, headers=bare)))


async def unsigned_old_client(side: Duel) -> Seen:
    good = signed(RICH, side.miner.hotkey)
    bare = {h: v for h, v in good.headers.items() if h != "bt_header_dendrite_signature"}
    bare["bt_header_dendrite_version"] = "6000000"
    return _told(await talk(side.miner.address, dataclasses.replace(good, headers=bare)))


async def stranger(side: Duel) -> Seen:
    return _told(await talk(side.miner.address, signed(STRANGER, side.miner.hotkey)))


async def altered_body(side: Duel) -> Seen:
    """The same signature over another picture: where no hash field is named, nothing that was signed has changed."""
    other = signed(RICH, side.miner.hotkey, payload=small_jpeg(1))
    request = dataclasses.replace(signed(RICH, side.miner.hotkey), body=other.body)
    answer = await talk(side.miner.address, request)
    return Seen(answer.text, "the wire's" if answer.served else "no", {"status": answer.status})


async def altered_signed_body(side: Duel) -> Seen:
    """On the wires whose signature covers the body."""
    told, data, defect = [], {}, False
    for wire in ("btauth", "epistula"):
        control = await talk(side.miner.address, signed(RICH, side.miner.hotkey, wire=wire))
        if not control.served:
            return not_applicable(f"it does not speak {wire}, an honest request gets {control.status}")
        request = dataclasses.replace(signed(RICH, side.miner.hotkey, wire=wire), body=small_jpeg(1))
        answer = await talk(side.miner.address, request)
        told.append(f"{wire} {answer.text}")
        data[wire] = answer.status
        defect = defect or answer.served
    return row(", ".join(told), defect, **data)


async def replayed_altered(side: Duel) -> Seen:
    request = signed(RICH, side.miner.hotkey)
    first = await talk(side.miner.address, request)
    again = await talk(side.miner.address, claiming(request, testnet_label=1))
    return row(f"original {first.text}, copy {again.text}", again.served, first=first.status, copy=again.status)


async def identity_from_body(side: Duel) -> Seen:
    """One validator signs, the body says it is the other."""
    request = signed(WORTHY, side.miner.hotkey)
    terminal = {"hotkey": RICH.ss58_address, "version": 10005000, "nonce": time.time_ns(), "uuid": "x"}
    answer = await talk(side.miner.address, claiming(request, dendrite=terminal))
    if not answer.served:
        return row(answer.text, False, status=answer.status)
    named = answer.answers[0].headers.get("bt_header_dendrite_hotkey")
    who = {RICH.ss58_address: "the body's hotkey", WORTHY.ss58_address: "the signer"}.get(str(named), "nobody")
    return row(f"{answer.text}, caller is {who}", named == RICH.ss58_address, caller=named)


def aged(shift_ns: int, **unsigned_headers: str) -> Attack:
    """A nonce that is not of now, with unsigned headers that try to make up for it."""

    async def run(side: Duel) -> Seen:
        request = signed(RICH, side.miner.hotkey, now_ns=time.time_ns() + shift_ns)
        return _told(await talk(side.miner.address, changed(request, **unsigned_headers)))

    when = "a day old" if shift_ns == -_DAY_NS else "a year ahead"
    extra = "".join(f", unsigned `{h.removeprefix('bt_header_dendrite_')}: {v}`" for h, v in unsigned_headers.items())
    return Attack(f"nonce {when}{extra}", run)


async def replayed(side: Duel) -> Seen:
    request = signed(RICH, side.miner.hotkey)
    first = await talk(side.miner.address, request)
    again = await talk(side.miner.address, request)
    return row(f"first {first.text}, again {again.text}", again.served, first=first.status, again=again.status)


async def replayed_after_restart(side: Duel) -> Seen:
    """Two captured requests: one as it is, one with the unsigned timeout raised."""
    captured = [signed(RICH, side.miner.hotkey) for _ in range(2)]
    for request in captured:
        await talk(side.miner.address, request)
    side.miner.restart()
    seconds = (time.time_ns() - captured[0].received_ns) / 1e9
    as_it_is = await talk(side.miner.address, captured[0])
    raised = await talk(side.miner.address, changed(captured[1], timeout="1000000000.0"))
    text = f"after {seconds:.1f} s: as it is {as_it_is.text}, timeout raised {raised.text}"
    statuses = {"as_it_is": as_it_is.status, "raised": raised.status, "seconds": seconds}
    served = as_it_is.served or raised.served
    side.captured["replay refused"] = not served
    return row(text, served, **statuses)


async def honest_after_restart(side: Duel) -> Seen:
    """What the protection above costs: the answers that honest callers do not get once the port is open again."""
    began = time.monotonic()
    side.miner.restart()
    seconds, refused = await until_served(side.miner)
    away = time.monotonic() - began
    told = "served at once" if not refused else f"refused for {seconds:.1f} s"
    data = {"refused_s": seconds, "refused": refused, "away_s": away}
    paid = side.captured.get("replay refused") and away < _LONGEST_AHEAD_S + _START_S
    return Seen(f"{told}, {away:.1f} s after the kill", "no" if not refused else "the price" if paid else "yes", data)


async def second_miner(side: Duel) -> Seen:
    """Captured at the first, sent to the second: as it is, and with the receiver put right."""
    request = signed(RICH, side.miner.hotkey)
    as_it_is = await talk(side.second.address, request)
    renamed = await talk(side.second.address, changed(request, bt_header_axon_hotkey=side.second.hotkey))
    text = f"as it is {as_it_is.text}, receiver renamed {renamed.text}"
    return row(text, as_it_is.served or renamed.served, as_it_is=as_it_is.status, renamed=renamed.status)


async def oracle(side: Duel) -> Seen:
    """Does a stranger get the miner's signature over words that the stranger chose?"""
    tag = f"0123456789abcdef-{time.time_ns():x}"
    words = f"{side.second.hotkey}.{tag}"  # reads as receiver and uuid of a request that the miner sends
    good = changed(signed(STRANGER, side.miner.hotkey), bt_header_dendrite_signature="0x" + "17" * 64)
    asked = changed(good, bt_header_dendrite_hotkey=side.miner.hotkey, bt_header_axon_hotkey=words)
    answer = await talk(side.miner.address, asked)
    # Through the ping route too, because a list of hotkeys may turn the first away before it signs.
    found = [a for a in (answer, await talk(side.miner.address, _at("/Synapse", asked))) if a.answers]
    for told in found:
        headers = told.answers[0].headers
        nonce, ours, end = (headers.get(f"bt_header_axon_{f}", "") for f in ("nonce", "signature", "uuid"))
        text = f"{nonce}.{side.miner.hotkey}.{words}.{end}"
        if ours.startswith("0x") and keys.verify(side.miner.hotkey, text.encode(), bytes.fromhex(ours[2:])):
            side.captured["oracle"] = (nonce, tag, end, ours)
            return row(f"{told.text}, with its signature over our text", True, signed=text)
    return row(" / ".join(told.text for told in found) + ", nothing signed", False)


async def oracle_used(side: Duel) -> Seen:
    """The signature of the row before, at a second miner, as a request of the first miner's."""
    if "oracle" not in side.captured:
        return not_applicable("there is no signature to use")
    nonce, tag, end, ours = (str(part) for part in side.captured["oracle"])  # type: ignore[attr-defined]
    request = changed(
        _at("/Synapse", signed(STRANGER, side.second.hotkey)),
        bt_header_dendrite_nonce=nonce,
        bt_header_dendrite_uuid=tag,
        bt_header_dendrite_hotkey=side.miner.hotkey,
        bt_header_dendrite_signature=ours,
        computed_body_hash=end,
    )
    worse = changed(request, bt_header_dendrite_signature="0x" + "17" * 64)
    control = await talk(side.second.address, worse)
    answer = await talk(side.second.address, request)
    past = control.status == 401 and answer.status not in (401, 403, 404, 0)
    text = f"{answer.text}{', past its signature check' if past else ''} (a false signature: {control.status})"
    return row(text, past, status=answer.status, control=control.status)


def _at(path: str, request: Request) -> Request:
    return changed(dataclasses.replace(request, target=path), name=path[1:])


async def ping(side: Duel) -> Seen:
    request = claiming(_at("/Synapse", signed(STRANGER, side.miner.hotkey)), name="Synapse")
    answer = await talk(side.miner.address, request)
    return row(answer.text, answer.status == 200, status=answer.status)


async def listing(side: Duel) -> Seen:
    answer = await talk(side.miner.address, _at("/Nothing", signed(STRANGER, side.miner.hotkey)))
    text = answer.answers[0].text if answer.answers else ""
    names = [name for name in ("ImageSynapse", "VideoSynapse", "detect_image", "'Synapse'") if name in text]
    said = f"{answer.text}, names {' and '.join(names)}" if names else f"{answer.text}, names none"
    return row(said, bool(names), named=names)


async def by_get(side: Duel) -> Seen:
    return _told(await talk(side.miner.address, dataclasses.replace(signed(RICH, side.miner.hotkey), method="GET")))


async def spellings(side: Duel) -> Seen:
    """A validator's key under the spellings of other networks, signed over each by that key: is it another caller?"""
    told, let_in = [], 0
    for form in (0, 2, 63):
        other = sp_core.ss58_encode(RICH.public_key, form)
        for path in ("/ImageSynapse", "/Synapse"):
            request = _at(path, signed(RICH, side.miner.hotkey))
            answer = await talk(side.miner.address, resigned(request, RICH, bt_header_dendrite_hotkey=other))
            told.append(answer.status)
            let_in += answer.status == 200
    return row(f"{let_in} of {len(told)} let in ({_counted(told)})", let_in > 0, statuses=told)


class _Anybody:
    """Signs for the key of zeros without a secret: the signature is the group's identity and zero."""

    def sign(self, _: bytes) -> bytes:
        return bytes(63) + b"\x80"


async def zero_hotkey(side: Duel) -> Seen:
    assert NOBODY in STAKES  # the attack is on a subnet that lists it
    request = signed(RICH, side.miner.hotkey)
    return _told(await talk(side.miner.address, resigned(request, _Anybody(), bt_header_dendrite_hotkey=NOBODY)))


def _counted(statuses: Sequence[int]) -> str:
    return ", ".join(f"{statuses.count(status)} × {status}" for status in sorted(set(statuses)))


ATTACKS = (
    Attack("none: an honest request", honest),
    Attack("no signature", unsigned),
    Attack("no signature, unsigned `version: 6000000`", unsigned_old_client),
    Attack("a key that the subnet does not know, its own signature", stranger),
    Attack("other body, default hash fields (Dendrite wire)", altered_body),
    Attack("other body, wires that sign it", altered_signed_body),
    Attack("copy with another body, after the original", replayed_altered),
    Attack("body names another caller than the signature", identity_from_body),
    aged(-_DAY_NS),
    aged(-_DAY_NS, timeout="1000000000.0"),
    aged(-_DAY_NS, bt_header_dendrite_version="1"),
    aged(365 * _DAY_NS),
    Attack("captured request again", replayed),
    Attack("captured request at a second miner", second_miner),
    Attack("signing oracle: a stranger's refusal", oracle),
    Attack("what the oracle signed, at a second miner", oracle_used),
    Attack("ping route, any key", ping),
    Attack("unknown route", listing),
    Attack("GET in place of POST", by_get),
    Attack("caller's address in other networks' spelling, both routes", spellings),
    Attack("hotkey of zeros, listed, anybody's signature", zero_hotkey),
)
AT_THE_END = (  # they take the memory of what was seen
    Attack("captured request after a restart", replayed_after_restart),
    Attack("none: honest requests right after a restart", honest_after_restart),
)
