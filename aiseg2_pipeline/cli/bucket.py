"""`doctor`'s lines on InfluxDB: whether it answers and may be written, who else writes, and what is pending or refused."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime, timedelta

import pandas as pd

from aiseg2_pipeline.aiseg2.circuits import clean_name
from aiseg2_pipeline.aiseg2.models import LiveReading
from aiseg2_pipeline.cli import connect
from aiseg2_pipeline.cli.output import FAILED, HINT, OK, Line, japan_time
from aiseg2_pipeline.frames.readings import live_frame
from aiseg2_pipeline.influxdb.client import TYPE_CONFLICT, InfluxError, InfluxWriter, Tags, Unavailable
from aiseg2_pipeline.influxdb.line_protocol import series_tags
from aiseg2_pipeline.japan_time import DAY
from aiseg2_pipeline.settings import InfluxSettings, Settings
from aiseg2_pipeline.store import Destination, Outbox, Store
from aiseg2_pipeline.store.database import StoreError

OTHER_WRITER_WITHIN = timedelta(minutes=10)
SET_ASIDE_SHOWN = 5
SERIES_WITHIN = timedelta(days=7)
SERIES_SHOWN = 6

# Kind, name and unit of a series.
Label = tuple[str, str, str]


def influxdb(settings: Settings, clock: Callable[[], datetime], taken: Sequence[LiveReading]) -> Iterator[Line]:
    """Check InfluxDB; the readings that were just `taken` show which series are written."""
    influx = settings.influx
    if influx is None:
        yield HINT, "InfluxDB", "none is configured (INFLUXDB_HOST); readings are kept in the store only"
        return
    try:
        writer = connect.writer(influx)
    except InfluxError as error:
        yield FAILED, "InfluxDB", str(error)
        return
    with writer:
        try:
            writer.check()
        except Unavailable as error:
            yield FAILED, "InfluxDB", str(error)
            return
        except InfluxError as error:
            yield FAILED, "token and bucket", str(error)
            return
        yield OK, "InfluxDB", f"answers at {influx.url}"
        yield OK, "token and bucket", f"may write to {influx.bucket}"
        try:
            with connect.stores(settings) as stores:
                yield from _bucket(writer, stores[0], influx, clock(), taken)
                yield from _retention(writer, stores[0], connect.destination(influx))
                yield from _outbox(stores, connect.destination(influx))
                yield from _refused_coverage(stores[0], connect.destination(influx))
        except (InfluxError, StoreError) as error:
            yield FAILED, "bucket", str(error)


def _bucket(
    writer: InfluxWriter, store: Store, influx: InfluxSettings, now: datetime, taken: Sequence[LiveReading]
) -> Iterator[Line]:
    """Compare the bucket's recent readings and its series with ours."""
    since = now - OTHER_WRITER_WITHIN
    ours = [time.to_pydatetime() for time in store.read(since, now, kinds=["total"])["time"]]
    others = writer.other_writers(since, ours)
    present = None if others is None else writer.power_series(now - SERIES_WITHIN)
    if others is None or present is None:
        yield (
            HINT,
            "other writers",
            "unknown, as are the series: the token may write to the bucket, but not read it",
        )
        return
    if others:
        finding = (
            f"another program wrote {len(others)} readings to {influx.bucket} in the last ten minutes, which doubles every sum: stop that "
            "program, or set INFLUXDB_BUCKET to another bucket"
        )
        yield FAILED, "other writers", finding
    else:
        yield OK, "other writers", "none in the last ten minutes"
    for mark, finding in _series(set(present), *_labels(store, taken)):
        yield mark, "series", finding


def _series(present: set[Tags], labels: set[Label], shared: set[Label]) -> Iterator[tuple[str, str]]:
    """Compare the series in the bucket with those that are written."""
    written = set(map(_tags, labels))
    new, missing, summed = written - present, present - written, set(map(_tags, shared)) & present
    if not written:
        yield HINT, "not compared with the bucket's: there is no reading with circuits"
    elif not present:
        yield (
            OK,
            f"the bucket has no point of `power` of the last {SERIES_WITHIN.days} days; {len(written)} series will be written",
        )
    else:
        if written == present:
            yield OK, f"the {len(written)} series of `power` in the bucket are those that are written"
        if new:
            yield HINT, f"{len(new)} new, which the bucket does not have yet: {_names(new)}"
        if missing:
            yield (
                HINT,
                f"{len(missing)} in the bucket that this program does not write (any more): {_names(missing)}",
            )
        if summed:
            yield (
                HINT,
                f"{len(summed)} of several circuits with one name, which are written as their sum: {_names(summed)}",
            )


def _labels(store: Store, taken: Sequence[LiveReading]) -> tuple[set[Label], set[Label]]:
    """Return the series of `power` that are written, and those of them that sum several devices.

    They are those of the reading that was just taken, else of the last one in the store.
    """
    for reading in taken:
        if reading.circuits is not None:
            devices = [("generation", device.name, "W") for device in reading.flow.generators]
            devices += [("usage", circuit.name, "W") for circuit in reading.circuits]
            # With the devices that report no number now.
            shared = {label for label, count in Counter(devices).items() if count > 1}
            return _labels_of(live_frame(reading)) | set(devices), shared
    last = store.last_time()
    return (_labels_of(store.read(last, last + timedelta(seconds=1))) if last else set()), set()


def _hours(number: int) -> str:
    return "1 hour has" if number == 1 else f"{number} hours have"


def _tags(label: Label) -> Tags:
    return frozenset(series_tags(*label).items())


def _labels_of(table: pd.DataFrame) -> set[Label]:
    rows = table[table["kind"].isin(["total", "generation", "usage"])]
    return set(zip(rows["kind"], rows["name"], rows["unit"], strict=True))


def _names(series: Collection[Tags]) -> str:
    """Return the names of the first `SERIES_SHOWN` series."""
    names = sorted(clean_name(_name(dict(tags))) for tags in series)
    more = f" and {len(names) - SERIES_SHOWN} more" if len(names) > SERIES_SHOWN else ""
    return ", ".join(names[:SERIES_SHOWN]) + more


def _name(tags: dict[str, str]) -> str:
    if tags.keys() == {"summary"}:
        return tags["summary"]
    if tags.keys() == {"detail-type", "detail-section"}:
        return f"{tags['detail-section']} ({tags['detail-type']})"
    return " ".join(f"{name}={value}" for name, value in sorted(tags.items())) or "one without tags"


def _retention(writer: InfluxWriter, store: Store, destination: Destination) -> Iterator[Line]:
    known = store.retention(destination)
    if duration := writer.retention() or (known and known.duration):
        finding = f"the bucket keeps readings for {duration / DAY:.3g} days; older ones stay in the store and are not written"
        yield OK, "retention", finding


def _outbox(stores: Sequence[Outbox], destination: Destination) -> Iterator[Line]:
    pending = sum(store.pending_count(destination) for store in stores)
    yield OK, "pending", f"{_hours(pending)} rows that InfluxDB has not acknowledged yet"
    refused = pd.concat([store.set_aside_rows(destination) for store in stores])
    if len(refused):
        finding = f"InfluxDB refused {len(refused)} rows permanently: correct the reasons below, then run `aiseg2-pipeline resend`"
        if refused["reason"].str.contains(TYPE_CONFLICT).any():
            finding += (
                ". Another program wrote another type of number to this bucket: set INFLUXDB_BUCKET to another one"
            )
        yield FAILED, "refused rows", finding
        shown = refused.head(SET_ASIDE_SHOWN)
        for time, name, reason in zip(shown["time"], shown["name"], shown["reason"], strict=True):
            yield HINT, "refused rows", f"{japan_time(time)} {name}: {reason}"


def _refused_coverage(store: Store, destination: Destination) -> Iterator[Line]:
    if refused := store.refused_coverage(destination):
        finding = (
            f"InfluxDB refused the `coverage` of {len(refused)} hour(s) permanently: correct the reason below, then run "
            "`aiseg2-pipeline resend`"
        )
        yield FAILED, "refused coverage", finding
        hour, reason = next(iter(refused.items()))
        yield HINT, "refused coverage", f"{japan_time(hour)}: {reason}"
