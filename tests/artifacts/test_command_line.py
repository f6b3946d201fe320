"""`engine artifacts …` and `output.upload`, as a user types them."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest

from engine.cli import main
from tests.servers.files import FileServer
from tests.servers.gateway import Gateway
from tests.servers.seaweed import BUCKET, SECRET_KEY, Store

pytestmark = pytest.mark.slow
CID = "bafybeifc4nzx7mxtqghgu33a6t2a2wr4wnnngkngretuhify5vd24yiysy"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENGINE_CACHE", str(tmp_path / "cache"))


def artifacts(*words: str) -> int:
    code = main(["artifacts", *words])
    gc.collect()
    return code


def test_an_object_goes_up_and_down(s3: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert artifacts("put", "model.gguf", f"s3://{BUCKET}/cli/") == 0
    assert capsys.readouterr().out == f"s3://{BUCKET}/cli/model.gguf  4 B\n"
    assert artifacts("get", f"s3://{BUCKET}/cli/model.gguf", "down.gguf") == 0
    assert (tmp_path / "down.gguf").read_bytes() == b"GGUF"
    assert artifacts("list", f"s3://{BUCKET}/cli/") == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"s3://{BUCKET}/cli/model.gguf")
    assert artifacts("head", f"s3://{BUCKET}/cli/model.gguf", "--json") == 0
    assert json.loads(capsys.readouterr().out)["size_bytes"] == 4
    assert artifacts("delete", f"s3://{BUCKET}/cli/model.gguf") == 0
    assert artifacts("head", f"s3://{BUCKET}/cli/model.gguf") == 4
    assert "has no 'cli/model.gguf'" in capsys.readouterr().err


def test_a_folder_goes_up_and_down(s3: Store, tmp_path: Path) -> None:
    (tmp_path / "m" / "sub").mkdir(parents=True)
    (tmp_path / "m" / "config.json").write_text("{}")
    (tmp_path / "m" / "sub" / "a.txt").write_text("a")
    assert artifacts("put", "m", f"s3://{BUCKET}/folder-cli") == 0
    assert artifacts("get", f"s3://{BUCKET}/folder-cli/", "back") == 0
    assert (tmp_path / "back" / "sub" / "a.txt").read_text() == "a"


def test_what_is_there_is_not_written_over(s3: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").write_text("new")
    artifacts("put", "a", f"s3://{BUCKET}/over/a")
    (tmp_path / "a").write_text("mine")
    assert artifacts("get", f"s3://{BUCKET}/over/a") == 4
    assert "a is there already; name another, or say --force" in capsys.readouterr().err
    assert artifacts("get", f"s3://{BUCKET}/over/a", "--force") == 0
    assert (tmp_path / "a").read_text() == "new"


def test_all_below_a_prefix_is_deleted_only_with_force(s3: Store, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    artifacts("put", "a", f"s3://{BUCKET}/many/a")
    artifacts("put", "a", f"s3://{BUCKET}/many/b")
    assert artifacts("delete", f"s3://{BUCKET}/many/") == 2
    assert artifacts("delete", f"s3://{BUCKET}/many/", "--force") == 0
    assert artifacts("get", f"s3://{BUCKET}/many/", "none") == 4


def test_a_presigned_url_is_printed(s3: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert artifacts("presign", f"s3://{BUCKET}/x", "--expires", "60") == 0
    assert "X-Amz-Expires=60" in capsys.readouterr().out


def test_any_source_is_fetched_into_the_cache(
    files: FileServer, gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files.files["/data.bin"] = b"data"
    words = ["fetch", f"{files.url}/data.bin", f"ipfs://{CID}", f"storage.ipfs.gateways=[{gateway.url}]"]
    assert artifacts(*words) == 0
    said = capsys.readouterr()
    first, second = (Path(line) for line in said.out.splitlines())
    assert (first.read_bytes(), second.stat().st_size, second.parent.name) == (b"data", 5000, CID)
    assert said.err.splitlines() == [f"downloading {files.url}/data.bin", f"downloading ipfs://{CID}"]
    files.files["/data.bin"] = b"newer"
    artifacts("fetch", f"{files.url}/data.bin")
    assert Path(capsys.readouterr().out.strip()).read_bytes() == b"data"
    artifacts("fetch", f"{files.url}/data.bin", "--force")
    assert Path(capsys.readouterr().out.strip()).read_bytes() == b"newer"


def test_the_cache_is_listed_verified_and_cleared(
    files: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files.files["/a.gguf"] = b"GGUF"
    artifacts("fetch", f"{files.url}/a.gguf")
    path = Path(capsys.readouterr().out.strip())
    assert artifacts("cache") == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed[0].startswith(path.parent.name)
    assert listed[1] == f"1 in {tmp_path / 'cache'}, 4 B"
    assert artifacts("cache", "verify") == 0
    path.write_bytes(b"evil")
    assert artifacts("cache", "verify") == 4
    assert path.parent.name in capsys.readouterr().err
    assert artifacts("cache", "remove", path.parent.name) == 0
    assert not path.exists()
    assert artifacts("cache", "prune", "--max-bytes", "0") == 0
    assert "0 deleted" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gett"], "artifacts gett: got an unknown command of artifacts; expected one of fetch, get, put, list, head, "
                   "delete, presign, cache. Fix: did you mean get? See engine artifacts --help"),
        (["get"], "artifacts get: got nothing; expected s3://BUCKET/KEY [PATH] [storage.KEY=VALUE …]. "
                  "Fix: engine artifacts get s3://bucket/models/a.gguf"),
        (["head", "s3://bucket"], "expected s3://BUCKET/KEY"),
        (["list", "bucket/x"], "expected s3://BUCKET/KEY"),
        (["fetch", "ftp://x"], "not a source"),
        (["fetch", "https://h/x#sha256=1"], "sha256"),
        (["cache", "empty"], "artifacts cache empty: got an unknown command of artifacts cache; expected one of list, "
                             "verify, remove, prune. Fix: see engine artifacts cache --help"),
        (["presign", "s3://b/k", "--method", "PATCH"], "--method: got PATCH; expected GET or PUT or HEAD or DELETE. "
                                                       "Fix: see engine artifacts presign --help"),
        (["fetch", "https://h/x", "storage.trys=1"], "did you mean storage.tries"),
    ],
)  # fmt: skip
def test_a_slip_costs_a_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert artifacts(*words) == 2
    assert said in capsys.readouterr().err


def test_a_put_of_nothing_names_what_is_near(s3: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert artifacts("put", "modle.gguf", f"s3://{BUCKET}/x") == 4
    assert "did you mean model.gguf?" in capsys.readouterr().err


RUN = ["provider=simulated", "telemetry.progress=off"]


def test_a_finished_run_is_uploaded_manifest_last(
    s3: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*RUN, "output.dir=mine", f"output.upload=s3://{BUCKET}/runs"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"uploaded → s3://{BUCKET}/runs/mine"
    artifacts("get", f"s3://{BUCKET}/runs/mine/", "back")
    names = {path.name for path in (tmp_path / "back").iterdir()}
    assert {"results.jsonl", "dead.jsonl", "report.md", "report.html", "manifest.json", "metrics.json"} <= names
    for name in names:
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "mine" / name).read_bytes()
    assert json.loads((tmp_path / "back" / "manifest.json").read_text())["status"] == "finished"
    assert not [path for path in (tmp_path / "mine").iterdir() if SECRET_KEY.encode() in path.read_bytes()]


def test_a_failed_upload_is_told_and_a_resume_tries_again(
    s3: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("S3_SECRET_KEY", "not-the-secret-key")
    assert main([*RUN, "output.dir=again", f"output.upload=s3://{BUCKET}/failed"]) == 5
    said = capsys.readouterr()
    assert "8 of 8 answered" in said.out
    assert f"output.upload: s3://{BUCKET}: HTTP 403 SignatureDoesNotMatch" in said.err
    assert "python -m engine runs resume again" in said.err
    monkeypatch.setenv("S3_SECRET_KEY", SECRET_KEY)
    assert main(["runs", "resume", "again"]) == 0
    assert f"uploaded → s3://{BUCKET}/failed/again" in capsys.readouterr().out


def test_an_upload_without_keys_is_refused_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("S3_ACCESS_KEY", "S3_SECRET_KEY", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("S3_ENDPOINT", "http://127.0.0.1:9")
    assert main([*RUN, "output.dir=never", "output.upload=s3://bucket/x"]) == 4
    assert "output.upload: the store at http://127.0.0.1:9 needs keys" in capsys.readouterr().err
    assert not (tmp_path / "never").exists()


def test_a_bucket_that_is_not_there_is_named(s3: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["artifacts", "list", "s3://nobody-made-it/"]) == 4
    assert "s3://nobody-made-it: HTTP 404 NoSuchBucket" in capsys.readouterr().err


def test_a_place_that_is_no_bucket_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, "output.upload=/some/folder"]) == 2
    assert "output.upload" in capsys.readouterr().err
