"""What a person reads when InfluxDB is away, refuses, or is something else."""

from collections.abc import Callable
from datetime import timedelta

from aiseg2_pipeline.influxdb.client import InfluxWriter
from aiseg2_pipeline.influxdb.delivery import Delivery, deliver, delivery_lock
from aiseg2_pipeline.store import Destination, Store
from aiseg2_pipeline_tests.influxdb.test_client import https_server
from aiseg2_pipeline_tests.support.error_messages import Sentence
from aiseg2_pipeline_tests.support.error_stage import HOUR, NOW, Stage, told_by
from aiseg2_pipeline_tests.support.errors_of_device import from_socket
from aiseg2_pipeline_tests.support.store import readings

URL = "http://127.0.0.1:"
HOST, HTTPS = "INFLUXDB_HOST", "INFLUXDB_USE_HTTPS"
NO_BUCKET, NO_ORG = 'bucket \\"power\\" not found', 'organization name \\"home\\" not found'


def _elsewhere(url: str, **given: str) -> Callable[[Stage], str]:
    return lambda stage: told_by(lambda: stage.write(url, **given))


def _answer(status: int, message: str = "") -> Callable[[Stage], str]:
    return lambda stage: stage.answered(status, message)


def _over_https(stage: Stage) -> str:
    return told_by(lambda: stage.write(f"https://{stage.influx.address}"))


def _unknown_certificate(stage: Stage) -> str:
    with https_server(stage.folder) as (url, _):
        return told_by(lambda: stage.write(url))


def _no_certificates(stage: Stage) -> str:
    (stage.folder / "ca.pem").write_text("none")
    return told_by(lambda: stage.write(ca_file=str(stage.folder / "ca.pem")))


def _refused_removal(stage: Stage) -> str:
    stage.influx.status, stage.influx.body = 400, b'{"message":"delete is not supported"}'
    return stage.command("remove", "--from", "2026-07-14", "--to", "2026-07-14", "--yes", **stage.to_influx)


OF_WRITING = [
    Sentence("influxdb: nothing listens", _elsewhere("http://127.0.0.1:1"), ("127.0.0.1:1",), HOST),
    Sentence("influxdb: unknown name", _elsewhere("http://no-such-host.invalid"), ("no-such-host.invalid",), HOST),
    Sentence("influxdb: no address", _elsewhere("http://no host"), ("no host",), HOST),
    Sentence("influxdb: silent", from_socket(None, Stage.write), (URL, "in time")),
    Sentence("influxdb: hangs up", _answer(0), (URL, "broke off"), HTTPS),
    Sentence("influxdb: no https", _over_https, ("https://127.0.0.1",), HTTPS),
    Sentence(
        "influxdb: unknown certificate",
        _unknown_certificate,
        ("certificate", "https://127.0.0.1"),
        "INFLUXDB_CA_FILE",
    ),
    Sentence("influxdb: no handshake", from_socket(b"", Stage.write, "https"), ("https://127.0.0.1",), HTTPS),
    Sentence(
        "influxdb: token of other letters", _elsewhere(f"{URL}1", token="鍵"), ("character",), "INFLUXDB_TOKEN"
    ),
    Sentence("influxdb: no certificates", _no_certificates, ("ca.pem",), "INFLUXDB_CA_FILE"),
    Sentence("influxdb: 401", _answer(401, "unauthorized"), (URL, "token", "power"), "INFLUXDB_TOKEN"),
    Sentence("influxdb: 403", _answer(403, "forbidden"), ("token", "power"), "INFLUXDB_TOKEN"),
    Sentence("influxdb: 404 of a bucket", _answer(404, NO_BUCKET), ("power",), "INFLUXDB_BUCKET"),
    Sentence("influxdb: 404 of an organization", _answer(404, NO_ORG), ("home",), "INFLUXDB_ORG"),
    Sentence("influxdb: 413", _answer(413), (URL, "smaller"), HOST),
    Sentence("influxdb: 422", _answer(422, "field type conflict"), ("field type conflict",), "INFLUXDB_BUCKET"),
    Sentence("influxdb: 429", _answer(429), (URL, "429")),
    Sentence("influxdb: 503", _answer(503), (URL, "503")),
    Sentence("influxdb: 302", _answer(302), (URL, "302"), HOST),
    Sentence("influxdb: refuses to delete", _refused_removal, ("delete is not supported",), "INFLUXDB_BUCKET"),
]


# A delivery that ends before all is settled, and goes on with the next run


PLACE = Destination("here", "home", "power")


def _deliver(stage: Stage, store: Store, **limits: object) -> Delivery:
    store.upsert(readings(NOW.replace(minute=0, second=0), 3))
    with InfluxWriter(f"http://{stage.influx.address}", "t0ken", "home", "power") as writer:
        known: dict[str, object] = {"now": NOW, "running_hour": NOW + HOUR}
        return deliver(store, writer, PLACE, **(known | limits))  # type: ignore[arg-type] # a keyword each


def _stopped(status: int = 204, **limits: object) -> Callable[[Stage], str]:
    def said(stage: Stage) -> str:
        stage.influx.status, stage.influx.body = status, b'{"message":"field type conflict"}'
        stage.patch.setattr("aiseg2_pipeline.influxdb.delivery.MAX_SPLIT_REQUESTS", 1)
        with stage.store() as store:
            return _deliver(stage, store, **limits).stopped or ""

    return said


def _two_at_once(stage: Stage) -> str:
    told: list[str] = []

    def meanwhile(_: int) -> None:
        with stage.store() as store:
            told.append(_deliver(stage, store, deadline=0.0).stopped or "")

    with stage.store() as store:
        _deliver(stage, store, on_progress=meanwhile)
    return told[0]


def _refused_for_good(stage: Stage) -> str:
    stage.influx.status, stage.influx.body = 422, b'{"message":"field type conflict"}'
    settings = stage.settings(**stage.to_influx)
    with stage.store() as store:
        store.upsert(readings(NOW.replace(second=0), 1))
        with InfluxWriter(f"http://{stage.influx.address}", "t0ken", "home", "power") as writer:
            place = Destination(stage.influx.address, "home", "power")
            deliver(store, writer, place, now=NOW, running_hour=NOW)
    assert settings.influx
    stage.influx.status = 204
    return stage.examined("refused rows", "for good", stage.to_influx)


def _other_writer(stage: Stage) -> str:
    columns = "#datatype,string,long,dateTime:RFC3339\n#group,false,false,false\n#default,_result,,\n,result,table,_time\n"
    stage.influx.found = f"{columns},,0,{NOW - timedelta(seconds=30):%Y-%m-%dT%H:%M:%SZ}\n".encode()
    return stage.examined("other writers", given=stage.to_influx)


def _removed_meanwhile(stage: Stage) -> str:
    stage.patch.setattr("aiseg2_pipeline.cli.record.REMOVE_WAITS_S", 0.1)
    with stage.store() as store, delivery_lock(store, Destination(stage.influx.address, "home", "power"), 0):
        return stage.command("remove", "--from", "2026-07-14", "--to", "2026-07-14", "--yes", **stage.to_influx)


OF_DELIVERING = [
    Sentence("delivery: time is up", _stopped(deadline=0.0), ("time for this run",)),
    Sentence("delivery: a run's share", _stopped(max_older_rows=0), ("share",)),
    Sentence("delivery: many refusals", _stopped(422), ("refuses", "1 requests")),
    Sentence("delivery: two at once", _two_at_once, ("bucket power",)),
    Sentence("delivery: rows are removed meanwhile", _removed_meanwhile, ("bucket power", "nothing was removed")),
    Sentence("doctor: refused rows", _refused_for_good, ("rows", "aiseg2-pipeline resend"), line=True),
    Sentence("doctor: another writer", _other_writer, ("power",), "INFLUXDB_BUCKET", line=True),
]
OF_INFLUXDB = [*OF_WRITING, *OF_DELIVERING]
