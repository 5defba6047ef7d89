# A miner in a container: docker build --target cpu . (or cuda); compose.yaml runs it.
# Both targets hold the same packages: PyPI's torch brings the CUDA libraries along and runs without a GPU as well, and
# the host's driver comes in through the NVIDIA container toolkit. They differ in the device that the miner uses.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS builder
ENV PIP_NO_CACHE_DIR=1
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# Packages first: they change with the lock, not with the code.
COPY Makefile requirements.lock ./
RUN make install-packages PREFIX=/opt/deepfake-miner
COPY pyproject.toml README.md LICENSE ./
COPY detectors detectors
COPY neurons neurons
COPY configs configs
COPY weights weights
COPY deploy/start.sh deploy/start.sh
RUN make install-runtime PREFIX=/opt/deepfake-miner

FROM python:${PYTHON} AS runtime
RUN groupadd --gid 10001 miner \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin miner \
    && install -d -o 10001 -g 10001 -m 700 /data
COPY --from=builder /opt/deepfake-miner /opt/deepfake-miner
# The root may be read-only: what is written goes to /data (weights, the console's token) and /tmp.
# Metrics and console bind the container's own address: who may reach them is decided where ports are published.
ENV PATH=/opt/deepfake-miner/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/data \
    XDG_CACHE_HOME=/tmp/cache \
    MPLCONFIGDIR=/tmp/matplotlib \
    DEEPFAKE_MINER_HOME=/opt/deepfake-miner/share/deepfake-miner \
    DEEPFAKE_MINER_WALLET__PATH=/wallets \
    DEEPFAKE_MINER_WEIGHTS__STORE=/data/weights \
    DEEPFAKE_MINER_CONSOLE__TOKEN_FILE=/data/console-token \
    DEEPFAKE_MINER_CONSOLE__IP=0.0.0.0 \
    DEEPFAKE_MINER_TELEMETRY__IP=0.0.0.0 \
    DEEPFAKE_MINER_LOGGING__FORMAT=json
USER 10001:10001
WORKDIR /data
VOLUME ["/data"]
EXPOSE 8091 9108 9109
STOPSIGNAL SIGTERM
# Healthy is who admits challenges; needs --telemetry.enabled. A start takes as long as weights and chain do.
HEALTHCHECK --interval=30s --timeout=5s --start-period=90s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9108/healthz', timeout=4)"]
ENTRYPOINT ["deepfake-miner-start", "deepfake-miner"]
CMD ["miner"]

FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    DEEPFAKE_MINER_NEURON__DEVICE=cuda

FROM runtime AS cpu
ENV DEEPFAKE_MINER_NEURON__DEVICE=cpu
