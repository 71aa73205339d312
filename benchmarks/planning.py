"""Measure what planning a study of many runs costs over bare Snakemake with as many trivial jobs, in CPU time.

    python benchmarks/planning.py                 # 1,000 runs
    python benchmarks/planning.py --runs 10000    # 100 arms x 100 seeds: 40,000 jobs

Bars: 4 for the plan of a whole study (a dry run) over a Snakefile with one job after another for each of the four that
a run has: those have one file each, a run has 25, and each file costs Snakemake time. A job of a cluster plans its own
training: 2 CPU seconds more than a Snakefile of one rule. The plan of 10,000 runs is to take less than 60 CPU seconds
and must fit into 2 GiB.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from speciate.config.extends import read_yaml
from speciate.config.study import parse_study
from speciate.graph.frozen import read_tree
from speciate.graph.study_graph import StudyGraph

ROOT = pathlib.Path(__file__).parents[1]
BARE = """
rule all:
    input: expand("d/{{i}}.txt", i=range({runs}))
rule a:
    output: "a/{{i}}.txt"
    shell: "touch {{output}}"
rule b:
    input: "a/{{i}}.txt"
    output: "b/{{i}}.txt"
    shell: "touch {{output}}"
rule c:
    input: "b/{{i}}.txt"
    output: "c/{{i}}.txt"
    shell: "touch {{output}}"
rule d:
    input: "c/{{i}}.txt"
    output: "d/{{i}}.txt"
    shell: "touch {{output}}"
"""


def settings(num_runs: int) -> dict[str, object]:
    """Return a study of `num_runs` runs: the smoke study's dense arm, with other learning rates and seeds."""
    num_seeds = max(1, round(num_runs**0.5))
    study = read_yaml(ROOT / "studies/smoke.yaml")
    study.pop("evaluation")  # a task would be one more job for each run
    change = study["ablations"]["dense"]["change"]
    study["ablations"] = {
        f"arm_{arm}": {"about": f"arm {arm}", "change": {**change, "optimizer": {"lr": 0.001 * (arm + 1)}}}
        for arm in range(round(num_runs / num_seeds))
    }
    study |= {"study": "many", "seeds": list(range(num_seeds)), "hypotheses": {}}
    study["analysis"] |= {"reference": "arm_0", "controls": []}
    return study


def snakemake(folder: pathlib.Path, *arguments: str) -> tuple[float, float]:
    """Run Snakemake in `folder`, planning only; return its CPU seconds and its largest memory in MiB."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(ROOT / ".envs/host/bin/snakemake"), "--dry-run", "--cores", "1", *arguments]
    with (folder / "said.txt").open("w") as said:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"planning: error: {' '.join(command)} failed:\n{(folder / 'said.txt').read_text()[-2000:]}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def show(title: str, ours: tuple[float, float], bare: tuple[float, float], bar: float) -> None:
    """Print one JSON line as benchmarks/run.py expects it."""
    line = {
        "benchmark": title,
        "cpu_ms": {"speciate": round(1000 * ours[0], 1), "bare Snakemake": round(1000 * bare[0], 1)},
        "mib": {"speciate": round(ours[1], 1), "limit": 2048.0},
        "ours": "speciate",
        "ours_over": {
            "bare Snakemake": {"ratio": round(ours[0] / bare[0], 3), "bar": round(bar, 3)},
            "2 GiB": {"of": "mib", "peer": "limit", "ratio": round(ours[1] / 2048, 3), "bar": 1.0},
        },
    }
    print(json.dumps(line), flush=True)


def main() -> None:
    """Plan a study and one of its jobs, and the same in bare Snakemake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="runs of the study")
    num_runs = parser.parse_args().runs
    study = settings(num_runs)
    with tempfile.TemporaryDirectory() as top:
        folder = pathlib.Path(top)
        (folder / "many.yaml").write_text(json.dumps(study))
        (folder / "Snakefile").write_text(BARE.format(runs=num_runs))
        (folder / "One").write_text(BARE.format(runs=1))
        whole = ("--snakefile", str(ROOT / "Snakefile"), "--configfile", "many.yaml", "--workflow-profile", "none")
        show(f"plan of {num_runs} runs", snakemake(folder, *whole), snakemake(folder), 4.0)

        graph = StudyGraph(parse_study(study, "many.yaml"), folder / "results")
        mixture = graph.folder("balance", "mixture") / "mixture.json"
        mixture.parent.mkdir(parents=True)
        mixture.touch()
        tree = read_tree(ROOT, study).write(folder / "results/source").relative_to(folder)
        step = ("--target-jobs", "train:ablation=arm_1,seed=1", "--allowed-rules", "train", "--force", "--nolock")
        step += ("--no-hooks", "--ignore-incomplete", "--mode", "remote", "--config", f"frozen_tree={tree}")
        ours = snakemake(folder, *whole[:2], *whole[4:], *step)
        bare = snakemake(folder, "--snakefile", "One", "--workflow-profile", "none")
        show(f"plan of one job of {num_runs} runs", ours, bare, (bare[0] + 2) / bare[0])


if __name__ == "__main__":
    main()
