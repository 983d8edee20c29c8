"""Acknowledged writes to InfluxDB 2, and the queries of `doctor`.

One call is one request: it returns when the server has acknowledged the points, and raises otherwise. Retries, splitting
and acknowledgements belong in `delivery`; the points' format in `line_protocol`. No message, log line or repr
contains the token.
"""

import csv
import re
import ssl
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from typing import Any, Self

import urllib3.exceptions
from influxdb_client.client.flux_csv_parser import FluxCsvParserException, FluxQueryException
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.rest import ApiException
from influxdb_client.service.write_service import WriteService

from aiseg2_pipeline.influxdb.answers import retry_after_s, server_message, shortened
from aiseg2_pipeline.influxdb.line_protocol import CONSUMPTION_SUMMARY, MEASUREMENTS

OTHER_WRITERS_FLUX = f"""\
from(bucket: fromBucket)
  |> range(start: since)
  |> filter(fn: (r) => r._measurement == "power" and r.summary == "{CONSUMPTION_SUMMARY}" and r._field == "value")
  |> keep(columns: ["_time"])
"""

# `last` reads the index and one block of each series, however many points there are.
SERIES_FLUX = """\
from(bucket: fromBucket)
  |> range(start: since)
  |> filter(fn: (r) => r._measurement == "power" and r._field == "value")
  |> last()
  |> drop(columns: ["_start", "_stop", "_time", "_value", "_field", "_measurement"])
"""

# A series' tags.
Tags = frozenset[tuple[str, str]]

_BUCKET_ID = re.compile("[0-9a-f]{16}")
# Raised by the libraries for another program's answer: a table without columns, a length that exceeds the memory.
_UNPARSABLE = (
    *(UnicodeDecodeError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError),
    *(csv.Error, FluxCsvParserException),
)


# A field keeps the type of its first value for as long as the shard that has it.
TYPE_CONFLICT = "field type conflict"


class InfluxError(Exception):
    """Report that points could not be stored, in one sentence.

    `delivery` is the Delivery up to the error; None outside a delivery.
    """

    delivery: Any = None


class Unavailable(InfluxError):  # noqa: N818 - it reads as a state of the server
    """Report a failure that may pass: retry, after `retry_after_s` seconds if the server sent `Retry-After`."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        """Set the message and the server's `Retry-After` in seconds."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Misconfigured(InfluxError):  # noqa: N818 - as above
    """Report a wrong setting; a retry does not help."""


class Rejected(InfluxError):  # noqa: N818 - as above
    """Report that the server rejects a point of this request for good; `reason` is its message, shortened."""

    def __init__(self, reason: str) -> None:
        """Set the server's reason."""
        todo = (
            "another program wrote another type of number there, so set INFLUXDB_BUCKET to another bucket"
            if TYPE_CONFLICT in reason
            else "check INFLUXDB_HOST and INFLUXDB_BUCKET"
        )
        super().__init__(f"InfluxDB refuses what it was sent ({reason}): {todo}.")
        self.reason = reason


class BeyondRetention(Rejected):
    """Report that a point of this request is older than the bucket's retention, which is `duration` if the server says so."""

    def __init__(self, message: str) -> None:
        """Set the server's message, and the duration that it names."""
        super().__init__(shortened(message))
        named = re.search(r"of duration (?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", message)
        hours, minutes, seconds = (int(part or 0) for part in named.groups()) if named else (0, 0, 0)
        self.duration = timedelta(hours=hours, minutes=minutes, seconds=seconds) or None


class TooLarge(InfluxError):  # noqa: N818 - as above
    """Report that the request exceeds the server's size limit."""


class InfluxWriter:
    """Write to one bucket.

    `url` is `http(s)://host:port`; `verify` is False to skip the verification of https, or a CA file's path.
    `timeout_s` is the connect and the read timeout of each request.
    """

    def __init__(
        self, url: str, token: str, org: str, bucket: str, *, verify: bool | str = True, timeout_s: float = 10
    ) -> None:
        """Create the client without connecting; raise Misconfigured if the CA file is invalid."""
        self.url = url
        self.org = org
        self.bucket = bucket
        self._timeout_s = timeout_s
        self._client = InfluxDBClient(
            url,
            token,
            org=org,
            timeout=_milliseconds(timeout_s),
            enable_gzip=True,
            retries=False,
            verify_ssl=verify is not False,
            ssl_context=_ssl_context(verify) if isinstance(verify, str) else None,
        )
        # `WriteApi` neither accepts a timeout for one write nor returns the status.
        self._write_service = WriteService(self._client.api_client)

    def __repr__(self) -> str:
        """Return the destination, without the token."""
        return f"InfluxWriter({self.url!r}, org={self.org!r}, bucket={self.bucket!r})"

    def __enter__(self) -> Self:
        """Return the writer, which closes its connections on exit."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close its connections."""
        self._client.close()

    def write(self, lines: Sequence[str], timeout_s: float | None = None) -> None:
        """Send line protocol in nanoseconds as one request; return once the server has stored it.

        `timeout_s` can shorten the writer's own timeout. Raises Unavailable, Misconfigured, Rejected, BeyondRetention or
        TooLarge. Even then some of the points may be stored; sending them again is safe.
        """
        timeout_s = self._timeout_s if timeout_s is None else min(timeout_s, self._timeout_s)
        _, status, _ = self._call(
            lambda: self._write_service.post_write_with_http_info(
                self.org,
                self.bucket,
                "\n".join(lines),
                precision="ns",
                content_type="text/plain; charset=utf-8",
                _request_timeout=_milliseconds(timeout_s),
            )
        )
        if status != HTTPStatus.NO_CONTENT:
            raise self._not_influxdb(status)

    def check(self) -> None:
        """Raise an InfluxError unless the server answers and accepts token, organization and bucket.

        InfluxDB checks them before it parses the body, so a body without points checks them and stores nothing.
        """
        with suppress(Rejected):
            self.write(["# aiseg2-pipeline"])

    def other_writers(self, since: datetime, own_times: Collection[datetime]) -> list[datetime] | None:
        """Return the times since `since` at which another program wrote a total consumption to the bucket.

        `own_times` are the times of our own points. None if the token may not read the bucket.
        """
        records = self._records(OTHER_WRITERS_FLUX, since)
        if records is None:
            return None
        times = {record.get("_time") for record in records} - set(own_times)
        return sorted(time for time in times if isinstance(time, datetime) and time.tzinfo)

    def power_series(self, since: datetime) -> set[Tags] | None:
        """Return the tags of each series of `power` with a point since `since`; None if the token may not read."""
        records = self._records(SERIES_FLUX, since)
        if records is None:
            return None
        return {
            frozenset((name, value) for name, value in record.items() if name not in ("result", "table") and value)
            for record in records
        }

    def retention(self) -> timedelta | None:
        """Return for how long the bucket keeps points; None if it keeps them for good, or the token may not read that."""
        buckets: Any = self._client.buckets_api()

        def kept() -> timedelta | None:
            rules = (
                rule
                for one in buckets.find_buckets(name=self.bucket, org=self.org).buckets
                for rule in one.retention_rules
            )
            return min(
                (timedelta(seconds=rule.every_seconds) for rule in rules if rule.every_seconds), default=None
            )

        try:
            duration: timedelta | None = self._call(kept)
        except (Misconfigured, Rejected):
            return None
        return duration

    def _records(self, flux: str, since: datetime) -> list[dict[str, Any]] | None:
        """Return a query's records; None if the token may not read the bucket."""
        parameters = {"fromBucket": self.bucket, "since": since.astimezone(UTC)}
        # As for writing, INFLUXDB_BUCKET may be the bucket's id; Flux does not take one for a name.
        sources = ("bucketID", "bucket") if _BUCKET_ID.fullmatch(self.bucket) else ("bucket",)
        for source in sources:
            query = flux.replace("from(bucket:", f"from({source}:")
            with suppress(Misconfigured, Rejected):
                tables = self._call(partial(self._client.query_api().query, query, params=parameters))
                return [record.values for table in tables for record in table.records]
        return None

    def delete(self, start: datetime, stop: datetime) -> None:
        """Delete the points of the readings' measurements in [start, stop), including other programs' points."""
        # The server's range includes its stop; readings have whole seconds.
        last = stop - timedelta(microseconds=1)
        delete = self._client.delete_api().delete
        for measurement in MEASUREMENTS:
            self._call(partial(delete, start, last, f'_measurement="{measurement}"', self.bucket, self.org))

    def _call(self, send: Callable[[], Any]) -> Any:
        """Return the result of a library call; raise an InfluxError for each of the library's errors."""
        try:
            return send()
        except ApiException as error:
            failure = self._error_of_answer(error)
        except FluxQueryException as error:
            failure = Rejected(shortened(str(error)))
        except urllib3.exceptions.LocationValueError:
            failure = Misconfigured(f"{self.url} is no address of a server: correct INFLUXDB_HOST (host:port).")
        except urllib3.exceptions.HTTPError as error:
            failure = Unavailable(self._connection_problem(error))
        except _UNPARSABLE:
            failure = self._not_influxdb(HTTPStatus.OK)
        except ValueError:
            # http.client rejects the header, and its message repeats the token.
            failure = Misconfigured("INFLUXDB_TOKEN holds a character that no token has: copy it again.")
        # Outside the handlers: the library's error, with its headers, must not be in the traceback.
        raise failure

    def _connection_problem(self, error: urllib3.exceptions.HTTPError) -> str:
        if isinstance(error, urllib3.exceptions.NameResolutionError):
            return f"The name in {self.url} cannot be found: correct INFLUXDB_HOST, or set it to an IP address and port."
        server = f"InfluxDB at {self.url}"
        if isinstance(error, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError):
            return f"{server} cannot be reached: check that it is running, and INFLUXDB_HOST."
        if isinstance(error, urllib3.exceptions.TimeoutError):
            return f"{server} did not answer in time: check that it is running and not overloaded."
        return f"{server} broke off the connection: check that it is running, and INFLUXDB_USE_HTTPS."

    def _error_of_answer(self, error: ApiException) -> InfluxError:
        """Return the error for an answer other than 2xx, or for a failed TLS handshake (status 0)."""
        status, message = error.status or 0, server_message(error)
        if status == 0:
            return self._error_of_tls(str(error.reason))
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return TooLarge(
                f"InfluxDB at {self.url} accepts smaller requests only: raise the limit of the proxy in front of it (INFLUXDB_HOST)."
            )
        if status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY) and message:
            beyond = "unable to parse" not in message and re.search("(beyond|outside) retention policy", message)
            return BeyondRetention(message) if beyond else Rejected(shortened(message))
        if (
            status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
            or status >= HTTPStatus.INTERNAL_SERVER_ERROR
        ):
            # InfluxDB 2.9.1 answers 500 after a full disk was freed until it is restarted.
            answer = f"{status}: {shortened(message)}" if message else f"{status}"
            return Unavailable(
                f"InfluxDB at {self.url} cannot take requests now ({answer}): wait, and if this continues, check its log and restart it.",
                retry_after_s(error),
            )
        return self._error_of_setting(status, message or "")

    def _error_of_setting(self, status: int, message: str) -> Misconfigured:
        if status == HTTPStatus.UNAUTHORIZED:
            return Misconfigured(
                f"InfluxDB at {self.url} does not accept the token: set INFLUXDB_TOKEN to one that may write "
                f"to the bucket {self.bucket}."
            )
        if status == HTTPStatus.FORBIDDEN:
            return Misconfigured(
                f"The token may not write to the bucket {self.bucket}: set INFLUXDB_TOKEN to one that may."
            )
        if status == HTTPStatus.NOT_FOUND and "organization" in message:
            return Misconfigured(f"InfluxDB has no organization {self.org}: set INFLUXDB_ORG to the one you use.")
        if status == HTTPStatus.NOT_FOUND and "bucket" in message:
            return Misconfigured(
                f"InfluxDB has no bucket {self.bucket}: create it, or set INFLUXDB_BUCKET to an existing one."
            )
        return self._not_influxdb(status)

    def _error_of_tls(self, reason: str) -> InfluxError:
        if "CERTIFICATE_VERIFY_FAILED" in reason or "CertificateError" in reason:
            return Misconfigured(
                f"The certificate of {self.url} cannot be verified: set INFLUXDB_CA_FILE to its CA's file, "
                "or correct INFLUXDB_HOST."
            )
        if "WRONG_VERSION_NUMBER" in reason or "record layer failure" in reason:
            return Misconfigured(f"{self.url} does not speak https: set INFLUXDB_USE_HTTPS=0.")
        return Unavailable(
            f"The secure connection to {self.url} could not be made: check INFLUXDB_HOST and INFLUXDB_USE_HTTPS."
        )

    def _not_influxdb(self, status: int) -> Misconfigured:
        return Misconfigured(
            f"{self.url} does not answer as InfluxDB 2 does ({status}): "
            "check INFLUXDB_HOST and INFLUXDB_USE_HTTPS."
        )


def _ssl_context(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError:
        raise Misconfigured(
            f"{ca_file} cannot be read as certificates: set INFLUXDB_CA_FILE to a PEM file."
        ) from None


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
