"""Record the routing of a model on texts: one command's worth of `record_routing`.

B rows of T tokens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from speciate.recording.recorder import Recording, Sink, record_routing
from speciate.recording.text_batches import TextBatch, batches, block_sizes, input_device, pieces
from speciate.selection.routing_record import RoutingRecord
from speciate.selection.text import Text


@torch.no_grad()
def record_model(
    model: nn.Module,
    tokenizer: Any,
    texts: Iterable[Text],
    *,
    block_length: int | None = None,
    batch_size: int | None = None,
    shadows: int = 0,
    seed: int = 0,
    generate: int = 0,
    source: str = "the model",
    sinks: Sequence[Sink] = (),
) -> RoutingRecord:
    """Return what the routers of a model choose on texts. The model is put into evaluation mode, and back.

    Args:
        model: a model of transformers.
        tokenizer: its tokenizer.
        texts: read as they are needed, so that memory does not grow with their number.
        block_length: most tokens that the model reads at once, cut to its context; a longer text is cut into blocks.
            None: 512, or the context.
        batch_size: most blocks in a forward pass; None: as many as have 8192 tokens.
        shadows: number of random routers beside each router, 0: none.
        seed: seed of the shadows.
        generate: number of tokens to generate, greedily, after the first block of each text; prompt and generation
            are then rows of their own. 0: none.
        source: what the model is called in the record and in messages.
        sinks: what takes the decisions besides, such as a writer of a trace.

    Raises:
        UnreadableModel: the model has no router, or one that cannot be read.
        ValueError: the texts have no token, or a model with an encoder is to generate.
    """
    config = vars(model).get("config")
    with_encoder = config is not None and bool(config.is_encoder_decoder)
    if generate and with_encoder:
        raise ValueError(f"{source}: generation is recorded of models without an encoder only")
    length, rows = block_sizes(model, block_length, batch_size, room=generate)
    was_training = model.training
    model.eval()
    device = input_device(model)
    try:
        with record_routing(model, source=source, shadows=shadows, seed=seed) as recording:
            recording.sinks.extend(sinks)
            recording.with_phases = generate > 0
            recording.most_keys = length + generate
            parts = batches(tokenizer, texts, block_length=length, batch_size=rows, one_block=generate > 0)
            for part in parts:
                recording.texts, recording.start_B = part.texts, part.start_B
                token_BT, mask_BT = part.token_BT.to(device), part.mask_BT.to(device)
                if generate:
                    _generate(model, recording, part, token_BT, num_tokens=generate)
                elif with_encoder:
                    _run_both(model, token_BT, mask_BT)
                else:
                    model(input_ids=token_BT, attention_mask=mask_BT, use_cache=False)
            if block_length is not None and length < block_length:
                context = f"blocks of {length} tokens, which is what the model's context has room for"
                recording.builder.add_note("blocks", f"The texts were read in {context}, and not {block_length}.")
            record = recording.build()
    finally:
        model.train(was_training)
    if record.sample is None:
        return record
    ids = sorted({int(token) for token in record.sample.token_P if token >= 0})
    return replace(record, sample=replace(record.sample, pieces=pieces(tokenizer, ids)))


def _run_both(model: Any, token_BT: Tensor, mask_BT: Tensor) -> None:
    """Run encoder and decoder on the same text, the decoder's shifted by one, as when it is taught to copy it."""
    settings = model.config.to_dict()
    first = settings.get("decoder_start_token_id")
    start_B1 = torch.full_like(token_BT[:, :1], settings.get("pad_token_id") or 0 if first is None else first)
    model(
        input_ids=token_BT,
        attention_mask=mask_BT,
        decoder_input_ids=torch.cat([start_B1, token_BT[:, :-1]], dim=1),
        decoder_attention_mask=mask_BT,
        use_cache=False,
    )


def _generate(model: Any, recording: Recording, part: TextBatch, token_BT: Tensor, *, num_tokens: int) -> None:
    """Generate after each text alone, so that no padding stands between a prompt and what follows it."""
    for row, text in enumerate(part.texts):
        recording.texts = [text]
        recording.start_B = [part.start_B[row]]
        prompt_1T = token_BT[row, part.mask_BT[row].bool().to(token_BT.device)][None]
        model.generate(
            input_ids=prompt_1T,
            attention_mask=torch.ones_like(prompt_1T),
            max_new_tokens=num_tokens,
            do_sample=False,
            num_beams=1,
            use_cache=True,
        )
