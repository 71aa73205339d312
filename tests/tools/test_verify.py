"""Test `speciate verify` on a folder of results whose differences are made by hand."""

import json
import pathlib
import shutil

import pandas as pd
import pytest

from speciate import cli
from speciate.tools.verify import data_name, family_of

DATA, RUN = "data/pack/code-0123456789/blocks.npy", "small/runs/arm/seed0/model.safetensors"
MEASURES = "small/measures/arm/seed0/runs.parquet"


class Place:
    """Hold results of one run, and the file with their digests."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.results, self.digests = folder / "results", folder / "small.digests.json"
        for name, content in ((DATA, b"tokens"), (RUN, b"weights"), ("data/logs/pack/code.log", b"log")):
            (self.results / name).parent.mkdir(parents=True, exist_ok=True)
            (self.results / name).write_bytes(content)
        self.processor("AMD EPYC 9B14", "AVX512")
        self.numbers(loss=2.5, max_share=0.25)

    def processor(self, name: str, instructions: str) -> None:
        facts = {"processor": name, "versions": {"cpu": instructions}}
        (self.results / RUN).with_name("run.json").write_text(json.dumps(facts))

    def numbers(self, **values: float | None) -> None:
        (self.results / MEASURES).parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame([{"information_bits": None, **values}]).to_parquet(self.results / MEASURES)

    def verify(self, *options: str) -> None:
        given = ("--results", str(self.results), "--study", "small", "--ablation", "arm")
        cli.execute(["verify", *given, "--digests", str(self.digests), *options])


@pytest.fixture
def place(tmp_path: pathlib.Path) -> Place:
    """Return results whose digests are committed."""
    made = Place(tmp_path)
    made.verify("--update")
    return made


def test_equal_files_are_equal_whatever_logs_and_times_say(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    (place.results / "data/logs/pack/code.log").write_text("another log")
    (place.results / RUN).with_name("timing.json").write_text("another time")
    place.verify()
    assert "1 files of data: equal, bit for bit" in capsys.readouterr().err
    place.verify()
    assert "AMD AVX512: 2 files of the run: equal, bit for bit" in capsys.readouterr().err


def test_a_key_of_a_data_folder_may_change(place: Place) -> None:
    folder = (place.results / DATA).parent
    folder.rename(folder.with_name("code-9876543210"))
    place.verify()


def test_other_bits_on_the_same_family_fail_and_are_named_with_the_largest_difference(place: Place) -> None:
    (place.results / RUN).write_bytes(b"other weights")
    place.numbers(loss=2.506, max_share=0.252)
    with pytest.raises(ValueError) as raised:
        place.verify()
    assert "AMD AVX512: runs/arm/seed0/model.safetensors has sha256 " in str(raised.value)
    # a larger share of its tolerance than 0.002 of 0.01
    assert "that of loss: 0.006 of 0.02" in str(raised.value)


def test_another_family_is_held_to_tolerances(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    (place.results / RUN).write_bytes(b"other weights")
    place.processor("Intel(R) Xeon(R) Platinum", "AVX512")
    place.numbers(loss=2.51, max_share=0.258)
    place.verify()
    said = capsys.readouterr().err
    assert "Intel AVX512: digests of this family of processors are not known, only of AMD AVX512" in said
    assert "that of max_share: 0.008 of 0.01" in said
    place.numbers(loss=2.51, max_share=0.27)
    with pytest.raises(ValueError, match=r"max_share is 0\.27, which is not within 0\.01 of 0\.25"):
        place.verify()
    place.numbers(loss=2.51, max_share=None)
    with pytest.raises(ValueError, match="max_share is nan"):
        place.verify()


@pytest.mark.parametrize("family", ["AMD EPYC", "Intel Xeon"])
def test_other_data_fail_on_every_family(place: Place, family: str) -> None:
    place.processor(family, "AVX512")
    (place.results / DATA).write_bytes(b"other tokens")
    with pytest.raises(ValueError, match=r"data: pack/code/blocks\.npy has sha256 "):
        place.verify()


def test_missing_and_unexpected_files_fail(place: Place) -> None:
    (place.results / RUN).rename((place.results / RUN).with_name("weights"))
    with pytest.raises(ValueError, match=r"(?s)model\.safetensors is missing.*seed0/weights is not expected"):
        place.verify()


def test_an_update_adds_a_family_and_keeps_the_others_while_the_data_are_the_same(place: Place) -> None:
    (place.results / RUN).write_bytes(b"other weights")
    place.processor("Intel Xeon", "AVX2")
    place.numbers(loss=2.6, max_share=0.25)
    place.verify("--update")
    content = json.loads(place.digests.read_text())
    assert list(content["families"]) == ["AMD AVX512", "Intel AVX2"]
    assert content["numbers"]["loss"] == {"value": 2.5, "tolerance": 0.02}  # those of the first
    place.verify()
    shutil.rmtree((place.results / DATA).parent)
    (place.results / DATA).parent.mkdir()
    (place.results / DATA).write_bytes(b"other tokens")
    place.verify("--update")
    content = json.loads(place.digests.read_text())
    assert list(content["families"]) == ["Intel AVX2"]
    assert content["numbers"]["loss"] == {"value": 2.6, "tolerance": 0.02}


@pytest.mark.parametrize("text", ["no json", "[]", '{"data": {}}'])
def test_a_file_of_another_kind_is_refused(place: Place, text: str) -> None:
    place.digests.write_text(text)
    with pytest.raises(ValueError, match=r"small\.digests\.json: "):
        place.verify()


def test_names() -> None:
    assert data_name(pathlib.Path("balance/mixture-0a1b2c3d4e/train.npy")) == "balance/mixture/train.npy"
    assert data_name(pathlib.Path("sort/my-text-0a1b2c3d4e/0-of-2/x")) == "sort/my-text/0-of-2/x"
    assert family_of("Intel(R) Xeon(R) CPU", "AVX2") == "Intel AVX2"
    assert family_of("Neoverse-N1", "DEFAULT") == "Neoverse-N1 DEFAULT"
