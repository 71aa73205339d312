"""Draws gsm_symbolic items out of reasoning-gym's wheel, in a process of its own; one JSON object a line.

`import reasoning_gym` runs every generator of the package. Empty stand-ins for the parent packages let Python find the
one module wanted without running its parents. The items are those of a full installation, byte for byte.
"""

import argparse
import importlib
import json
import sys
from types import ModuleType

PARENT_PACKAGES = ("reasoning_gym", "reasoning_gym.arithmetic", "reasoning_gym.coaching")
MODULE = "reasoning_gym.arithmetic.gsm_symbolic.gsm_symbolic"
INSTRUCTION = " Give the result as your final answer. Do not include units."


def import_generator(wheel: str) -> ModuleType:
    """The gsm_symbolic module inside the wheel file."""
    sys.path.insert(0, wheel)
    for name in PARENT_PACKAGES:
        parent = ModuleType(name)
        parent.__path__ = [f"{wheel}/{name.replace('.', '/')}"]
        sys.modules[name] = parent
    return importlib.import_module(MODULE)


def main() -> None:
    """Writes the items to standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", help="reasoning-gym's wheel, already verified")
    parser.add_argument("--seed", type=int, required=True, help="item i is drawn by Random(seed + i)")
    parser.add_argument("--num-items", type=int, required=True, help="items drawn, the dropped ones included")
    parser.add_argument("--drop", type=int, nargs="*", default=[], help="templates left out")
    parser.add_argument("--instruction", action="store_true", help="keep the sentence that ends every question")
    options = parser.parse_args()
    module = import_generator(options.wheel)
    items = module.GSMSymbolicDataset(module.GSMSymbolicDatasetConfig(seed=options.seed, size=options.num_items))
    for index, template in enumerate(items.task_indices):
        if template in options.drop:
            continue
        item = items[index]
        question = item["question"]
        if not question.endswith(INSTRUCTION):
            raise ValueError(f"item {index} does not end with '{INSTRUCTION.strip()}'")
        if not options.instruction:
            question = question.removesuffix(INSTRUCTION)
        text = f"{question}\n{item['metadata']['answer_cot']}"
        print(json.dumps({"index": index, "template": template, "text": text}))


if __name__ == "__main__":
    main()
