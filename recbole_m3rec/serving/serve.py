"""The service, until interrupted: ``recbole-m3rec serve BUNDLE``."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from recbole_m3rec.support.argument_types import not_negative, positive
from recbole_m3rec.support.command_names import command
from recbole_m3rec.support.exit_codes import run_command
from recbole_m3rec.support.extras import NotInstalledError
from recbole_m3rec.support.process_settings import ending_at_interrupt, importing_much

GRACE = 20  # seconds that open requests have once the service is to end


class CannotListenError(OSError):
    """An address or a port that is taken, forbidden or none."""


def check_installed() -> None:
    """Raise where the service cannot be imported.

    Raises:
        NotInstalledError: see there.
    """
    try:
        import uvicorn  # noqa: F401

        import recbole_m3rec.serving.service.app  # noqa: F401
    except ImportError as error:
        message = f"{error}: pip install 'recbole_m3rec[serving]'"
        raise NotInstalledError(message) from error


def parser() -> argparse.ArgumentParser:
    """Return the parser of the service's options."""
    made = argparse.ArgumentParser(
        prog=command("serve"),
        description="Serve a bundle: a page for people, JSON for programs.",
        epilog="Environment: M3REC_API_KEY (that requests then bring in X-API-Key), "
        "M3REC_ADMIN_TOKEN (for POST /admin/reload). SIGHUP reloads the bundle, too.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    made.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder that export wrote")
    made.add_argument("--host", default="127.0.0.1", help="address to listen at")
    made.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    made.add_argument(
        "--store", help="SQLite file of events, or redis://…; by default BUNDLE.events.sqlite"
    )
    made.add_argument("--images", type=Path, help="folder of pictures <item id>.jpg")
    made.add_argument("--exact", action="store_true", help="do without the bundle's index")
    made.add_argument("--threads", type=positive, help="of the model; default: one less than cores")
    made.add_argument("--max-batch", type=positive, default=64, help="requests scored together")
    made.add_argument(
        "--max-wait-ms", type=not_negative, default=2.0, help="that a request waits for others"
    )
    return made


def listen(
    host: str, port: int, advice: str = "another --host or --port; --port 0 takes a free one"
) -> socket.socket:
    """Return a socket that listens; ``advice`` is what to name where it cannot.

    Raises:
        CannotListenError: see there.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = str(getattr(error, "strerror", None) or error).partition(" (while")[0]
        raise CannotListenError(
            f"cannot listen at {host}:{port}: {reason}. Name {advice}"
        ) from error


def serve(arguments: Sequence[str]) -> None:
    """Run the service until it is interrupted."""
    options = parser().parse_args(arguments)
    with suppress(AttributeError):  # it is no signal on Windows
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the service reloads at one
    with importing_much(), ending_at_interrupt():
        check_installed()
    import torch
    import uvicorn

    from recbole_m3rec.serving.service.app import create_app
    from recbole_m3rec.serving.service.limits import RequestLimits
    from recbole_m3rec.serving.service.state import Settings

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    torch.set_num_threads(options.threads or max(1, (os.cpu_count() or 2) - 1))
    bundle = Path(os.path.abspath(options.bundle))
    store = options.store or str(bundle.with_name(f"{bundle.name}.events.sqlite"))
    app = create_app(
        Settings(
            bundle=bundle,
            store=store,
            images=options.images,
            admin_token=os.environ.get("M3REC_ADMIN_TOKEN") or None,
            limits=RequestLimits(api_key=os.environ.get("M3REC_API_KEY") or None),
            most=options.max_batch,
            wait=options.max_wait_ms / 1000,
            index=not options.exact,
        )
    )
    listening = listen(options.host, options.port)
    port = listening.getsockname()[1]
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=GRACE,
    )
    server = uvicorn.Server(config)
    # The server captures signals itself only once its loop runs, and before that it imports much:
    # Ctrl-C there would leave a coroutine behind, or be lost in a callback of the interpreter.
    with server.capture_signals():
        host = f"[{options.host}]" if ":" in options.host else options.host
        print(f"Recommendations at http://{host}:{port}  (Ctrl+C ends)", flush=True)
        server.run(sockets=[listening])


main = partial(run_command, serve, when_interrupted="The service has ended.")
