"""Test that a checkpoint's shape is read before planning: from folders, GGUF headers and a hub, once."""

import json
import pathlib
import subprocess
import sys
from typing import Any

import gguf
import numpy as np
import pytest
import yaml
from tests.config.pretrained.test_fill import GPT2, LLAMA
from tests.data.fetch.sources.hub_server import COMMIT, Repo, serve

from speciate.cli import execute
from speciate.config.components import options_of
from speciate.config.pretrained.families import gpt2_settings, llama_settings
from speciate.config.pretrained.gguf_header import read_gguf_config
from speciate.config.pretrained.read import HUB_CONFIGS, folder_shape, hub_shape

SRC = pathlib.Path(__file__).parents[3] / "src"


def write_gguf(file: pathlib.Path, *, tied: bool = True, architecture: str = "llama") -> None:
    """Write a header with metadata of every type that the format has, and one or two tensors."""
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_block_count(2)
    writer.add_context_length(512)
    writer.add_embedding_length(40)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(5e5)
    writer.add_token_list(["ä", "b", "c" * 300])
    writer.add_token_scores([0.5, 1.0, 2.0])
    writer.add_token_types([1, 1, 3])
    for name, value in {
        "uint8": 3,
        "int8": -3,
        "uint16": 3,
        "int16": -3,
        "int32": -3,
        "uint64": 3,
        "int64": -3,
    }.items():
        getattr(writer, f"add_{name}")(f"mine.{name}", value)
    writer.add_float64("mine.float64", 0.25)
    writer.add_bool("mine.bool", True)
    writer.add_array("mine.nested", [[1, 2], [3]])
    writer.add_tensor("token_embd.weight", np.zeros((3, 40), dtype=np.float32))
    if not tied:
        writer.add_tensor("output.weight", np.zeros((3, 40), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("tied", [True, False])
def test_a_gguf_header_gives_the_config_that_its_library_reads(tmp_path: pathlib.Path, tied: bool) -> None:
    write_gguf(tmp_path / "model.gguf", tied=tied)
    config = read_gguf_config(tmp_path / "model.gguf")
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
    assert config["hidden_size"] == fields["llama.embedding_length"].contents() == 40
    assert config["rope_theta"] == fields["llama.rope.freq_base"].contents() == 5e5
    assert config["rms_norm_eps"] == 1e-6
    assert llama_settings(config) == {**llama_settings(LLAMA), "tied_head": tied}
    assert folder_shape(tmp_path).model == folder_shape(tmp_path / "model.gguf").model == llama_settings(config)


def test_a_header_that_is_cut_off_or_of_another_family_is_refused(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "model.gguf"
    write_gguf(file)
    data = file.read_bytes()
    end = data.index(b"token_embd.weight") + 17 + 4
    for length in range(0, end, 7):
        file.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"model.gguf: is no GGUF file, or is truncated"):
            read_gguf_config(file)
    write_gguf(file, architecture="gpt2")
    with pytest.raises(ValueError, match=r"model.gguf: general.architecture: 'gpt2' is not supported"):
        read_gguf_config(file)


def test_a_hub_is_asked_once_for_the_config_alone(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = {"config.json": json.dumps(GPT2).encode(), "model.safetensors": b"0" * 1000}
    with serve({"models/me/tiny": Repo(files)}) as hub:
        for name, value in hub.environment(tmp_path / "home").items():
            monkeypatch.setenv(name, value)
        options: Any = options_of("training/init/origin", "hub")
        first = options(kind="hub", repository="me/tiny", revision=COMMIT).shape_of_model()
        assert first.model == gpt2_settings(GPT2) and first.origin == f"me/tiny at {COMMIT[:10]}"
        assert [path for _, path, _ in hub.log] == [f"/me/tiny/resolve/{COMMIT}/config.json"]
        with pytest.raises(ValueError, match=f"revision: is not pinned; the newest commit of me/tiny is {COMMIT}"):
            hub_shape("me/tiny", "unpinned")
        with pytest.raises(
            ValueError,
            match=f"config.json of me/none at {COMMIT}: http.* refuses .401.: there is none, or",
        ):
            hub_shape("me/none", COMMIT)
    # the hub is gone
    assert hub_shape("me/tiny", COMMIT) == first
    source: Any = options_of("training/init/origin", "archive")
    files_of_it = {"kind": "model_files", "repository": "me/tiny", "revision": COMMIT}
    assert source.model_validate({"kind": "archive", "source": files_of_it}).shape_of_model() == first
    (HUB_CONFIGS / "me--tiny" / f"{COMMIT}.json").unlink()
    with pytest.raises(ValueError, match=f"config.json of me/tiny at {COMMIT}: cannot reach http.*plan once where"):
        hub_shape("me/tiny", COMMIT)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=f"{COMMIT}: HF_HUB_OFFLINE keeps the client off the network; plan once"):
        hub_shape("me/tiny", COMMIT)
    cached = pathlib.Path(tmp_path / "home/hub/models--me--tiny/snapshots") / COMMIT
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "home/hub"))
    cached.mkdir(parents=True)
    (cached / "config.json").write_text(json.dumps(GPT2))
    assert hub_shape("me/tiny", COMMIT) == first


def test_an_archive_whose_shape_nobody_gives_is_not_known() -> None:
    options: Any = options_of("training/init/origin", "archive")
    assert options(kind="archive").shape_of_model() is None


def test_shape_prints_what_an_origin_may_give(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    execute(["shape", str(tmp_path)])
    printed = capsys.readouterr().out
    options: Any = options_of("training/init/origin", "archive")
    given = options(kind="archive", shape=yaml.safe_load(printed)).shape_of_model()
    assert given.model == llama_settings(LLAMA) and given.origin == "in source start"
    with pytest.raises(ValueError, match="nowhere: is neither a file or folder here nor OWNER/NAME@COMMIT"):
        execute(["shape", "nowhere"])


def test_no_library_beyond_the_planning_environment_is_imported(tmp_path: pathlib.Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    lines = f"""
import sys, pathlib
from speciate.config.pretrained.fill import ORIGIN
print(ORIGIN.validate_python({{"kind": "folder", "path": {str(tmp_path)!r}}}).shape_of_model().model["width"])
print(sorted({{"torch", "gguf", "huggingface_hub", "numpy", "requests"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", lines], env={"PYTHONPATH": str(SRC)}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "40\n[]\n"
