"""`engine simulate` as a process of its own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from engine.cli import main

pytestmark = pytest.mark.slow


@contextmanager
def simulating(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and the address that it printed."""
    command = [sys.executable, "-u", "-m", "engine", "simulate", "--port", "0", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            found = re.fullmatch(r"simulated provider on (http://127\.0\.0\.1:\d+)", process.stdout.readline().strip())
            assert found is not None
            yield process, found[1]
        finally:
            process.kill()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_its_address_serves_and_stops_cleanly(stop: signal.Signals) -> None:
    with simulating("provider.output_tokens=2") as (process, url):
        body = json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode()
        with urllib.request.urlopen(f"{url}/v1/chat/completions", body, timeout=10) as reply:
            assert json.load(reply)["choices"][0]["message"]["content"] == "[simulated] word2"
        process.send_signal(stop)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_it_shows_the_faults_that_were_chosen() -> None:
    with (
        simulating("provider/faults=flapping", "provider.faults.0.from_s=0") as (_, url),
        pytest.raises(urllib.error.HTTPError) as caught,
    ):
        urllib.request.urlopen(f"{url}/v1/models", timeout=10)
    assert caught.value.code == 500


def test_only_a_simulated_provider_can_be_served(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "provider=ollama", "model=remote", "model.name=m"]) == 2
    assert "only a simulated provider can be served" in capsys.readouterr().err


def test_a_port_out_of_range_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--port", "70000"]) == 2
    assert "--port: got 70000; expected a whole number from 0 to 65535" in capsys.readouterr().err
