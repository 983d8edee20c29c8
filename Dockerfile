# The pipeline and its dependencies, for amd64 and arm64. All data is in /data; nothing else but /tmp is written to.
# For newer packages: `.ci/lock --upgrade`. The digests are those of the multi-platform images.

FROM python:3.13.15-slim-trixie@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b AS build
# Without pip, which nothing needs at run time.
RUN python -c 'import sys; sys.exit(sys.maxsize < 2**32 and "A 64-bit system is needed: not all packages exist for 32 bits.")' \
    && python -m venv --without-pip /opt/venv
WORKDIR /src
COPY requirements.lock ./
# The packages' own tests and the source maps for browsers are a sixth of the total size.
RUN pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --only-binary=:all: --require-hashes -r requirements.lock \
    && find /opt/venv '(' -type d -name tests -o -name '*.js.map' ')' -prune -exec rm -rf {} +
COPY pyproject.toml README.md LICENSE dagster.yaml workspace.yaml ./
COPY docs/tariffs/steps.toml docs/tariffs/
COPY aiseg2_pipeline aiseg2_pipeline
RUN pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --no-index --no-build-isolation .

FROM python:3.13.15-slim-trixie@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b
# The container's root file system is read-only, so the caches of libraries (fonts) go to /tmp.
ENV PATH=/opt/venv/bin:$PATH TZ=Asia/Tokyo AISEG2_DATA_DIR=/data HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib PYTHONDONTWRITEBYTECODE=1
RUN useradd --uid 10001 --no-create-home aiseg2 && install -d -o aiseg2 -g aiseg2 -m 0700 /data
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
USER 10001:10001
VOLUME /data
CMD ["aiseg2-pipeline", "run"]
