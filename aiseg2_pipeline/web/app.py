"""The page as an ASGI application: pages, API and login, with every failure as one sentence."""

import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from http import HTTPStatus

import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from aiseg2_pipeline.logs import log_error
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.web import pages
from aiseg2_pipeline.web.access import LOGIN, Guard, Login, refusal
from aiseg2_pipeline.web.api import Api, ApiError
from aiseg2_pipeline.web.now import utc_now

# Queries that run at the same time; more would only take memory, as they share the disk and two cores.
THREADS = 3


def create_app(settings: Settings, clock: Callable[[], datetime] = utc_now) -> Starlette:
    """Return the application; `clock` returns the host's time."""
    password = settings.page_password
    login = Login(password.get_secret_value()) if password else None
    app = Starlette(
        routes=[*Api(settings, clock).routes(), _login_route(login), *pages.routes()],
        middleware=[Middleware(Guard, settings=settings, login=login)],
        exception_handlers={ApiError: _api_error, HTTPException: _http_error, Exception: _failure},
        lifespan=_few_threads,
    )
    app.state.settings = settings
    return app


def _login_route(login: Login | None) -> Route:
    async def endpoint(request: Request) -> Response:
        if login is None:
            return RedirectResponse("/", HTTPStatus.SEE_OTHER)
        if request.method != "POST":
            return pages.login_page(request)
        return await login.answer(request, lambda sentence, status: pages.login_page(request, sentence, status))

    return Route(LOGIN, endpoint, methods=["GET", "POST"])


@contextlib.asynccontextmanager
async def _few_threads(_: Starlette) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    yield


def _api_error(request: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, ApiError) else HTTPStatus.BAD_REQUEST
    return refusal(request.url.path, status, str(error))


def _http_error(request: Request, error: Exception) -> Response:
    status = HTTPStatus(error.status_code if isinstance(error, HTTPException) else HTTPStatus.NOT_FOUND)
    return refusal(request.url.path, status, f"There is no such page: {status.phrase}.")


def _failure(request: Request, error: Exception) -> Response:
    # Without the error's text, which may hold what the device sent.
    log_error(f"The page could not answer {request.url.path}: {type(error).__name__}.", kind=type(error).__name__)
    sentence = "This could not be answered: the pipeline's output has the reason."
    return refusal(request.url.path, HTTPStatus.INTERNAL_SERVER_ERROR, sentence)
