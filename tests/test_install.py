"""What installs a miner: the Dockerfile and its make targets, compose, systemd, pm2, the environment's names."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest
import yaml

from neurons.exits import Exit
from neurons.metrics_server import serve_metrics
from neurons.preflight_machine import OWN_FILES
from neurons.settings import ENV_PREFIX, Axon, MinerSettings, Telemetry, load

ROOT = Path(__file__).resolve().parents[1]
FINAL_CODES = {int(code) for code in Exit} - {Exit.STOPPED, Exit.BUG, Exit.CHAIN, Exit.DIED}  # README: no restart helps
NOFILE = 2 * Axon().max_connections + OWN_FILES


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# --- Dockerfile ---


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, arguments), comments gone and lines joined."""
    text = re.sub(r"^\s*#.*\n", "", read("Dockerfile"), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def stages() -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for word, arguments in instructions():
        if word == "FROM":
            base, _, name = arguments.split()
            found[name] = list(found.get(base, []))
        elif found:
            found[name].append((word, arguments))
    return found


def last(stage: str, word: str) -> str:
    return [arguments for found, arguments in stages()[stage] if found == word][-1]


def environment(stage: str) -> dict[str, str]:
    pairs = [pair for word, text in stages()[stage] if word == "ENV" for pair in shlex.split(text)]
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def build_context() -> list[tuple[str, str]]:
    """(source, target) of every COPY of the builder, in order."""
    found = []
    for word, arguments in stages()["builder"]:
        if word == "COPY":
            *sources, target = arguments.split()
            found += [(source, target) for source in sources]
    return found


def test_what_the_dockerfile_copies_is_there_and_let_in() -> None:
    let_in = [line[1:] for line in read(".dockerignore").splitlines() if line.startswith("!")]
    assert "*" in read(".dockerignore").splitlines()
    for source, _ in build_context():
        assert (ROOT / source).exists(), source
        assert source in let_in, f".dockerignore keeps {source} out"


def test_the_steps_of_the_dockerfile_are_make_targets() -> None:
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), flags=re.MULTILINE))
    steps = [shlex.split(text) for word, text in stages()["builder"] if word == "RUN" and text.startswith("make")]
    assert [step[1] for step in steps] == ["install-packages", "install-runtime"]
    assert {step[1] for step in steps} <= targets
    (prefix,) = {step[2].removeprefix("PREFIX=") for step in steps}
    assert f"--from=builder {prefix} {prefix}" in [text for word, text in stages()["runtime"] if word == "COPY"]
    assert environment("cpu")["PATH"].split(":")[0] == f"{prefix}/bin"
    assert environment("cpu")["DEEPFAKE_MINER_HOME"] == f"{prefix}/share/deepfake-miner"


@pytest.mark.parametrize("stage", ["cpu", "cuda"])
def test_the_image_runs_as_nobody_in_particular_and_hears_signals(stage: str) -> None:
    user, _, group = last(stage, "USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert [word for word, _ in stages()[stage]].count("USER") == 1
    assert json.loads(last(stage, "ENTRYPOINT")) == ["deepfake-miner-start", "deepfake-miner"]  # exec form
    assert json.loads(last(stage, "CMD")) == ["miner"]
    assert last(stage, "STOPSIGNAL") == "SIGTERM"
    assert json.loads(last(stage, "VOLUME")) == ["/data"]


@pytest.mark.parametrize("stage", ["cpu", "cuda"])
def test_the_images_environment_is_settings(stage: str) -> None:
    settings = load([], {k: v for k, v in environment(stage).items() if k.startswith(ENV_PREFIX)})
    assert settings.neuron.device == stage
    assert settings.weights.store == Path("/data/weights")
    assert settings.telemetry.port == Telemetry().port


class _Exposed:
    def __init__(self, *, healthy: bool) -> None:
        self._healthy = healthy

    def exposition(self) -> tuple[bytes, str]:
        return b"", "text/plain"

    def healthy(self) -> bool:
        return self._healthy


@pytest.mark.parametrize(("healthy", "code"), [(True, 0), (False, 1)], ids=["healthy", "refusing"])
def test_the_health_check_asks_the_metrics_server(healthy: bool, code: int) -> None:
    command: list[str] = json.loads(last("cpu", "HEALTHCHECK").partition("CMD ")[2])
    assert command[0] == "python"
    address = f"http://127.0.0.1:{Telemetry().port}/healthz"
    assert address in command[-1]
    server = serve_metrics(_Exposed(healthy=healthy), ip="127.0.0.1", port=0)
    try:
        words = [word.replace(address, f"http://127.0.0.1:{server.port}/healthz") for word in command[1:]]
        done = subprocess.run([sys.executable, *words], capture_output=True, timeout=30, check=False)
    finally:
        server.close()
    assert done.returncode == code, done.stderr


# --- the make targets themselves ---


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`make install-runtime` for real, from what the Dockerfile copies and no more.

    Its packages are borrowed from this environment, which came from a lock by the same recipe; the rest is as in an
    image.
    """
    source, prefix = tmp_path_factory.mktemp("src"), tmp_path_factory.mktemp("opt") / "deepfake-miner"
    for name, target in build_context():
        to = source / target / name if target == "./" else source / target
        to.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        else:
            shutil.copy2(ROOT / name, to)
    (source / "weights/.miners").mkdir()  # a checkout's miner leaves notices there
    venv.create(prefix, with_pip=True)
    site = next((prefix / "lib").glob("python*/site-packages"))
    # A new venv's own, which the lock replaces.
    pip = [str(prefix / "bin/pip"), "uninstall", "--quiet", "--yes", "setuptools"]
    subprocess.run(pip, check=True, timeout=60, capture_output=True)
    borrowed = next(p for p in sys.path if p.endswith("site-packages"))
    (site / "borrowed.pth").write_text(f"{borrowed}\n")
    (prefix / ".packages").touch()
    make = ["make", "install-runtime", f"PREFIX={prefix}"]
    done = subprocess.run(make, cwd=source, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return prefix


def test_the_installed_miner_has_every_file_of_the_packages(installed: Path) -> None:
    site = next((installed / "lib").glob("python*/site-packages"))

    def held(root: Path) -> set[str]:
        paths = (path for package in ("neurons", "detectors") for path in (root / package).rglob("*"))
        return {p.relative_to(root).as_posix() for p in paths if p.is_file() and "__pycache__" not in p.parts}

    assert held(site) == held(ROOT)


def test_the_installed_miner_knows_its_home_and_its_commands(installed: Path, tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "DEEPFAKE_MINER_HOME": str(installed / "share/deepfake-miner")}
    command = [str(installed / "bin/deepfake-miner-start"), str(installed / "bin/deepfake-miner"), "weights", "list"]
    store = tmp_path / "weights"
    done = subprocess.run(
        [*command, "--store", str(store)],
        env=environ | {"DEEPFAKE_MINER_WEIGHTS__STORE": str(store)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shipped = json.loads(read("weights/active.json"))
    assert {f"* {name}@{version}" for name, version in shipped.items()} <= {
        line.partition("  ")[0] for line in done.stdout.splitlines()
    }
    assert (installed / "share/deepfake-miner/configs/camo.yaml").is_file()
    assert not list((installed / "share/deepfake-miner/weights").glob(".*"))


# --- the start ---


@pytest.fixture
def start(tmp_path: Path) -> dict[str, str]:
    """The environment of deploy/start.sh, with two files that ship."""
    shipped = tmp_path / "home/weights"
    shipped.mkdir(parents=True)
    (shipped / "active.json").write_text('{"a": "1"}')
    (shipped / "a-1.safetensors").write_text("weights")
    home, store = str(tmp_path / "home"), str(tmp_path / "data/weights")
    return {"PATH": os.environ["PATH"], "DEEPFAKE_MINER_HOME": home, "DEEPFAKE_MINER_WEIGHTS__STORE": store}


def run_start(environ: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    words = ["sh", str(ROOT / "deploy/start.sh"), *command]
    return subprocess.run(words, env=environ, capture_output=True, text=True, timeout=30, check=False)


def test_a_start_fills_the_store_and_hands_over_the_exit_code(start: dict[str, str]) -> None:
    assert run_start(start, "sh", "-c", "exit 7").returncode == 7
    store = Path(start["DEEPFAKE_MINER_WEIGHTS__STORE"])
    assert sorted(path.name for path in store.iterdir()) == ["a-1.safetensors", "active.json"]


def test_a_start_leaves_what_the_operator_has_and_completes_the_rest(start: dict[str, str]) -> None:
    store = Path(start["DEEPFAKE_MINER_WEIGHTS__STORE"])
    store.mkdir(parents=True)
    (store / "active.json").write_text('{"a": "2"}')
    (store / ".a-1.safetensors.seed").write_text("cut sho")  # a start that was killed
    assert run_start(start, "true").returncode == 0
    assert (store / "active.json").read_text() == '{"a": "2"}'
    assert (store / "a-1.safetensors").read_text() == "weights"


def test_a_start_without_a_store_of_its_own_writes_nothing(start: dict[str, str], tmp_path: Path) -> None:
    del start["DEEPFAKE_MINER_WEIGHTS__STORE"]
    assert run_start(start, "true").returncode == 0
    assert not (tmp_path / "data").exists()


def test_signals_reach_the_miner(start: dict[str, str]) -> None:
    code = "import signal, sys; signal.signal(15, lambda *_: sys.exit(5)); print('up', flush=True); signal.pause()"
    words = ["sh", str(ROOT / "deploy/start.sh"), sys.executable, "-c", code]
    with subprocess.Popen(words, env=start, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 5  # the miner's own answer, not the shell's death


# --- compose, systemd, pm2, the environment's names ---


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


@pytest.mark.parametrize("name", ["miner", "cuda"])
def test_compose_locks_the_container_down(name: str) -> None:
    service = yaml.safe_load(read("compose.yaml"))["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert seconds(service["stop_grace_period"]) > Axon().grace_s
    assert service["ulimits"]["nofile"]["soft"] > NOFILE
    assert service["build"]["target"] in stages()
    _, *sidelines = service["ports"]
    assert sidelines
    assert all(port.startswith("127.0.0.1:") for port in sidelines)
    (wallets,) = [volume for volume in service["volumes"] if ":/wallets" in volume]
    assert wallets.endswith(":ro")
    assert all(volume.rpartition(":")[0] for volume in service["volumes"])


def test_compose_publishes_the_ports_of_the_settings() -> None:
    settings = MinerSettings()
    axon, *sidelines = yaml.safe_load(read("compose.yaml"))["services"]["miner"]["ports"]
    name = "${DEEPFAKE_MINER_AXON__PORT:-" + str(settings.axon.port) + "}"
    assert axon == f"{name}:{name}"
    assert sidelines == [f"127.0.0.1:{p}:{p}" for p in (settings.telemetry.port, settings.console.port)]
    exposed = last("cpu", "EXPOSE").split()
    assert exposed == [str(p) for p in (settings.axon.port, settings.telemetry.port, settings.console.port)]


def unit() -> dict[str, list[str]]:
    """Assignments of [Service] by name, in order."""
    found: dict[str, list[str]] = {}
    section = read("deploy/deepfake-miner.service").partition("[Service]")[2].partition("[Install]")[0]
    for line in section.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def test_the_unit_restarts_only_where_it_helps() -> None:
    service = unit()
    assert service["Restart"] == ["on-failure"]
    assert {int(code) for code in service["RestartPreventExitStatus"][0].split()} == FINAL_CODES
    assert seconds(service["TimeoutStopSec"][0]) > Axon().grace_s
    assert service["KillSignal"] == ["SIGTERM"]
    assert int(service["LimitNOFILE"][0]) > NOFILE


def test_the_units_environment_is_settings_and_its_paths_are_writable() -> None:
    service = unit()
    pairs = dict(word.split("=", 1) for line in service["Environment"] for word in line.split())
    settings = load([], {k: v for k, v in pairs.items() if k.startswith(ENV_PREFIX)})
    (writable,) = service["ReadWritePaths"]
    assert writable == f"/var/lib/{service['StateDirectory'][0]}"
    for path in (settings.weights.store, settings.console.token_file, Path(pairs["HOME"])):
        assert path is not None
        assert path.is_relative_to(writable)
    assert service["ProtectSystem"] == ["strict"]
    assert service["NoNewPrivileges"] == ["true"]
    assert service["CapabilityBoundingSet"] == [""]
    assert "MemoryDenyWriteExecute" not in service  # torch's CPU kernels are compiled at run time


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_reads_the_unit(tmp_path: Path) -> None:
    text = read("deploy/deepfake-miner.service")
    program = unit()["ExecStart"][0].split()[0]
    path = tmp_path / "deepfake-miner.service"
    path.write_text(text.replace(f"ExecStart={program}", "ExecStart=/bin/true"))
    verify = ["systemd-analyze", "verify", str(path)]
    done = subprocess.run(verify, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_pm2s_file_says_the_same() -> None:
    code = "console.log(JSON.stringify(require('./ecosystem.config.cjs')))"
    done = subprocess.run(["node", "-e", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    (application,) = json.loads(done.stdout)["apps"]
    assert set(application["stop_exit_codes"]) == FINAL_CODES | {Exit.STOPPED}
    assert application["kill_timeout"] > 1000 * Axon().grace_s
    assert (application["script"], application["args"]) == (".venv/bin/deepfake-miner", ["miner"])
    assert Path(application["cwd"]) == ROOT
    load([], {k: v for k, v in application["env"].items() if k.startswith(ENV_PREFIX)})


def test_every_name_of_the_example_environment_is_a_setting() -> None:
    lines = read(".env.example").splitlines()
    pairs = [line.removeprefix("#").split("=", 1) for line in lines if re.match(r"#?[A-Z_]+=", line)]
    assert len(pairs) > 8
    assert all(name.startswith(ENV_PREFIX) for name, _ in pairs)
    settings: Any = load([], dict(pairs))
    assert settings.offline is True  # the commented ones were read as well
    unchanged = load([], dict(line.split("=", 1) for line in lines if line and not line.startswith("#")))
    assert unchanged == load([], {})


def test_min_compute_holds_figures() -> None:
    found = yaml.safe_load(read("min_compute.yml"))
    assert re.fullmatch(r"\d+\.\d+", found["version"])
    for who in ("miner", "validator"):
        spec = found["compute_spec"][who]
        assert set(spec) == {"cpu", "gpu", "memory", "storage", "os"}
        figures = [spec["cpu"]["min_cores"], spec["memory"]["min_ram"], spec["storage"]["min_space"]]
        assert all(isinstance(figure, int) and figure > 0 for figure in figures)
        assert spec["gpu"]["required"] is False
    miner = found["compute_spec"]["miner"]
    assert miner["memory"]["recommended_ram"] > miner["memory"]["min_ram"]
