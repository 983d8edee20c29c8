"""InfluxDB's disk is full: what it acknowledged stays, and the rest follows once there is room and it was restarted."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from aiseg2_pipeline.frames.readings import KEY
from aiseg2_pipeline.influxdb.client import Unavailable
from aiseg2_pipeline.influxdb.delivery import Delivery, deliver
from aiseg2_pipeline.store import Store
from aiseg2_pipeline_tests.support.influxdb import Influx, InfluxServer
from benchmarks.home import readings

START = datetime(2026, 7, 1, tzinfo=UTC)
END = START + timedelta(days=1)
# Room for some of the day's requests.
LEFT = 200_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB."""
    (folder := tmp_path / "influxdb" / "engine").mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:  # noqa: S603 - our own arguments
        pytest.skip("a small file system cannot be mounted: this needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)  # noqa: S603, S607 - as above


@pytest.mark.usefixtures("influx_server")  # where there is none, it says what to do
def test_a_full_disk_of_influxdb_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(InfluxServer(small_disk.parent, token="t"))
        influx = stack.enter_context(Influx(server, "home"))
        store = stack.enter_context(Store.open(tmp_path / "readings.sqlite"))
        store.upsert(readings(START))
        filler = small_disk / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - LEFT))
        with pytest.raises(Unavailable, match="500") as failure:
            _deliver(store, influx)
        assert failure.value.delivery.rows > 0
        filler.unlink()
        # Until then it answers 500, whatever room there is.
        server.kill()
        server.start()
        _deliver(store, influx)
        stored = store.read(START, END).sort_values(KEY, ignore_index=True)
        pd.testing.assert_frame_equal(influx.readings(), stored, check_exact=True)


def _deliver(store: Store, influx: Influx) -> Delivery:
    with influx.writer() as writer:
        return deliver(store, writer, influx.destination, now=END)
