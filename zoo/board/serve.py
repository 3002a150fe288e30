"""Serves the board on this machine, and makes it anew when records change."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from zoo.board.build import PAGE, board_dir, build
from zoo.spec.errors import UserError
from zoo.spec.store import beside_results

POLL = 1.0
"""Seconds between looks at the records."""


class _Quiet(SimpleHTTPRequestHandler):
    """Files of the board's folder, never from a browser's cache, without a line a request."""

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serve(results_dir: Path | str, port: int = 0, *, poll: float = POLL) -> Iterator[str]:
    """Build the board, serve it on the loopback interface, and rebuild it when records change; yields its address.

    port  0: any that is free. Raises UserError where it is taken, and for a board that cannot be built.
    """
    seen = _state(results_dir)
    build(results_dir, page=True)
    handler = partial(_Quiet, directory=str(board_dir(results_dir)))
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise UserError(f"--port {port}: {error.strerror}; another one, or 0 for any that is free") from error
    ended = threading.Event()
    threads = [
        threading.Thread(target=server.serve_forever, daemon=True),
        threading.Thread(target=_watch, args=(results_dir, seen, ended, poll), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/{PAGE}"
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        for thread in threads:
            thread.join()


def _state(results_dir: Path | str) -> dict[str, tuple[int, int]]:
    """Every record, of results and of what lies beside them, with its time of change and size."""
    state = {}
    beside = ("costs", "evaluations", "extensions", "analyses", "generation")
    for folder in (Path(results_dir), *(beside_results(results_dir, name) for name in beside)):
        for path in folder.rglob("*.json"):
            try:
                about = path.stat()
            except OSError:  # deleted meanwhile
                continue
            state[str(path)] = about.st_mtime_ns, about.st_size
    return state


def _watch(results_dir: Path | str, seen: dict[str, tuple[int, int]], ended: threading.Event, poll: float) -> None:
    while not ended.wait(poll):
        if (now := _state(results_dir)) == seen:
            continue
        seen = now
        try:
            build(results_dir, page=True)
        except (UserError, OSError) as error:
            print(f"zoo: the board was not rebuilt: {error}", file=sys.stderr)
        else:
            print("zoo: records changed, the board is rebuilt: reload the page", file=sys.stderr)
