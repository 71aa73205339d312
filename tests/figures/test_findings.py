"""Test the figures' titles: they say what the tables say, and nothing where there is nothing to show."""

import importlib
import itertools
import json
import pathlib
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest
from tests.figures import planted, planted_data
from tests.figures.test_style import VISION, contrast, lab, linear

from speciate.config.components import kinds_in, options_of
from speciate.config.run import canonical_json
from speciate.config.stage_specs import DrawSpec
from speciate.config.study import read_study
from speciate.figures import choosing, importance_text, information, lift, load, loss_load, style, svg
from speciate.graph.study_graph import StudyGraph
from speciate.reporting import page
from speciate.stages import draw

ROOT = pathlib.Path(__file__).parents[2]
FIGURES = [name for name in kinds_in("figures") if options_of("figures", name).page == "report"]
ROUTERS = ("lift", "load", "information", "commitment", "token_types", "use", "phase")
"""Figures of selectors, which a study without any cannot fill."""


@pytest.fixture(scope="module")
def tables():
    return planted.tables()


def finding(name: str, tables, subject=None) -> str:
    module = importlib.import_module(f"speciate.figures.{name}")
    return module.finding(tables, subject or planted.subject(), options_of("figures", name)(kind=name))


@pytest.mark.parametrize("name", FIGURES)
def test_a_title_is_one_sentence_with_numbers_and_without_gaps(name: str, tables) -> None:
    text = finding(name, tables)
    assert re.search(r"\d", text) and text[0].isupper() and not text.endswith(".")
    assert not re.search(r"\bnan\b|\binf\b|-\d|_", text)
    limits = importlib.import_module(f"speciate.figures.{name}").LIMITS
    assert limits.endswith(".") and limits[0].isupper()


@pytest.mark.parametrize("name", ROUTERS)
def test_a_study_without_selectors_has_no_title(name: str, tables) -> None:
    dense = {table: frame[frame["ablation"] == "dense"] for table, frame in tables.items() if "ablation" in frame}
    subject = planted.subject(("dense",))
    assert finding(name, {**tables, **dense}, subject) == ""


@pytest.mark.parametrize("name", ["importance_loss", "importance_text", "keys", "mask_budget", "sparse", "unmasking"])
def test_a_study_without_the_component_has_no_title(name: str, tables) -> None:
    empty = {**tables, "details": tables["details"][:0], "measurements": tables["measurements"][:0]}
    assert finding(name, empty) == ""


def test_a_constant_importance_and_a_constant_metric_are_no_panels(tables) -> None:
    details = tables["details"].assign(x=0.5)
    assert finding("importance_loss", {**tables, "details": details}) == ""
    assert finding("importance_text", {**tables, "details": details}) == ""
    measured = importlib.import_module("speciate.figures.measured")
    rows = tables["measurements"].copy()
    # the last digits of a constant differ
    rows.loc[rows["name"] == "k_mean", "value"] = 12.0 + 1e-12 * np.arange((rows["name"] == "k_mean").sum())
    assert "k_mean" not in measured._varying_measurements({"measurements": rows})
    rows.loc[rows["name"] == "stage", "value"] = 1.0
    budget = importlib.import_module("speciate.figures.mask_budget")
    with style.figure_style():
        drawn = budget.figure(
            {"measurements": rows}, planted.subject(), options_of("figures", "mask_budget")(kind="mask_budget")
        )
    assert len(drawn.axes) == 2


def test_the_title_on_the_load_has_the_numbers_of_the_table(tables) -> None:
    full = tables["selectors"]
    full = full[(full["probe"] == "full") & (full["ablation"] == "unbalanced_fast")]
    worst = full.loc[full["unevenness"].idxmax()]
    text = finding("load", tables)
    bounds = f"[{worst['max_share_low']:.1%}, {worst['max_share_high']:.1%}]"
    share = f"{worst['max_share']:.1%} {bounds} of the choices"
    assert f"{share} go to one of 8 experts in unbalanced fast, layer 1" in text
    assert text.startswith("One expert takes over")


def test_slots_that_are_no_experts_are_not_called_experts(tables) -> None:
    indexed = {
        name: frame.assign(selector=frame["selector"].str.replace("ffn.router", "mixer.selector"))
        for name, frame in tables.items()
        if "selector" in frame
    }
    subject, changed = planted.subject(), {**tables, **indexed}
    for name in ("load", "lift"):
        module = importlib.import_module(f"speciate.figures.{name}")
        options = options_of("figures", name)(kind=name)
        said = f"{finding(name, changed)} {module.caption(changed, subject, options)}"
        assert "range of keys" in said and not re.search(r"\bexperts?\b", said)
    # runs whose selectors are of several kinds
    first = changed["selectors"]["ablation"] == "auxiliary"
    mixed = pd.concat([changed["selectors"], tables["selectors"][first.to_numpy()]])
    assert choosing.slot_words_of(mixed, mixed) == ("slot", "slots")
    assert choosing.slot_words_of(tables["selectors"], mixed) == ("expert", "experts")


def two_arms(share: tuple[float, float], unevenness: tuple[float, float]) -> pd.DataFrame:
    """Return finished selectors of two arms: 'two' with two slots, 'eight' with eight."""
    common = {"seed": 0, "layer": 0, "selector": "blocks.0", "step": 9, "noise_floor": 0.1}
    rows = [
        {**common, "ablation": arm, "probe": probe, "num_slots": slots, "max_share": f, "unevenness": u}
        | {"load_state": "even", "max_share_low": np.nan, "max_share_high": np.nan}
        for arm, slots, f, u in zip(("two", "eight"), (2, 8), share, unevenness, strict=True)
        for probe in ("telemetry", "full")
    ]
    return pd.DataFrame(rows)


def test_the_most_uneven_selector_is_not_the_one_with_the_largest_share() -> None:
    # .55 is nearly even for two slots, and .48 is close to the limit of eight
    rows = two_arms((0.55, 0.48), (0.7, 0.97))
    subject = planted.subject(("two", "eight"))
    assert load.worst_rows({"selectors": rows}, subject).iloc[0]["ablation"] == "eight"
    text = finding("load", {"selectors": rows, "verdicts": pd.DataFrame()}, subject)
    assert "(eight, layer 0, seed 0), 48.0% of the choices go to one of 8 experts" in text


def test_the_most_uneven_arm_is_one_that_learns_and_is_judged_by_unevenness(tables) -> None:
    runs = tables["runs"].copy()
    runs.loc[runs["ablation"] == "frozen", "unevenness"] = 99.0
    runs.loc[runs["ablation"] == "bias", ["unevenness", "max_violation"]] = [50.0, 0.01]
    changed = {**tables, "runs": runs}
    assert loss_load.most_uneven_arm(changed, planted.subject()) == "bias"
    row = tables["comparisons"].set_index(["statistic", "ablation"]).loc[("loss", "bias")]
    signed = [style.format_signed(row[name]) for name in ("difference", "low", "high")]
    assert f"ends {signed[0]} [{signed[1]}, {signed[2]}] nats from auxiliary" in finding("loss_load", changed)


def test_the_layers_that_collapsed_most_are_drawn() -> None:
    full = planted.tables(num_layers=12)["selectors"]
    full = full[full["probe"] == "full"].copy()
    names = choosing.selector_names(full)
    full["unevenness"] = 0.5
    for layer in (3, 5, 8):
        full.loc[(full["layer"] == layer) & (full["ablation"] == "unbalanced"), "unevenness"] = 2.0 + layer
    # a control is more uneven still, in other layers
    full.loc[(full["layer"] == 10) & (full["ablation"] == "frozen"), "unevenness"] = 99.0
    kept = choosing.most_uneven(full, list(names), 3, planted.subject())
    assert [names[path] for path in kept] == ["layer 3", "layer 5", "layer 8"]


def test_information_in_the_title_is_that_of_the_tables(tables) -> None:
    full = tables["selectors"]
    full = full[(full["probe"] == "full") & (full["ablation"] == "auxiliary")]
    bits = (full["information_bits"] - full["null_mean_bits"]).mean()
    runs = tables["runs"].set_index("ablation")["information_bits"]
    assert bits == pytest.approx(runs["auxiliary"].mean())
    assert f"Auxiliary’s choices tell {bits:.3f} bits of the domain" in finding("information", tables)
    runs = tables["runs"].copy()
    runs.loc[runs["ablation"] == "auxiliary", "excess_information_bits"] = [-0.1, -0.12]
    text = finding("information", {**tables, "runs": runs})
    # two seeds: t = 12.71, and the standard error of the mean is 0.01
    assert ", 0.110 [−0.017, 0.237] less than routers that never learned, and are worth 0.186 nats per token" in text


def test_a_control_is_drawn_only_beside_selectors_that_it_controls(tables) -> None:
    selectors = tables["selectors"].copy()
    # figures call the indexer of a layer like its router: the paths are the same, and no control has an indexer
    selectors.loc[selectors["ablation"] == "bias", "excess_information_bits"] = np.nan
    changed = {"selectors": selectors}
    subject = planted.subject()
    seen = information._telemetry_rows(changed)
    assert information._rows_of_controls(changed, seen, "bias", subject).empty
    assert set(information._rows_of_controls(changed, seen, "auxiliary", subject)["ablation"]) == {"frozen", "hash"}
    assert set(information._rows_of_controls(changed, seen, "frozen", subject)["ablation"]) == {"hash"}
    with style.figure_style():
        figure = information.figure(changed, subject, options_of("figures", "information")(kind="information"))
    dashed = {
        axes.get_title(loc="left"): sum(line.get_color() == style.ACCENT for line in axes.lines) for axes in figure.axes
    }
    assert dashed["bias"] == 0 and dashed["auxiliary"] == 2


def lift_cell(lifts: dict[str, list[float]], placebo: float, shares: list[float], num_seeds: int = 3) -> pd.DataFrame:
    """Return the rows of one selector: `lifts` in every seed, shuffled lifts between 1 / placebo and placebo."""
    rows = []
    for seed in range(num_seeds):
        rows += [
            {"seed": seed, "domain": "all", "slot": slot, "share": share, "lift": 1.0, "placebo_lift": 1.0}
            for slot, share in enumerate(shares)
        ]
        for domain, values in lifts.items():
            for slot, value in enumerate(values):
                shuffled = placebo if (seed + slot) % 2 else 1 / placebo
                row = {"seed": seed, "domain": domain, "slot": slot, "share": value * shares[slot], "lift": value}
                rows.append({**row, "placebo_lift": shuffled})
    return pd.DataFrame(rows)


def test_marked_cells_are_beyond_every_shuffled_one() -> None:
    cell = lift_cell({"a": [1.6, 0.9, 3.0], "b": [0.4, 1.1, 0.1]}, 1.25, [0.5, 0.495, 0.005])
    # the third expert has so few choices that its lifts are of any size
    assert lift.significant_cells(cell, 0) == {("a", 0), ("b", 0)}
    assert lift.significant_cells(lift_cell({"a": [1.2], "b": [0.9]}, 1.25, [1.0]), 0) == set()


def test_marked_cells_have_dots_and_those_of_chance_have_none(tables) -> None:
    with style.figure_style():
        figure = lift.figure(tables, planted.subject(), options_of("figures", "lift")(kind="lift"))
    real, placebo = figure.axes[0], figure.axes[4]
    full = tables["experts"]
    full = full[(full["probe"] == "full") & (full["layer"] == 0)]
    first = next(arm for arm in planted.ARMS if arm in {text.get_text().replace(" ", "_") for text in real.texts})
    assert (
        sum(np.isnan(line.get_xdata()).sum() for line in real.lines)
        == len(lift.significant_cells(full[full["ablation"] == first], 0))
        > 0
    )
    assert not placebo.lines


@pytest.mark.parametrize(
    ("texts", "most", "expected"),
    [
        (["tion", " of", " a", " wo", "rd"], 99, (1, 3)),
        (["tion", " of", " a", " word", " cut"], 10, (1, 4)),
        (["one", " two"], 99, (1, 2)),
        (["漢", "字", "文"], 2, (0, 2)),
        (["\n", "  ", " x", " y"], 99, (2, 3)),
    ],
)
def test_a_text_begins_and_ends_with_whole_words(texts: list[str], most: int, expected: tuple[int, int]) -> None:
    assert importance_text.whole_words(texts, most) == expected


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, tables) -> pathlib.Path:
    """Draw every figure of a whole study with the stage itself."""
    folder = tmp_path_factory.mktemp("drawn")
    for name, frame in {**tables, **planted_data.tables()}.items():
        frame.to_parquet(folder / f"{name}.parquet")
    subject = planted.subject()
    common = {"arms": subject.arms, "domains": subject.domains, "reference": subject.reference, "margin": 0.05}
    for name in kinds_in("figures"):
        options = options_of("figures", name)(kind=name)
        spec = DrawSpec(figure=options, **common, controls=subject.controls, fixed=subject.fixed)
        file = folder / f"{name}.spec.json"
        file.write_text(canonical_json(spec))
        draw.main(_arguments(file, folder))
    return folder


def _arguments(spec: pathlib.Path, folder: pathlib.Path):
    import argparse

    return argparse.Namespace(spec=spec, tables=folder, output_folder=folder / "figures")


@pytest.mark.parametrize("name", kinds_in("figures"))
def test_a_figure_is_drawn_for_wide_for_narrow_and_for_dark_pages(name: str, drawn: pathlib.Path) -> None:
    wide, narrow = (drawn / "figures" / file for file in (f"{name}.svg", f"narrow/{name}.svg"))
    roots = [ElementTree.parse(file).getroot() for file in (wide, narrow)]
    widths = [float(root.get("width").removesuffix("pt")) / 72 for root in roots]
    assert widths[1] <= style.NARROW + 0.01 < widths[0] + 0.02
    for file in (wide, narrow):
        text = file.read_text()
        dark = text.partition("prefers-color-scheme: dark")[2].partition("</style>")[0]
        assert f"fill:{svg.DARK_PAPER.lower()}" in dark
        # no text is left dark on a dark page
        ink = re.findall(r"\.(s\d+)\{[^}]*fill: " + style.INK.lower(), text.partition("@media")[0])
        assert ink and all(f".{name}{{" in dark for name in ink)
    named = json.loads((drawn / "figures" / f"{name}.json").read_text())
    assert set(named) == {"question", "finding", "caption", "limits"} and named["finding"]
    assert (drawn / "figures" / f"{name}.png").stat().st_size > 1000


@pytest.mark.parametrize("study", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_figures_of_each_study_leave_its_page_below_a_megabyte_and_a_half(
    study: pathlib.Path, drawn: pathlib.Path
) -> None:
    names = StudyGraph(read_study(study), pathlib.Path("results")).figures()
    sections = [page.read_section(drawn / "figures", name) for name in names]
    # tables and texts take 200 kB
    assert sum(len((part.picture + part.narrow_picture).encode()) for part in sections) < 1_300_000


def test_shortened_pictures_draw_the_same() -> None:
    path = '<path d="M 10.123456 20.1 \nL -3.000001 4 \nL 5 4 L 9 4 L 2 4 L 2 8 \nz"'
    path += ' clip-path="url(#a)" style="fill: #1a1a1a"/>'
    source = f'<svg xmlns="x"><g id="b"><g id="a">{path}</g></g><g id="empty"/><text x="1.23456">0.123456</text></svg>'
    short = svg.prepare(source)
    # lines along an axis are one coordinate, and a line that goes on replaces the last; one that returns does not
    assert 'd="M10.1 20.1L-3 4H9H2V8z"' in short
    closed = svg.prepare(source.replace(path, '<path d="M 2 8 L 4 8 L 4 9 L 2 9 L 2 8" style="fill: #1a1a1a"/>'))
    assert 'd="M2 8H4V9H2z"' in closed
    assert short.count("id=") == 1 and 'id="i0"' in short and "url(#i0)" in short and "empty" not in short
    assert ">0.123456<" in short and 'x="1.2"' in short
    assert ".s0{fill: #1a1a1a}" in short and ".s0{fill:#eceae6}" in short


def test_colours_stand_out_from_a_dark_page_and_from_one_another() -> None:
    paper = svg.DARK_PAPER
    against = {light: contrast(paper) / contrast(dark) for light, dark in svg.DARK.items() if light != style.PAPER}
    assert all(against[light] >= 4.5 for light in (style.INK, style.QUIET, style.ACCENT, *style.COLOURS))
    for vision in VISION.values():
        seen = [lab(vision @ linear(svg.DARK[colour])) for colour in (*style.COLOURS, style.INK)]
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 20
