"""The web server: one application on the loopback address with the page, the API and the security middleware."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import threading
import webbrowser
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearth.models.errors import HearthError
from hearth.security import LoopbackOnly, is_loopback

if TYPE_CHECKING:
    from fastapi import FastAPI

    from hearth.api.options import ApiOptions
    from hearth.assistant import Assistant

log = logging.getLogger("hearth.server")
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 7860
MAX_UPLOAD_BYTES = 1 << 30
UPLOADS_FOLDER = "uploads"  # in the data folder
LOAD_AFTER_S = 1.0
SHUTDOWN_S = 3  # how long open connections may take to end


class ServerError(HearthError):
    """The web server cannot start: a port that is taken, an address that is not this machine's own."""

    http_status = 503


def create_app(
    assistant: Assistant,
    *,
    max_upload_bytes: int = MAX_UPLOAD_BYTES,
    page: bool = True,
    api: ApiOptions | None = None,
) -> FastAPI:
    """The application for ``assistant``; starting it starts the loading of the models in the background.

    ``page``: with the web page; ``api``: with the HTTP API under /v1. Uploads lie in the data folder, and are deleted
    after some hours; what was sent is kept by the store.
    """
    closing = contextlib.ExitStack()

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # the page first: loading takes its processor and Python's lock. A question that comes sooner loads by itself
        loading = asyncio.get_running_loop().call_later(LOAD_AFTER_S if page else 0.0, assistant.load)
        yield
        loading.cancel()
        closing.close()

    uploads_dir = _prepare_gradio(Path(assistant.status()["data_dir"])) if page else None
    from fastapi import FastAPI

    app = FastAPI(title="Hearth", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    if api is not None:
        from hearth.api.router import Api

        served = Api(assistant.runtime, api)
        closing.callback(served.close)
        app.include_router(served.router())
    if uploads_dir is not None:
        _mount_page(app, assistant, uploads_dir, max_upload_bytes, closing)
    app.add_middleware(LoopbackOnly)
    return app


def _mount_page(
    app: FastAPI, assistant: Assistant, uploads_dir: Path, max_upload_bytes: int, closing: contextlib.ExitStack
) -> None:
    import gradio as gr

    from hearth.ui.chat import Chat
    from hearth.ui.memory_tab import MemoryTab
    from hearth.ui.models_tab import ModelsTab
    from hearth.ui.page import Page, head
    from hearth.ui.routes import make_router
    from hearth.ui.theme import make_theme

    chat, memory_tab, models_tab = Chat(assistant), MemoryTab(assistant), ModelsTab(assistant)
    closing.callback(chat.jobs.close)
    closing.callback(models_tab.pulls.close)
    closing.callback(memory_tab.ingest.close)
    app.state.chat = chat
    app.include_router(make_router(assistant, chat))
    blocks = Page(assistant, chat, memory_tab, models_tab, uploads_dir).build()
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        server_name=DEFAULT_HOST,
        app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
        allowed_paths=[],
        blocked_paths=[],
        max_file_size=max_upload_bytes,
        ssr_mode=False,
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        show_error=False,
        footer_links=[],
        theme=make_theme(),
        head=head(),
    )


def serve(
    assistant: Assistant,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    open_browser: bool = True,
    on_ready: Callable[[str], None] | None = None,
    *,
    page: bool = True,
    api: ApiOptions | None = None,
) -> None:
    """Serves the page, the API or both until interrupted. ``on_ready`` gets the address once it answers.

    Raises ServerError if ``host`` is not a loopback address, or the port is taken or not allowed.
    """
    listener = _listen(host, port)
    with listener:
        address = _address(host, listener.getsockname()[1])
        import uvicorn

        app = create_app(assistant, page=page, api=api)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
        server = uvicorn.Server(config)
        logging.getLogger("uvicorn.error").addFilter(_not_a_cut_stream)
        threading.Thread(target=_announce, args=(server, address, open_browser, on_ready), daemon=True).start()
        server.run(sockets=[listener])


def _not_a_cut_stream(record: logging.LogRecord) -> bool:
    """Pages keep streams open; that these are cut when the server ends is no error to show."""
    cause = record.exc_info[1] if record.exc_info else None
    return not isinstance(cause, asyncio.CancelledError) and "graceful shutdown exceeded" not in record.getMessage()


def _listen(host: str, port: int) -> socket.socket:
    if not is_loopback(host):
        raise ServerError(
            f"host {host}: Hearth has no authentication yet, so it answers this machine only; use 127.0.0.1, "
            "or reach it through an SSH tunnel"
        )
    if not 0 <= port <= 65_535:
        raise ServerError(f"port {port}: must be between 0 and 65535; leave it out for {DEFAULT_PORT}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name != "nt":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ServerError(_bind_failure(error, host, port)) from error
    return listener


def _bind_failure(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use, perhaps by another Hearth; stop it, or choose --port {port + 1}"
    if error.errno == errno.EACCES:
        return f"port {port} on {host}: not permitted; choose one above 1023, for example --port {DEFAULT_PORT}"
    return f"port {port} on {host}: {error.strerror}; choose another with --host or --port"


def _address(host: str, port: int) -> str:
    name = f"[{host.strip('[]')}]" if ":" in host else host
    return f"http://{name}:{port}"


def _announce(server: Any, address: str, open_browser: bool, on_ready: Callable[[str], None] | None) -> None:
    waited = threading.Event()
    while not server.started:
        if server.should_exit:
            return
        waited.wait(0.05)
    log.info("Hearth answers at %s", address)
    if on_ready is not None:
        on_ready(address)
    if open_browser:
        webbrowser.open(address)


def _prepare_gradio(data_dir: Path) -> Path:
    """Settles what Gradio reads from the environment when it is imported: nothing leaves, uploads stay private."""
    uploads_dir = data_dir / UPLOADS_FOLDER
    uploads_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = str(uploads_dir)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_SHARE"] = "False"
    os.environ["GRADIO_MCP_SERVER"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    return uploads_dir
