#!/bin/sh
# Start the stack's Grafana, once .env has the InfluxDB that it shows and the password of its user `admin`.
set -eu

for name in INFLUXDB_HOST INFLUXDB_TOKEN INFLUXDB_ORG INFLUXDB_BUCKET GRAFANA_ADMIN_PASSWORD; do
    eval "value=\${$name:-}"
    if [ -z "$value" ]; then
        echo "$name is not set: Grafana needs it, so set it in .env." >&2
        exit 1
    fi
done

# The values that the pipeline accepts as true.
case "${INFLUXDB_USE_HTTPS:-0}" in
    1 | [Tt]* | [Yy]* | [Oo][Nn]) scheme=https ;;
    *) scheme=http ;;
esac
export INFLUXDB_URL="$scheme://$INFLUXDB_HOST"
# Grafana uses it only at its first start. Later: docker compose exec grafana grafana cli admin reset-admin-password
export GF_SECURITY_ADMIN_PASSWORD="$GRAFANA_ADMIN_PASSWORD"
exec "$@"
