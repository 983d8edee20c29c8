#!/bin/sh
# Start the stack's InfluxDB, once .env has all settings of its first start. That creates an organization, a bucket
# without expiry, and the token of .env; later starts leave them unchanged.
set -eu

refuse() {
    echo "$1" >&2
    exit 1
}

if [ "${INFLUXDB_HOST:-}" != influxdb:8086 ]; then
    refuse "INFLUXDB_HOST is not influxdb:8086, so that the pipeline would not write to this InfluxDB: set it in .env, or leave the profile influxdb out."
fi
for name in INFLUXDB_TOKEN INFLUXDB_ORG INFLUXDB_BUCKET; do
    eval "value=\${$name:-}"
    if [ -z "$value" ]; then
        refuse "$name is not set: InfluxDB needs it for its first start, so set it in .env (openssl rand -hex 32 makes a token)."
    fi
done

export DOCKER_INFLUXDB_INIT_MODE=setup
export DOCKER_INFLUXDB_INIT_ORG="$INFLUXDB_ORG"
export DOCKER_INFLUXDB_INIT_BUCKET="$INFLUXDB_BUCKET"
export DOCKER_INFLUXDB_INIT_ADMIN_TOKEN="$INFLUXDB_TOKEN"
export DOCKER_INFLUXDB_INIT_USERNAME=admin
# Random and stored nowhere. To log in to InfluxDB's pages, set one: docker compose exec influxdb influx user password --name admin
DOCKER_INFLUXDB_INIT_PASSWORD="$(head -c 24 /dev/urandom | base64)"
export DOCKER_INFLUXDB_INIT_PASSWORD
exec "$@"
