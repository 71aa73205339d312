"""Load exported folders in a process that cannot import the package; the tests run this file with `python -I`.

It reads token ids, (B, T), and a dict of settings of `generate`; it writes what each folder gives, by its path.
"""

import importlib.util
import pathlib
import sys
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

TEXT = "the cat sat on the mat"


def results(folder: str, token_BT: torch.Tensor, settings: dict[str, Any]) -> dict[str, Any]:
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
    found: dict[str, Any] = {"config": type(config).__name__, "class": type(model).__name__}
    found["module"] = type(model).__module__
    with torch.no_grad():
        found["logits"] = model(token_BT).logits
    found["generated"] = model.generate(token_BT, **settings)
    if (pathlib.Path(folder) / "tokenizer.json").exists():
        found["ids"] = AutoTokenizer.from_pretrained(folder)(TEXT)["input_ids"]
    return found


def main(inputs: str, output: str, *folders: str) -> None:
    assert importlib.util.find_spec("speciate") is None, "the package can be imported here"
    torch.set_num_threads(1)
    token_BT, settings = torch.load(inputs)
    torch.save({folder: results(folder, token_BT, settings) for folder in folders}, output)
    assert not [name for name in sys.modules if name.split(".")[0] == "speciate"]


if __name__ == "__main__":
    main(*sys.argv[1:])
