"""Test the data of the four systems' studies on a hub on the loopback that serves their corpora in little."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from tests.data.fetch.sources.hub_server import serve
from tests.systems.stand_in import STUDIES, SYSTEMS, repositories
from tests.workflow.conftest import Workspace
from tokenizers import Tokenizer

from speciate.config.study import read_study
from speciate.data.fetch.passages import read_origin, read_passages

SOURCE = pathlib.Path(__file__).parents[2] / "src"
DRIVER = """
import json, pathlib, sys
from speciate.config.study import read_study
from speciate.data.shard import Shard
for study, domain, name, index, count, output in json.load(sys.stdin):
    source = read_study(pathlib.Path(study)).domains[domain].sources[name]
    source.component().fetch(source, name, pathlib.Path(output), Shard(index, count))
"""
DOCUMENTS = 12


def test_every_source_is_fetched_at_its_pin_from_the_files_that_the_study_names(tmp_path: pathlib.Path) -> None:
    requests = []
    for study in SYSTEMS:
        file = STUDIES / f"{study}.yaml"
        for domain, settings in read_study(file).domains.items():
            for name, source in settings.sources.items():
                shards = 2 if source.sharded else 1
                for index in range(shards):
                    requests.append((str(file), domain, name, index, shards, str(tmp_path / f"{study}-{name}-{index}")))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    with serve(repositories(DOCUMENTS)) as hub:
        environment = {**clean, **hub.environment(tmp_path / "home"), "PYTHONPATH": str(SOURCE)}
        done = subprocess.run(
            [sys.executable, "-c", DRIVER],
            input=json.dumps(requests),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    texts: dict[str, int] = {}
    for *_, name, _index, _shards, output in requests:
        found = list(read_passages(pathlib.Path(output)))
        assert all(len(passage.text) > 100 for passage in found)
        key = pathlib.Path(output).name.rsplit("-", 1)[0]
        texts[key] = texts.get(key, 0) + len(found)
        assert read_origin(pathlib.Path(output))["dataset"].endswith(
            ("clean", "qa", "c4", "627B", "text", "fineweb")
        ), name
    assert texts == {
        "moe_emergence-codeparrot_clean": 2 * DOCUMENTS,
        "moe_emergence-math_qa": 2 * DOCUMENTS,
        "moe_emergence-c4": 2 * DOCUMENTS,
        "gsa_slimpajama-slimpajama": 4 * DOCUMENTS,  # four of six files lie between 100 and 2,999
        "atat_openwebtext-openwebtext": 4 * DOCUMENTS,
        "moe_arch-fineweb": 4 * DOCUMENTS,
        "moe_arch_tenth-fineweb": 4 * DOCUMENTS,
    }


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("study", SYSTEMS)
def test_the_data_stages_make_a_mixture_of_a_studys_own_texts(
    study: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the numbers of held-out blocks and of shards differ from the study: the hub serves little text."""
    workspace = Workspace(tmp_path / "clone")
    domains = read_study(STUDIES / f"{study}.yaml").domains
    shards = ", ".join(f"{name}: {{shards: {min(2, domain.shards)}}}" for name, domain in domains.items())
    (workspace.folder / "studies" / "little.yaml").write_text(
        f"extends: {study}.yaml\nstudy: little\ndomains: {{{shards}}}\n"
        "split: {validation: 0.1, test: 0.1, probe: 0.1}\n"
        "held_out: {validation_blocks: 1, test_blocks: 1, probe_blocks: 1}\n"
        "base: {telemetry: {probe_blocks: 1}}\n"
    )
    repos = repositories(400)
    with serve(repos) as hub:
        for name in [name for name in os.environ if name.startswith("HF_")]:
            monkeypatch.delenv(name)
        for name, value in hub.environment(tmp_path / "home").items():
            monkeypatch.setenv(name, value)
        done = workspace.snakemake("--configfile", "studies/little.yaml", "--cores", "1", "data")
    assert done.returncode == 0, done.stdout
    assert (workspace.folder / "results" / "little" / "data.html").is_file()
    (mixture,) = (workspace.folder / "results" / "data").rglob("mixture.json")
    made = json.loads(mixture.read_text())
    expected = read_study(STUDIES / f"{study}.yaml")
    assert made["domains"] == list(expected.domains)
    assert made["block_length"] == expected.block_length
    assert min(made["train_blocks"].values()) > 2
    of_hub = Tokenizer.from_str(repos["models/Qwen/Qwen2.5-7B"].files["tokenizer.json"].decode()).get_vocab_size()
    assert made["vocabulary"] == (of_hub if study == "gsa_slimpajama" else 50_257)
