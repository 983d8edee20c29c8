"""Sets up a new InfluxDB from the variables of its image; nothing but the standard library is there."""

import json
import os
import sys
import time
from urllib.error import URLError
from urllib.request import Request, urlopen

_WAIT_S = 60


def _setting(name: str) -> str:
    return os.environ[f"DOCKER_INFLUXDB_INIT_{name}"]


def main(url: str) -> None:
    """Wait until the server answers, and make what the variables name."""
    end = time.monotonic() + _WAIT_S
    while True:
        try:
            urlopen(f"{url}/health", timeout=5)  # noqa: S310 - our own server
            break
        except (URLError, ConnectionError):
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
    first = {
        "username": _setting("USERNAME"),
        "password": _setting("PASSWORD"),
        "token": _setting("ADMIN_TOKEN"),
        "org": _setting("ORG"),
        "bucket": _setting("BUCKET"),
        "retentionPeriodSeconds": 0,
    }
    urlopen(Request(f"{url}/api/v2/setup", json.dumps(first).encode()), timeout=30)  # noqa: S310 - our own server


if __name__ == "__main__":
    main(sys.argv[1])
