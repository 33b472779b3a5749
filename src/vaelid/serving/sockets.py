"""One browser tab: its requests in order, its drags latest first, its jobs beside them."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable, MutableMapping
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, final

from starlette.websockets import WebSocket, WebSocketDisconnect

from vaelid.errors import VaelidError, first_line
from vaelid.serving import wire
from vaelid.serving.desks import Cancelled, Desk, Progress, arguments, kind

RATE = 250  # messages a second that a tab may send, in the mean
BURST = 500
WAITING = 64  # requests and jobs of a tab that may wait
_POLICY = 1008  # WebSocket: policy violation
_AGAIN = "too many requests at once; wait for the answers to come"


@final
class Tab:
    """The conversation with one tab.

    Args:
        socket: an accepted WebSocket.
        opened: makes the tab's desk; called on the tab's own thread.
        pool: where jobs of all tabs run.
    """

    def __init__(self, socket: WebSocket, opened: Callable[[], Desk], pool: Executor) -> None:
        self.socket, self.opened, self.pool = socket, opened, pool
        self.thread = ThreadPoolExecutor(1, "tab")
        self.loop = asyncio.get_running_loop()
        self.jobs: dict[int, tuple[str, threading.Event]] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.drag: wire.Drag | None = None
        self.dragging = False
        self.sending = asyncio.Lock()
        self.allowance, self.last = float(BURST), time.monotonic()

    async def talk(self) -> None:
        """Answer until the tab goes away."""
        desk: Desk | None = None
        try:
            desk = await self.loop.run_in_executor(self.thread, self.opened)
            while True:
                message = await self.socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                if not self._allowed():
                    await self.socket.close(_POLICY, "too many messages")
                    return
                await self._take(desk, message)
        except (WebSocketDisconnect, RuntimeError):
            return  # gone in the middle of a word
        finally:
            self.leave()
            if desk is not None:
                self.thread.submit(desk.close)
            self.thread.shutdown(wait=False)

    def leave(self) -> None:
        """End what still runs for this tab."""
        for _, over in self.jobs.values():
            over.set()
        for task in list(self.tasks):
            task.cancel()

    def _allowed(self) -> bool:
        now = time.monotonic()
        self.allowance = min(BURST, self.allowance + RATE * (now - self.last)) - 1
        self.last = now
        return self.allowance >= 0

    async def _take(self, desk: Desk, message: MutableMapping[str, Any]) -> None:
        number = -1
        try:
            if message.get("bytes") is not None:
                self.drag = wire.read_drag(message["bytes"])  # the latest wins
                if not self.dragging:
                    self.dragging = True
                    self._begin(self._drag(desk))
                return
            number, name, given = wire.read_text(message.get("text") or "")
            if name == "cancel":
                self._cancel(given.get("job"))
                await self._send({"id": number, "ok": {}})
            elif len(self.tasks) >= WAITING:
                await self._send({"id": number, "error": _AGAIN})
            else:
                way = kind(desk, name)
                checked = arguments(desk, name, given)
                self._begin(
                    self._job(desk, number, name, checked) if way == "job" else self._op(desk, number, name, checked)
                )
        except VaelidError as error:
            await self._send({"id": number, "error": str(error)})

    def _begin(self, work: Any) -> None:
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _drag(self, desk: Desk) -> None:
        try:
            while (drag := self.drag) is not None:
                self.drag = None
                try:
                    far, cells = await self.loop.run_in_executor(self.thread, desk.drag, drag.x, drag.y)
                except VaelidError as error:
                    await self._send({"id": -1, "sequence": drag.sequence, "error": str(error)})
                except Exception as error:
                    traceback.print_exc(file=sys.stderr)
                    said = f"decoding failed: {first_line(error)}"
                    await self._send({"id": -1, "sequence": drag.sequence, "error": said})
                else:
                    await self._bytes(wire.drag_answer(drag.sequence, far, cells))
        finally:
            self.dragging = False

    async def _op(self, desk: Desk, number: int, name: str, given: dict[str, Any]) -> None:
        await self._answer(number, name, self.thread, lambda: getattr(desk, name)(**given))

    async def _job(self, desk: Desk, number: int, name: str, given: dict[str, Any]) -> None:
        for other, earlier in self.jobs.values():
            if other == name:
                earlier.set()
        over = threading.Event()
        self.jobs[number] = name, over

        def send(partial: dict[str, Any]) -> None:
            packed = wire.pack({"id": number, "partial": partial})
            asyncio.run_coroutine_threadsafe(self._packed(packed), self.loop).result(60)

        progress = Progress(send, over.is_set)

        def run() -> Any:
            progress.check()  # it may have waited long enough to be cancelled
            return getattr(desk, name)(**given, progress=progress)

        try:
            await self._answer(number, name, self.pool, run)
        finally:
            self.jobs.pop(number, None)

    async def _answer(self, number: int, name: str, where: Executor, work: Callable[[], Any]) -> None:
        try:
            packed = await self.loop.run_in_executor(where, lambda: wire.pack({"id": number, "ok": work()}))
        except Cancelled:
            await self._send({"id": number, "error": "cancelled", "cancelled": True})
        except VaelidError as error:
            await self._send({"id": number, "error": str(error)})
        except MemoryError:
            await self._send({"id": number, "error": f"{name} needs more memory than there is"})
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            await self._send({"id": number, "error": f"{name} failed: {first_line(error)}"})
        else:
            await self._packed(packed)

    def _cancel(self, number: Any) -> None:
        if isinstance(number, int) and number in self.jobs:
            self.jobs[number][1].set()

    async def _send(self, message: dict[str, Any]) -> None:
        await self._packed(wire.pack(message))

    async def _packed(self, packed: str | bytes) -> None:
        if isinstance(packed, bytes):
            await self._bytes(packed)
            return
        async with self.sending:
            await self.socket.send_text(packed)

    async def _bytes(self, packed: bytes) -> None:
        async with self.sending:
            await self.socket.send_bytes(packed)
