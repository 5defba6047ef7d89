"""The life of a registered miner: join the chain, serve while following it, leave when the slot is lost."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from neurons.access import AccessRules, Decision, decide
from neurons.chain import Chain, Snapshot, wanted_endpoint
from neurons.chain_sync import ChainSync, NotRegisteredError, Pace, Publisher, first_snapshot
from neurons.supervision import supervise

if TYPE_CHECKING:
    from neurons.httpd import Server
    from neurons.keys import Hotkey
    from neurons.server import App
    from neurons.settings import MinerSettings

__all__ = ["Chains", "Membership", "admission", "register_line"]

Chains = Callable[["MinerSettings", str], Chain]


class Membership:
    """Our place on the subnet, kept up for as long as the process lives. Use all of it on one event loop.

    Args:
        settings: the miner's.
        key: our hotkey.
        chain: our view of it; closed by :meth:`leave`.

    Raises:
        ConfigError: the settings name no address to publish.
    """

    def __init__(self, settings: MinerSettings, key: Hotkey, chain: Chain) -> None:
        wanted_endpoint(settings.axon, settings.axon.port)  # a missing address is the operator's to mend: say it first
        self._settings = settings
        self._key = key
        self._chain = chain
        self._sync: ChainSync | None = None

    @property
    def sync(self) -> ChainSync:
        """The view of the chain; there is one after :meth:`join`."""
        if self._sync is None:
            raise RuntimeError("join() comes first")
        return self._sync

    async def join(self) -> ChainSync:
        """Looks for our slot.

        Raises:
            NotRegisteredError: we have none; the message has the command that gets one.
            ChainError: the chain could not be read.
        """
        subtensor = self._settings.subtensor
        try:
            first = await first_snapshot(self._chain, retry_s=min(2.0, subtensor.refresh_s))
        except NotRegisteredError as error:
            raise self._with_the_way_back(error) from error
        pace = Pace(refresh_s=subtensor.refresh_s, max_age_s=subtensor.max_age_s, timeout_s=subtensor.timeout_s)
        self._sync = ChainSync(self._chain, first, pace)
        return self._sync

    async def serve(self, server: Server, app: App, beside: Mapping[str, Coroutine[Any, Any, None]]) -> None:
        """Serves until told to stop, our slot is lost, or a task that must not die dies.

        Args:
            server: bound.
            app: what it serves.
            beside: further tasks that must not die, by name.

        Raises:
            NotRegisteredError: the slot is lost; what was admitted has been answered. As with :meth:`join`, the message
                has the command that gets one.
            TaskDiedError: the process must be started again.
        """
        sync = self.sync
        endpoint = wanted_endpoint(self._settings.axon, server.address[1])

        async def renumber(snapshot: Snapshot) -> None:
            app.renumber(snapshot.uid)

        async def follow() -> None:
            await server.ready.wait()  # nobody is sent to an address that does not answer yet
            await sync.run()

        async def watch() -> None:
            await server.ready.wait()
            await sync.watch()

        sync.followers += [renumber, Publisher(self._chain, self._key, endpoint).settle]
        try:
            await supervise(
                server.run_until_stopped(),
                server.stop,
                {"chain sync": follow(), "watchdog": watch(), **beside},
                expected=(NotRegisteredError,),
            )
        except NotRegisteredError as error:
            raise self._with_the_way_back(error) from error

    async def leave(self) -> None:
        """Ends the connection to the chain; never raises."""
        await self._chain.close()

    def _with_the_way_back(self, error: NotRegisteredError) -> NotRegisteredError:
        return NotRegisteredError(f"{error}; register with: {register_line(self._settings)}")


def admission(rules: AccessRules, sync: ChainSync | None) -> Callable[[str], Decision]:
    """Whether a hotkey may ask, by what the chain says at that moment. Any thread may ask.

    Args:
        rules: the operator's.
        sync: None offline. While its view is too old, nobody is served on the metagraph's word.
    """

    def decision(hotkey: str) -> Decision:
        if sync is None:
            return decide(hotkey, None, rules)
        return decide(hotkey, sync.snapshot.standing(hotkey), rules, fresh=sync.fresh)

    return decision


def register_line(settings: MinerSettings) -> str:
    """The command that gets this hotkey a slot, to be copied by the operator."""
    wallet, subtensor = settings.wallet, settings.subtensor
    return (
        f"btcli subnet register --netuid {settings.netuid} --wallet {wallet.name} --wallet-hotkey {wallet.hotkey}"
        f" --wallet-path {wallet.path} --network {subtensor.chain_endpoint or subtensor.network}"
    )
