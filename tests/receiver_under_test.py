"""A server on loopback that receives what tunegate sends, and behaves as well or as badly as a test asks."""

import contextlib
import datetime
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

# What a misbehaving server is content with: long enough to notice that nobody cut it, short enough to end by itself.
PATIENCE_SECONDS = 20.0


class Seen(NamedTuple):
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Handler(BaseHTTPRequestHandler):
    """Reads the request, notes it, and lets the behaviour answer."""

    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        receiver: Receiver = self.server.receiver  # type: ignore[attr-defined]
        headers = {name.lower(): value for name, value in self.headers.items()}
        receiver.note(Seen(self.command, self.path, headers, body))
        with contextlib.suppress(OSError):
            receiver.behaviour(self)
        self.close_connection = True

    do_GET = do_POST = handle_any

    def say(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


Behaviour = Callable[[Handler], None]


class Receiver:
    """`seen` is what came, in order; `behaviour` answers."""

    def __init__(self, behaviour: Behaviour | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.behaviour: Behaviour = behaviour or answers(204)
        self.seen: list[Seen] = []
        self.closing = threading.Event()
        self._changed = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._server.receiver = self  # type: ignore[attr-defined]
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.place}/hook"

    def note(self, seen: Seen) -> None:
        with self._changed:
            self.seen.append(seen)
            self._changed.notify_all()

    def wait_for(self, count: int, seconds: float = 30.0) -> list[Seen]:
        """What came, once it is so many; fails if they do not come."""
        with self._changed:
            came = self._changed.wait_for(lambda: len(self.seen) >= count, timeout=seconds)
            assert came, f"{len(self.seen)} of {count} requests came: {[one.headers for one in self.seen]}"
            return list(self.seen)

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextlib.contextmanager
def receiving(behaviour: Behaviour | None = None, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    receiver = Receiver(behaviour, tls)
    try:
        yield receiver
    finally:
        receiver.close()


# -- behaviours --------------------------------------------------------------------------------------------------------


def answers(status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Behaviour:
    return lambda handler: handler.say(status, headers, body)


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """Each once, and the last one for ever."""
    left = list(behaviours)

    def behave(handler: Handler) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(handler)

    return behave


def hangs(handler: Handler) -> None:
    """Takes the request and says nothing."""
    handler.server.receiver.closing.wait(PATIENCE_SECONDS)  # type: ignore[attr-defined]


def drips(handler: Handler, head: bytes = b"HTTP/1.1 200 OK\r\nX-Slow: ") -> None:
    """A byte at a time, each well within any timeout that is for one read."""
    handler.wfile.write(head)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and not handler.server.receiver.closing.wait(0.03):  # type: ignore[attr-defined]
        handler.wfile.write(b"x")
    handler.wfile.write(b"\r\nContent-Length: 0\r\n\r\n")


def drips_its_body(handler: Handler) -> None:
    drips(handler, b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")


def floods(handler: Handler) -> None:
    """A gigabyte, or as much of it as anybody takes; `handler.server.receiver.flooded` counts."""
    receiver: Any = handler.server.receiver  # type: ignore[attr-defined]
    receiver.flooded, piece = 0, bytes(64 * 1024)
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
    while receiver.flooded < 1073741824 and not receiver.closing.is_set():
        handler.wfile.write(piece)
        receiver.flooded += len(piece)


def says_no_http(handler: Handler) -> None:
    handler.wfile.write(b"220 mail.example ESMTP\r\n")


@contextlib.contextmanager
def silent_listener() -> Iterator[int]:
    """The port of a server that accepts connections and neither reads nor writes."""
    with socket.create_server(("127.0.0.1", 0), backlog=8) as listener:
        yield int(listener.getsockname()[1])


# -- certificates ------------------------------------------------------------------------------------------------------


class Certified(NamedTuple):
    """TLS of a server for one name, and of a client that trusts its certificate."""

    server: ssl.SSLContext
    client: ssl.SSLContext


def certified(name: str, folder: Path) -> Certified:
    """A self-signed certificate for a host name."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / f"{name}.pem"
    file.write_bytes(pem + secret)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return Certified(server, ssl.create_default_context(cadata=pem.decode()))
