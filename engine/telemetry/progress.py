"""The progress of a run on standard error: a bar on a terminal, else one line at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TextIO

from engine.core.printable import one_line
from engine.core.request import Result

_REFRESH_S = 0.2


class ProgressBar:
    """Rows per second, ok and failed, output tokens per second."""

    def __init__(self, mode: Literal["auto", "on", "off"] = "auto", stream: TextIO | None = None) -> None:
        """`auto` shows the bar only on a terminal. `stream` is standard error when not given."""
        stream = stream or sys.stderr
        self._stream: TextIO = getattr(stream, "unfiltered", stream)  # the bar moves the cursor
        self._mode = mode
        self._bar: Any = None
        self._ok = self._failed = self._tokens = self._rows_before = 0
        self._started = time.monotonic()
        self._shown = 0.0
        self._open = False

    def start(self, total: int | None, done: int) -> None:
        """`total` rows are to be answered (None: unknown), `done` of which are."""
        self._started = time.monotonic()
        self._rows_before = done
        self._open = True
        if self._mode == "on" or (self._mode == "auto" and self._stream.isatty()):
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, initial=done, unit="row", file=self._stream, dynamic_ncols=True, mininterval=_REFRESH_S
            )

    def add(self, result: Result) -> None:
        """Counts one durable result."""
        if result.error is None:
            self._ok += 1
        else:
            self._failed += 1
        if result.usage is not None:
            self._tokens += result.usage.output_tokens
        if self._bar is not None:
            self._write(self._advance)

    def note(self, text: str) -> None:
        """Shows a line without breaking the bar; nothing with `off`."""
        text = one_line(text)  # a provider's words, a row's id
        if self._bar is not None:
            self._write(partial(self._bar.write, text, file=self._stream))
        elif self._mode != "off":
            self._write(partial(print, text, file=self._stream, flush=True))

    def show(self, text: str, stream: TextIO) -> None:
        """Writes lines to a stream without breaking the bar."""
        if self._bar is None:
            print(text, file=stream, flush=True)
            return
        from tqdm import tqdm

        with tqdm.external_write_mode(file=self._stream):
            print(text, file=stream, flush=True)

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        now = time.monotonic()
        if self._bar is not None:
            self._write(partial(self._end_bar, now))
        elif self._mode != "off":
            rows = self._ok + self._failed
            before = f" ({self._rows_before} before)" if self._rows_before else ""
            rate = rows / max(now - self._started, 1e-9)
            text = f"{rows} rows{before}: {self._counts(now)}, {rate:.1f} rows/s"
            self._write(partial(print, text, file=self._stream, flush=True))

    def _write(self, write: Callable[[], object]) -> None:
        """Shows something. A terminal or a reader that is gone ends the progress, and not the run."""
        try:
            write()
        except OSError:
            self._mode = "off"
            if self._bar is not None:
                self._bar.disable, self._bar = True, None

    def _advance(self) -> None:
        now = time.monotonic()
        if now - self._shown > _REFRESH_S:
            self._shown = now
            self._bar.set_postfix_str(self._counts(now), refresh=False)
        self._bar.update(1)

    def _end_bar(self, now: float) -> None:
        self._bar.set_postfix_str(self._counts(now), refresh=True)
        self._bar.close()

    def _counts(self, now: float) -> str:
        text = f"{self._ok} ok, {self._failed} failed"
        if self._tokens:
            text += f", {self._tokens / max(now - self._started, 1e-9):.0f} tokens/s"
        return text
