"""Hotkeys: a thin typed layer over bittensor's wallets. Signs, verifies, loads once; never touches a coldkey.

bittensor is imported on first use: importing it costs about half a second, which ``--help`` need not pay.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from detectors.errors import ConfigError

if TYPE_CHECKING:
    from bittensor.keyfiles import Keyfile

__all__ = ["Hotkey", "Keypair", "create_throwaway", "from_uri", "is_address", "load_hotkey", "verify"]

SIGNATURE_BYTES = 64
_SR25519 = 1
_SS58_FORMAT = 42
_PRIME = 2**255 - 19
# The y of Curve25519's points of small order, without the sign of x: of order 4, 1, 2 and 8, and the first two once
# more with the prime added. Zero is the identity of sr25519's group as well.
_ORDER_8 = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
_WEAK = frozenset(y.to_bytes(32, "little") for y in (0, 1, _PRIME - 1, _PRIME, _PRIME + 1, _ORDER_8, _PRIME - _ORDER_8))


class Keypair(Protocol):
    """What signs: bittensor's own keypair, :class:`Hotkey`, or a test's key."""

    @property
    def ss58_address(self) -> str: ...

    @property
    def public_key(self) -> bytes: ...

    @property
    def crypto_type(self) -> int: ...

    def sign(self, payload: bytes, /) -> bytes: ...


class Hotkey:
    """A loaded hotkey. Satisfies bittensor's ``Signer``, so it can stand wherever the SDK takes a wallet.

    Args:
        keypair: bittensor's keypair with its secret half.
    """

    __slots__ = ("_keypair", "ss58_address")

    def __init__(self, keypair: Keypair) -> None:
        self._keypair = keypair
        self.ss58_address = str(keypair.ss58_address)

    @property
    def public_key(self) -> bytes:
        """32 bytes."""
        return bytes(self._keypair.public_key)

    @property
    def crypto_type(self) -> int:
        """bittensor's number of the signature scheme; 1 is sr25519."""
        return int(self._keypair.crypto_type)

    def sign(self, payload: bytes) -> bytes:
        """The 64-byte signature of `payload`; sr25519 signatures differ from call to call."""
        return bytes(self._keypair.sign(payload))

    def __repr__(self) -> str:
        return f"Hotkey({self.ss58_address})"


_loaded: dict[tuple[str, str, str], Hotkey] = {}
_lock = threading.Lock()


def load_hotkey(name: str, hotkey: str = "default", path: str | Path = "~/.bittensor/wallets") -> Hotkey:
    """Reads ``path/name/hotkeys/hotkey``; the second call for the same file returns the same object.

    An encrypted hotkey is opened with the password that the environment variable named by bittensor's wallet gives
    (``BT_PW_…``); nobody is ever asked at a terminal, because a neuron often has none.

    Raises:
        ConfigError: the file is missing, unreadable, no keyfile, encrypted without a password, or public only.
    """
    root = Path(path).expanduser()
    key = (str(root), name, hotkey)
    with _lock:
        if key not in _loaded:
            _loaded[key] = _read(_keyfile(root, name, hotkey))
        return _loaded[key]


def create_throwaway(path: str | Path, name: str, hotkey: str = "default") -> Hotkey:
    """Makes an unencrypted sr25519 hotkey under `path` and loads it, for simulations; one that exists is kept.

    No coldkey is made: nothing that such a wallet signs needs one.

    Raises:
        ConfigError: the folder cannot be written, or a file that is there is not a keyfile.
    """
    from bittensor.sp_core import Keypair as NativeKeypair  # noqa: PLC0415 - see the module's docstring

    root = Path(path).expanduser()
    file = _keyfile(root, name, hotkey)
    if not file.exists_on_device():
        pair = NativeKeypair.create_from_mnemonic(NativeKeypair.generate_mnemonic(12), _SR25519)
        try:
            file.set_keypair(pair, encrypt=False)
        except OSError as error:
            raise ConfigError(f"wallet.path: cannot write a hotkey under {root}: {error.strerror}") from error
    return load_hotkey(name, hotkey, root)


def from_uri(uri: str) -> Hotkey:
    """A development key from a secret URI, e.g. ``//Alice``: known to everybody, for tests and simulations only.

    Raises:
        ConfigError: `uri` is not a secret URI.
    """
    from bittensor.sp_core import Keypair as NativeKeypair  # noqa: PLC0415 - see the module's docstring

    try:
        return Hotkey(NativeKeypair.create_from_uri(uri, _SR25519))
    except ValueError as error:
        raise ConfigError("the key's URI is not usable; write it like //Alice") from error


def is_address(ss58: str) -> bool:
    """Whether `ss58` is an address in bittensor's own spelling (ss58 format 42), the only one that names a caller.

    The same key has another spelling in every network's format, and a wire that does not sign the sender's address
    (Epistula) would take each spelling for another caller. Addresses whose signature anybody can make name nobody.
    """
    from bittensor import sp_core  # noqa: PLC0415 - see the module's docstring

    try:
        public = bytes(sp_core.ss58_decode(ss58))
        return sp_core.ss58_encode(public, _SS58_FORMAT) == ss58 and not _is_weak(public)
    except ValueError:
        return False


def _is_weak(public: bytes) -> bool:
    """Whether `public` is a point of small order, under which a signature holds that was made without any secret.

    Both schemes' verifiers take such keys. The one of zeros is also the chain's "nobody", so it does turn up where
    hotkeys are listed.
    """
    return public[:31] + bytes((public[31] & 0x7F,)) in _WEAK


def verify(ss58: str, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is the sr25519 signature of `message` by the key of `ss58`.

    Returns:
        False for a wrong signature and for anything malformed, an address of another network included (see
        :func:`is_address`); never raises for what a stranger may have sent.
    """
    from bittensor import sp_core  # noqa: PLC0415 - see the module's docstring

    if len(signature) != SIGNATURE_BYTES or not is_address(ss58):
        return False
    try:
        return bool(sp_core.verify(message, signature, ss58, _SR25519))
    except ValueError:
        return False


def _keyfile(root: Path, name: str, hotkey: str) -> Keyfile:
    from bittensor.wallet import Wallet  # noqa: PLC0415 - see the module's docstring

    for flag, value in (("wallet.name", name), ("wallet.hotkey", hotkey)):
        if not value or Path(value).name != value:
            raise ConfigError(f"{flag}: {value!r} is not the plain name of a file")
    return Wallet(name=name, hotkey=hotkey, path=str(root)).hotkey_file


def _read(file: Keyfile) -> Hotkey:
    from bittensor.keyfiles import KeyfileError, resolve_key_password  # noqa: PLC0415 - see the module's docstring

    if not file.exists_on_device():
        raise ConfigError(f"no hotkey at {file.path}; set wallet.path, wallet.name and wallet.hotkey, or create one")
    password = None
    try:
        if file.is_encrypted():
            password = resolve_key_password(env_var_name=file.env_var_name(), allow_prompt=False)
            if password is None:
                raise ConfigError(
                    f"the hotkey at {file.path} is encrypted; put its password into {file.env_var_name()}"
                )
        pair = file.get_keypair(password)
        hotkey = Hotkey(pair)
        hotkey.sign(b"probe")  # a public-only file loads without complaint and fails at the first signature
    except (OSError, ValueError, TypeError, KeyfileError) as error:
        raise ConfigError(f"the hotkey at {file.path} is not usable: {error}") from error
    return hotkey
