"""A kernel in which a page that was loaded anew takes over from the one that was left.

A cell that watches a training keeps its kernel busy, and a page that is reloaded is another client
of that kernel: what it runs would wait, unseen, until the training is over. Here what one page runs
is kept back until what another had queued is done, and a cell that only watches can see that
somebody waits, and end. What its own page had queued goes with it, as after any error; then comes
what the new page runs.
"""

from __future__ import annotations

import threading
from typing import Any

from ipykernel.ipkernel import IPythonKernel


class Kernel(IPythonKernel):
    """IPython's kernel, which takes the cells of one page at a time."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._page = ""  # the client session whose cells are being run
        self._queued: set[str] = set()  # its requests that are not answered yet
        self._waiting: list[Any] = []  # messages of other pages, in order
        self._lock = threading.Lock()  # two threads know of them

    @property
    def is_wanted_elsewhere(self) -> bool:
        """Whether another page waits for the cells of this one to end."""
        return bool(self._waiting)

    def _header_of_cell(self, message: Any) -> dict[str, Any] | None:
        """Return the header of a message that runs a cell, None of any other.

        What editors run for themselves, unseen, is no cell.
        """
        if self.session is None:
            return None
        try:
            _, parts = self.session.feed_identities(message, copy=False)
            found = self.session.deserialize(parts, content=False, copy=False)
            content = self.session.unpack(found["content"])
        except Exception:  # whatever is wrong with it, the kernel itself says so
            return None
        header: dict[str, Any] = found["header"]
        is_cell = header["msg_type"] == "execute_request" and not header.get("subshell_id")
        seen = not content.get("silent") and content.get("store_history", True)
        return header if is_cell and seen else None

    async def shell_channel_thread_main(self, msg: Any) -> None:
        """Take a message, in the thread that receives them whatever the cells do meanwhile."""
        if header := self._header_of_cell(msg):
            with self._lock:
                if self._waiting or (self._queued and header["session"] != self._page):
                    self._waiting.append(msg)
                    return
                self._page = header["session"]
                self._queued.add(header["msg_id"])
        await super().shell_channel_thread_main(msg)

    async def _next_page(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for message in waiting:
            await self.shell_channel_thread_main(message)

    def _answered(self, parent: dict[str, Any]) -> None:
        with self._lock:
            self._queued.discard(parent["header"]["msg_id"])
            if self._queued or not self._waiting:
                return
        # After what the kernel itself has put there to end its aborting.
        self.shell_channel_thread.io_loop.add_callback(self._next_page)

    async def execute_request(self, stream: Any, ident: Any, parent: Any) -> None:
        """Run a cell."""
        try:
            await super().execute_request(stream, ident, parent)
        finally:
            self._answered(parent)

    def _send_abort_reply(self, stream: Any, msg: Any, idents: Any) -> None:
        super()._send_abort_reply(stream, msg, idents)
        self._answered(msg)
