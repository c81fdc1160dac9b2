"""The engine process: `python -m imagesearch_services.catalog.edge FD`.

FD is the file descriptor of a connected socket, inherited from the Catalog (the parent process).
"""

from __future__ import annotations

import contextlib
import signal
import socket
import sys

from imagesearch_services.catalog.edge import protocol
from imagesearch_services.catalog.edge.engine import Engine, attempt


def serve(connection: socket.socket) -> None:
    """Open the engine and answer commands, one by one, until the parent closes the connection."""
    messages = connection.makefile("rb")
    engine = attempt(Engine, protocol.read(messages))
    if isinstance(engine, protocol.Failure):
        connection.sendall(protocol.encode(engine))
        return
    try:
        connection.sendall(protocol.encode(None))
        while True:
            method, arguments = protocol.read(messages)
            connection.sendall(protocol.encode(engine.execute(method, arguments)))
    finally:
        with contextlib.suppress(Exception):
            engine.close()


def main() -> None:
    # Ignore signals to the process group: the parent handles them, then closes the connection.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # The connection also closes when the parent is killed, so no orphan keeps the folder locked.
    with (
        socket.socket(fileno=int(sys.argv[1])) as connection,
        contextlib.suppress(EOFError, ConnectionError),
    ):
        serve(connection)


if __name__ == "__main__":
    main()
