"""The client: one method a page, and `live`, which reads the power of this moment.

How an answer is fetched is the transport's, what it says is `pages`', which circuit pages a reading needs is
`live_circuits`'. Nothing here keeps a reading.
"""

import os
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from aiseg2_pipeline.aiseg2 import climate, endpoints, graphs, live_circuits, pages
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error, NoData, Unreachable, Unreadable
from aiseg2_pipeline.aiseg2.models import CircuitList, CircuitPage, ClimatePage, DayGraph, LiveReading, PowerFlow
from aiseg2_pipeline.aiseg2.transport import (
    READING_TIMEOUT_S,
    Deadline,
    NotServed,
    Slot,
    Transport,
    load_state,
    save_state,
)

# Where only the HTML flow page answered, the JSON is tried again after a firmware update may have come.
_ASK_FOR_JSON_AGAIN = timedelta(days=1)

# Further apart, the device's hours are not the host's hours.
CLOCKS_AGREE_S = 60.0
# The device packs the card's files while it answers.
EXPORT_TIMEOUT_S = 60.0
# A year of files packs to some 2 MB.
MAX_EXPORT_BYTES = 512 * 2**20
_ZIP = b"PK"


class Aiseg2Client:
    """Reads one AiSEG2. Use it as a context manager; one thread at a time.

    `state_dir` keeps the digest challenge, the circuit list and what the last full read showed, so that the next
    process starts warm. `clock` gives the host's time as an aware datetime. `on_retry` is told a sentence when a request
    is tried again, for a person who waits. Every method raises an `Aiseg2Error`.
    """

    def __init__(
        self,
        base_url: str,
        user: str,
        password: str,
        *,
        state_dir: Path,
        clock: Callable[[], datetime],
        slot: Slot = "live",
        verify: bool | str = True,
        on_retry: Callable[[str], None] | None = None,
    ) -> None:
        """Open nothing yet: the first request does."""
        self.transport = Transport(
            base_url, user, password, state_dir=state_dir, slot=slot, verify=verify, on_retry=on_retry
        )
        self.clock_offset_s: float | None = None
        self._clock = clock
        self._state_path = state_dir / "device.json"
        self._device = {"base_url": base_url}

    def __repr__(self) -> str:
        """Name the device, not the login."""
        return f"Aiseg2Client({self.transport.base_url!r})"

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.transport.close()

    def reserve(self, deadline: Deadline) -> AbstractContextManager[None]:
        """Keep this client's place at the device for several pages."""
        return self.transport.slot(deadline)

    def flow_json(self, deadline: Deadline) -> PowerFlow:
        """Return the power flow as the device's own page redraws itself with (it changes nothing there)."""
        return pages.flow_from_json(self.transport.request(endpoints.Page.FLOW_JSON, deadline))

    def flow_html(self, deadline: Deadline) -> PowerFlow:
        """Return the power flow from the page that older firmware serves."""
        return pages.flow_from_html(self.transport.request(endpoints.Page.FLOW_HTML, deadline))

    def circuit_page(self, page: int, deadline: Deadline) -> CircuitPage:
        """Return page `page`, from 1, of the circuits."""
        shown = pages.circuit_page(self.transport.request(endpoints.CircuitsPage(page), deadline), page)
        self._note_clock(shown.device_time)
        return shown

    def circuit_list(self, deadline: Deadline) -> CircuitList:
        """Return the registered circuits."""
        listed = pages.circuit_list(self.transport.request(endpoints.Page.CIRCUIT_LIST, deadline))
        self._note_clock(listed.device_time)
        return listed

    def export_token(self, deadline: Deadline) -> str:
        """Return the token of the SD card's export form; it shows that the device has the page."""
        return pages.export_token(self.transport.request(endpoints.Page.EXPORT_FORM, deadline))

    def graph(self, series: graphs.Series, day: date | None, deadline: Deadline) -> DayGraph:
        """Return a day's graph of a series; without a day, today's."""
        body = self.transport.request(endpoints.Graph(series, day), deadline)
        return self._noted(graphs.graph(body, series, day))

    def circuit_graph(self, circuit_id: str, day: date | None, deadline: Deadline) -> DayGraph:
        """Return a day's graph of one circuit (page 734's `strId`); without a day, today's."""
        body = self.transport.request(endpoints.CircuitGraph(circuit_id, day), deadline)
        return self._noted(graphs.circuit_graph(body, circuit_id, day))

    def climate_page(self, page: int, deadline: Deadline) -> ClimatePage:
        """Return page `page`, from 1, of the rooms' temperature and humidity."""
        body = self.transport.request(endpoints.RoomsPage(page), deadline)
        shown = climate.climate_page(body, page)
        self._note_clock(shown.device_time)
        return shown

    def download_export(self, target: Path, deadline: Deadline) -> datetime:
        """Put the SD card's zip at `target` and return when it was asked for (UTC); a failure leaves `target` alone.

        Give it a deadline of `EXPORT_TIMEOUT_S`, and ask at most once an hour: it is slow for the device. Raise
        NoData where the unit has no card.
        """
        with self.reserve(deadline):
            ask = endpoints.ExportZip(self.export_token(deadline))
            asked_at = self._utc_now()
            with _new_file(target) as file:
                try:
                    self.transport.download(
                        ask, file, deadline, max_bytes=MAX_EXPORT_BYTES, timeout_s=EXPORT_TIMEOUT_S
                    )
                except NotServed:
                    raise _no_card() from None
                _check_zip(file)
        return asked_at

    def live(self, timeout_s: float = READING_TIMEOUT_S) -> LiveReading:
        """Return the power of this moment; `timeout_s` bounds it all, waiting and retries included.

        Totals and circuits fail apart: where the circuits cannot be read the totals are returned with the reason.
        """
        deadline = Deadline(timeout_s)
        started = time.monotonic()
        sent_before = self.transport.requests
        with self.reserve(deadline):
            state = load_state(self._state_path)
            if state.get("device") != self._device:
                state = {"device": self._device}
            flow, answered_at = self._flow(state, deadline)
            memory = live_circuits.Memory.from_state(state.get("circuits"))
            circuits, problem = None, None
            try:
                circuits = live_circuits.read(self, memory, self._clock(), deadline)
            except Aiseg2Error as error:
                problem = error
            save_state(self._state_path, state | {"circuits": memory.to_state()})
        return LiveReading(
            answered_at=answered_at,
            flow=flow,
            circuits=circuits,
            circuits_error=problem,
            circuit_list=memory.circuits,
            clock_offset_s=self.clock_offset_s,
            requests=self.transport.requests - sent_before,
            elapsed_s=time.monotonic() - started,
        )

    def _flow(self, state: dict[str, Any], deadline: Deadline) -> tuple[PowerFlow, datetime]:
        """Return the flow and when it was answered, from the HTML page where the JSON is not served."""
        html_only_since = state.get("flow_html_only_since")
        now = self._clock()
        if not isinstance(html_only_since, float) or not (
            0 <= now.timestamp() - html_only_since < _ASK_FOR_JSON_AGAIN.total_seconds()
        ):
            state.pop("flow_html_only_since", None)
            try:
                return self.flow_json(deadline), self._utc_now()
            except (NotServed, Unreadable) as error:
                try:
                    flow, answered_at = self.flow_html(deadline), self._utc_now()
                except (NotServed, Unreadable):
                    raise error from None
                # One answer that cannot be read says nothing of the next, and the HTML page lacks the battery.
                if isinstance(error, NotServed):
                    state["flow_html_only_since"] = now.timestamp()
                return flow, answered_at
        return self.flow_html(deadline), self._utc_now()

    def _utc_now(self) -> datetime:
        return self._clock().astimezone(UTC)

    def _noted(self, graph: DayGraph) -> DayGraph:
        self._note_clock(graph.device_time)
        return graph

    def _note_clock(self, device_time: datetime | None) -> None:
        if device_time is not None:
            self.clock_offset_s = (device_time - self._utc_now()).total_seconds()


@contextmanager
def _new_file(target: Path) -> Iterator[BinaryIO]:
    """Open a file for the owner alone that becomes `target` when the block ends well, and is removed else."""
    part = target.with_name(target.name + ".part")
    try:
        try:
            # Not the leftover of a run that was killed, nor what somebody else put there.
            part.unlink(missing_ok=True)
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w+b") as file:
                yield file
            part.replace(target)
        except OSError as error:
            raise Unreachable(
                f"Cannot write {target} ({error.strerror}): free space or set AISEG2_DATA_DIR to a folder of your own."
            ) from None
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def _check_zip(file: BinaryIO) -> None:
    file.seek(0)
    if file.read(len(_ZIP)) != _ZIP:
        raise _no_card()
    try:
        is_whole = zipfile.is_zipfile(file)
    except zipfile.BadZipFile:
        is_whole = False
    if not is_whole:
        raise pages.unreadable(pages.EXPORT, "ends in the middle of the zip")


def _no_card() -> NoData:
    return NoData(
        f"{pages.EXPORT} gave no zip, so there is no SD card in the AiSEG2, or it is not ready: put one in, or go on "
        "without it (the graph pages tell the energy of each hour)."
    )
