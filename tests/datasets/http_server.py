"""Web servers on this machine, as short as a test needs them."""

import functools
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def running(handler, host="127.0.0.1"):
    """Run a server on a free port and return its address."""
    server = ThreadingHTTPServer((host, 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://{host}:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def serve(answer):
    """Answer each request by ``answer(handler)``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self)

        def log_message(self, *arguments):
            pass

    return running(Handler)


def serve_folder(folder, asked, host="127.0.0.1"):
    """Serve the files of a folder; the paths that are asked for join the list ``asked``."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            asked.append(self.path)

    return running(functools.partial(Handler, directory=str(folder)), host)
