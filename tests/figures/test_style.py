"""Test the style: colours that everyone can tell apart, labels that do not overlap, and stated choices."""

import importlib.util
import itertools
import pathlib

import matplotlib
import numpy as np
import pytest

from speciate.figures import choosing, mosaic, style

_SPEC = importlib.util.spec_from_file_location("planted", pathlib.Path(__file__).parent / "planted.py")
planted = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(planted)

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB
VISION = {
    "normal": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def linear(colour) -> np.ndarray:
    value = np.array(matplotlib.colors.to_rgb(colour))
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """Convert linear RGB to CIE L*a*b*, D65."""
    xyz = TO_XYZ @ np.clip(rgb, 0, 1) / np.array([0.95047, 1, 1.08883])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(colour) -> float:
    """Return the WCAG contrast with white."""
    return 1.05 / ((TO_XYZ @ linear(colour))[1] + 0.05)


@pytest.mark.parametrize("vision", VISION)
def test_every_pair_of_categories_is_told_apart(vision: str) -> None:
    seen = [lab(VISION[vision] @ linear(colour)) for colour in (*style.COLOURS, style.INK)]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 20


def test_lines_and_text_stand_out_from_white() -> None:
    assert all(contrast(colour) >= 3 for colour in (*style.COLOURS, style.ACCENT))
    assert all(contrast(colour) >= 4.5 for colour in (style.INK, style.QUIET, style.ACCENT))


def test_lift_only_gets_darker_so_that_a_grey_print_reads() -> None:
    lightness = [lab(linear(mosaic.LIFT(value)))[0] for value in np.linspace(0, 1, 40)]
    assert np.all(np.diff(lightness) <= 0.3)
    assert lightness[0] - lightness[-1] > 60


def test_shade_puts_lift_1_in_the_middle_and_4_at_the_end() -> None:
    assert np.allclose(mosaic.lift_shade(np.array([0.0, 0.25, 0.5, 1, 2, 4, 90])), [0, 0, 0.25, 0.5, 0.75, 1, 1])


def test_apart_keeps_the_order_and_the_gap() -> None:
    assert style.spread_apart([0.0, 5.0], 1.0) == [0.0, 5.0]
    moved = style.spread_apart([2.0, 2.0, 1.9, 0.0], 0.5, lowest=0.1)
    assert np.all(np.diff(np.sort(moved)) >= 0.5 - 1e-6)
    assert moved[3] < moved[2] < moved[0] < moved[1]
    assert min(moved) >= 0.1


def test_telling_keeps_ends_and_the_heaviest() -> None:
    names = [f"layer {layer}" for layer in range(12)]
    assert choosing.choose_names(names, 4, {"layer 7": 1.0}) == ["layer 0", "layer 4", "layer 7", "layer 11"]
    assert choosing.choose_names(names[:3], 4, {}) == names[:3]


def test_telling_arms_keeps_reference_controls_and_the_heaviest() -> None:
    subject = planted.subject()
    kept = choosing.choose_arms(planted.ARMS, 4, {"unbalanced_fast": 9.0, "bias": 1.0}, subject)
    assert kept == ["auxiliary", "unbalanced_fast", "frozen", "hash"]


def test_left_out_names_what_is_not_shown() -> None:
    layers = ["layer 0", "layer 1", "layer 2"]
    message = choosing.note_left_out((["a_b", "c"], ["c"]), (layers, ["layer 1"]))
    assert message == " Not shown for lack of room: a b; layers 0 and 2."
    assert choosing.note_left_out((layers, layers)) == ""


def test_controls_are_grey_and_the_reference_is_ink() -> None:
    colours = style.colours(planted.subject())
    assert colours["auxiliary"] == style.INK
    assert colours["frozen"] == colours["hash"] == style.QUIET
    learned = [colours[arm] for arm in planted.ARMS if arm not in ("auxiliary", "frozen", "hash")]
    assert len(set(learned)) == len(learned) == 6


def test_selectors_are_named_by_layer_unless_a_layer_has_two() -> None:
    frame = planted.tables(arms=("auxiliary",), num_layers=2, seeds=(0,), num_steps=20)["selectors"]
    assert list(choosing.selector_names(frame).values()) == ["layer 0", "layer 1"]
    both = frame.assign(layer=0)
    assert list(choosing.selector_names(both).values()) == ["0.ffn.router", "1.ffn.router"]


def test_mosaic_columns_are_as_wide_as_their_shares() -> None:
    axes = style.new_figure(1).add_subplot()
    mesh = mosaic.draw_mosaic(axes, np.array([[2.0, 0.5, 1.0], [0.0, 1.5, 1.0]]), np.array([0.2, 0.5, 0.3]))
    edges = mesh.get_coordinates()[0, :, 0]
    # sorted by the row that lifts a column most, then by how much it does: expert 0, expert 2, expert 1
    assert np.allclose(np.diff(edges), [0.2, 0.3, 0.5])
    assert np.allclose(mesh.get_array()[0], mosaic.lift_shade([2.0, 1.0, 0.5]))


def test_mosaic_takes_dead_experts_and_no_lift() -> None:
    axes = style.new_figure(1).add_subplot()
    mosaic.draw_mosaic(axes, np.full((2, 3), np.nan), np.array([1.0, 0.0, 0.0]))
    assert axes.get_xlim() == (0, 1)


def test_drawing_leaves_the_users_settings_alone() -> None:
    with matplotlib.rc_context({"font.size": 31}):
        with style.figure_style():
            assert matplotlib.rcParams["font.size"] == style.RC["font.size"]
        assert matplotlib.rcParams["font.size"] == 31


def test_a_row_shows_its_columns_selectors_and_others_in_the_places_left() -> None:
    columns = ["blocks.0", "blocks.1", "blocks.2"]
    assert choosing.selectors_of_columns(columns, columns) == columns
    assert choosing.selectors_of_columns(["blocks.1"], columns) == [None, "blocks.1", None]
    assert choosing.selectors_of_columns(["parts.importance"], columns) == ["parts.importance", None, None]
    assert choosing.selectors_of_columns(["blocks.1", "parts.importance"], columns) == [
        "parts.importance",
        "blocks.1",
        None,
    ]
    # with more selectors than places: the first, the last and one between them
    many = [f"blocks.{layer}.{part}" for layer in range(3) for part in ("depth", "ffn", "mixer")]
    assert choosing.selectors_of_columns(many, columns) == ["blocks.0.depth", "blocks.1.ffn", "blocks.2.mixer"]


def test_columns_are_layers_where_any_selector_is_a_layers_only_one() -> None:
    assert choosing.column_selectors(
        {"blocks.0": "layer 0", "blocks.1.ffn": "1.ffn", "parts.importance": "importance"}
    ) == ["blocks.0"]
    assert choosing.column_selectors({"parts.importance": "importance"}) == ["parts.importance"]
