"""engine/telemetry/exporter.py, over real files and sockets."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import aiohttp
import pytest

from engine import Engine, SetupError
from engine.core.virtual_time import VirtualClock, run
from engine.schemas.telemetry import TelemetrySpec
from engine.telemetry.exporter import Exporter
from engine.telemetry.prometheus import text
from tests.telemetry.served import ANSWERED, chat, engine


def exporter(told: Engine, **fields: object) -> Exporter:
    return Exporter(told, TelemetrySpec.model_validate(fields))


async def test_the_file_is_there_from_the_start_and_has_the_last_figures_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "engine.prom"
    async with engine() as told:
        writer = exporter(told, prometheus_file=str(path))
        await writer.start()
        assert "engine_requests_total" in path.read_text()
        await told.submit(chat())
        await writer.aclose()
        assert path.read_text() == text(told)
    assert ANSWERED in path.read_text()
    assert os.listdir(tmp_path) == ["engine.prom"]


def test_the_file_is_replaced_every_few_seconds(tmp_path: Path) -> None:
    path = tmp_path / "engine.prom"

    async def watch(clock: VirtualClock) -> None:
        told = engine()
        writer = exporter(told, prometheus_file=str(path))
        await writer.start()
        path.unlink()
        await asyncio.sleep(4.9)
        assert not path.exists()
        await asyncio.sleep(0.2)
        assert path.exists()
        await writer.aclose()

    run(watch)


def test_a_folder_that_vanishes_does_not_end_the_work(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "gone" / "engine.prom"
    path.parent.mkdir()

    async def watch(clock: VirtualClock) -> None:
        writer = exporter(engine(), prometheus_file=str(path))
        await writer.start()
        path.unlink()
        path.parent.rmdir()
        await asyncio.sleep(6)
        path.parent.mkdir()
        await writer.aclose()

    run(watch)
    assert "could not be written" in caplog.text
    assert path.exists()


async def test_a_file_that_can_not_be_written_is_refused_before_anything_starts(tmp_path: Path) -> None:
    writer = exporter(engine(), prometheus_file=str(tmp_path / "missing" / "engine.prom"))
    with pytest.raises(SetupError, match=r"telemetry\.prometheus_file: .* can't be written"):
        await writer.start()


async def test_the_port_serves_the_metrics() -> None:
    async with engine() as told:
        server = exporter(told, prometheus_port=0)
        await server.start()
        await told.submit(chat())
        url = f"http://127.0.0.1:{server.port}"
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{url}/metrics") as reply:
                assert (reply.status, reply.content_type) == (200, "text/plain")
                assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
                assert await reply.text() == text(told)
            async with session.head(f"{url}/metrics") as reply:
                assert (reply.status, await reply.text()) == (200, "")
            async with session.get(url) as reply:
                assert reply.status == 404
                assert "/metrics" in await reply.text()
            async with session.post(f"{url}/metrics") as reply:
                assert reply.status == 405
        await server.aclose()


async def test_what_is_not_http_is_left_and_the_next_scrape_is_served() -> None:
    server = exporter(engine(), prometheus_port=0)
    await server.start()
    assert server.port is not None
    for said in (b"", b"x" * 20_000, b"\x00\r\n\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(said)
        writer.write_eof()
        assert b"200 OK" not in await reader.read()
        writer.close()
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{server.port}/metrics") as reply:
        assert reply.status == 200
    await server.aclose()


async def test_a_port_that_is_taken_is_refused_with_the_knob() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=rf"telemetry\.prometheus_port: 127\.0\.0\.1:{port} can't be used"):
            await exporter(engine(), prometheus_port=port).start()


def test_it_can_be_closed_when_its_event_loop_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "engine.prom"
    left = exporter(engine(), prometheus_file=str(path), prometheus_port=0)
    asyncio.run(left.start())
    path.unlink()
    asyncio.run(left.aclose())
    assert path.exists()
    assert left.port is None


async def test_nothing_is_opened_when_nothing_is_asked_for() -> None:
    idle = exporter(engine())
    await idle.start()
    assert idle.port is None
    await idle.aclose()
