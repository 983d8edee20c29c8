"""Acknowledged writes to InfluxDB 2, and what `doctor` asks of it.

One call is one request: it returns when the server has said that it stored the points, and raises otherwise.
Trying again, splitting and remembering what was sent belong in `delivery`; what a point looks like in `line_protocol`.
No message, log line or repr holds the token.
"""

import csv
import json
import re
import ssl
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from http import HTTPStatus
from typing import Any, Self

import urllib3.exceptions
from influxdb_client.client.flux_csv_parser import FluxCsvParserException, FluxQueryException
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.rest import ApiException
from influxdb_client.service.write_service import WriteService

from aiseg2_pipeline.influxdb.line_protocol import CONSUMPTION_SUMMARY, MEASUREMENTS

OTHER_WRITERS_FLUX = f"""\
from(bucket: fromBucket)
  |> range(start: since)
  |> filter(fn: (r) => r._measurement == "power" and r.summary == "{CONSUMPTION_SUMMARY}" and r._field == "value")
  |> keep(columns: ["_time"])
"""

# `last` is answered from the index and one block of each series, however many points there are.
SERIES_FLUX = """\
from(bucket: fromBucket)
  |> range(start: since)
  |> filter(fn: (r) => r._measurement == "power" and r._field == "value")
  |> last()
  |> drop(columns: ["_start", "_stop", "_time", "_value", "_field", "_measurement"])
"""

# A series' tags.
Tags = frozenset[tuple[str, str]]

_REASON_CHARS = 300
# What the libraries come upon in an answer that is none of InfluxDB's: a table without columns, a length that no memory has.
_GARBAGE = (
    *(LookupError, TypeError, AttributeError, ArithmeticError, MemoryError),
    *(csv.Error, FluxCsvParserException),
)
_OWN_PROBLEM = HTTPStatus.INTERNAL_SERVER_ERROR


class InfluxError(Exception):
    """Anything that keeps points from being stored; the message is one sentence.

    `delivery` is what the module `delivery` had delivered until then (its Delivery), None where it was not at work.
    """

    delivery: Any = None


class Unavailable(InfluxError):  # noqa: N818 - it reads as a state of the server
    """No usable answer now: worth another try, after `retry_after_s` seconds where the server said so."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        """Take the sentence, and how long the server asks to wait."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Misconfigured(InfluxError):  # noqa: N818 - as above
    """A setting is wrong; trying again does not help."""


class Rejected(InfluxError):  # noqa: N818 - as above
    """The server will not take something in this batch; `reason` is what it says, shortened."""

    def __init__(self, reason: str) -> None:
        """Take what the server says."""
        super().__init__(f"InfluxDB refuses what it was sent ({reason}): check INFLUXDB_HOST and INFLUXDB_BUCKET.")
        self.reason = reason


class BeyondRetention(Rejected):
    """Something in this batch is older than the bucket's retention."""


class TooLarge(InfluxError):  # noqa: N818 - as above
    """The server takes smaller requests only."""


class InfluxWriter:
    """Writes to one bucket.

    `url` is `http(s)://host:port`; `verify` is False for no verification of https, or the file of a CA.
    `timeout_s` bounds connecting and answering of each request.
    """

    def __init__(
        self, url: str, token: str, org: str, bucket: str, *, verify: bool | str = True, timeout_s: float = 10
    ) -> None:
        """Connect to nothing yet; raise Misconfigured where the CA file is none."""
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
            ssl_context=_trusting(verify) if isinstance(verify, str) else None,
        )
        # Not `WriteApi`: it neither takes a timeout for one write nor tells the status.
        self._write_service = WriteService(self._client.api_client)

    def __repr__(self) -> str:
        """Tell where it writes to; the token stays out."""
        return f"InfluxWriter({self.url!r}, org={self.org!r}, bucket={self.bucket!r})"

    def __enter__(self) -> Self:
        """Use it as a context manager to close its connections."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close its connections."""
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def write(self, lines: Sequence[str], timeout_s: float | None = None) -> None:
        """Send line protocol in nanoseconds as one request; return once the server has stored it.

        `timeout_s` shortens the writer's own. Raises Unavailable, Misconfigured, Rejected, BeyondRetention or
        TooLarge. Even then some of the points can be stored; they can be sent again without harm.
        """
        status = self._call(lambda: self._post("\n".join(lines), timeout_s))
        if status != HTTPStatus.NO_CONTENT:
            raise self._not_influxdb(status)

    def check(self) -> None:
        """Return when the server is there and token, organization and bucket are right; else raise what is not.

        InfluxDB checks them before it looks for points, so a body without any shows it and stores nothing.
        """
        try:
            self.write(["# aiseg2-pipeline"])
        except Rejected:
            # It complains of the body, so all before it was right.
            return

    def other_writers(self, since: datetime, own_times: Collection[datetime]) -> list[datetime] | None:
        """Return the times since `since` at which somebody else wrote a total consumption to the bucket.

        `own_times` are the times that we wrote. None when the token may not read the bucket.
        """
        records = self._records(OTHER_WRITERS_FLUX, since)
        if records is None:
            return None
        times = {record.get("_time") for record in records} - set(own_times)
        return sorted(time for time in times if isinstance(time, datetime) and time.tzinfo)

    def power_series(self, since: datetime) -> set[Tags] | None:
        """Return the tags of each series of `power` that got a point since `since`; None when the token may not read."""
        records = self._records(SERIES_FLUX, since)
        if records is None:
            return None
        return {
            frozenset((name, value) for name, value in record.items() if name not in ("result", "table") and value)
            for record in records
        }

    def _records(self, flux: str, since: datetime) -> list[dict[str, Any]] | None:
        """Return what a query of the bucket gives, None where it is not answered."""
        parameters = {"fromBucket": self.bucket, "since": since.astimezone(UTC)}
        try:
            tables = self._call(lambda: self._client.query_api().query(flux, params=parameters))
        except (Misconfigured, Rejected):
            return None
        return [record.values for table in tables for record in table.records]

    def delete(self, start: datetime, stop: datetime) -> None:
        """Remove the points of readings from `start` to before `stop`, whoever wrote them."""
        # The server's stop belongs to the range; readings are dated to the second.
        last = stop - timedelta(microseconds=1)
        delete = self._client.delete_api().delete
        for measurement in MEASUREMENTS:
            of_measurement = f'_measurement="{measurement}"'
            self._call(partial(delete, start, last, of_measurement, self.bucket, self.org))

    def _post(self, body: str, timeout_s: float | None) -> int:
        _, status, _ = self._write_service.post_write_with_http_info(
            self.org,
            self.bucket,
            body,
            precision="ns",
            content_type="text/plain; charset=utf-8",
            _request_timeout=_milliseconds(
                self._timeout_s if timeout_s is None else min(timeout_s, self._timeout_s)
            ),
        )
        return int(status)

    def _call(self, send: Callable[[], Any]) -> Any:
        try:
            return send()
        except ApiException as error:
            failure = self._of_answer(error)
        except FluxQueryException as error:
            failure = Rejected(_shortened(str(error)))
        except urllib3.exceptions.LocationValueError:
            failure = Misconfigured(f"{self.url} is no address of a server: correct INFLUXDB_HOST (host:port).")
        except urllib3.exceptions.HTTPError as error:
            failure = self._of_connection(error)
        except (UnicodeDecodeError, *_GARBAGE):
            failure = self._not_influxdb(HTTPStatus.OK)
        except ValueError:
            # http.client refuses the header and repeats it, token included, in its message.
            failure = Misconfigured("INFLUXDB_TOKEN holds a character that no token has: copy it again.")
        # Outside the handlers, so that no traceback carries the library's error with headers in it.
        raise failure

    def _of_connection(self, error: urllib3.exceptions.HTTPError) -> InfluxError:
        if isinstance(error, urllib3.exceptions.NameResolutionError):
            return Unavailable(f"The name in {self.url} cannot be found: check INFLUXDB_HOST and the network.")
        if isinstance(error, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError):
            return Unavailable(
                f"InfluxDB at {self.url} cannot be reached: see that it is running, and check INFLUXDB_HOST."
            )
        if isinstance(error, urllib3.exceptions.TimeoutError):
            return Unavailable(
                f"InfluxDB at {self.url} did not answer in time: see that it is running and not overloaded."
            )
        return Unavailable(
            f"InfluxDB at {self.url} broke off the connection: see that it is running, and check INFLUXDB_USE_HTTPS."
        )

    def _of_answer(self, error: ApiException) -> InfluxError:
        """Say what an answer other than 2xx, or a failed TLS handshake (status 0), means for a person."""
        status = error.status or 0
        message = _server_message(error)
        failure: InfluxError = self._not_influxdb(status)
        if status == 0:
            failure = self._of_tls(str(error.reason))
        elif status == HTTPStatus.UNAUTHORIZED:
            failure = Misconfigured(
                f"InfluxDB at {self.url} does not know the token: set INFLUXDB_TOKEN to one that may write "
                f"to the bucket {self.bucket}."
            )
        elif status == HTTPStatus.FORBIDDEN:
            failure = Misconfigured(
                f"The token may not write to the bucket {self.bucket}: set INFLUXDB_TOKEN to one that may."
            )
        elif status == HTTPStatus.NOT_FOUND and message and "organization" in message:
            failure = Misconfigured(
                f"InfluxDB has no organization {self.org}: set INFLUXDB_ORG to the one you use."
            )
        elif status == HTTPStatus.NOT_FOUND and message and "bucket" in message:
            failure = Misconfigured(
                f"InfluxDB has no bucket {self.bucket}: create it, or set INFLUXDB_BUCKET to an existing one."
            )
        elif status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            failure = TooLarge(
                f"InfluxDB at {self.url} takes smaller requests only: raise the limit of what stands in front of it (INFLUXDB_HOST)."
            )
        elif status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY) and message:
            beyond = "unable to parse" not in message and re.search("(beyond|outside) retention policy", message)
            failure = (BeyondRetention if beyond else Rejected)(_shortened(message))
        elif status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS) or status >= _OWN_PROBLEM:
            failure = Unavailable(
                f"InfluxDB at {self.url} cannot take it now ({status}): wait, and if this goes on, look at its log.",
                _retry_after_s(error),
            )
        return failure

    def _of_tls(self, reason: str) -> InfluxError:
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


def _trusting(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError:
        raise Misconfigured(
            f"{ca_file} cannot be read as certificates: set INFLUXDB_CA_FILE to a PEM file."
        ) from None


def _server_message(error: ApiException) -> str | None:
    """Return the message of InfluxDB's answer (InfluxDB 1.8, which is not tested, calls it `error`), None for another program's."""
    try:
        answer = json.loads(error.body or "")
    except (ValueError, RecursionError):
        return None
    message = (answer.get("message") or answer.get("error")) if isinstance(answer, dict) else None
    return message if isinstance(message, str) else None


def _retry_after_s(error: ApiException) -> float | None:
    value = str(error.retry_after or "").strip()
    if re.fullmatch("[0-9]{1,9}", value):
        return float(value)
    try:
        # A date: the server's own clock measures the distance.
        headers: Mapping[str, str] = error.headers or {}
        until = parsedate_to_datetime(value) - parsedate_to_datetime(headers["Date"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return max(0.0, until.total_seconds())


def _shortened(message: str) -> str:
    text = " ".join("".join(char if char.isprintable() else " " for char in message).split())
    return text if len(text) <= _REASON_CHARS else f"{text[: _REASON_CHARS - 1]}…"


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
