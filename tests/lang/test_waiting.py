"""Waiting in greenlets, threads and coroutines, and what shares one loop."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import Future

import pytest

from sgrun.errors import ProgramError
from sgrun.lang.waiting import Changes, Mailbox, in_async_body, loop_for_bodies, run_in_greenlet, until_done, wait


def test_plain_code_suspends_and_others_go_on() -> None:
    order: list[str] = []
    gate: Future[None] = Future()

    def first() -> str:
        order.append("first waits")
        wait(gate)
        order.append("first goes on")
        return "result"

    def second() -> None:
        order.append("second opens")
        gate.set_result(None)

    async def main() -> str:
        result, _ = await asyncio.gather(run_in_greenlet(first), run_in_greenlet(second))
        return result

    assert asyncio.run(main()) == "result"
    assert order == ["first waits", "second opens", "first goes on"]


def test_cancellation_arrives_where_the_code_waits() -> None:
    never: Future[None] = Future()
    seen: list[str] = []

    def body() -> None:
        try:
            wait(never)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def main() -> None:
        task = asyncio.create_task(run_in_greenlet(body))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert seen == ["cancelled"]
    assert not never.cancelled()


def test_failed_future_does_not_raise_in_wait() -> None:
    failed: Future[None] = Future()
    failed.set_exception(ValueError())
    wait(failed)

    async def main() -> None:
        await until_done(failed)
        await run_in_greenlet(lambda: wait(failed))

    asyncio.run(main())


def test_blocking_wait_is_refused_in_an_async_body_only() -> None:
    done: Future[None] = Future()
    done.set_result(None)

    async def main() -> None:
        wait(done)
        in_async_body.set(True)
        with pytest.raises(ProgramError, match="await"):
            wait(done)
        await asyncio.to_thread(wait, done)
        await run_in_greenlet(lambda: wait(done))

    asyncio.run(main())


def test_future_may_end_after_its_loop() -> None:
    late: Future[None] = Future()

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(until_done(late), 0.01)

    asyncio.run(main())
    late.set_result(None)


def test_bodies_share_one_background_loop() -> None:
    loops = []
    threads = [threading.Thread(target=lambda: loops.append(loop_for_bodies())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(loops)) == 1


def test_changes_wake_every_waiter_and_are_never_missed() -> None:
    changes, values, counts = Changes(), [], []

    def follow() -> None:
        for expected in range(1, 2001):
            changes.wait_until(lambda expected=expected: len(values) >= expected)
        counts.append(len(values))

    followers = [threading.Thread(target=follow) for _ in range(3)]
    for follower in followers:
        follower.start()
    for number in range(2000):
        values.append(number)
        changes.announce()
    for follower in followers:
        follower.join(10)
    assert counts == [2000] * 3


def test_mailbox_runs_every_call_in_order() -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    mailbox, seen, finished = Mailbox(loop), [], threading.Event()
    for number in range(5000):
        mailbox.post(lambda number=number: seen.append(number))
    mailbox.post(finished.set)
    assert finished.wait(10)
    assert seen == list(range(5000))
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_interpreter_exits_with_programs_under_way() -> None:
    code = """
import sgrun as sg
from sgrun.lang.scripted import ScriptedBackend

@sg.function
def program(s):
    s += "a" + sg.gen("x")
    s["x"]

backend = ScriptedBackend(latency_s=60)
states = [program.run(backend=backend, stream=True) for _ in range(20)]
print("end")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
    assert (done.stdout, done.stderr) == ("end\n", "")


def test_forked_process_gets_a_loop_of_its_own() -> None:
    code = """
import os, sys
from sgrun.lang.waiting import loop_for_bodies
import asyncio
first = loop_for_bodies()
pid = os.fork()
if pid == 0:
    future = asyncio.run_coroutine_threadsafe(asyncio.sleep(0, "alive"), loop_for_bodies())
    os._exit(0 if future.result(5) == "alive" else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    subprocess.run([sys.executable, "-c", code], timeout=20, check=True)
