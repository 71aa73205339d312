"""A finished run as a model of EleutherAI's lm-evaluation-harness.

The harness (version 0.4) loads no plugins: it knows its own models, and those that are registered before its command
line starts. So a program registers this one and hands over:

    python -m speciate.evaluation.downstream.lm_eval_model --model speciate --model_args run=RUN_FOLDER --tasks ...

`speciate-lm-eval` is the same where the package is installed. All other options are the harness's, its cache of answers
(`--use_cache`) among them. The same numbers come from its model `hf` on the folder that `speciate export` writes.

A masked-diffusion model has no likelihood, only a bound: the mean of -log p over all orders of predicting the answer's
tokens after the visible context (training/diffusion/mdlm.py), estimated by fixed masks that the tokens decide. Its
answer counts as greedy if each of its words is the likeliest one while the whole answer is masked.

B rows of T tokens, V vocabulary, N scored tokens.
"""

import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from lm_eval import utils
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from tokenizers import Tokenizer
from torch import Tensor

from speciate.cli import log
from speciate.config.components import options_within
from speciate.config.run import RunSpec
from speciate.data.tokens.manifest import read_manifest
from speciate.evaluation.downstream.completion import Completing, complete
from speciate.evaluation.sampling import Sampling
from speciate.model.token_batch import TokenBatch
from speciate.model.transformer import Transformer
from speciate.training.checkpoint.load_run import load_run
from speciate.training.diffusion import mdlm

MASK_PAIRS = 32
"""Pairs of masks by which the bound of an answer of masked diffusion is estimated."""
DEFAULT_TOKENS = 256
"""Most tokens of an answer where a task sets no number; the harness's own default."""
UNUSED = ("max_batch_size", "device_map", "dtype", "trust_remote_code")
"""Arguments that the harness gives to every model, and that mean nothing here."""


@register_model("speciate")
class SpeciateLM(TemplateLM):  # type: ignore[misc]  # the harness has no types
    """A finished run.

    Args:
        run: the run's folder.
        weights: which of its weights to load: model.safetensors, ema.safetensors, snapshots/step<n>.safetensors.
        tokenizer: folder of what `fit` wrote; None: the run's copy.
        batch_size: number of texts that run at once.
        device: where the model runs; where there is no GPU, a GPU means the CPU.
        sampler: sampler of masked diffusion, for tasks that generate.
        seed: seed of sampling, where a task samples.
        unused: arguments of the harness that mean nothing here.

    Raises:
        ValueError: the folder holds no finished run, or its model cannot predict a next token; names it.
    """

    def __init__(
        self,
        run: str,
        *,
        weights: str = "model.safetensors",
        tokenizer: str | None = None,
        batch_size: int | str = 16,
        device: str | None = None,
        sampler: str = "random_order",
        seed: int = 0,
        **unused: Any,
    ) -> None:
        unknown = sorted(set(unused) - set(UNUSED))
        if unknown:
            raise ValueError(f"--model_args: {unknown[0]} is unknown; the run's folder is run=FOLDER")
        folder = pathlib.Path(run)
        fitted = folder / "tokenizer" if tokenizer is None else pathlib.Path(tokenizer)
        manifest = read_manifest(fitted)
        spec, model = load_run(folder, manifest.vocabulary, weights)
        self._set(
            spec,
            model.to(_device(device)),
            Tokenizer.from_file(str(fitted / "tokenizer.json")),
            end=manifest.end_of_text,
            batch=16 if isinstance(batch_size, str) and batch_size.startswith("auto") else int(batch_size),
            sampler=sampler,
            seed=seed,
        )

    @classmethod
    def of(cls, run: RunSpec, model: Transformer, tokenizer: Tokenizer, **settings: Any) -> "SpeciateLM":
        """Make it of a model that is loaded; `settings` are end, batch, sampler and seed."""
        made = cls.__new__(cls)
        made._set(run, model, tokenizer, **settings)
        return made

    def _set(
        self,
        run: RunSpec,
        model: Transformer,
        tokenizer: Tokenizer,
        *,
        end: int,
        batch: int,
        sampler: str,
        seed: int,
    ) -> None:
        super().__init__()
        for component in options_within(run.model):
            if component.looks_ahead():
                raise ValueError(
                    f"{component.kind} looks at later tokens, so what {run.ablation} says of the next one is no "
                    "likelihood"
                )
        self.run, self.model, self.ids = run, model.eval(), tokenizer
        self.end, self.batch_size, self.sampler, self.seed = end, batch, sampler, seed
        self.num_cut = 0
        """Questions so far that lost their beginning, since they are longer than the context."""

    @property
    def is_bound(self) -> bool:
        """Whether likelihoods are lower bounds."""
        return not self.model.causal

    @property
    def max_length(self) -> int:
        """Tokens of the model's context."""
        return self.model.context

    @property
    def eot_token_id(self) -> int:
        return self.end

    @property
    def device(self) -> torch.device:
        return self.model.token_embedding.weight.device

    @property
    def tokenizer_name(self) -> str:
        return f"{self.run.ablation}-tokenizer"

    def get_model_info(self) -> dict[str, object]:
        """Return what the harness's results say of the model."""
        likelihood = f"lower bound, estimated by {2 * MASK_PAIRS} masks" if self.is_bound else "exact"
        return {
            "run": f"{self.run.ablation} seed {self.run.seed}",
            "model_num_parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "loglikelihood": likelihood,
        }

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **unused: Any) -> list[int]:
        """Return the tokens of a text, without any special one, as in training."""
        return list(self.ids.encode(string, add_special_tokens=False).ids)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **unused: Any
    ) -> list[tuple[float, bool]]:
        """Return the log-likelihood of each continuation after its context, and whether it is the greedy one.

        Raises:
            ValueError: a continuation alone is longer than the model's context.
        """
        score = self._score_masked if self.is_bound else self._score_causal
        answers: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
        texts: list[tuple[int, list[int], int]] = []
        # a decoder's last token is predicted, not read
        most = self.max_length + (0 if self.is_bound else 1)
        cut = 0
        for index, (_, context, continuation) in enumerate(requests):
            if not continuation:
                continue
            if len(continuation) >= most:
                raise ValueError(
                    f"an answer of {len(continuation)} tokens does not fit into the model's context of "
                    f"{self.max_length} tokens"
                )
            cut += len(context) + len(continuation) > most
            texts.append((index, (context + continuation)[-most:], len(continuation)))
        self._say_cut(cut, len(requests))
        texts.sort(key=lambda text: (-len(text[1]), text[1]))
        for index, answer in score(texts):
            answers[index] = answer
            if requests[index][0] is not None:
                self.cache_hook.add_partial("loglikelihood", requests[index][0], answer)
        return answers

    def _say_cut(self, cut: int, of: int) -> None:
        """Note and say that questions lost their beginning."""
        self.num_cut += cut
        if cut:
            log(f"{cut} of {of} questions are longer than the context of {self.max_length} tokens: their start is cut")

    @torch.no_grad()
    def _score_causal(self, texts: list[tuple[int, list[int], int]]) -> Iterable[tuple[int, tuple[float, bool]]]:
        """Yield the answers of a decoder; texts of which it reads the same tokens share one pass."""
        shared: dict[tuple[int, ...], list[tuple[int, list[int], int]]] = {}
        for text in texts:
            shared.setdefault(tuple(text[1][:-1]), []).append(text)
        inputs = list(shared)
        for start in range(0, len(inputs), self.batch_size):
            rows = inputs[start : start + self.batch_size]
            longest = max(map(len, rows))
            id_BT = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=self.device)
            length_B1 = torch.tensor([[len(row)] for row in rows], device=self.device)
            real_BT = torch.arange(longest, device=self.device) < length_B1
            whole = bool(real_BT.all())
            x_BTD = self.model.read(TokenBatch.of(id_BT, real_BT=None if whole else real_BT))
            for row, x_TD in zip(rows, x_BTD, strict=True):
                count = max(text[2] for text in shared[row])
                logprob_NV = self.model.head(x_TD[len(row) - count : len(row)]).float().log_softmax(-1)
                for index, tokens, length in shared[row]:
                    yield index, _answer(logprob_NV[-length:], tokens[-length:])

    @torch.no_grad()
    def _score_masked(self, texts: list[tuple[int, list[int], int]]) -> Iterable[tuple[int, tuple[float, bool]]]:
        """Yield the bounds of a denoiser, of which each text's own tokens decide the masks."""
        for index, tokens, length in texts:
            token_1T = torch.tensor([tokens], device=self.device)
            answer_1T = torch.zeros_like(token_1T, dtype=torch.bool)
            answer_1T[:, -length:] = True
            nats = 0.0
            for pair in range(MASK_PAIRS):
                for masked_1T, count_1 in mdlm.antithetic_masks(token_1T, answer_1T, pair, MASK_PAIRS):
                    nats += float(self._masked_nats(token_1T, masked_1T).sum() * length / count_1)
            hidden_1T = token_1T.masked_fill(answer_1T, self.model.vocabulary - 1)
            logit_NV = self._word_logits(hidden_1T)[0, -length:]
            likeliest = logit_NV.argmax(-1).tolist() == tokens[-length:]
            yield index, (-nats / (2 * MASK_PAIRS), likeliest)

    def _masked_nats(self, token_1T: Tensor, masked_1T: Tensor) -> Tensor:
        """Return -log p of the masked tokens given the others, (1, T) float64, 0 at the others."""
        logit_1TV = self._word_logits(token_1T.masked_fill(masked_1T, self.model.vocabulary - 1))
        logprob_1TV = logit_1TV.double().log_softmax(-1)
        word_1T1 = token_1T.clamp(max=self.model.vocabulary - 2).unsqueeze(-1)
        return -logprob_1TV.gather(-1, word_1T1).squeeze(-1).where(masked_1T, 0.0)

    def _word_logits(self, token_1T: Tensor) -> Tensor:
        """Return the denoiser's logits of each position's word, (1, T, V - 1)."""
        mask_share_1 = (token_1T == self.model.vocabulary - 1).double().sum(1) / max(1, token_1T.shape[1] - 1)
        x_1TD = mdlm.denoiser_hidden(self.model, token_1T, None, mask_share_1)
        return torch.nn.functional.linear(x_1TD, mdlm.word_head_VD(self.model)).float()

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of each text, window by window; each window starts with one token of the last."""
        most = self.max_length - (1 if self.is_bound else 0)
        windows: list[tuple[None, list[int], list[int]]] = []
        owner: list[int] = []
        for index, (text,) in enumerate(request.args for request in requests):
            rolling = utils.get_rolling_token_windows(
                token_list=self.tok_encode(text), prefix_token=self.end, max_seq_len=most, context_len=1
            )
            for context, predicted in map(utils.make_disjoint_window, rolling):
                windows.append((None, context, predicted))
                owner.append(index)
        totals = [0.0] * len(requests)
        for index, (nats, _) in zip(owner, self._loglikelihood_tokens(windows), strict=True):
            totals[index] += nats
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return the answer to each question, up to its first stop string; it may be empty.

        Raises:
            ValueError: a task asks for more tokens than the context has room for, or for a kind of search that is not
                there.
        """
        answers = [""] * len(requests)
        alike: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            alike.setdefault(repr(request.args[1]), []).append(index)
        for indices in alike.values():
            settings = requests[indices[0]].args[1]
            how = self._completing(settings)
            room = self.max_length - how.max_tokens
            prompts = [self.tok_encode(requests[index].args[0]) or [self.end] for index in indices]
            self._say_cut(sum(len(prompt) > room for prompt in prompts), len(prompts))
            texts = complete(self.model, self.ids, [prompt[-room:] for prompt in prompts], how)
            for index, text in zip(indices, texts, strict=True):
                answers[index] = text
                self.cache_hook.add_partial("generate_until", requests[index].args, text)
        return answers

    def _completing(self, settings: dict[str, Any]) -> Completing:
        known = normalize_gen_kwargs(settings, DEFAULT_TOKENS)
        stop = handle_stop_sequences(known.pop("until"), eos=None)
        most, sampled = int(known.pop("max_gen_toks")), bool(known.pop("do_sample"))
        temperature = float(known.pop("temperature", 1.0)) if sampled else 0.0
        sampling = Sampling(temperature, int(known.pop("top_k", 0) or 0), float(known.pop("top_p", 1.0)))
        known.pop("temperature", None)
        if known:
            raise ValueError(f"generation_kwargs: {sorted(known)[0]} is not supported; there is no such search here")
        if most >= self.max_length:
            raise ValueError(
                f"max_gen_toks: an answer of {most} tokens leaves no room for the question in the model's context of "
                f"{self.max_length} tokens"
            )
        return Completing(
            max_tokens=most,
            stop=tuple(stop),
            end=self.end,
            sampling=sampling,
            seed=self.seed,
            batch=self.batch_size,
            sampler=self.sampler,
        )


def _device(wanted: str | None) -> torch.device:
    """Return the device; the harness asks for a GPU unless it is told otherwise, so without one it is the CPU."""
    if wanted is None or (wanted.startswith("cuda") and not torch.cuda.is_available()):
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def _answer(logprob_NV: Tensor, tokens: list[int]) -> tuple[float, bool]:
    """Return the log-likelihood of tokens, and whether each is the likeliest."""
    token_N = torch.tensor(tokens, device=logprob_NV.device)
    nats = logprob_NV.double().gather(-1, token_N.unsqueeze(-1)).sum()
    return float(nats), bool((logprob_NV.argmax(-1) == token_N).all())


def main() -> None:
    """Run the harness's command line, to which this model is known."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
