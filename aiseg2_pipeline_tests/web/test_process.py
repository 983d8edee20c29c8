"""The process: what it imports, writes, prints, and takes while nobody looks."""

import re
import subprocess
import sys
import time
from pathlib import Path

from aiseg2_pipeline.simulator.server import running
from aiseg2_pipeline_tests.support.page import HOME, served, store_energy, store_reading, utc_now
from aiseg2_pipeline_tests.support.running_pipeline import environment, needs_proc

ANSWERS = ("now", "series?kind=usage", "energy?circuits=1", "cost?by=month", "coverage", "record", "openapi.json")
TARIFF = """
[[plan]]
name = "flat"
valid_from = 2020-01-01
price = [{ name = "all day", yen = 30 }]
"""


def test_it_never_imports_dagster_pandas_or_numpy_and_writes_to_no_store(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    store_reading(folder, utc_now(), 台所=700.0)
    store_energy(folder, [utc_now().replace(minute=0, second=0)], consumption=1000, bought=1000)
    (tariff := tmp_path / "tariff.toml").write_text(TARIFF, encoding="utf-8")
    stores = {path: path.read_bytes() for path in folder.glob("*.sqlite")}
    with running() as device:
        home = {"AISEG2_HOST": device.address, "AISEG2_PASSWORD": device.password, "AISEG2_TARIFF": str(tariff)}
        # Each import is printed, also a later one.
        with served(folder, home, "-X", "importtime") as page:
            for answer in (*ANSWERS, "now?live=1", "energy.csv?circuits=1"):
                assert page.get(f"/api/v1/{answer}").status_code == 200, answer
            assert page.get("/").status_code == 200
            imported = set(re.findall(r"\| +([\w.]+)$", page.log.read_text(), re.MULTILINE))
    assert {"starlette", "aiseg2_pipeline.aiseg2.client"} <= imported
    assert not {name for name in imported if name.split(".")[0] in {"dagster", "pandas", "numpy", "grpc"}}
    assert {path: path.read_bytes() for path in stores} == stores


@needs_proc
def test_it_takes_no_cpu_while_nobody_looks_and_ends_at_once(tmp_path: Path) -> None:
    with served(tmp_path / "data") as page:
        page.api("now")
        # Its connections and threads end.
        time.sleep(1)
        stat = Path(f"/proc/{page.process.pid}/stat")

        def ticks() -> list[str]:
            return stat.read_text().rpartition(")")[2].split()[11:13]

        before = ticks()
        time.sleep(5)
        assert ticks() == before
        page.process.terminate()
        assert page.process.wait(5) == 0
        assert page.log.read_text() == ""


def test_a_port_that_is_in_use_is_one_sentence_with_its_setting(tmp_path: Path) -> None:
    with served(tmp_path / "data") as page:
        port = page.url.rpartition(":")[2]
        ended = subprocess.run(
            [sys.executable, "-m", "aiseg2_pipeline.web"],
            env=environment(HOME | {"AISEG2_PAGE_PORT": port}),
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "AISEG2_PAGE_PORT" in ended.stderr
