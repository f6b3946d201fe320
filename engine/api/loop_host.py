"""The event loop that an engine works on: its caller's, or one on a thread of its own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from engine.core.errors import EngineError

T = TypeVar("T")


class LoopThread:
    """An event loop on a daemon thread, which never keeps the process alive."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="engine-loop", daemon=True)
        self._thread.start()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def stop(self) -> None:
        """Cancels the tasks that are left, ends the loop and waits for its thread."""
        self.submit(self._wind_down()).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def _wind_down(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self.loop.shutdown_asyncgens()
        await self.loop.shutdown_default_executor()


class LoopHost:
    """Owns where an engine runs: the first loop that claims it, or a loop thread for plain callers.

    It also knows whether the engine can still be used: not after `mark_closed`, not on a loop that has ended, and not
    in a process that was forked, where the loop's thread does not exist.
    """

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.closed = False
        self._thread: LoopThread | None = None
        self._lock = threading.Lock()
        self._process = os.getpid()

    @property
    def running(self) -> bool:
        """True while the engine's loop runs."""
        return self.loop is not None and self.loop.is_running()

    def runs_here(self) -> bool:
        """Returns True when the engine's loop is the one running in this thread, so that blocking would never end."""
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    def claim(self) -> bool:
        """Makes the running loop the engine's if it has none; True if it is the engine's. Raises EngineError."""
        loop = asyncio.get_running_loop()
        with self._lock:
            self.check_usable()
            if self.loop is None:
                self.loop = loop
        return self.loop is loop

    def call(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Runs a coroutine on the engine's loop, from any thread; starts a loop thread if there is no loop yet."""
        try:
            with self._lock:
                self.check_usable()
                if self.loop is None:
                    self._thread = LoopThread()
                    self.loop = self._thread.loop
                return asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        except EngineError:
            coroutine.close()
            raise

    def on_all(self, states: list[T], change: Callable[[T], None]) -> None:
        """Changes each state on the engine's loop, where the stages live; at once if nothing runs there yet."""

        async def apply() -> None:
            for state in states:
                change(state)

        if self.running and not self.runs_here():
            self.call(apply()).result()
        else:
            for state in states:
                change(state)

    def mark_closed(self) -> bool:
        """Returns True for the first call; from then on the engine can't be used."""
        with self._lock:
            first, self.closed = not self.closed, True
        return first

    async def end(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs `close` on the engine's loop and ends the loop thread."""
        loop = self.loop
        if loop is not None and loop is not asyncio.get_running_loop() and loop.is_running():
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(close(), loop))
        else:
            await close()
        if self._thread is not None:
            thread, self._thread = self._thread, None
            await asyncio.to_thread(thread.stop)

    def end_blocking(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """`end` for plain callers. Raises EngineError on the thread of the engine's own loop."""
        self.refuse_deadlock("engine.aclose()")
        if self.loop is not None and self.running:
            asyncio.run_coroutine_threadsafe(close(), self.loop).result()
        elif not self.closed:
            self._thread = LoopThread()
            self._thread.submit(close()).result()
        if self._thread is not None:
            thread, self._thread = self._thread, None
            thread.stop()

    def refuse_deadlock(self, instead: str = "engine.submit(…)") -> None:
        """Raises EngineError on the thread of the engine's own loop, which waiting would block."""
        if self.runs_here():
            raise EngineError(f"this engine runs on this thread's event loop: await {instead} instead")

    def check_usable(self) -> None:
        """Raises EngineError if the engine is closed, its loop has ended, or the process was forked since."""
        if self._process != os.getpid():
            raise EngineError(
                "this engine was made in another process, of which this one is a fork; "
                "make a new engine after the fork, or start processes with spawn"
            )
        if self.closed:
            raise EngineError("this engine is closed; make a new one")
        if self.loop is not None and self.loop.is_closed():
            raise EngineError(
                "the event loop that this engine ran on has ended; make a new engine, "
                "or use one within a single loop (`async with`), or as plain code (engine.sync)"
            )
