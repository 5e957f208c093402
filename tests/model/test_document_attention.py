import pytest
import torch

from cambrian_model.language.document_attention import BY_DOCUMENT
from tests.support.tiny_model import VOCABULARY, pack, pad_left, tiny_model, tiny_sample

SIZES: tuple[list[tuple[int, int]], ...] = ([(40, 60)], [], [(64, 64), (30, 60)])


def forward_and_backward(model, attention, batch, labels):
    model.language_model.set_attn_implementation(attention)
    model.zero_grad()
    output = model(**batch, labels=labels)
    output.loss.backward()
    gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return output.loss.detach(), output.logits.detach(), gradients


@pytest.mark.parametrize("language", ["llama", "qwen2", "gemma3_text", "phi3", "mistral"])
def test_packed_rows_attend_as_under_one_mask(language):
    """To rounding: the same sums over a document's own keys, of which the masked ones are exact zeros elsewhere."""
    model = tiny_model(language).train()
    batch = pack([tiny_sample(i, sizes, text=4 + i) for i, sizes in enumerate(SIZES)])
    labels = batch["input_ids"].masked_fill(batch["input_ids"] >= VOCABULARY, -100)
    dense, apart = (forward_and_backward(model, attention, batch, labels) for attention in ("sdpa", BY_DOCUMENT))

    for found, expected in zip(apart, dense, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-6 * max(1.0, expected.abs().max().item()))


def test_documents_do_not_see_each_other():
    model = tiny_model().eval()
    model.language_model.set_attn_implementation(BY_DOCUMENT)
    samples = [tiny_sample(i, sizes, text=4 + i) for i, sizes in enumerate(SIZES)]
    packed = model(**pack(samples), use_cache=False).logits[0]
    apart = torch.cat([model(**sample, use_cache=False).logits[0] for sample in samples])

    torch.testing.assert_close(packed, apart, rtol=0, atol=1e-5)  # one document at a time, in other batch shapes


def test_generation_of_padded_prompts_is_that_of_sdpa():
    model = tiny_model().eval()
    prompts = pad_left([tiny_sample(i, sizes, text=3 + i) for i, sizes in enumerate(SIZES)])
    replies = []
    for attention in ("sdpa", BY_DOCUMENT):
        model.language_model.set_attn_implementation(attention)
        replies.append(model.generate(**prompts, max_new_tokens=6, do_sample=False).tolist())

    assert replies[0] == replies[1]
