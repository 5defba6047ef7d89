"""What stands beside the axon: what answers and what may take its place, who counts, remembers and shows.

The miner does not depend on any of it: metrics or a console whose port is taken are a warning, a watch that fails is
polled, a store that cannot be written says nothing.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detectors import camo, paths
from detectors.camo import Camo
from detectors.errors import ConfigError
from detectors.live import LiveDetector
from detectors.types import Detector, Modality
from neurons.chain_sync import ChainSync
from neurons.metrics_server import MetricsServer, serve_metrics
from neurons.noticeboard import Noticeboard
from neurons.operations import Health
from neurons.pipeline import Judge, TrivialDetector
from neurons.preflight_machine import resident_bytes
from neurons.recent import Recent
from neurons.seen import Observer
from neurons.server import App
from neurons.settings import MinerSettings
from neurons.telemetry import Metrics, Sources

if TYPE_CHECKING:
    from neurons.console.bridge import Ops
    from neurons.console.serve import ConsoleServer
    from neurons.reload import Reloader
    from neurons.shadow import Shadow

__all__ = ["Station"]

_log = logging.getLogger(__name__)


class Station:
    """The parts of one miner. Make it, :meth:`attach` the axon's application, :meth:`open`, and :meth:`close`.

    Args:
        settings: see :mod:`neurons.settings`.

    Raises:
        ConfigError: the configuration of the detector is wrong.
        DetectorError: its weights do not load.
    """

    def __init__(self, settings: MinerSettings) -> None:
        self._settings = settings
        self._config = settings.neuron.camo or paths.configs() / "camo.yaml"
        self.store = settings.weights.store or paths.weights()
        self._app: App | None = None
        self._sync: ChainSync | None = None
        self._began = time.monotonic()
        self._servers: list[MetricsServer | ConsoleServer] = []
        self.board = Noticeboard(self.store)
        self.live, self.reloads, self.shadow = self._parts()
        console = settings.console
        self.recent = Recent(console.thumbnails) if console.enabled else None
        self.metrics = Metrics(self._sources())
        if self.reloads is not None:
            self.reloads.listeners.append(self.metrics.swapped)
        watchers = [part.judged for part in (self.recent, self.shadow) if part is not None]
        self.judge = Judge(self.live, watchers=watchers)

    def _parts(self) -> tuple[LiveDetector, Reloader | None, Shadow | None]:
        """What answers, what takes up changes of it, and what compares another with it."""
        neuron, weights = self._settings.neuron, self._settings.weights
        if neuron.detector == "trivial":
            return LiveDetector(TrivialDetector()), None, None
        from detectors.candidate import fingerprint  # noqa: PLC0415 - torch from here on
        from detectors.store import Store  # noqa: PLC0415
        from neurons.reload import Reloader, changes  # noqa: PLC0415
        from neurons.shadow import Shadow  # noqa: PLC0415

        serving = fingerprint(self._config, self.store)  # before it is read: what changes while it loads is taken up
        loaded = camo.load(self._config, device=neuron.device, threads=neuron.threads or None, weights=self.store)
        live, reloads = LiveDetector(loaded), None
        reserve = weights.reserve_mib * 2**20
        if weights.watch:
            reloads = Reloader(
                live,
                camo=self._config,
                store=self.store,
                device=neuron.device,
                budget_ms=weights.probe_budget_ms,
                reserve_bytes=reserve,
                poll_s=weights.poll_s,
                serving=serving,
                noticeboard=self.board,
                watch=changes,
            )
        shadow = Shadow(
            live,
            store=self.store,
            camo=self._config,
            device=neuron.device,
            busy=self._busy,
            noticeboard=self.board,
            activate=Store(self.store).activate,
            reserve_bytes=reserve,
        )
        return live, reloads, shadow

    @property
    def observers(self) -> Sequence[Observer]:
        """Of every request; see :func:`neurons.server.build_app`."""
        return (self.metrics.observe, *((self.recent.seen,) if self.recent is not None else ()))

    def attach(self, app: App, sync: ChainSync | None) -> None:
        """Tells what to ask how the miner is.

        Args:
            app: the axon's.
            sync: the view of the chain; None offline.
        """
        self._app, self._sync = app, sync

    def open(self) -> None:
        """Serves metrics and the console, where they are switched on and their ports are free."""
        self._began = time.monotonic()
        telemetry = self._settings.telemetry
        if telemetry.enabled:
            self._serve("metrics", telemetry.ip, telemetry.port, functools.partial(serve_metrics, self.metrics))
        if self.recent is not None:
            self._open_console(self.recent)

    def _open_console(self, recent: Recent) -> None:
        from neurons.console.app import create_app  # noqa: PLC0415 - half a second that few miners need to start
        from neurons.console.security import load_token  # noqa: PLC0415
        from neurons.console.serve import serve_console  # noqa: PLC0415

        console = self._settings.console
        try:
            token = load_token(console.token_file.expanduser())
        except ConfigError as error:
            _log.warning("no console: %s", error)
            return
        app = create_app(self._ops(recent), token, hosts=(console.ip,))
        self._serve("console", console.ip, console.port, functools.partial(serve_console, app))

    def tasks(self) -> dict[str, Coroutine[Any, Any, None]]:
        """What must live as long as the miner, by name; for :func:`neurons.supervision.supervise`."""
        found: dict[str, Coroutine[Any, Any, None]] = {}
        if self.reloads is not None:
            found["weights"] = self.reloads.run()
        if self.shadow is not None:
            found["shadow orders"] = self.shadow.run()
        return found

    def close(self) -> None:
        """Ends everything but the process. Blocks some seconds at most."""
        for server in self._servers:
            server.close()
        if self.shadow is not None:
            self.shadow.close()
        if self.recent is not None:
            self.recent.close()
        self.board.withdraw()
        self.judge.close()

    def health(self) -> Health:
        """How the miner is. Any thread."""
        age, card = self._snapshot_age_s(), self.live.card
        return Health(
            serving=self._admits(),
            uptime_s=time.monotonic() - self._began,
            snapshot_age_s=age,
            queue=self._queue_depth(),
            in_flight=self._in_flight(),
            rss_bytes=resident_bytes(),
            detector=card.key,
            weights=card.weights,
            problems=self._problems(age),
        )

    def _problems(self, age: float | None) -> list[str]:
        found = []
        if not self._admits():
            found.append("challenges are not admitted")
        if age is not None and age > self._settings.subtensor.max_age_s:
            found.append(f"no news from the chain for {age:.0f} s: who needs the metagraph is refused")
        if self.reloads is not None and self.reloads.reports and not self.reloads.reports[-1].accepted:
            found.append(f"the last change of weights was refused: {self.reloads.reports[-1].reason}")
        faults = {name: count for name, count in self.live.faults.items() if count}
        if faults:
            found.append(f"experts that gave no finite number: {', '.join(f'{n} ({c})' for n, c in faults.items())}")
        return found

    def _admits(self) -> bool:
        return self._app is not None and self._app.scheduler.admits

    def _queue_depth(self) -> int:
        return 0 if self._app is None else self._app.scheduler.depth

    def _in_flight(self) -> int:
        return 0 if self._app is None else self._app.in_flight

    def _busy(self) -> bool:
        return self._in_flight() > 0

    def _snapshot_age_s(self) -> float | None:
        return None if self._sync is None else self._sync.age_s

    def _reference(self) -> Mapping[Modality, Sequence[float]]:
        current: Detector = self.live.current
        return current.config.reference if isinstance(current, Camo) else {}

    def _sources(self) -> Sources:
        subtensor, neuron = self._settings.subtensor, self._settings.neuron
        return Sources(
            queue_depth=self._queue_depth,
            in_flight=self._in_flight,
            serving=self._admits,
            snapshot_age_s=self._snapshot_age_s,
            detector=lambda: self.live.card.key,
            weights=lambda: self.live.card.weights,
            reference=self._reference,
            shadow=lambda: None if self.shadow is None else self.shadow.report(),
            queue_limit=neuron.queue_limit,
            deadline_s=neuron.deadline_s,
            snapshot_limit_s=subtensor.max_age_s,
        )

    def _ops(self, recent: Recent) -> Ops:
        from detectors.heatmap import heat_map  # noqa: PLC0415 - see _open_console
        from detectors.overlay import overlay, strip  # noqa: PLC0415
        from neurons.console.bridge import Explainer, Ops  # noqa: PLC0415

        settings = self._settings
        facts = {
            "netuid": str(settings.netuid),
            "chain": "none (offline)" if settings.offline else settings.subtensor.network,
            "device": settings.neuron.device,
            "configuration": Path(self._config).name,
            "deadline": f"{settings.neuron.deadline_s:g} s",
        }
        return Ops(
            recent=recent,
            detector=self.live,
            store=self.store,
            health=self.health,
            reloads=self.reloads,
            shadows=self.shadow,
            explainer=Explainer(heat_map, overlay, strip),
            facts=facts,
        )

    def _serve(self, what: str, ip: str, port: int, start: Any) -> None:
        try:
            server = start(ip, port)
        except OSError as error:
            _log.warning("no %s: %s:%d cannot be bound: %s", what, ip, port, error.strerror or error)
            return
        self._servers.append(server)
        self.board.post(what, {"ip": ip, "port": server.port})  # for `deepfake-miner console`
        # Without the scheme: addresses with a path are taken for endpoints with a key in them, and masked.
        _log.info("%s on %s port %d", what, ip, server.port)
