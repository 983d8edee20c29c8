"""The household's page as a service that can be forked. The page itself belongs in `web`."""

from importlib import import_module

SERVER = "aiseg2_pipeline.web.server"


def prepare() -> None:
    """Import the page."""
    import_module(SERVER)


def serve() -> None:
    """Serve the page until the process is ended."""
    import_module(SERVER).main()
