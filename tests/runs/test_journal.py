"""engine/runs/journal.py, against a dict and against real damage."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.core.errors import OutputError
from engine.runs.journal import Entry, Journal, counts, entries, recorded

RECORDS = st.dictionaries(
    st.integers(0, 1000), st.tuples(st.text(max_size=5), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.binary())
)


def record(journal: Journal, index: int, id: str, ok: bool, digest: int, payload: bytes) -> asyncio.Future[None]:
    """Ends when the record is durable, or with the reason why it can't become so."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def durable(failure: OutputError | None) -> None:
        if failure is None:
            future.set_result(None)
        else:
            future.set_exception(failure)

    journal.append(index, id, ok, digest, payload, durable)
    return future


async def fill(path: Path, rows: dict[int, tuple[str, bool, int, bytes]], batch: int = 256) -> None:
    journal = Journal(path, commit_s=0.001, batch=batch)
    await asyncio.gather(*(record(journal, index, *row) for index, row in rows.items()))
    await journal.aclose()


@settings(max_examples=30, deadline=None)
@given(st.lists(RECORDS, max_size=3), st.integers(1, 8))
def test_it_holds_what_a_dict_would(sessions: list[dict[int, tuple[str, bool, int, bytes]]], batch: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.sqlite"
        expected: dict[int, tuple[str, bool, int, bytes]] = {}
        for session in [{}, *sessions]:
            new = {index: row for index, row in session.items() if index not in expected}
            asyncio.run(fill(path, new, batch))
            expected.update(new)
        in_order = sorted(expected.items())
        assert list(entries(path)) == [Entry(index, ok, payload) for index, (_, ok, _, payload) in in_order]
        assert list(recorded(path)) == [(index, digest) for index, (_, _, digest, _) in in_order]
        assert counts(path) == (
            sum(ok for _, ok, _, _ in expected.values()),
            sum(not ok for _, ok, _, _ in expected.values()),
        )


class JournalMachine(RuleBasedStateMachine):
    """The journal against a dict. What was confirmed survives a crash; what was not is there as a whole or not at all.

    A crash: the process is gone without a word, and the file is opened anew. The machine copies the files as they lie
    there, as a crash would leave them, and goes on with the copy.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.crashes = 0
        self.path = Path(self.folder.name) / "0" / "journal.sqlite"
        self.path.parent.mkdir()
        self.confirmed: dict[int, tuple[str, bool, int, bytes]] = {}
        self.waiting: dict[int, tuple[str, bool, int, bytes]] = {}

    @initialize(threaded=st.booleans(), batch=st.integers(1, 6))
    def begin(self, threaded: bool, batch: int) -> None:
        self.threaded, self.batch = threaded, batch
        self.open()

    def open(self) -> None:
        async def make() -> Journal:
            return Journal(self.path, commit_s=0.0005, batch=self.batch, threaded=self.threaded)

        self.journal = self.loop.run_until_complete(make())

    def heard(self, index: int, failure: OutputError | None) -> None:
        assert failure is None
        assert index not in self.confirmed  # once
        self.confirmed[index] = self.waiting.pop(index)

    @rule(index=st.integers(0, 60), row=st.tuples(st.text(max_size=3), st.booleans(), st.integers(-9, 9), st.binary()))
    def append(self, index: int, row: tuple[str, bool, int, bytes]) -> None:
        if index not in self.confirmed and index not in self.waiting:
            self.waiting[index] = row
            self.journal.append(index, *row, partial(self.heard, index))

    @rule()
    def let_the_writer_work(self) -> None:
        self.loop.run_until_complete(asyncio.sleep(0.002))

    @rule()
    def close_and_reopen(self) -> None:
        self.loop.run_until_complete(self.journal.aclose())
        self.loop.run_until_complete(asyncio.sleep(0))
        assert not self.waiting
        self.check()
        self.open()

    @rule()
    def crash(self) -> None:
        self.crashes += 1
        left, self.path = self.path, Path(self.folder.name) / str(self.crashes) / "journal.sqlite"
        shutil.copytree(left.parent, self.path.parent)
        confirmed, waiting = dict(self.confirmed), dict(self.waiting)
        held = {entry.index for entry in entries(self.path)}
        assert confirmed.keys() <= held <= confirmed.keys() | waiting.keys()
        self.loop.run_until_complete(self.journal.aclose())  # the dead process's threads; nobody listens to it
        self.loop.run_until_complete(asyncio.sleep(0))
        self.confirmed = confirmed | {index: row for index, row in waiting.items() if index in held}
        self.waiting = {}
        self.open()
        self.check()

    @invariant()
    def holds_what_was_confirmed(self) -> None:
        if hasattr(self, "journal"):
            held = {entry.index: entry for entry in entries(self.path)}
            assert self.confirmed.keys() <= held.keys() <= self.confirmed.keys() | self.waiting.keys()

    def check(self) -> None:
        """At rest it holds the dict, in order."""
        in_order = sorted(self.confirmed.items())
        assert list(entries(self.path)) == [Entry(index, ok, payload) for index, (_, ok, _, payload) in in_order]
        assert list(recorded(self.path)) == [(index, digest) for index, (_, _, digest, _) in in_order]
        ok = sum(ok for _, ok, _, _ in self.confirmed.values())
        assert counts(self.path) == (ok, len(self.confirmed) - ok)

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.loop.run_until_complete(self.journal.aclose())
        self.loop.close()
        self.folder.cleanup()


TestJournalMachine = JournalMachine.TestCase
TestJournalMachine.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestJournalMachine = pytest.mark.slow(TestJournalMachine)


async def test_a_record_is_durable_when_its_future_ends(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.sqlite", commit_s=0.001)
    await record(journal, 0, "a", True, 1, b"{}")
    with sqlite3.connect(tmp_path / "j.sqlite") as other:
        assert other.execute("SELECT payload FROM record").fetchall() == [(b"{}",)]
    await journal.aclose()


async def test_a_full_batch_does_not_wait_for_the_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.sqlite", commit_s=3600, batch=2)
    await asyncio.wait_for(asyncio.gather(*(record(journal, n, "a", True, 1, b"") for n in range(2))), 5)
    await journal.aclose()


async def test_closing_commits_what_waits(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.sqlite", commit_s=3600)
    waiting = record(journal, 0, "a", True, 1, b"")
    await journal.aclose()
    await waiting
    assert counts(tmp_path / "j.sqlite") == (1, 0)


async def test_a_row_that_is_recorded_twice_is_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.sqlite", commit_s=0.001)
    await record(journal, 0, "a", True, 1, b"first")
    with pytest.raises(OutputError, match="UNIQUE"):
        await record(journal, 0, "a", True, 1, b"second")
    with pytest.raises(OutputError):
        await journal.aclose()
    assert [entry.payload for entry in entries(tmp_path / "j.sqlite")] == [b"first"]


async def test_after_a_failure_every_further_record_fails_too(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.sqlite", commit_s=0.001)
    await record(journal, 0, "a", True, 1, b"")
    with pytest.raises(OutputError):
        await record(journal, 0, "a", True, 1, b"")
    with pytest.raises(OutputError, match="free disk space"):
        await record(journal, 1, "b", True, 1, b"")
    with pytest.raises(OutputError):
        await journal.aclose()


def test_a_file_that_is_no_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / "j.sqlite").write_bytes(b"this is not a database, not at all" * 100)
    with pytest.raises(OutputError, match=r"j\.sqlite: the journal can't be read: file is not a database"):
        counts(tmp_path / "j.sqlite")


@pytest.mark.slow
def test_a_disk_that_fills_up_loses_nothing_that_was_confirmed(tmp_path: Path) -> None:
    program = """
import asyncio, resource, sys
from pathlib import Path
from engine.core.errors import OutputError
from engine.runs.journal import Journal
async def main():
    journal = Journal(Path(sys.argv[1]), commit_s=0.001, batch=4)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
    try:
        for index in range(10_000):
            done = asyncio.get_running_loop().create_future()
            journal.append(index, "x", True, 0, b"y" * 1000, lambda failure: done.set_result(failure))
            if failure := await done:
                raise failure
            print(index, flush=True)
    except OutputError as error:
        print("refused", error, file=sys.stderr)
asyncio.run(main())
"""
    path = tmp_path / "j.sqlite"
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=60)
    assert "free disk space" in done.stderr
    confirmed = [int(line) for line in done.stdout.split()]
    assert confirmed
    held = [entry.index for entry in entries(path)]
    assert held[: len(confirmed)] == confirmed
