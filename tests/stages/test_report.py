"""Test report and manifest: one offline file that says what the tables say, and shows what failed."""

import hashlib
import html
import html.parser
import json
import pathlib
import re
import subprocess
import urllib.parse

import numpy as np
import pandas as pd
import pytest
from tests.figures import planted, planted_data, planted_tasks

from speciate import cli, machine
from speciate.cli import execute
from speciate.config.run import canonical_json
from speciate.config.stage_specs import Arm, ReportSpec
from speciate.reporting import data_tables, findings, formats, manifest_summary, report_tables
from speciate.stages import manifest

SVG = '<svg xmlns="http://www.w3.org/2000/svg"><text>100 % "drawn" &amp; #1 ’</text></svg>'
BENCHMARK = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def spec(**changes) -> ReportSpec:
    settings = {
        "study": "default",
        "question": "Does it collapse & when?",
        "arms": tuple(Arm(name=arm, about=f"About <{arm}>") for arm in planted.ARMS),
        "seeds": (0, 1),
        "domains": ("code", "math", "prose"),
        "reference": "auxiliary",
        "controls": ("frozen", "hash"),
        "hypotheses": ("collapse", "invisible", "experts_help"),
        "figures": ("another", "lift", "load"),
        "confidence": 0.95,
        "armed_after": 0.1,
        "margin": 0.05,
        "permutations": 999,
        "resamples": 999,
        "config_digest": "c0ffee",
    }
    return ReportSpec(**{**settings, **changes})


@pytest.fixture(scope="module")
def tables():
    return planted.tables()


@pytest.fixture
def study(tables, tmp_path: pathlib.Path) -> pathlib.Path:
    """Make a study's folder, ready for its manifest and report."""
    for folder in ("tables", "figures/narrow", "benchmarks/train/auxiliary", "runs/auxiliary/seed0"):
        (tmp_path / folder).mkdir(parents=True)
    for name, frame in {**tables, **planted_data.tables()}.items():
        frame.to_parquet(tmp_path / "tables" / f"{name}.parquet")
    for name in ("another", "lift", "load"):
        (tmp_path / "figures" / f"{name}.svg").write_text(SVG)
        (tmp_path / "figures" / "narrow" / f"{name}.svg").write_text(SVG.replace("drawn", "narrow"))
        text = {"question": f"Is this {name}?", "caption": f'The caption of "{name}" & more'}
        text |= {"finding": f"This is <{name}>", "limits": f"Not {name} itself."}
        (tmp_path / "figures" / f"{name}.json").write_text(json.dumps(text))
    (tmp_path / "benchmarks/train/auxiliary/seed0.tsv").write_text(
        BENCHMARK + "61.5\t0:01:01\t800.5\t1\t1\t1\t0\t0\t97\t60.2\n"
    )
    (tmp_path / "benchmarks/compare.tsv").write_text(BENCHMARK + "0.4\t0:00:00\tNA\tNA\tNA\tNA\tNA\tNA\tNA\tNA\n")
    versions = {"python": "3.11.7", "torch": "2.13.0+cpu", "cpu": "AVX512"}
    run_json = {"versions": versions, "threads": 2, "processor": "AMD EPYC 9654", "processes": 1, "device": "cpu"}
    (tmp_path / "runs/auxiliary/seed0/run.json").write_text(json.dumps(run_json))
    (tmp_path / "logs/train/auxiliary").mkdir(parents=True)
    line = "speciate train: took 59.0 CPU s and at most 70 MiB on Intel Xeon, 1 thread\n"
    (tmp_path / "logs/train/auxiliary/seed0.log").write_text(line)
    (tmp_path / "build.json").write_text(json.dumps({"torch": {"sha256": "f00d"}}))
    (tmp_path / "spec.json").write_text(canonical_json(spec()))
    return tmp_path


def written(study: pathlib.Path) -> str:
    """Make the report of a study by both stages."""
    common = ["--spec", str(study / "spec.json"), "--tables", str(study / "tables")]
    arguments = [*common, "--runs", str(study / "runs"), "--benchmarks", str(study / "benchmarks")]
    arguments += ["--built", str(study / "build.json"), "--output", str(study / "manifest.json")]
    execute(["manifest", *arguments])
    arguments = [*common, "--figures", str(study / "figures")]
    arguments += ["--manifest", str(study / "manifest.json"), "--output", str(study / "report.html")]
    execute(["report", *arguments])
    return (study / "report.html").read_text()


class Page(html.parser.HTMLParser):
    """Check that tags close in order, and collect ids, links and images."""

    VOID = {"meta", "img", "source", "link", "br", "hr", "!doctype"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.images: list[dict] = []
        self.sources: list[dict] = []
        self.headings: list[str] = []

    def handle_starttag(self, tag, attrs):
        result = dict(attrs)
        self.ids += [result["id"]] if "id" in result else []
        self.links += [result["href"]] if "href" in result else []
        self.images += [result] if tag == "img" else []
        self.sources += [result] if tag == "source" else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


@pytest.fixture
def page(study: pathlib.Path) -> tuple[str, Page]:
    text = written(study)
    parsed = Page()
    parsed.feed(text)
    assert parsed.open == []
    return text, parsed


def test_the_page_is_one_file_without_scripts_or_network(page) -> None:
    text, parsed = page
    assert "<script" not in text
    assert not re.search(r"""(src|href)=["'](?!#|data:|(?:data|explorer)\.html")""", text)
    assert "@import" not in text
    assert "url(" not in text
    assert all(image["src"].startswith("data:image/svg+xml;charset=utf-8,") for image in parsed.images)


def test_contents_lead_somewhere_and_ids_are_unique(page) -> None:
    _, parsed = page
    # the page of the data and the explorer lie next to the report
    assert {link.removeprefix("#") for link in parsed.links} - {"data.html", "explorer.html"} <= set(parsed.ids)
    assert len(set(parsed.ids)) == len(parsed.ids)


def test_sections_come_in_order_and_a_new_figure_gets_its_own(page) -> None:
    _, parsed = page
    assert parsed.headings[:5] == [
        "The answer",
        "What was predicted, and what came out",
        "This is <load>.",
        "This is <lift>.",
        "This is <another>.",
    ]


def test_every_figure_has_a_rendering_for_narrow_screens(page) -> None:
    _, parsed = page
    assert [source["media"] for source in parsed.sources] == ["(max-width: 40rem)"] * 3
    shown = [image["src"] for image in parsed.images], [source["srcset"] for source in parsed.sources]
    for uris, text in zip(shown, (SVG, SVG.replace("drawn", "narrow")), strict=True):
        assert not any(re.search(r"[\s#\"]", uri) for uri in uris)
        (svg,) = {urllib.parse.unquote(uri.partition(",")[2]) for uri in uris}
        # quotes of attributes are single, those of texts are what they were
        assert svg == text.replace('xmlns="http://www.w3.org/2000/svg"', "xmlns='http://www.w3.org/2000/svg'")


def test_a_figure_that_the_study_cannot_fill_is_left_out(study: pathlib.Path) -> None:
    file = study / "figures" / "lift.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "finding": ""}))
    text = written(study)
    assert "Is this lift?" not in text and "Is this load?" in text


def test_tasks_have_a_section_with_their_tables_and_figures(study: pathlib.Path, page) -> None:
    assert "What the models can do" not in page[0]
    for name in ("task_lengths", "task_heat"):
        for folder in ("figures", "figures/narrow"):
            (study / folder / f"{name}.svg").write_text(SVG)
        text = {"question": f"Is this {name}?", "caption": name, "finding": f"This is {name}", "limits": "Nothing."}
        (study / "figures" / f"{name}.json").write_text(json.dumps(text))
    changed = spec(tasks=planted_tasks.TASKS, figures=("task_heat", "another", "lift", "load", "task_lengths"))
    (study / "spec.json").write_text(canonical_json(changed))
    text = written(study)
    parsed = Page()
    parsed.feed(text)
    assert not parsed.open
    section = text[text.index('<section id="tasks">') :]
    section = section[: section.index("</section>")]
    assert 'href="#tasks"' in text
    assert section.index("<h3>needle</h3>") < section.index("<h3>reading</h3>") < section.index("This is task_lengths.")
    assert section.index("This is task_lengths.") < section.index("This is task_heat.")
    assert text.count("This is task_heat.") == 2, "as a heading, and as the text of its picture"
    assert html.escape(f"no score: {planted_tasks.REASON}").replace("&#x27;", "&#39;") in section


def test_the_first_screen_is_the_answers_before_the_contents(page) -> None:
    text, _ = page
    assert text.index("Does it specialise?") < text.index("Does it matter to the loss?") < text.index("<nav")
    assert text.index("studies/own_text.yaml") < text.index("<nav") < text.index('id="hypotheses"')


def test_commands_of_the_first_screen_exist(page) -> None:
    text, _ = page
    root = pathlib.Path(__file__).parents[2]
    assert "cp studies/own_text.yaml studies/mine.yaml" in text
    assert (root / "studies/own_text.yaml").exists()
    assert (root / "docs/own_text.md").exists() and (root / "docs/selectors.md").exists()
    assert (root / "src/speciate/model/moe/router/learned.py").exists()
    assert re.search(r"^study:", (root / "Makefile").read_text(), re.MULTILINE)


def test_light_and_dark_pages_have_the_same_colours_by_name(page) -> None:
    text, _ = page
    light, dark = (set(re.findall(r"--(\w+):", block)) for block in re.findall(r":root \{([^}]*)\}", text)[:2])
    assert light == dark
    assert "prefers-color-scheme: dark" in text and "color-scheme: light dark" in text


def test_alternative_text_is_the_caption_and_text_is_escaped(page) -> None:
    text, parsed = page
    assert [image["alt"] for image in parsed.images] == [
        f'This is <{name}>. The caption of "{name}" & more' for name in ("load", "lift", "another")
    ]
    assert "What it does not show: Not lift itself." in text
    assert "About &lt;dense&gt;" in text
    assert "Does it collapse &amp; when?" in text


def test_refuted_is_shown_as_plainly_as_supported(page) -> None:
    text, _ = page
    for verdict in ("supported", "refuted", "undecided"):
        assert f'<span class="verdict {verdict}">{verdict}</span>' in text


def test_how_it_was_made_is_told(page) -> None:
    text, _ = page
    for described in ("torch 2.13.0+cpu", "sha256 c0ffee", "1 min 2 s", "1 job too short"):
        assert described in text


def test_a_complete_study_has_no_alert_and_a_missing_run_is_shown_at_the_top(study: pathlib.Path) -> None:
    assert 'role="alert"' not in written(study)
    file = study / "tables" / "runs.parquet"
    runs = pd.read_parquet(file)
    runs[~((runs["ablation"] == "bias") & (runs["seed"] == 1))].to_parquet(file)
    text = written(study)
    assert "1 run failed or is missing" in text
    assert text.index("bias, seed 1") < text.index('id="answer"')
    assert "1 of 2" in text


def test_a_hypothesis_without_a_row_is_missing(tables) -> None:
    result = report_tables.hypothesis_rows(tables, spec(hypotheses=("collapse", "forgotten")))
    assert [row["verdict"] for row in result] == ["supported", "missing"]
    assert result[0]["prediction"] == "largest share: unbalanced fast − auxiliary > 0.100"
    assert result[0]["measured"] == "+0.620 [+0.410, +0.830], 95%, 2 seeds"


def parts(tables, settings: ReportSpec) -> dict[str, findings.Finding]:
    return {part.about: part for part in findings.findings(tables, settings)}


def test_the_answer_names_what_collapsed_with_its_intervals(tables) -> None:
    result = parts(tables, spec())
    points = dict(result["What collapsed"].points)
    assert "Our alarm fired in every run of unbalanced fast." in result["What collapsed"].text
    assert "the run’s alarm fired in 2 of 2 runs (step 25)" in points["unbalanced_fast"]
    assert "P(alarm) lies in [34%, 100%]" in points["unbalanced_fast"]
    assert (
        "79.1% [78.1%, 80.1%] of the tokens go to one of the 8 slots of layer 1, where the limit is 50%, and 2.5 are"
        " used in effect (limit 4.0) (seed 0)" in points["unbalanced_fast"]
    )
    assert "auxiliary" not in points
    assert result["What did not collapse"].text.startswith(
        "Auxiliary, bias, frozen, hash and top2: none of their 10 runs collapsed."
    )
    assert "may still be as high as 66%" in result["What did not collapse"].text


def test_the_most_uneven_is_judged_by_its_limit_and_not_by_its_share(tables) -> None:
    # a selector of two slots with .6 is further from its limit than one of eight with .45
    selectors, runs = tables["selectors"].copy(), tables["runs"].copy()
    two = (selectors["ablation"] == "bias") & (selectors["layer"] == 0)
    selectors.loc[two, ["num_slots", "max_share", "max_share_limit", "unevenness"]] = [2, 0.6, 0.794, 0.756]
    eight = (selectors["ablation"] == "hash") & (selectors["layer"] == 0)
    selectors.loc[eight, ["max_share", "max_share_low", "unevenness"]] = [0.45, 0.44, 0.9]
    runs.loc[runs["ablation"] == "bias", ["max_share", "unevenness"]] = [0.6, 0.756]
    runs.loc[runs["ablation"] == "hash", ["max_share", "unevenness"]] = [0.45, 0.9]
    changed = {**tables, "selectors": selectors, "runs": runs}
    text = parts(changed, spec())["What did not collapse"].text
    assert "The most uneven is a run of hash, where 45.0% [44.0%" in text
    rows = {row[0]: row for row in map(list, report_tables.load_tables(changed, spec())[0].rows)}
    assert rows["hash"][2:5] == ["45.0%", rows["hash"][3], "50.0%"]


def test_an_uneven_control_has_not_collapsed(tables) -> None:
    runs = tables["runs"].copy()
    runs.loc[runs["ablation"] == "frozen", ["state", "alarm_step"]] = ["uneven", 25.0]
    result = parts({**tables, "runs": runs}, spec())
    assert "at the end or at the alarm, but not by learning: frozen." in result["What did not collapse"].text
    assert "frozen" not in dict(result["What collapsed"].points)
    assert not dict(result["What it did to the loss"].points)["frozen"].endswith("collapsed.")


def test_the_rules_table_says_how_soon_an_alarm_was_possible(tables) -> None:
    (_, rules, *_) = report_tables.load_tables(tables, spec())
    assert "A total collapse raises it within 2 checks of the training." in rules.note
    assert "No alarm is possible" not in rules.note
    verdicts = tables["verdicts"].copy()
    verdicts.loc[verdicts["ablation"] == "hash", "checks_to_fire"] = np.nan
    (_, rules, *_) = report_tables.load_tables({**tables, "verdicts": verdicts}, spec())
    assert "No alarm is possible in hash: the telemetry probe has too few documents." in rules.note


def test_what_is_said_alike_of_several_seeds_is_said_once() -> None:
    assert findings.group_by_seed([(0, "X"), (1, "Y"), (2, "X"), (3, "X")]) == "X (seeds 0, 2 and 3); Y (seed 1)"


def test_the_answer_counts_controls_and_excess(tables) -> None:
    result = parts(tables, spec())
    assert "frozen 0.035 bits and hash 0.041 bits" in result["What unlearned selectors know"].text
    assert "says nothing about learning" in result["What unlearned selectors know"].text
    chance = parts({**tables, "selectors": tables["selectors"].assign(q_value=1.0)}, spec())
    text = chance["What unlearned selectors know"].text
    assert re.search(r"In none of \d+ selectors does it exceed", text)
    learned = result["What learning added"]
    assert "Not in every seed: unbalanced fast" in learned.text
    assert "frozen" not in dict(learned.points)
    runs = tables["runs"].copy()
    runs.loc[runs["ablation"] == "top2", ["excess_information_bits", "excess_low_bits", "excess_high_bits"]] = np.nan
    described = parts({**tables, "runs": runs}, spec())["What learning added"]
    assert described.text.endswith("No control of this study has selectors like those of top2.")
    assert "top2" not in dict(described.points)


def test_the_answer_says_when_nothing_collapsed_and_nothing_controls(tables) -> None:
    kept = {
        name: frame[~frame["ablation"].isin(("unbalanced", "unbalanced_fast", "auxiliary_fast"))]
        for name, frame in tables.items()
        if "ablation" in frame
    }
    result = parts({**tables, **kept}, spec(controls=()))
    assert result["What collapsed"].text.startswith("No arm collapsed")
    assert "cannot be told" in result["What unlearned selectors know"].text
    assert "What learning added" not in result


def test_the_loss_is_lower_higher_or_undecided(tables) -> None:
    points = dict(parts(tables, spec())["What it did to the loss"].points)
    assert points["top2"].endswith("lower.")
    assert points["hash"].endswith("higher.")
    # its prediction has a margin, and its own verdict beside that of the sign
    assert points["unbalanced_fast"].endswith("not told apart, collapsed; prediction invisible: undecided.")


def test_a_study_of_dense_runs_only_has_an_answer(tables) -> None:
    kept = {name: frame[frame["ablation"] == "dense"] for name, frame in tables.items() if "ablation" in frame}
    dense = {**tables, **kept, "hypotheses": tables["hypotheses"].iloc[:0]}
    settings = spec(arms=(Arm(name="dense", about="d"),), reference="dense", controls=(), hypotheses=())
    assert parts(dense, settings)["What collapsed"].text.startswith("No arm collapsed")
    for behind in report_tables.TABLES_OF_FIGURE.values():
        behind(dense, settings)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (formats.format_number(-0.00001), "0.000"),
        (formats.format_number(-0.5, 2, sign=True), "−0.50"),
        (formats.format_number(float("nan")), "–"),
        (formats.format_number(float("-inf")), "−∞"),
        (formats.format_interval(-1.0, 2.0, 1, sign=True), "[−1.0, +2.0]"),
        (formats.format_p_value(0.00001), "< 0.001"),
        (formats.format_duration(59.94), "59.9 s"),
        (formats.format_duration(3725), "1 h 2 min"),
        (formats.format_bytes(2_500_000), "2.5 MB"),
        (formats.format_count(1234567.0), "1,234,567"),
        (formats.join_names(["a_b", "c", "d"]), "a b, c and d"),
        (formats.join_names([]), "none"),
    ],
)
def test_cells(shown: str, expected: str) -> None:
    assert shown == expected


def test_manifest_holds_digests_and_times(study: pathlib.Path) -> None:
    written(study)
    result = json.loads((study / "manifest.json").read_text())
    file = study / "tables" / "runs.parquet"
    assert result["tables"]["runs.parquet"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert result["config_digest"] == "c0ffee"
    assert result["built"] == {"torch": {"sha256": "f00d"}}
    assert result["environments"] == [
        {
            "versions": {"python": "3.11.7", "torch": "2.13.0+cpu", "cpu": "AVX512"},
            "processor": "AMD EPYC 9654",
            "instructions": "AVX512",
            "threads": 2,
            "processes": 1,
            "device": "cpu",
            "runs": 1,
        }
    ]
    assert result["machines"] == [{"machine": "Intel Xeon, 1 thread", "stages": ["train"]}]
    stages = {stage["stage"]: stage for stage in result["stages"]}
    assert stages["train"]["wall_seconds"] == 61.5
    assert stages["train"]["cpu_seconds"] == 60.2
    assert stages["compare"]["unmeasured"] == 1
    assert {job["name"] for job in result["jobs"]} == {"auxiliary/seed0", ""}


def test_a_job_took_what_its_verb_said_last_or_was_sampled(tmp_path: pathlib.Path) -> None:
    for name, sampled in (("short", "NA\tNA"), ("long", "1.25\t40.0"), ("group", "90.0\t900.0")):
        file = tmp_path / "benchmarks" / "train" / f"{name}.tsv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"s\tcpu_time\tmax_rss\n3.0\t{sampled}\n")
    log = tmp_path / "logs" / "train" / "long.log"
    log.parent.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli.resource, "getrusage", lambda who: cli.resource.struct_rusage((1.0, 0.5, 51200, *[0] * 13)))
        message = cli._resources_used()
    log.write_text(f"train: took 9.0 CPU s and at most 90 MiB\ntrain: {message}\n")
    (tmp_path / "logs" / "train" / "group.log").write_text(f"train: {message}\n")
    jobs = {job["name"]: job for job in manifest_summary.read_benchmarks([tmp_path / "benchmarks"])}
    assert {name: (job["cpu_seconds"], job["max_rss_mib"]) for name, job in jobs.items()} == {
        "short": (None, None),
        "long": (3.0, 50.0),
        "group": (90.0, 900.0),
    }
    assert {name: job["machine"] for name, job in jobs.items()} == {
        "short": None,
        "long": machine.in_words(machine.describe()),
        "group": machine.in_words(machine.describe()),
    }


def test_the_report_names_processor_instructions_and_threads(study: pathlib.Path) -> None:
    page = written(study)
    assert "processor AMD EPYC 9654; instruction set AVX512; 2 threads" in page
    assert "machine of train" in page
    assert "Intel Xeon, 1 thread" in page


def test_runs_on_two_processors_are_two_environments_and_old_ones_name_none(study: pathlib.Path) -> None:
    for run, more in (("auxiliary/seed1", {"processor": "Intel Xeon"}), ("frozen/seed0", {}), ("auxiliary/seed7", {})):
        folder = study / "runs" / run
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"versions": {"torch": "2.13.0+cpu"}, "threads": 1} | more))
    page = written(study)
    environments = json.loads((study / "manifest.json").read_text())["environments"]
    named = {environment["processor"] for environment in environments}
    assert named == {"AMD EPYC 9654", "Intel Xeon", "not recorded"}
    # seed 7 is no run of the study
    assert sum(environment["runs"] for environment in environments) == 3
    assert "processor Intel Xeon; instruction set not recorded; 1 thread" in page


def test_a_file_that_is_no_benchmark_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "x.tsv").write_text("not\ta benchmark\n")
    with pytest.raises(ValueError, match=r"x\.tsv: is not a benchmark"):
        manifest_summary.read_benchmarks([tmp_path])


def test_commit_tells_revision_and_changes(tmp_path: pathlib.Path) -> None:
    assert manifest.read_commit(tmp_path) == {"revision": None, "dirty": None}

    def git(*words: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        return subprocess.run(
            ["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-qm", "one")
    revision = git("rev-parse", "HEAD").strip()
    assert manifest.read_commit(tmp_path) == {"revision": revision, "dirty": False}
    (tmp_path / "a").write_text("2")
    assert manifest.read_commit(tmp_path) == {"revision": revision, "dirty": True}


def test_broken_inputs_are_named(study: pathlib.Path) -> None:
    written(study)
    (study / "figures" / "load.json").write_text("{")
    with pytest.raises(ValueError, match=r"load\.json: cannot be read"):
        written(study)
    (study / "tables" / "collapse.parquet").write_text("no parquet")
    with pytest.raises(ValueError, match=r"collapse\.parquet: cannot be read as a table"):
        written(study)


def test_the_data_are_told_in_short(page) -> None:
    text, parsed = page
    assert "data.html" in parsed.links
    assert "Before balancing, the largest domain has 9.99 times the training tokens of the smallest." in text
    assert "Warning: prose has 0.3 times the tokens of code; every domain is cut to 3000 blocks." in text
    flow = data_tables.flow_table(planted_data.tables())
    labels = [column.label.replace("\N{NO-BREAK SPACE}", " ") for column in flow.columns]
    assert labels[:4] == ["domain", "documents read", "→ kept by filters", "→ without duplicates"]
    # documents: 0.75, 0.05, 0.1 and 0.1 of 96, each rounded down
    assert flow.rows[2][:6] == ["prose", "116", "96", "94", "72", "72"]
    assert flow.rows[2][6:] == ["440,217", "3,439", "6,878", "2.00"]
    (drops,) = data_tables.drop_tables(planted_data.tables())
    assert ["filters", "gopher symbols", "229", "11.00%", "0", "–", "12", "11.00%"] in drops.rows


def test_nothing_is_missing_where_a_number_is(tables) -> None:
    assert formats.is_missing(float(np.nan))
    assert not formats.is_missing(0.0)


def test_an_arm_as_published_is_told_whether_its_predicted_failure_happened(tables) -> None:
    arms = tuple(Arm(name=arm, about="a", published=arm == "unbalanced_fast") for arm in planted.ARMS)
    described = findings.describe_published(tables, spec(arms=arms))
    verdicts = tables["hypotheses"].set_index("arm")["verdict"]
    assert described.text.startswith(f"{len(described.points)} prediction")
    assert {arm for arm, _ in described.points} == {"unbalanced_fast"}
    words = {"supported": "it happened", "refuted": "it did not happen", "undecided": "these runs cannot tell"}
    rows = verdicts.loc[["unbalanced_fast"]]
    for verdict, (_, text) in zip(rows, described.points, strict=True):
        assert words[verdict] in text
    assert findings.describe_published(tables, spec()) is None


def test_bounds_and_leaks_are_marked_and_explained(study) -> None:
    plain = written(study)
    marked = {"frozen": {"bound": True}, "hash": {"leaks": True}}
    arms = tuple(Arm(name=arm, about="a", **marked.get(arm, {})) for arm in planted.ARMS)
    (study / "spec.json").write_text(canonical_json(spec(arms=arms)))
    page = written(study)
    assert "The losses of frozen are upper bounds" in page
    assert "hash: a component looks at later tokens" in page
    assert "loss is a bound" in page
    assert "upper bounds" not in plain
    assert "later tokens" not in plain


def test_measurements_have_a_row_an_arm_and_a_column_a_module(tables) -> None:
    result = {one.title: one for one in report_tables.measurement_tables(tables, spec())}
    assert len(result["first token share"].rows) == len(planted.ARMS)
    assert len(result["first token share"].columns) == 1 + 4
    assert len(result["mask budget"].columns) == 1 + 1


def test_losses_of_another_sort_are_not_compared_with_the_references(tables) -> None:
    arms = tuple(Arm(name=arm, about="a", bound=arm == "bias", leaks=arm == "top2") for arm in planted.ARMS)
    text = findings.describe_losses(tables, spec(arms=arms))
    assert not {"bias", "top2"} & {arm for arm, _ in text.points}
    assert text.after.endswith("a loss that looks ahead: bias and top2.")
    for one in report_tables.comparison_tables(tables, spec(arms=arms)):
        of_loss = one.title.startswith(("Test loss", "Bits"))
        assert ("bias" in {row[0] for row in one.rows}) is not of_loss
    # if the reference's loss is a bound too, only losses that look ahead are left out
    bounds = tuple(arm.model_copy(update={"bound": True}) for arm in arms)
    assert {"bias"} < {arm for arm, _ in findings.describe_losses(tables, spec(arms=bounds)).points}


def test_what_was_not_smooth_and_how_sure_bounds_are_is_told_only_where_there_is_something(tables) -> None:
    quiet = {one.title for one in report_tables.loss_tables(tables, spec())}
    assert not {"Standard errors of the bounds, nats per token", "Training that was not smooth"} & quiet
    runs = tables["runs"].copy()
    frozen = runs["ablation"] == "frozen"
    runs.loc[frozen, "loss_error"] = 0.02 + 0.01 * runs.loc[frozen, "seed"]
    runs.loc[runs["ablation"] == "hash", "spikes"] = 2
    result = {one.title: one for one in report_tables.loss_tables({**tables, "runs": runs}, spec())}
    assert result["Standard errors of the bounds, nats per token"].rows == [
        ["frozen", f"{0.02 + 0.01 * runs['seed'].max():.3f}"]
    ]
    assert result["Training that was not smooth"].rows == [["hash", str(2 * runs["seed"].nunique()), "0"]]


def test_a_table_shows_when_choices_settle(tables) -> None:
    (settled,) = report_tables.TABLES_OF_FIGURE["curves"](tables, spec())
    rows = {(row[0], row[1]): row[2:] for row in settled.rows}
    # planted: kappa is the share of the 250 steps that are done, and checks are every 10 steps, early every 5
    assert rows["auxiliary", "0.ffn.router"] == ["0.100", "0.240", "0.480", "0.720", "10.0%", "0.200"]
    assert rows["frozen", "3.ffn.router"][:4] == ["1.000"] * 4
    assert ("dense", "0.ffn.router") not in rows
    assert report_tables.TABLES_OF_FIGURE["curves"]({**tables, "stability": tables["stability"][:0]}, spec()) == []


def test_tables_show_what_predicts_a_choice_and_what_it_tells(tables) -> None:
    shown = {table.title: table for table in report_tables.TABLES_OF_FIGURE["information"](tables, spec())}
    rows = {(row[0], row[1]): row[2:] for row in shown["What predicts a choice?"].rows}
    assert rows["frozen", "0.ffn.router"] == ["80.0%", "20.0%", "1.0%", "0.2%"]
    assert rows["frozen", "1.ffn.router"][0] == "40.0%"
    rows = {(row[0], row[1]): row[2:] for row in shown["Is the domain told?"].rows}
    assert rows["auxiliary", "2.ffn.router"] == ["79.0%", "50.0%", "81.0%", "+2.0", "[+1.0, +3.0]"]
    assert rows["hash", "2.ffn.router"][2:] == ["79.0%", "0.0", "[−1.0, +1.0]"]
    assert "pieces of 4 tokens" in shown["Is the domain told?"].note


def test_the_answer_says_which_choices_matter(tables) -> None:
    finding = findings.describe_use(tables, spec())
    assert finding is not None
    # 8 arms with 4 layers and 2 seeds; in each, the last layer is idle
    assert "more than 0.050 nats per token in 48 of 64 selectors" in finding.text
    assert "makes no difference of that size in 16" in finding.text
    points = dict(finding.points)
    assert "dense" not in points
    assert points["auxiliary"].endswith("0: 0.400; 1: 0.200; 2: 0.133; 3: 0.010.")
    nothing = {**tables, "effects": tables["effects"][:0]}
    assert findings.describe_use(nothing, spec()) is None
    costs, needs, swapped = report_tables.TABLES_OF_FIGURE["use"](tables, spec())
    row = next(row for row in costs.rows if row[:2] == ["frozen", "0.ffn.router"])
    assert row[2:5] == ["0.400", "[0.380, 0.420]", "0.200"]
    assert row[-2:] == ["2", "0"]
    assert [row[0] for row in needs.rows].count("top2") == 4
    shown = {tuple(row[:3]): row[3:] for row in swapped.rows}
    assert shown["auxiliary", "1.ffn.router", "another seed"] == ["+0.305", "[+0.280, +0.330]"]
    assert shown["auxiliary", "1.ffn.router", "another seed, slots matched"][0] == "+0.105"
    assert shown["hash", "1.ffn.router", "its own at step 0"][0] == "+0.055"
    assert report_tables.TABLES_OF_FIGURE["use"]({**nothing, "swaps": tables["swaps"][:0]}, spec()) == []
    without = {name: frame for name, frame in nothing.items() if name != "swaps"}
    assert report_tables.TABLES_OF_FIGURE["use"](without, spec()) == []
