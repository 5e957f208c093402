"""transformers' Trainer trains our model on our packed batches: the steps of a plain loop, and a loadable result."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

from cambrian_model.language.loss import LossOptions
from cambrian_model.model import CambrianForConditionalGeneration
from cambrian_model.processing.sample import Sample
from cambrian_model.training.collate import collate
from tests.support.tiny_model import IMAGE_TOKEN_ID, tiny_encoders, tiny_model, tiny_sample

LR = 1e-3
SIZES = [(20, 50), (70, 20), (33, 33)]
SVA = {
    "width": 32,
    "depth": 1,
    "num_heads": 4,
    "query_grid_sides": [4],
    "in_llm": {"start": 0, "stride": 1, "count": 1},
}


def new_model() -> CambrianForConditionalGeneration:
    return tiny_model(vision_encoders=tiny_encoders()[:1], connector=SVA)


def make_sample(seed: int) -> Sample:
    raw = tiny_sample(seed, [SIZES[(seed + i) % 3] for i in range(seed % 3)], text=4 + seed % 4)
    ids = raw["input_ids"][0]
    labels = ids.masked_fill((ids == IMAGE_TOKEN_ID) | (torch.arange(len(ids)) % (2 + seed % 3) == 0), -100)
    return Sample(ids, labels, raw["pixel_values"][:1], raw["image_sizes"])


def batches(number: int) -> list[dict[str, Any]]:
    """Packed rows of uneven numbers of supervised tokens; the first has no picture."""
    rows = [[make_sample(3 * i)] if i % 2 == 0 else [make_sample(i + 1), make_sample(i)] for i in range(number)]
    return [collate([row], 88, pad_token_id=0).inputs for row in rows]


def one(prepared: list[dict[str, Any]]) -> dict[str, Any]:
    """The collator for batches that are ready."""
    return prepared[0]


def train_with_trainer(
    model: CambrianForConditionalGeneration, steps: list[dict[str, Any]], folder: Path, accumulation: int
) -> list[float]:
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=accumulation,
        max_steps=len(steps) // accumulation,
        learning_rate=LR,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
    )
    trainer = Trainer(model, arguments, data_collator=one, train_dataset=steps)
    trainer.train()
    trainer.save_model(str(folder / "saved"))
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def train_plainly(
    model: CambrianForConditionalGeneration, steps: list[dict[str, Any]], accumulation: int
) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0)
    model.train()
    losses = []
    for start in range(0, len(steps), accumulation):
        parts = steps[start : start + accumulation]
        supervised = sum(int((part["labels"][:, 1:] != -100).sum()) for part in parts)
        loss = 0.0
        for part in parts:
            share = model(**part, num_items_in_batch=supervised).loss
            share.backward()
            loss += share.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss)
    return losses


@pytest.mark.parametrize(("accumulation", "implementation"), [(1, "whole"), (3, "chunked")])
def test_trainer_takes_the_steps_of_a_plain_loop(accumulation, implementation, tmp_path):
    steps = batches(6)
    trained, expected = new_model(), new_model()
    trained.loss_options = LossOptions(implementation, chunk_tokens=16)
    losses = train_with_trainer(trained, steps, tmp_path, accumulation)
    plain = train_plainly(expected, steps, accumulation)
    assert len(losses) == 6 // accumulation
    # Trainer logs losses as they are, in float32; 1e-5: its sums of parts are in another order, over these steps.
    torch.testing.assert_close(losses, plain, atol=1e-5, rtol=0)
    for (name, found), parameter in zip(trained.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(found, parameter, atol=1e-5, rtol=0, msg=name)
    loaded = CambrianForConditionalGeneration.from_pretrained(tmp_path / "saved")
    for (name, found), parameter in zip(loaded.named_parameters(), trained.parameters(), strict=True):
        assert torch.equal(found, parameter), name
