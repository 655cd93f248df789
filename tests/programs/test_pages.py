"""A page that is loaded anew takes over from the one that was left, while a cell watches."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from helpers.ground import paths

# As helpers/calls/attached.py watches.
WATCH = """
import time
print("watching", flush=True)
end = time.monotonic() + 20
while not get_ipython().kernel.is_wanted_elsewhere and time.monotonic() < end:
    time.sleep(0.02)
raise RuntimeError("left")
"""


@pytest.fixture(scope="module")
def manager() -> Iterator[KernelManager]:
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    found = KernelManager(kernel_name="python3")
    options = ["--IPKernelApp.kernel_class=helpers.programs.pages.Kernel"]
    found.start_kernel(cwd=str(paths.NOTEBOOKS), extra_arguments=options)
    yield found
    found.shutdown_kernel(now=True)


def page(manager: KernelManager) -> BlockingKernelClient:
    """Return another page of the kernel: a client with a session of its own."""
    client: BlockingKernelClient = manager.blocking_client()
    client.session = client.session.clone()
    client.session.session = os.urandom(8).hex()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    return client


def reply(client: BlockingKernelClient, asked: str) -> dict[str, object]:
    while True:
        found = client.get_shell_msg(timeout=30)
        if found["parent_header"].get("msg_id") == asked:
            return dict(found["content"])


def until_it_says(client: BlockingKernelClient, word: str) -> None:
    while True:
        found = client.get_iopub_msg(timeout=30)
        if word in found["content"].get("text", ""):
            return


def test_the_new_page_goes_first_and_what_the_old_one_queued_is_dropped(
    manager: KernelManager,
) -> None:
    old = page(manager)
    new = page(manager)
    watch = old.execute(WATCH)
    queued = old.execute("ran = 'by the old page'")
    until_it_says(old, "watching")
    asked = [new.execute(f"ran = 'by the new page'; x = {i}") for i in range(2)]
    begin = time.monotonic()
    answers = [reply(new, each)["status"] for each in asked]
    assert time.monotonic() - begin < 10
    assert answers == ["ok", "ok"]
    assert reply(old, watch)["evalue"] == "left"
    assert reply(old, queued)["status"] == "aborted"
    last = new.execute("", user_expressions={"ran": "ran"})
    expressions = reply(new, last)["user_expressions"]
    assert "by the new page" in str(expressions)
    for client in (old, new):
        client.stop_channels()


def test_a_page_that_was_left_before_the_cell_watched_is_left_all_the_same(
    manager: KernelManager,
) -> None:
    old, new = page(manager), page(manager)
    busy = old.execute("print('watching', flush=True); import time; time.sleep(1)")
    watch = old.execute(WATCH)
    until_it_says(old, "watching")
    asked = [new.execute(f"x = {i}") for i in range(2)]
    begin = time.monotonic()
    assert [reply(new, each)["status"] for each in asked] == ["ok", "ok"]
    assert time.monotonic() - begin < 10
    assert reply(old, busy)["status"] == "ok"
    assert reply(old, watch)["evalue"] == "left"
    for client in (old, new):
        client.stop_channels()


def test_what_an_editor_runs_for_itself_takes_nothing_over(manager: KernelManager) -> None:
    old, new = page(manager), page(manager)
    watch = old.execute(WATCH.replace("+ 20", "+ 1"))
    until_it_says(old, "watching")
    silent = new.execute("x = 1", silent=True)
    unseen = new.execute("x = 1", store_history=False)
    begin = time.monotonic()
    assert reply(old, watch)["evalue"] == "left"
    assert time.monotonic() - begin > 0.5
    assert {reply(new, each)["status"] for each in (silent, unseen)} <= {"ok", "aborted"}
    for client in (old, new):
        client.stop_channels()


def test_the_pages_own_cells_wait_their_turn(manager: KernelManager) -> None:
    only = page(manager)
    watch = only.execute(WATCH.replace("+ 20", "+ 1").replace("raise", "#"))
    after = only.execute("after = 1")
    assert reply(only, watch)["status"] == "ok"
    assert reply(only, after)["status"] == "ok"
    only.stop_channels()
