"""What a run's questions are made of: its haystack, its words and its tokenizer."""

from speciate.evaluation.long_context.answering import check_reader
from speciate.evaluation.long_context.haystack import own_haystack, read_haystack
from speciate.evaluation.long_context.needles import Material
from speciate.evaluation.long_context.words import Speller, read_lexicon
from speciate.evaluation.subject import Subject


def material_of(subject: Subject, text: str | None, num_choices: int) -> Material:
    """Return what questions to this run are made of.

    Args:
        subject: the run.
        text: name in `evaluation.texts` of the haystack; None: the study's own test set.
        num_choices: number of candidates of each answer.

    Raises:
        ValueError: the model cannot answer after a context, or there is no haystack.
    """
    check_reader(subject.run)
    if text is None:
        haystack = own_haystack(subject.test, subject.tokenizer)
    else:
        haystack = read_haystack(subject.texts[text], subject.tokenizer)
    speller = Speller(subject.tokenizer)
    return Material(haystack, read_lexicon(haystack, speller), speller, num_choices)
