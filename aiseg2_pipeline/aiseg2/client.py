"""The client: one method for each page, and `live`, which reads the current power.

Sending requests belongs in `transport`, parsing in `pages`, the choice of the circuit pages in `live_circuits`. The
client stores no reading.
"""

import os
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar

from aiseg2_pipeline.aiseg2 import battery_flow, climate, endpoints, graphs, live_circuits, pages
from aiseg2_pipeline.aiseg2.circuits import match
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error, NoData, Unreachable, Unreadable
from aiseg2_pipeline.aiseg2.models import (
    BatteryFlow,
    Circuit,
    CircuitList,
    CircuitMatch,
    CircuitPage,
    ClimatePage,
    CurrentFlow,
    DayGraph,
    LiveReading,
    PowerFlow,
)
from aiseg2_pipeline.aiseg2.state import load_state, save_state
from aiseg2_pipeline.aiseg2.transport import (
    READING_TIMEOUT_S,
    Deadline,
    NotServed,
    Slot,
    Transport,
)

# Where only the HTML flow page is served, the JSON is tried again, as a firmware update may have added it.
_RETRY_JSON_S = timedelta(days=1).total_seconds()

_BATTERY_FLOW_TIMEOUT_S = 5.0
_RETRY_BATTERY_FLOW_S = timedelta(hours=1).total_seconds()

# With a larger difference, the device's hours are not the host's hours.
CLOCKS_AGREE_S = 60.0
# The device creates the zip of the card's files while it answers.
EXPORT_TIMEOUT_S = 60.0
# A year of files is about 2 MB as a zip.
MAX_EXPORT_BYTES = 512 * 2**20
_ZIP = b"PK"

_Dated = TypeVar("_Dated", CircuitPage, CircuitList, ClimatePage, DayGraph)


class Aiseg2Client:
    """Reads one AiSEG2. Use it as a context manager, in one thread at a time.

    `state_dir` keeps the digest challenge, the circuits and the result of the last full read for the next process.
    `clock` returns the host's time as an aware datetime. `on_retry` is called with a message when a request is retried,
    for a person who waits. Every method raises an `Aiseg2Error`.
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
        """Prepare the client; the first request opens the connection."""
        self.transport = Transport(
            base_url,
            user,
            password,
            state_dir=state_dir,
            clock=clock,
            slot=slot,
            verify=verify,
            on_retry=on_retry,
        )
        self.clock_offset_s: float | None = None
        self._clock = clock
        self._state_path = state_dir / "device.json"
        self._device = {"base_url": base_url}

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.transport.close()

    def flow_json(self, deadline: Deadline) -> PowerFlow:
        """Return the power flow from the POST that the device's own page redraws with; it changes nothing."""
        return pages.flow_from_json(self.transport.request(endpoints.Page.FLOW_JSON, deadline))

    def flow_html(self, deadline: Deadline) -> PowerFlow:
        """Return the power flow from the HTML page, for firmware without the JSON."""
        return pages.flow_from_html(self.transport.request(endpoints.Page.FLOW_HTML, deadline))

    def circuit_page(self, page: int, deadline: Deadline) -> CircuitPage:
        """Return page `page`, from 1, of the circuits."""
        body = self.transport.request(endpoints.CircuitsPage(page), deadline)
        return self._noted(pages.circuit_page(body, page))

    def circuit_list(self, deadline: Deadline) -> CircuitList:
        """Return the registered circuits."""
        return self._noted(pages.circuit_list(self.transport.request(endpoints.Page.CIRCUIT_LIST, deadline)))

    def known_circuits(self) -> CircuitMatch | None:
        """Return the circuits that the last reading knew, without a request; None where page 734 was not read yet."""
        return _known(_memory(self._state()))

    def registered(self, deadline: Deadline) -> tuple[Circuit, ...]:
        """Return the registered circuits, with page 1113's spelling where it is known, and note the device's clock.

        Page 734 is requested only where the readings do not keep the list up to date, as it is a settings page.
        """
        memory = _memory(self._state())
        known = _known(memory)
        if known and any(known) and not memory.list_is_due(self._clock().timestamp()):
            with suppress(NotServed, Unreadable):
                self.circuit_page(1, deadline)
                return known.shown + known.unshown
        return match(self.circuit_list(deadline).circuits, None).shown

    def export_token(self, deadline: Deadline) -> str:
        """Return the token of the SD card's export form."""
        return pages.export_token(self.transport.request(endpoints.Page.EXPORT_FORM, deadline))

    def graph(self, series: graphs.Series, day: date | None, deadline: Deadline) -> DayGraph:
        """Return a day's graph of a series; without a day, today's."""
        body = self.transport.request(endpoints.Graph(series, day), deadline)
        return self._noted(graphs.graph(body, series, day))

    def circuit_graph(self, circuit_id: str, day: date | None, deadline: Deadline) -> DayGraph:
        """Return a day's graph of one circuit (page 734's `strId`); without a day, today's."""
        body = self.transport.request(endpoints.CircuitGraph(circuit_id, day), deadline)
        return self._noted(graphs.circuit_graph(body, circuit_id, day))

    def climate_page(self, source: climate.ClimateSource, page: int, deadline: Deadline) -> ClimatePage:
        """Return page `page`, from 1, of the rooms' temperature and humidity."""
        body = self.transport.request(endpoints.RoomsPage(source, page), deadline)
        return self._noted(climate.climate_page(body, page, source))

    def download_export(self, target: Path, deadline: Deadline) -> datetime:
        """Write the SD card's zip to `target` and return the time of the request (UTC); a failure leaves `target` as it was.

        Use a deadline of `EXPORT_TIMEOUT_S`, and call it at most once an hour, as it is slow for the device. Raise
        NoData where the device has no card.
        """
        with self.transport.slot(deadline):
            export = endpoints.ExportZip(self.export_token(deadline))
            requested_at = self._utc_now()
            with _new_file(target) as file:
                try:
                    self.transport.download(
                        export, file, deadline, max_bytes=MAX_EXPORT_BYTES, timeout_s=EXPORT_TIMEOUT_S
                    )
                except NotServed:
                    raise _no_card() from None
                _check_zip(file)
        return requested_at

    def live(self, timeout_s: float = READING_TIMEOUT_S) -> LiveReading:
        """Return the current power within `timeout_s`, including the wait for the slot and retries.

        Totals, circuits and the battery's flow fail separately: where one of the latter two cannot be read, the rest is
        returned with the reason.
        """
        deadline = Deadline(timeout_s)
        started = time.monotonic()
        sent_before = self.transport.requests
        with self.transport.slot(deadline):
            state = self._state()
            flow, answered_at = self._flow(state, deadline)
            memory = _memory(state)
            circuits, problem = None, None
            try:
                circuits = live_circuits.read(self, memory, self._clock(), deadline)
            except Aiseg2Error as error:
                problem = error
            # Last and bounded, so that its failure costs nothing else.
            of_battery, battery_problem = self._battery_flow(state, flow, deadline.part(_BATTERY_FLOW_TIMEOUT_S))
            save_state(self._state_path, state | {"circuits": memory.to_state()})
        return LiveReading(
            answered_at=answered_at,
            flow=flow,
            circuits=circuits,
            circuits_error=problem,
            known_circuits=_known(memory),
            clock_offset_s=self.clock_offset_s,
            requests=self.transport.requests - sent_before,
            elapsed_s=time.monotonic() - started,
            battery_flow=of_battery,
            battery_flow_error=battery_problem,
        )

    def current_flow(self, timeout_s: float) -> CurrentFlow | None:
        """Return only the power flow, in one request, two with a battery; None while a reading goes on, which waits for this."""
        deadline = Deadline(timeout_s)
        with self.transport.slot(deadline), self.transport.between_readings() as between:
            if not between:
                return None
            state = self._state()
            flow, answered_at = self._flow(state, deadline)
            of_battery, _ = self._battery_flow(state, flow, deadline)
        return CurrentFlow(answered_at, flow, of_battery)

    def _state(self) -> dict[str, Any]:
        """Return what earlier readings of this device kept."""
        state = load_state(self._state_path)
        return state if state.get("device") == self._device else {"device": self._device}

    def _flow(self, state: dict[str, Any], deadline: Deadline) -> tuple[PowerFlow, datetime]:
        """Return the flow and the time of the response, from the HTML page where the JSON is not served."""
        now_s = self._clock().timestamp()
        html_only_since = state.pop("flow_html_only_since", None)
        if isinstance(html_only_since, float) and 0 <= now_s - html_only_since < _RETRY_JSON_S:
            state["flow_html_only_since"] = html_only_since
            return self.flow_html(deadline), self._utc_now()
        try:
            return self.flow_json(deadline), self._utc_now()
        except (NotServed, Unreadable) as error:
            try:
                flow, answered_at = self.flow_html(deadline), self._utc_now()
            except (NotServed, Unreadable):
                raise error from None
            # An unreadable response may be a single one, and the HTML page lacks the battery.
            if isinstance(error, NotServed):
                state["flow_html_only_since"] = now_s
            return flow, answered_at

    def _battery_flow(
        self, state: dict[str, Any], flow: PowerFlow, deadline: Deadline
    ) -> tuple[BatteryFlow | None, Aiseg2Error | None]:
        """Return the flow of sun, grid and battery of a home with a battery, or why it is missing.

        A device that does not serve it is asked again after an hour.
        """
        now_s = self._clock().timestamp()
        not_served_since = state.pop("battery_flow_not_served_since", None)
        if flow.battery is None:
            return None, None
        if isinstance(not_served_since, float) and 0 <= now_s - not_served_since < _RETRY_BATTERY_FLOW_S:
            state["battery_flow_not_served_since"] = not_served_since
            return None, None
        try:
            body = self.transport.request(endpoints.Page.BATTERY_FLOW, deadline)
            return battery_flow.battery_flow(body, flow.exchange), None
        except NotServed:
            state["battery_flow_not_served_since"] = now_s
            return None, None
        except Aiseg2Error as error:
            return None, error

    def _utc_now(self) -> datetime:
        return self._clock().astimezone(UTC)

    def _noted(self, page: _Dated) -> _Dated:
        """Return the page, and keep its clock's difference to the host's."""
        if page.device_time is not None:
            self.clock_offset_s = (page.device_time - self._utc_now()).total_seconds()
        return page


def _memory(state: dict[str, Any]) -> live_circuits.Memory:
    return live_circuits.Memory.from_state(state.get("circuits"))


def _known(memory: live_circuits.Memory) -> CircuitMatch | None:
    return None if memory.circuits is None else match(memory.circuits, memory.names)


@contextmanager
def _new_file(target: Path) -> Iterator[BinaryIO]:
    """Open a file with mode 0600 that replaces `target` when the block succeeds, and is removed otherwise."""
    part = target.with_name(target.name + ".part")
    try:
        try:
            # A killed run can leave one, and it must not be a symlink.
            part.unlink(missing_ok=True)
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w+b") as file:
                yield file
            part.replace(target)
        except OSError as error:
            raise Unreachable(
                f"Cannot write {target} ({error.strerror}): correct that, or set AISEG2_DATA_DIR to another folder."
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
        f"{pages.EXPORT} returned no zip, so there is no SD card in the AiSEG2, or it is not ready: put one in, or "
        "use the graph pages, which have the energy of each hour."
    )
