"""Write docs/bad-input.md from the cases; run it in the repository's root, with src on PYTHONPATH."""

from tests.bad_input import page

page.FILE.write_text(page.text(), encoding="utf-8")
