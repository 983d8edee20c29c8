# The pipeline as one container: webserver, daemon and what they start. Data lies in /data.

FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md ./
COPY aiseg2_pipeline aiseg2_pipeline
RUN python -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir .

FROM python:3.13-slim
ENV PATH=/opt/venv/bin:$PATH TZ=Asia/Tokyo PYTHONDONTWRITEBYTECODE=1
RUN useradd --uid 10001 --no-create-home aiseg2 && install -d -o aiseg2 -m 0700 /data
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY dagster.yaml workspace.yaml ./
USER 10001
VOLUME /data
CMD ["aiseg2-pipeline", "run"]
