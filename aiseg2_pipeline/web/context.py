"""What the pages' shell shows besides the data, which comes from the API."""

import os
from dataclasses import dataclass

from starlette.requests import Request

from aiseg2_pipeline import __version__
from aiseg2_pipeline.same_site import hostname, is_loopback
from aiseg2_pipeline.settings import Settings

# The port of Dagster's pages outside a container, as docker-compose.yml publishes it.
PUBLISHED_UI_PORT = "PUBLISHED_UI_PORT"


@dataclass(frozen=True)
class PageContext:
    """`dagster_url` is the address of Dagster's pages where the viewer can reach them; `tariff` whether one is set."""

    demo: bool
    dagster_url: str | None
    tariff: bool
    version: str


def page_context(request: Request) -> PageContext:
    """Return the context of a request for a page."""
    settings: Settings = request.app.state.settings
    host = hostname(f"//{request.headers.get('host', '')}")
    # Dagster's pages may be served to others as well, but a viewer on this machine reaches them in any case.
    reachable = settings.ui and is_loopback(host)
    shown = f"[{host}]" if ":" in host else host
    port = os.environ.get(PUBLISHED_UI_PORT) or settings.ui_port
    return PageContext(
        demo=settings.simulated,
        dagster_url=f"http://{shown}:{port}{settings.ui_path}/" if reachable else None,
        tariff=settings.tariff is not None,
        version=__version__,
    )
