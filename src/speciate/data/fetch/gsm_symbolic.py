"""Generate gsm_symbolic items with reasoning-gym's wheel, in a separate process, one JSON object a line.

`import reasoning_gym` would run every generator of the package. Empty stand-ins for the parent packages let Python find
the one module without running its parents. The items equal those of a full installation byte for byte.
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
    """Import the gsm_symbolic module out of the wheel file."""
    sys.path.insert(0, wheel)
    for name in PARENT_PACKAGES:
        parent = ModuleType(name)
        parent.__path__ = [f"{wheel}/{name.replace('.', '/')}"]
        sys.modules[name] = parent
    return importlib.import_module(MODULE)


def main() -> None:
    """Write the items to standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", help="reasoning-gym's wheel, already verified")
    parser.add_argument("--seed", type=int, required=True, help="item i is drawn by Random(seed + i)")
    parser.add_argument("--num-items", type=int, required=True, help="items to draw, dropped templates included")
    parser.add_argument("--drop", type=int, nargs="*", default=[], help="templates to leave out")
    parser.add_argument("--instruction", action="store_true", help="keep the sentence that ends every question")
    arguments = parser.parse_args()
    module = import_generator(arguments.wheel)
    dataset = module.GSMSymbolicDataset(module.GSMSymbolicDatasetConfig(seed=arguments.seed, size=arguments.num_items))
    for index, template in enumerate(dataset.task_indices):
        if template in arguments.drop:
            continue
        item = dataset[index]
        question = item["question"]
        if not question.endswith(INSTRUCTION):
            raise ValueError(f"item {index} does not end with '{INSTRUCTION.strip()}'")
        if not arguments.instruction:
            question = question.removesuffix(INSTRUCTION)
        text = f"{question}\n{item['metadata']['answer_cot']}"
        print(json.dumps({"index": index, "template": template, "text": text}))


if __name__ == "__main__":
    main()
