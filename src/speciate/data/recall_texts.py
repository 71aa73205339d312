"""Texts of multi-query associative recall (MQAR: Arora et al. 2023, "Zoology", arXiv 2312.04927).

    k1 v1 k2 v2 .. kD vD   then places of two symbols:   k v (a query and its answer)   or   .. (a blank)

The D keys of a text differ; values are drawn with replacement. Each key is asked once, and the text's first part alone
tells the answer. Key i is asked at place g_i, drawn without replacement with p(g) ~ g^(a - 1) or evenly, as in the
paper. Decision: places without a query hold blanks, where the paper has zeros or random symbols. So nothing but the
answers can be learned from what came before, besides the format.

N texts of T symbols, D pairs.
"""

import string

import numpy as np
import numpy.typing as npt

from speciate.data.recall_options import RecallOptions, check_sizes

BLANK = "."
KEYS = string.ascii_lowercase + string.punctuation.replace(BLANK, "")
VALUES = string.ascii_uppercase + string.digits


def draw_texts(
    options: RecallOptions, num_pairs: int, length: int, num_texts: int, *, draw: np.random.Generator
) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Return texts, and the indices of the answers in each of them, ascending, int64 (N, D).

    Args:
        options: the symbols and how queries are placed.
        num_pairs: D, the number of pairs of a text.
        length: T, the number of symbols of a text; an odd one ends with a blank.
        num_texts: N.
        draw: all random numbers come from it.

    Raises:
        ValueError: a text of this length cannot hold the pairs and their queries, or there are too few keys.
    """
    check_sizes(options, num_pairs, length)
    num_places = (length - 2 * num_pairs) // 2
    keys, values = (np.array(list(symbols)) for symbols in (KEYS[: options.num_keys], VALUES[: options.num_values]))
    key_ND = keys[np.argsort(draw.random((num_texts, len(keys))), axis=1)[:, :num_pairs]]
    value_ND = values[draw.integers(len(values), size=(num_texts, num_pairs))]
    log_p_G = np.zeros(num_places)
    if options.gaps == "power_law":
        log_p_G = (options.power - 1) * np.log(np.arange(1, num_places + 1))
    # the largest sums of log p and a Gumbel variate are draws without replacement, in their order
    place_ND = np.argsort(-(log_p_G + draw.gumbel(size=(num_texts, num_places))), axis=1)[:, :num_pairs]
    symbol_NT = np.full((num_texts, length), BLANK)
    symbol_NT[:, : 2 * num_pairs : 2], symbol_NT[:, 1 : 2 * num_pairs : 2] = key_ND, value_ND
    query_ND = 2 * num_pairs + 2 * place_ND
    np.put_along_axis(symbol_NT, query_ND, key_ND, axis=1)
    np.put_along_axis(symbol_NT, query_ND + 1, value_ND, axis=1)
    return ["".join(text) for text in symbol_NT], np.sort(query_ND + 1, axis=1)
