#!/bin/sh
# As the image's own script: the first start sets the server up on another port, so that nobody meets it half made.
set -eu
if [ "${DOCKER_INFLUXDB_INIT_MODE:-}" = setup ] && [ ! -e "$INFLUXD_BOLT_PATH" ]; then
    influxd --http-bind-address 127.0.0.1:9999 &
    if ! python3 /set_up.py http://127.0.0.1:9999; then
        rm -rf "$INFLUXD_BOLT_PATH" "$INFLUXD_SQLITE_PATH" "$INFLUXD_ENGINE_PATH"
        exit 1
    fi
    kill $!
    wait $! || true
fi
exec "$@"
