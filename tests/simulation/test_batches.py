"""The simulated batch APIs, asked by the official clients of Anthropic and Google."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.servers.batch_server import Tripwire, tripwire

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def provider() -> Iterator[Tripwire]:
    with tripwire(expired=0.5) as served:
        yield served


def message(number: int) -> dict[str, Any]:
    content = [{"role": "user", "content": f"ask {number}"}]
    return {"custom_id": f"row-{number}", "params": {"model": "m", "max_tokens": 20, "messages": content}}


def test_anthropics_client_makes_lists_reads_and_cancels_batches(provider: Tripwire) -> None:
    import anthropic

    client = anthropic.Anthropic(base_url=provider.url, api_key="k", max_retries=0)
    made = client.messages.batches.create(requests=[message(0), message(1)])  # type: ignore[list-item]
    assert made.type == "message_batch"
    found = client.messages.batches.retrieve(made.id)
    assert found.processing_status == "ended"
    assert found.request_counts.model_dump() == {
        "canceled": 0, "errored": 0, "expired": 1, "processing": 0, "succeeded": 1,
    }  # fmt: skip
    assert made.id in [batch.id for batch in client.messages.batches.list(limit=1)]
    results = {each.custom_id: each.result for each in _lines(client, made.id)}
    assert results["row-0"].type == "succeeded"
    assert results["row-0"].message.content[0].text.startswith("[simulated]")
    assert results["row-1"].type == "expired"
    assert client.messages.batches.cancel(made.id).id == made.id


def _lines(client: Any, id: str) -> list[Any]:
    """The results, asked for by path: the client would follow `results_url`, which names Anthropic's own host."""
    from anthropic.types.messages import MessageBatchIndividualResponse

    text = client.get(f"/v1/messages/batches/{id}/results", cast_to=str)
    return [MessageBatchIndividualResponse.model_validate_json(line) for line in text.splitlines()]


def test_googles_client_makes_lists_reads_and_cancels_batches(provider: Tripwire) -> None:
    from google import genai
    from google.genai import types

    client = genai.Client(api_key="k", http_options=types.HttpOptions(base_url=provider.url, api_version="v1beta"))
    asked = [
        {"contents": [{"parts": [{"text": f"ask {n}"}], "role": "user"}], "metadata": {"key": f"row-{n}"}}
        for n in (0, 1)
    ]
    made = client.batches.create(model="m", src=asked, config={"display_name": "mine"})  # type: ignore[arg-type]
    found = client.batches.get(name=made.name or "")
    assert found.display_name == "mine"
    assert found.state is not None
    assert found.state.name == "JOB_STATE_EXPIRED"
    assert found.dest is not None
    (first,) = found.dest.inlined_responses or []
    assert first.metadata == {"key": "row-0"}
    assert first.response is not None
    assert (first.response.text or "").startswith("[simulated]")
    assert made.name in [job.name for job in client.batches.list(config={"page_size": 1})]
    client.batches.cancel(name=made.name or "")


def test_googles_client_uploads_and_downloads_files_of_requests(provider: Tripwire, tmp_path: Any) -> None:
    from google import genai
    from google.genai import types

    client = genai.Client(api_key="k", http_options=types.HttpOptions(base_url=provider.url, api_version="v1beta"))
    path = tmp_path / "requests.jsonl"
    path.write_text('{"key": "row-0", "request": {"contents": [{"parts": [{"text": "ask 0"}]}]}}\n' * 2)
    file = client.files.upload(file=path, config={"mime_type": "application/jsonl"})
    made = client.batches.create(model="m", src=file.name or "", config={"display_name": "mine"})
    found = client.batches.get(name=made.name or "")
    assert found.dest is not None
    content = client.files.download(file=found.dest.file_name or "")
    assert b'"key":"row-0"' in content
