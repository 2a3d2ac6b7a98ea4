"""A proxy in front of a server that fails on order: before, during and after what the client asks for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Act: TypeAlias = Literal["cut before", "cut meanwhile", "cut after", "delay", "drop answer"]
CHUNK: Final = 1 << 16
CONNECT_S: Final = 5.0


@dataclass
class Order:
    """What is done when the client sends certain bytes, and how many times more.

    cut before: the server never sees them. cut meanwhile: it sees them, the client sees the connection break at once.
    cut after: the connection breaks when the server has answered; the answer is lost. delay: the answer comes later.
    drop answer: the server gets them, and nothing comes back any more, but the connection stands.
    """

    act: Act
    match: bytes
    times: int
    seconds: float = 0.0


class Proxy:
    """Listens on a port of its own.

    Attributes:
        port: where.
        done: how many orders were carried out.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._guard = threading.Lock()
        self._orders: list[Order] = []
        self._pairs: list[_Pair] = []
        self._refuses = False
        self._hole = False
        self.done = 0
        self.stopped = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def order(self, act: Act, match: bytes = b"COMMIT", *, times: int = 1, seconds: float = 0.0) -> None:
        """Give an order; it holds for `times` messages."""
        with self._guard:
            self._orders.append(Order(act, match, times, seconds))

    def clear(self) -> None:
        """Take all orders back, and let everything through."""
        with self._guard:
            self._orders.clear()
            self._refuses = self._hole = False

    def refuse(self) -> None:
        """Break all connections, and accept none."""
        self._refuses = True
        self.cut()

    def black_hole(self) -> None:
        """From now on nothing comes through, in either direction; connections stand, and new ones are accepted."""
        self._hole = True

    @property
    def swallows(self) -> bool:
        """Whether it does."""
        return self._hole

    def cut(self) -> None:
        """Break all connections."""
        with self._guard:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            pair.cut()

    def close(self) -> None:
        """Stop."""
        self.stopped.set()
        self._listener.close()
        self.cut()

    def found(self, data: bytes) -> Order | None:
        """The order for what a client has sent, which counts as carried out."""
        with self._guard:
            for order in self._orders:
                if order.times and order.match in data:
                    order.times -= 1
                    self.done += 1
                    return order
        return None

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refuses:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target), CONNECT_S)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = _Pair(self, client, server)
            with self._guard:
                self._pairs.append(pair)
            pair.start()


class _Pair:
    """Two ends of one connection."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._order: Order | None = None

    def start(self) -> None:
        for pump in (self._upward, self._downward):
            threading.Thread(target=pump, daemon=True).start()

    def cut(self) -> None:
        for end in (self._client, self._server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _upward(self) -> None:
        with suppress(OSError):
            while data := self._client.recv(CHUNK):
                order = self._proxy.found(data)
                if order is not None and order.act == "cut before":
                    break
                if order is not None:  # what follows until the answer belongs to it
                    self._order = order
                if not self._proxy.swallows:
                    self._server.sendall(data)
                if order is not None and order.act == "cut meanwhile":
                    break
        self.cut()

    def _downward(self) -> None:
        with suppress(OSError):
            while data := self._server.recv(CHUNK):
                order, self._order = self._order, None
                if order is not None and order.act == "cut after":
                    break
                if order is not None and order.act == "delay":
                    self._proxy.stopped.wait(order.seconds)
                if order is not None and order.act == "drop answer":
                    self._order = order
                elif not self._proxy.swallows:
                    self._client.sendall(data)
        self.cut()


@contextmanager
def proxy_to(target: int) -> Iterator[Proxy]:
    """A proxy for the life of the block."""
    proxy = Proxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
