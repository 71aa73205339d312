"""Test that every figure draws studies of all sizes, shows the planted answer, and says what it leaves out."""

import functools
import importlib
import importlib.util
import itertools
import pathlib
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from speciate.analysis.tables import COLUMNS
from speciate.config.components import kinds_in, options_of
from speciate.figures import cost, style

_SPEC = importlib.util.spec_from_file_location("planted", pathlib.Path(__file__).parent / "planted.py")
planted = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(planted)

FIGURES = [name for name in kinds_in("figures") if getattr(options_of("figures", name), "page", "report") == "report"]
ROUTED = [arm for arm in planted.ARMS if arm != "dense"]


@pytest.fixture(scope="module")
def tables():
    return planted.tables()


@pytest.fixture(scope="module")
def standard(tables):
    """Name -> the figure of the whole planted study and its caption, drawn once from the tables in `TABLES` alone."""

    @functools.cache
    def drawn(name: str):
        needed = importlib.import_module(f"speciate.figures.{name}").TABLES
        return draw(name, {table: tables[table][list(columns)] for table, columns in needed.items()})

    return drawn


def draw(name: str, tables, subject=None, **options):
    """Draw the figure; return it and its caption."""
    module = importlib.import_module(f"speciate.figures.{name}")
    subject = subject or planted.subject()
    settings = options_of("figures", name)(kind=name, **options)
    with style.figure_style():
        return module.figure(tables, subject, settings), module.caption(tables, subject, settings)


def test_the_folder_holds_the_figures_that_the_study_needs() -> None:
    assert {"lift", "load", "information", "commitment", "loss_load", "token_types"} <= set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_reads_columns_that_the_analysis_writes(name: str) -> None:
    module = importlib.import_module(f"speciate.figures.{name}")
    for table, columns in module.TABLES.items():
        assert set(columns) <= set(COLUMNS[table])


@pytest.mark.parametrize("name", FIGURES)
def test_the_docstring_asks_the_question(name: str) -> None:
    module = importlib.import_module(f"speciate.figures.{name}")
    assert module.QUESTION.endswith("?")
    first, *_ = module.__doc__.splitlines()
    assert first.startswith("Figure: ") and "?" in first


@pytest.mark.parametrize("name", FIGURES)
def test_one_arm_beside_dense_one_seed_two_domains(name: str) -> None:
    arms, domains = ("dense", "auxiliary"), ("code", "prose")
    small = planted.tables(arms, num_layers=2, domains=domains, seeds=(0,), num_steps=60)
    figure, caption = draw(name, small, planted.subject(arms, domains))
    assert figure.axes
    assert "nan" not in caption
    assert "Not shown" not in caption
    assert "none" not in caption


@pytest.mark.parametrize("width", [style.WIDTH, style.NARROW])
@pytest.mark.parametrize("name", FIGURES)
def test_a_study_with_one_seed_has_room_for_all_axes(name: str, width: float) -> None:
    """Laying out warns, which is an error here, where it gives up and leaves texts over one another."""
    small = planted.tables(("dense", "auxiliary"), num_layers=2, domains=("code", "prose"), seeds=(0,), num_steps=60)
    module = importlib.import_module(f"speciate.figures.{name}")
    with style.figure_style(width):
        figure = module.figure(
            small, planted.subject(("dense", "auxiliary"), ("code", "prose")), options_of("figures", name)(kind=name)
        )
        style.lay_out(figure)


@pytest.mark.parametrize("name", FIGURES)
def test_a_study_without_selectors_is_said_and_not_drawn(name: str) -> None:
    frames = planted.tables(("dense", "auxiliary"), num_layers=1, seeds=(0,), num_steps=60)
    frames = {table: frame[frame["ablation"] == "dense"] for table, frame in frames.items() if "ablation" in frame}
    subject = planted.subject(("dense",))
    figure, caption = draw(name, frames, subject)
    if name in ("lift", "load", "information", "commitment", "token_types"):
        assert "No" in caption
        assert not figure.axes


@pytest.mark.parametrize("name", FIGURES)
def test_many_arms_layers_and_domains_keep_the_page(name: str) -> None:
    arms = (*planted.ARMS, "orthogonal", "sequence_scope", "no_noise")
    domains = ("code", "math", "prose", "law", "medicine", "chat")
    large = planted.tables(arms, num_layers=5, num_experts=16, domains=domains, seeds=(0,), num_steps=20)
    figure, caption = draw(name, large, planted.subject(arms, domains))
    width, height = figure.get_size_inches()
    assert width <= style.WIDTH
    assert height <= 10.6
    if name in ("lift", "token_types"):
        assert "Not shown for lack of room" in caption
        assert "unbalanced fast" not in caption.partition("Not shown")[2] or name == "token_types"
        assert "frozen" not in caption.partition("Not shown")[2]


@pytest.mark.parametrize("name", ["load", "commitment", "loss_load", "token_types"])
def test_no_two_texts_of_a_figure_overlap(name: str, standard) -> None:
    figure, _ = standard(name)
    with style.figure_style():
        figure.draw_without_rendering()
        boxes = [
            text.get_window_extent().shrunk(0.9, 0.7)
            for axes in figure.axes
            for text in (*axes.texts, *axes.get_yticklabels(), axes.title, axes.yaxis.label)
            if text.get_text() and text.get_visible() and axes.axison
        ]
    assert len(boxes) > 8
    pairs = itertools.combinations(boxes, 2)
    assert sum(bool(a.overlaps(b)) for a, b in pairs) == 0


def test_load_shows_the_winner_and_the_alarm(tables, standard) -> None:
    figure, caption = standard("load")
    axes = figure.axes[ROUTED.index("unbalanced_fast") * 4 + 1]
    experts = tables["experts"]
    selected = experts[(experts["ablation"] == "unbalanced_fast") & (experts["layer"] == 1) & (experts["seed"] == 1)]
    selected = selected[(selected["probe"] == "telemetry") & (selected["domain"] == "all") & (selected["step"] == 250)]
    thick = max(axes.lines, key=lambda line: line.get_linewidth())
    # the seed of the most uneven run is drawn, the other is a dot at the end
    assert thick.get_ydata()[-1] == selected["share"].max() > 0.7
    assert [text.get_text() for text in axes.texts] == ["step 25"]
    (dots,) = [line for line in axes.lines if line.get_marker() == "o"]
    seen = tables["selectors"]
    other = seen[(seen["ablation"] == "unbalanced_fast") & (seen["layer"] == 1) & (seen["seed"] == 0)]
    other = other[(other["probe"] == "telemetry") & (other["step"] == 250)]
    assert list(dots.get_ydata()) == list(other["max_share"])
    assert not [line for line in axes.lines if line.get_linestyle() == ":"]
    # the run's alarm has a mark of its own, and both are in the legend
    (run_alarm,) = [line for line in axes.lines if line.get_marker() == "v"]
    assert list(run_alarm.get_xdata()) == [25]
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"the layer’s alarm", "the run’s alarm"} < legend
    assert "a layer’s own alarm first fired in seed 1" in caption
    assert "over all layers, fired in unbalanced (step 60), unbalanced fast (step 25)" in caption


def test_the_layer_that_collapsed_most_is_drawn_though_others_drift_more() -> None:
    tables = planted.tables(num_layers=12)
    selectors = tables["selectors"]
    # layer 5 collapses, and layer 7 has sharper probabilities
    selectors.loc[selectors["layer"] == 5, "unevenness"] = 1.9
    selectors.loc[selectors["layer"] == 7, "drift_nats"] = 9.0
    figure, _ = draw("commitment", tables)
    assert "layer 5" in [axes.get_title() for axes in figure.axes]


@pytest.fixture(scope="module")
def mixed(tables):
    """Return the same tables, but in the arm bias one selector is outside the layers, as an importance is."""
    changed = {}
    for name, frame in tables.items():
        if {"ablation", "selector", "layer"} <= set(frame.columns):
            bias = frame["ablation"] == "bias"
            frame = frame[~bias | (frame["layer"] == 0)].copy()
            frame.loc[bias, ["selector", "layer"]] = ["parts.importance", -1]
        changed[name] = frame
    return changed


@pytest.mark.parametrize("name", ["load", "lift"])
def test_a_selector_beside_the_layers_takes_no_column_of_theirs(name: str, mixed) -> None:
    figure, caption = draw(name, mixed)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == [f"layer {layer}" for layer in range(4)]
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts.count("importance") == 1
    assert "importance" not in caption.partition("Not shown")[2]
    labels = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert name == "lift" or len(labels) == len(ROUTED)


@pytest.mark.parametrize("name", ["loss_load", "curves"])
def test_a_loss_of_another_sort_is_not_drawn_and_said_so(name: str, tables) -> None:
    subject = planted.subject()
    subject.incomparable = ("bias",)
    figure, caption = draw(name, tables, subject)
    texts = [text.get_text() for axes in figure.axes for text in (*axes.texts, *axes.get_yticklabels())]
    assert "bias" not in texts
    assert "top2" in texts
    assert "neither is a loss that looks ahead: bias." in caption


def test_lift_shows_real_above_placebo(standard) -> None:
    figure, caption = standard("lift")
    real, placebo = (figure.axes[index].collections[0].get_array() for index in (0, 4))
    assert np.abs(real - 0.5).max() > 2 * np.abs(placebo - 0.5).max()
    assert "shuffled once" in caption


def test_information_draws_each_seed_and_the_controls(tables, standard) -> None:
    figure, caption = standard("information")
    axes = figure.axes[0]
    assert axes.get_title(loc="left") == "auxiliary"
    selectors = tables["selectors"]
    rows = selectors[(selectors["ablation"] == "auxiliary") & (selectors["probe"] == "telemetry")]
    rows = rows.assign(bits=rows["information_bits"] - rows["null_mean_bits"])
    expected = rows[rows["step"] == 250].groupby("seed")["bits"].mean().tolist()
    drawn = [line.get_ydata()[-1] for line in axes.lines if line.get_color() == style.INK]
    assert np.allclose(drawn, expected)
    assert sum(line.get_color() == style.ACCENT for line in axes.lines) == 2
    assert "frozen 0.035, hash 0.041" in caption


def test_information_without_a_null_says_so(tables) -> None:
    bare = tables["selectors"].copy()
    bare[["null_low_bits", "null_high_bits"]] = np.nan
    _, caption = draw("information", {**tables, "selectors": bare})
    assert "no band" in caption


def test_commitment_bars_add_up(tables, standard) -> None:
    figure, _ = standard("commitment")
    full = tables["selectors"]
    full = full[(full["probe"] == "full") & (full["layer"] == 0)]
    bars = figure.axes[0].patches
    ends = sorted(bar.get_x() + bar.get_width() for bar in bars[1::2])
    assert np.allclose(ends, sorted(full["drift_nats"] + full["information_nats"]))
    states = [text.get_text() for text in figure.axes[-1].texts]
    assert "collapsed 2/2" in states


def test_commitment_of_many_seeds_is_their_mean_and_a_dot_each() -> None:
    many = planted.tables(("dense", "auxiliary"), num_layers=1, num_experts=4, seeds=tuple(range(6)), num_steps=10)
    figure, caption = draw("commitment", many, planted.subject(("dense", "auxiliary")))
    assert len(figure.axes[0].patches) == 2
    (dots,) = figure.axes[0].lines
    full = many["selectors"][many["selectors"]["probe"] == "full"]
    assert sorted(dots.get_xdata()) == pytest.approx(sorted(full["drift_nats"] + full["information_nats"]))
    assert "means over the seeds" in caption


def test_loss_load_marks_every_run_once_and_dense_as_a_line(tables, standard) -> None:
    figure, caption = standard("loss_load")
    left, right = figure.axes
    runs = tables["runs"]
    marks = {
        (float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in left.lines if len(line.get_xdata()) == 1
    }
    routed = runs[runs["num_selectors"] > 0]
    assert marks == set(zip(routed["max_violation"], routed["loss"], strict=True))
    assert any("no selector" in text.get_text() for text in left.texts)
    assert right.get_yticklabels()[0].get_text() == "dense"
    assert "Unbalanced fast has the most uneven load of the arms that learn" in caption


def test_token_types_prefers_reference_and_controls(tables) -> None:
    figure, caption = draw("token_types", tables, max_arms=4)
    assert rows_of(figure) == ["auxiliary", "auxiliary fast", "frozen", "hash"]
    assert "keyword 8%" in caption


def rows_of(figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts if text.get_weight() == "bold"]


def test_token_types_names_an_arm_whose_selectors_have_no_column(tables) -> None:
    types = tables["types"]
    first = types["selector"].min()
    types = types[(types["ablation"] != "hash") | (types["selector"] == first)]
    elsewhere = types["selector"].where(types["ablation"] != "hash", "parts.head1.router")
    layer = types["layer"].where(types["ablation"] != "hash", -1)
    mixed = {**tables, "types": types.assign(selector=elsewhere, layer=layer)}
    figure, _ = draw("token_types", mixed, max_arms=4)
    assert rows_of(figure) == ["auxiliary", "auxiliary fast", "frozen", "hash"]
    assert all(axes.get_title().startswith("layer") for axes in figure.axes if axes.get_title())
    assert "head1.router" in [text.get_text() for axes in figure.axes for text in axes.texts]


def test_curves_are_differences_from_the_reference(tables, standard) -> None:
    figure, caption = standard("curves")
    panel = figure.axes[1]
    curves = tables["curves"]
    at = curves[(curves["step"] == 250) & (curves["series"] == "code")].pivot(
        index="seed", columns="ablation", values="nats"
    )
    expected = (at["hash"] - at["auxiliary"]).mean()
    assert any(np.isclose(line.get_ydata()[-1], expected) for line in panel.lines)
    assert "top2 is lowest (−0.0" in caption


def test_recall_and_the_sink_are_drawn_over_steps_and_depth(tables, standard) -> None:
    figure, caption = standard("sparse")
    course, profile, sink, _ = figure.axes
    assert course.lines[0].get_ydata()[-1] > 0.85 > 0.3 > course.lines[0].get_ydata()[0]
    assert sink.lines[0].get_ydata()[-1] < sink.lines[0].get_ydata()[0]
    assert list(profile.lines[0].get_xdata()) == [0, 1, 2, 3]
    assert "recall of dense attention: from 0.9" in caption


def test_a_budget_that_is_not_kept_is_seen_and_said(standard) -> None:
    figure, caption = standard("mask_budget")
    rate = figure.axes[0]
    kept = {line.get_ydata()[-1] for line in rate.lines[1:]}
    assert min(kept) == pytest.approx(0.1)
    assert max(kept) == 1.0
    assert "unbalanced 0.10" in caption


def test_the_stages_of_the_curriculum_are_drawn_over_the_steps(tables, standard) -> None:
    panel = standard("mask_budget")[0].axes[2]
    rows = tables["measurements"]
    rows = rows[(rows["name"] == "stage") & (rows["probe"] == "telemetry")]
    means = rows.groupby(["ablation", "step"])["value"].mean().unstack()
    assert len(panel.lines) == min(8, len(means))
    for line in panel.lines:
        assert list(line.get_xdata()) == list(means.columns)
        assert any(np.allclose(line.get_ydata(), row) for row in means.to_numpy())


def test_importance_that_does_not_vary_is_said(standard) -> None:
    _, caption = standard("importance_loss")
    assert "unbalanced constant" in caption
    assert "dense r = +0.9" in caption
    figure, text = standard("importance_text")
    assert "Not drawn: unbalanced and unbalanced fast, with the same importance for every token." in text
    titles = [axes.get_title(loc="left") for axes in (*figure.axes, *standard("importance_loss")[0].axes)]
    assert titles and not [title for title in titles if title.startswith("unbalanced")]


def test_an_order_of_unmasking_has_a_panel_a_sampler(standard) -> None:
    figure, caption = standard("unmasking")
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.axison]
    assert titles == ["random order", "semi autoregressive"]
    assert "unmasking" not in caption


def test_the_number_of_keys_is_drawn_by_bin(standard) -> None:
    figure, caption = standard("keys")
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["4", "8", "16", "32"]
    assert "auxiliary 12." in caption


def test_keys_are_drawn_by_the_entropy_of_dense_attention(tables, standard) -> None:
    panel = standard("keys")[0].axes[1]
    rows = tables["measurements"]
    means = rows[rows["name"] == "k_by_entropy"].groupby(["ablation", "at"])["value"].mean().unstack()
    assert len(panel.lines) == min(8, len(means))
    for line in panel.lines:
        assert list(line.get_xdata()) == list(means.columns)
        assert any(np.allclose(line.get_ydata(), row) for row in means.to_numpy())


def test_cost_is_flat_where_it_grows_linearly_and_its_slopes_are_told(standard) -> None:
    figure, caption = standard("cost")
    for panel in (0, 2):
        heights = {len(np.unique(line.get_ydata().round(6))) for line in figure.axes[panel].lines}
        assert heights == {1, 4}
    assert "top2 1.00 and 1.00" in caption
    assert "2.00 and 2.00" in caption


def test_costs_of_an_arm_with_several_mixers_are_lines_of_their_own() -> None:
    rows = pd.DataFrame(
        [
            {"ablation": arm, "mixer": mixer, "layer": layer, "length": length}
            for arm, mixer, layer in (("a", "gsa", 0), ("b", "attention", 0), ("b", "gsa", 1), ("c", "gsa", 0))
            for length in (16, 8)
        ]
        + [{"ablation": "c", "mixer": "gsa", "layer": 2, "length": 8}]
    )
    subject = SimpleNamespace(arms=("b", "a", "c", "not measured"))
    lines = cost.mixers_of_arms(rows, subject)  # type: ignore[arg-type]
    assert {name: part["length"].tolist() for name, part in lines.items()} == {
        "b, attention": [8, 16],
        "b, gsa": [8, 16],
        "a": [8, 16],
        "c, layer 1": [8, 16],
        "c, layer 3": [8],
    }


def test_phase_shows_each_cells_count_and_the_boundary(tables, standard) -> None:
    figure, caption = standard("phase")
    line, grid = figure.axes[0], figure.axes[2]
    counts = {text.get_text() for text in grid.texts}
    swept = tables["sweeps"]
    assert counts == {f"{row.collapsed}/{row.runs}" for row in swept[swept["sweep"] == "grid"].itertuples()}
    (boundary,) = [drawn for drawn in grid.lines if len(drawn.get_xdata()) == 2]
    estimates = tables["critical"]["estimate"].to_numpy(dtype=float)
    # the rows' centres are 0 for the weight 0.1 and 1 for 0.01, as the study file has them
    inside = (np.log10(estimates) >= -2) & (np.log10(estimates) <= -1)
    places = -1 - np.log10(estimates)
    assert np.asarray(boundary.get_ydata())[inside] == pytest.approx(places[inside])
    assert len(line.get_yticklabels()) == len(ROUTED)
    assert "half of the runs collapse" in caption
