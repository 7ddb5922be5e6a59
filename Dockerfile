# One image for every role; docker-compose.yml says which of them a container has. Any builder makes it, BuildKit or not.
# The scaffold's Dockerfile is this one, with the engine from an index in place of the checkout.

FROM python:3.12-slim AS build
# Where packages come from, if not from where pip gets them by itself.
ARG PIP_INDEX_URL
COPY scaffold/node/requirements.lock requirements-build.lock /build/
RUN python -m venv /opt/node && python -m venv /opt/build \
 && /opt/node/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r /build/requirements.lock \
 && /opt/build/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r /build/requirements-build.lock
COPY . /build/source
RUN cd /build/source && /opt/build/bin/python -m hatchling build -t wheel -d /build/wheels \
 && /opt/node/bin/pip install --no-cache-dir --no-deps --no-index /build/wheels/*.whl \
 && /opt/node/bin/pip uninstall --yes pip

# What changes most stands last. The user is a number, so that an orchestrator sees that it is not root.
FROM python:3.12-slim
LABEL org.opencontainers.image.title="coordinator-node" org.opencontainers.image.version="0.2.0"
ENV PATH=/opt/node/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp WORKER_ALIVE_FILE=/tmp/alive
# Of every worker: within the last 15 seconds it told the database that it is alive. Other roles bring their own check.
HEALTHCHECK --interval=10s --timeout=10s --start-period=180s --retries=3 \
  CMD ["sh", "-c", "test -n \"$(find \"$WORKER_ALIVE_FILE\" -newermt '15 seconds ago')\""]
CMD ["coordinator-node", "--help"]
# Volumes take their owner from what they are mounted over.
RUN mkdir -p /data/backfill /data/environments && chown -R 10001:10001 /data
USER 10001:10001
WORKDIR /workspace/node
COPY --from=build /opt/node /opt/node
COPY coordinator_node/local/demo_workspace ./
