"""Reading a GGUF file's metadata."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.artifacts import gguf
from engine.core.errors import SetupError


def write(path: Path) -> Path:
    """A small file, written by ggml's own package."""
    package = pytest.importorskip("gguf")
    np = pytest.importorskip("numpy")
    writer = package.GGUFWriter(str(path), "llama")
    writer.add_context_length(1234)
    writer.add_name("täst")
    writer.add_token_list(["a", "b", "c"])
    writer.add_array("some.numbers", [1, 2, 3])
    writer.add_tensor("token_embd.weight", np.arange(12, dtype=np.float32).reshape(3, 4))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_scalars_and_strings_are_read_and_arrays_skipped(tmp_path: Path) -> None:
    found = gguf.metadata(write(tmp_path / "m.gguf"))
    assert found["general.name"] == "täst"
    assert found["llama.context_length"] == 1234
    assert "tokenizer.ggml.tokens" not in found


def test_the_context_length_is_found(tmp_path: Path) -> None:
    assert gguf.context_length(write(tmp_path / "m.gguf")) == 1234


def test_tensors_are_found_where_they_lie(tmp_path: Path) -> None:
    import numpy as np

    path = write(tmp_path / "m.gguf")
    (tensor,) = gguf.read(path)[1]
    assert (tensor.name, tensor.shape) == ("token_embd.weight", (3, 4))
    assert np.frombuffer(path.read_bytes()[tensor.offset :], np.float32)[:12].tolist() == list(range(12))


def test_a_file_cut_anywhere_is_refused_not_misread(tmp_path: Path) -> None:
    data = write(tmp_path / "m.gguf").read_bytes()
    header = gguf.read(tmp_path / "m.gguf")[1][0].offset
    for length in range(0, header - 32, 7):
        (tmp_path / "cut.gguf").write_bytes(data[:length])
        with pytest.raises(SetupError):
            gguf.metadata(tmp_path / "cut.gguf")


def test_the_only_file_of_a_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    path = write(tmp_path / "sub" / "m.gguf")
    assert gguf.find(tmp_path) == path


def test_two_files_in_a_folder_are_refused(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(SetupError, match=r"a\.gguf, b\.gguf"):
        gguf.find(tmp_path)


def test_a_file_whose_last_tensor_is_cut_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf")
    (tensor,) = gguf.read(path)[1]
    path.write_bytes(path.read_bytes()[: tensor.offset + 12 * 4 - 1])
    with pytest.raises(SetupError, match="cut or damaged"):
        gguf.read(path)


@pytest.mark.slow
def test_the_default_models_file_is_whole_to_the_byte(smollm2_gguf: Path, tmp_path: Path) -> None:
    data = smollm2_gguf.read_bytes()
    assert gguf.context_length(smollm2_gguf) == 8192
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(data[: len(data) // 2])
    with pytest.raises(SetupError, match="cut or damaged"):
        gguf.context_length(cut)
