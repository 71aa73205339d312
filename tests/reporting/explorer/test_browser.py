"""Test the explorer in a headless Chromium: every control changes what is shown, and nothing else is asked for."""

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.reporting.browser import Browser
from tests.reporting.explorer import planted

from speciate.reporting.explorer.data import ExplorerData
from speciate.reporting.explorer.write import write_explorer

SHOWN = "[...document.querySelectorAll('.ex-doc')].filter((one) => !one.hidden)"


@pytest.fixture(scope="module")
def data() -> ExplorerData:
    return planted.data()


@pytest.fixture(scope="module")
def file(data: ExplorerData, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    target = tmp_path_factory.mktemp("explorer") / "explorer.html"
    write_explorer(data, target)
    return target


def show(opened: Browser, file: pathlib.Path, *, width: int = 1200, dark: bool = False) -> None:
    """Open an explorer, and wait until its first tokens are there, which are drawn as they come into sight."""
    opened.open(file, width=width, dark=dark)
    opened.wait("document.querySelector('.t')")


@pytest.fixture
def page(opened: Browser, file: pathlib.Path) -> Iterator[Browser]:
    """Provide the page afresh; afterwards nothing was said on the console, and nothing was fetched."""
    show(opened, file)
    yield opened
    assert opened.console == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [file.as_uri()]


def classes(page: Browser, index: int, side: int = 0) -> set[str]:
    return set(
        page.run(f"""document.querySelector('.ex-side[data-side="{side}"] [data-i="{index}"]').className""").split()
    )


def tokens(page: Browser, selector: str) -> set[int]:
    """Return the numbers of the tokens that a selector finds."""
    return set(page.run(f"[...document.querySelectorAll({selector!r})].map((one) => +one.dataset.i)"))


def text(page: Browser, selector: str) -> str:
    return str(page.run(f"document.querySelector({selector!r}).textContent"))


def choose(page: Browser, name: str, value: str) -> None:
    """Choose an option of the control called `name`, as a person does."""
    done = page.run(
        f"""(() => {{ const label = [...document.querySelectorAll('.ex-controls label')].find(
        (one) => one.querySelector('.ex-name')?.textContent === {name!r});
        const control = label.querySelector('select');
        const option = [...control.options].find((one) => one.textContent === {value!r});
        control.value = option.value; control.dispatchEvent(new Event('change')); return true; }})()"""
    )
    assert done


def press(page: Browser, label: str) -> None:
    """Click the button with this aria-label."""
    page.run(f"""document.querySelector('button[aria-label="{label}"]').click()""")


def is_hidden(page: Browser, label: str) -> bool:
    return bool(page.run(f"""document.querySelector('button[aria-label="{label}"]').offsetParent === null"""))


def expected_slot(data: ExplorerData, index: int, *, model: int = 0, layer: int = 0, rank: int = 0) -> int:
    return int(data.models[model].layers[layer].checks[-1].choice_MK[index, rank])


def test_every_token_has_the_colour_of_its_expert(page: Browser, data: ExplorerData) -> None:
    for index in (0, 11, 50, 127):
        assert f"c{expected_slot(data, index)}" in classes(page, index)
    # what is shown is counted over the texts: compare with numpy
    choice = data.models[0].layers[0].checks[-1].choice_MK[:, 0]
    for slot in range(8):
        share = f"{100 * (choice == slot).mean():.0f}%"
        assert text(page, f'.ex-chip[data-slot="{slot}"]') == f"{slot} · {share}"


def test_the_layer_slider_shows_another_layer(page: Browser, data: ExplorerData) -> None:
    press(page, "Layer: on")
    assert "blocks.1.ffn.router" in text(page, ".ex-controls")
    for index in (20, 60):
        assert f"c{expected_slot(data, index, layer=1)}" in classes(page, index)
    press(page, "Layer: back")
    assert f"c{expected_slot(data, 20)}" in classes(page, 20)
    # a slider moves by its arrow keys too
    page.run("document.querySelector('input[aria-label=\"Layer\"]').focus()")
    page.key("ArrowRight")
    assert f"c{expected_slot(data, 20, layer=1)}" in classes(page, 20)


def test_the_rank_shows_the_second_choice_or_all(page: Browser, data: ExplorerData) -> None:
    # with more than one choice, and in no order, all are shown; the planted router has an order
    choose(page, "Choice", "second choice")
    assert f"c{expected_slot(data, 30, rank=1)}" in classes(page, 30)
    choose(page, "Choice", "all 2 choices")
    assert "half" in classes(page, 30)
    background = page.run("""document.querySelector('[data-i="30"]').style.background""")
    assert "linear-gradient" in background


def test_the_step_slider_shows_an_earlier_model(page: Browser, data: ExplorerData) -> None:
    press(page, "Training step: back")
    check = data.models[0].layers[0].checks[1]
    assert check.step == 10 and "Training step: 10" in text(page, ".ex-controls")
    assert f"c{check.choice_MK[30, 0]}" in classes(page, 30)
    # documents that were not observed then are hidden, and the page says so
    shown = page.run(f"{SHOWN}.length")
    assert shown == 3
    assert "3 documents hidden" in text(page, ".ex-summary")


def test_two_runs_side_by_side_are_matched_and_compared(page: Browser, data: ExplorerData) -> None:
    choose(page, "Beside it", "arm, seed 1")
    one, two = (data.models[model].layers[0].checks[-1].choice_MK[:, 0] for model in (0, 1))
    wanted = set(np.flatnonzero(one[:128] != two[:128]).tolist())
    page.run("document.querySelectorAll('.ex-check input')[2].click()")  # without matching: numbers as they are
    differ = tokens(page, '.ex-side[data-side="0"] .t.differ')
    differ = {index for index in differ if index < 128}
    assert differ == wanted
    assert f"The two agree on {100 * (one == two).mean():.0f}%" in text(page, ".ex-summary")
    page.run("document.querySelectorAll('.ex-check input')[2].click()")
    # matched, they agree at least as often
    agree = int(text(page, ".ex-summary").split("agree on ")[1].split("%")[0])
    assert agree >= round(100 * (one == two).mean())
    choose(page, "Beside it", "nothing")
    assert page.run("document.querySelectorAll('.ex-side[data-side=\"1\"]').length") == 0


def test_a_model_beside_itself_at_another_step(page: Browser) -> None:
    choose(page, "Beside it", "arm, seed 0")
    press(page, "Training step, beside it: back")
    assert "step 10" in text(page, ".ex-sides") and "step 20 (finished)" in text(page, ".ex-sides")


def test_the_label_and_a_search_leave_documents_out(page: Browser) -> None:
    choose(page, "Label", "prose")
    names = page.run(f"{SHOWN}.map((one) => one.textContent.slice(0, 5))")
    assert names == ["doc 1", "doc 4"]
    choose(page, "Label", "all labels")
    page.run("document.querySelector('input[type=search]').focus()")
    for letter in "doc 2":
        page.key(letter)
    assert page.run(f"{SHOWN}.length") == 1


def test_numbers_and_patterns(page: Browser, data: ExplorerData) -> None:
    shown = "getComputedStyle(document.querySelector('[data-i=\"30\"]'), '::after').content"
    assert page.run(shown) == "none"
    page.run("document.querySelectorAll('.ex-check input')[0].click()")
    assert page.run(shown) == f'"{expected_slot(data, 30)}"'
    page.run("document.querySelectorAll('.ex-check input')[1].click()")
    third = next(index for index in range(128) if expected_slot(data, index) == 3)
    pattern = f"""getComputedStyle(document.querySelector('[data-i="{third}"]')).backgroundImage"""
    assert "gradient" in page.run(pattern)
    page.run("document.querySelectorAll('.ex-check input')[1].click()")
    assert page.run(pattern) == "none"


def test_a_token_shows_its_experts(page: Browser, data: ExplorerData) -> None:
    page.run("document.querySelector('[data-i=\"30\"]').click()")
    panel = text(page, ".ex-panel")
    first, second = expected_slot(data, 30), expected_slot(data, 30, rank=1)
    assert f"expert {first}" in panel and f"expert {second}" in panel
    weight = data.models[0].layers[0].weight_MK
    assert weight is not None and f"{round(100 * weight[30, 0])}%" in panel
    lift = f"{1 + 0.1 * first:.2f}"
    assert lift in panel and "0.010" in panel and "0.0010" in panel  # lift, q and knock-out
    assert "blocks.1.ffn.router" in panel  # the other layers
    page.key("Escape")
    assert "Click a token" in text(page, ".ex-panel")


def test_an_expert_shows_its_tokens_documents_labels_and_what_is_not_shown(page: Browser, data: ExplorerData) -> None:
    page.run("document.querySelector('.ex-chip[data-slot=\"3\"]').click()")
    panel = text(page, ".ex-panel")
    for part in ("Labels", "Top tokens", "Documents that choose it most", "What is not shown about it"):
        assert part in panel
    assert "Only the largest lifts are here." in panel
    choice = data.models[0].layers[0].checks[-1].choice_MK[:, 0]
    assert f"({(choice == 3).sum()} choices of {len(choice):,})" in panel
    # tokens of other experts turn grey, and those of this one stay coloured
    for index in range(40):
        assert ("away" in classes(page, index)) == (choice[index] != 3)
    # the first top token is the one that chooses it most often: compare with numpy
    chosen, all_of = (
        [int((data.token_P[choice == 3] == token).sum()) for token in range(14)],
        [int((data.token_P == token).sum()) for token in range(14)],
    )
    best = max(range(14), key=lambda token: (chosen[token] + 3 * (choice == 3).mean()) / (all_of[token] + 3))
    row = "document.querySelector('[aria-label=\"Top tokens\"] tbody tr')"
    assert page.run(f"[...{row}.cells].map((cell) => cell.textContent)")[1:3] == [str(chosen[best]), str(all_of[best])]
    page.key("Escape")
    page.run("document.querySelector('.ex-chip[data-slot=\"3\"]').focus()")
    page.key("Enter")
    assert "What is not shown" in text(page, ".ex-panel")
    # the focus stays where it was, so that Enter closes it again
    page.key("Enter")
    assert "What is not shown" not in text(page, ".ex-panel")


def test_the_keyboard_reaches_every_token(page: Browser) -> None:
    page.run("document.querySelector('.t[tabindex=\"0\"]').focus()")
    active = "+document.activeElement.dataset.i"
    assert page.run(active) == 0
    page.key("ArrowRight")
    page.key("ArrowRight")
    assert page.run(active) == 2
    page.key("ArrowLeft")
    assert page.run(active) == 1
    page.key("ArrowDown")
    below = page.run(active)
    assert below > 2
    page.key("ArrowUp")
    assert page.run(active) < below
    page.key("Enter")
    assert "Token" in text(page, ".ex-panel h3")
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.key("Escape")
    assert page.run("document.activeElement.classList.contains('t')")
    assert page.run("document.querySelectorAll('.t[tabindex=\"0\"]').length") == 1
    page.key("]")
    assert "Layer: blocks.1.ffn.router" in text(page, ".ex-controls")


def test_tokens_that_skip_a_block_are_struck(page: Browser, data: ExplorerData) -> None:
    boxes = "[...document.querySelectorAll('.ex-check')].filter((one) => !one.hidden).length"
    assert page.run(boxes) == 2  # numbers and patterns
    choose(page, "Model", "others")
    assert page.run(boxes) == 0
    for index in (20, 21, 22, 23):
        skipped = expected_slot(data, index, model=2) == 0
        assert ("skipped" in classes(page, index)) == skipped
    share = (data.models[2].layers[0].checks[-1].choice_MK == 0).mean()
    assert f"{100 * share:.0f}% of the tokens skip this block" in text(page, ".ex-summary")


def test_the_keys_of_a_token_are_outlined(page: Browser, data: ExplorerData) -> None:
    choose(page, "Model", "others")
    press(page, "Layer: on")
    page.run("document.querySelector('[data-i=\"60\"]').click()")
    keys = data.models[2].layers[1].key_MJ
    assert keys is not None
    outlined = tokens(page, ".t.key")
    # the token itself is outlined as the chosen one
    assert outlined == {60 - int(far) for far in keys[60] if far > 0}
    assert "It attends to 3 keys" in text(page, ".ex-panel")
    # earlier, only ranges of distance are known: the token itself, and two to three tokens back
    press(page, "Training step: back")
    ranges = tokens(page, ".t.range")
    assert ranges == {57, 58}


def test_masks_follow_the_importance(page: Browser, data: ExplorerData) -> None:
    choose(page, "Model", "others")
    press(page, "Layer: on")
    press(page, "Layer: on")
    layer = data.models[2].layers[2]
    for index in (20, 21, 22):
        assert ("masked" in classes(page, index)) == (layer.checks[-1].choice_MK[index, 0] == 1)
    for _ in range(2):
        press(page, "Masked by importance: on")
    masked = {index for index in tokens(page, ".t.masked") if index < 200}
    assert layer.score_M is not None
    order = sorted(range(200), key=lambda index: -layer.score_M[index])
    assert masked == set(order[:20])


def test_the_sampler_lifts_masks_in_its_order(page: Browser, data: ExplorerData) -> None:
    page.run("document.querySelector('.ex-doc:last-child').scrollIntoView()")
    page.wait("document.querySelector('[data-i=\"1199\"]')")
    for _ in range(100):
        press(page, "Masks lifted up to step: back")
    assert data.order_P is not None
    for index in (1100, 1150, 1199):
        assert ("unlifted" in classes(page, index)) == (data.order_P[index] > 99)


def test_a_dense_model_says_that_there_is_nothing_to_show(page: Browser) -> None:
    choose(page, "Model", "dense")
    assert "no selector" in text(page, ".ex-summary")
    assert is_hidden(page, "Layer: on")


def test_hostile_texts_are_shown_and_never_run(page: Browser) -> None:
    assert page.run("document.querySelectorAll('script').length") == 2
    shown = [text(page, f'[data-i="{index}"]') for index in range(len(planted.HOSTILE))]
    assert shown[0] == "</script><script>alert(1)</script>" and shown[1] == "\"'&<b>"
    assert [shown[index] for index in (2, 3, 4)] == ["U+2028", "U+2029", "U+0000"]
    assert shown[5] == "U+202Eabc" and shown[7] == "<!--"
    assert "doc 0 </script>" in text(page, ".ex-doc h4")
    labels = page.run("[...document.querySelectorAll('.ex-controls select')].at(-1).options.length")
    assert labels == 4


@pytest.mark.parametrize(("width", "dark"), [(400, False), (400, True), (1600, False)])
def test_no_width_scrolls_sideways(opened: Browser, file: pathlib.Path, width: int, dark: bool) -> None:
    show(opened, file, width=width, dark=dark)
    opened.run("document.querySelector('[data-i=\"30\"]').click()")
    choose(opened, "Beside it", "arm, seed 1")
    assert opened.run("document.documentElement.scrollWidth") == width
    assert opened.console == []


def test_without_decompression_the_page_says_what_is_missing(opened: Browser, file: pathlib.Path) -> None:
    script: dict[str, Any] = opened.send(
        "Page.addScriptToEvaluateOnNewDocument", source="delete self.DecompressionStream"
    )
    opened.open(file)
    assert "no DecompressionStream" in text(opened, "[role=alert]")
    opened.send("Page.removeScriptToEvaluateOnNewDocument", identifier=script["identifier"])


def test_a_hundred_thousand_tokens_are_shown_a_part_at_a_time(opened: Browser, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "large.html"
    write_explorer(planted.data(num_documents=100, length=1000, num_slots=64), file)
    show(opened, file)
    assert "100,000 tokens of 100 documents" in text(opened, ".ex-summary")
    spans = opened.run("document.querySelectorAll('.t').length")
    assert 0 < spans < 20_000
    # what is far away is put away again, but for the beginning
    opened.run("document.querySelector('.ex-doc:last-child').scrollIntoView()")
    opened.wait("document.querySelector('[data-i=\"99000\"]')")
    assert opened.run("document.querySelector('[data-i=\"0\"]') !== null")
    opened.wait("document.querySelector('[data-i=\"300\"]') === null")
    assert opened.run("document.querySelectorAll('.t').length") < 20_000
    assert opened.console == []
