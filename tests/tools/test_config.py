"""Test that `speciate config` prints a study with everything that it extends, and where each value comes from."""

import pathlib
import re
import subprocess
import sys

import pytest
import yaml

from speciate.cli import execute
from speciate.config.extends import read_yaml
from speciate.config.run import canonical_json
from speciate.config.study import parse_study, read_study

ROOT = pathlib.Path(__file__).parents[2]
STUDIES = [ROOT / "config.yaml", *sorted((ROOT / "studies").glob("*.yaml"))]


def printed(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Return what `speciate config WORDS` prints."""
    execute(["config", *map(str, words)])
    return capsys.readouterr().out


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
@pytest.mark.parametrize("plain", [(), ("--plain",)], ids=["commented", "plain"])
def test_what_is_printed_is_the_same_study(
    file: pathlib.Path, plain: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(capsys, "--study", file, *plain)
    again = parse_study(yaml.safe_load(text), "printed")
    assert canonical_json(again) == canonical_json(read_study(file))
    assert ("# " in text) == (not plain)


def test_each_value_names_the_file_and_the_line_that_set_it_last(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Read three layers of files: attention_slimpajama.yaml over attention.yaml over a part, and a corpus."""
    monkeypatch.chdir(ROOT)
    text = printed(capsys, "--study", "studies/attention_slimpajama.yaml")
    origins = dict(re.findall(r"^ *(\w+): .*# (\S+):\d+$", text, re.MULTILINE))
    assert origins["tied_head"] == "studies/parts/small.yaml"
    assert origins["test_blocks"] == "studies/attention.yaml"
    assert origins["context"] == "studies/attention_slimpajama.yaml"
    assert origins["dataset"] == "studies/corpora/slimpajama.yaml"
    seen = 0
    for key, value, name, line in re.findall(r"^ *(\w+): ([^{\[]*?) *# (\S+):(\d+)$", text, re.MULTILINE):
        source = (ROOT / name).read_text().splitlines()[int(line) - 1]
        # for a text over several lines, this line is where it starts
        if not source.endswith((">-", "|")) and "<<" not in source:
            assert key in source or key == "kind"
            assert str(yaml.safe_load(value)).lower() in source.lower()
            seen += 1
    assert seen > 100


def test_a_component_given_by_its_kind_alone_and_merged_keys_have_their_lines(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    part = {**read_yaml(ROOT / "config.yaml"), "packing": "best_fit"}
    part["analysis"] = {"reference": "auxiliary"}
    (tmp_path / "part.yaml").write_text(yaml.safe_dump(part, sort_keys=False))
    (tmp_path / "middle.yaml").write_text("extends: part.yaml\ntokenizer: {kind: bpe, entries: 512}\n")
    (tmp_path / "study.yaml").write_text(
        "extends: middle.yaml\n"
        "tokenizer:\n"
        "  entries: 300\n"
        "ablations:\n"
        "  frozen:\n"
        "    change:\n"
        "      model: {block: {ffn: &ffn {router: frozen, balance: none}}}\n"
        "  auxiliary:\n"
        "    change: {model: {block: {ffn: {<<: *ffn, top_k: 2}}}}\n"
    )
    text = printed(capsys, "--study", "study.yaml")
    assert re.search(r"kind: bpe +# middle\.yaml:2\n +entries: 300 +# study\.yaml:3\n", text)
    assert len(re.findall(r"router: frozen +# study\.yaml:7\n", text)) == 2
    assert re.search(r"packing: best_fit +# part\.yaml:\d+\n", text)


def test_a_wrong_study_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "study.yaml").write_text(f"extends: {ROOT / 'config.yaml'}\nblok_length: 3\n")
    with pytest.raises(ValueError, match="blok_length: unknown key"):
        execute(["config", "--study", str(tmp_path / "study.yaml")])


def test_it_imports_no_torch() -> None:
    code = (
        "import sys; from speciate.cli import execute; execute(sys.argv[1:]); "
        "raise SystemExit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    command = [sys.executable, "-c", code, "config", "--study", str(ROOT / "config.yaml")]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
