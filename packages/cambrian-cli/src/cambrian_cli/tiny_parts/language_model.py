"""Pretrains the tiny language model on scenes in words, so that it can bind, count and compare before it sees.

A cell of the picture stands in the row as one vector: half the sum of the embeddings of its words, some of them blurred
with a neighbouring word and all of them noisy, as a picture's will be. Most rows leave out nearly all empty cells,
which makes them short; positions stay those of the whole grid.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset
from transformers import LlamaConfig, LlamaForCausalLM

from cambrian_cli.tiny_parts import texts
from cambrian_cli.tiny_parts.recipe import LanguageModelRecipe, TinyPartsRecipe, learning_rate_factor
from cambrian_data.grounding import Inventory
from cambrian_data.places import NUM_STEPS
from cambrian_data.scenes.objects import COLOURS, KINDS
from cambrian_model import CambrianConfig, CambrianProcessor
from cambrian_model.processing.sample import IGNORED_LABEL
from cambrian_model.recipes.tiny_tokenizer import build_tokenizer
from cambrian_model.training.workers import end_with_parent

Progress = Callable[..., None]

MAX_WORDS = 6  # of a cell
CELL_SCALE = 0.5  # of the sum of a cell's embeddings
LETTERS = "ABCDEF"
FILL = (0, IGNORED_LABEL, 0)  # behind short rows: of ids, labels, positions
SQUARE = (1, 1)  # only the shape of a picture decides how many tokens it fills


class Rows(NamedTuple):
    """A batch of texts.

    Attributes:
        input_ids: Token ids; `image_token_id` where a cell or newline of the grid stands. (batch, sequence)
        labels: As in `cambrian_model.processing.sample.Sample`. (batch, sequence)
        position_ids: Places in the whole text, cells left out counted. (batch, sequence)
        words: Ids of the words of every cell kept, in reading order, those of blurred words behind. (cells, 2 * words)
        weights: How much each counts; 0 fills up. (cells, 2 * words)
    """

    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    words: Tensor
    weights: Tensor


LADDERS = ((" at x", NUM_STEPS), (" y", NUM_STEPS), (" z", 32))  # words whose neighbours are alike


class Vocabulary:
    """The ids of single words, each with the space before it."""

    def __init__(self, processor: CambrianProcessor) -> None:
        self._tokenizer = processor.tokenizer
        self._ids: dict[str, int] = {}

    def id(self, word: str) -> int:
        """Returns the one token that a word is."""
        if word not in self._ids:
            (self._ids[word],) = self._tokenizer(word, add_special_tokens=False).input_ids
        return self._ids[word]

    def neighbours(self) -> dict[int, list[int]]:
        """Returns for every word of a cell those that an encoder may take it for."""
        found: dict[int, list[int]] = {}
        for names in (KINDS, COLOURS):
            words = [self.id(f" {name}") for name in names]
            found |= {word: [other for other in words if other != word] for word in words}
        for name, size in LADDERS:
            words = [self.id(f"{name}{number}") for number in range(size)]
            for number, word in enumerate(words):
                found[word] = [other for other in words[max(0, number - 1) : number + 2] if other != word]
        return found


class TextRows(IterableDataset):
    """Batches of texts without end, the same every time."""

    def __init__(self, inventories: Sequence[Inventory], processor: CambrianProcessor, recipe: TinyPartsRecipe) -> None:
        self._inventories, self._processor, self._recipe = inventories, processor, recipe

    def __iter__(self) -> Iterator[Rows]:
        draw = random.Random(f"cambrian tiny-parts texts {self._recipe.seed}")
        maker = RowMaker(self._processor, self._recipe.grid_side, self._recipe.language_model, draw)
        recipe = self._recipe.language_model
        for step in range(recipe.steps):
            is_reading = draw.random() < recipe.reading_share
            is_whole = is_reading or step >= recipe.whole_from * recipe.steps or draw.random() < recipe.whole_share
            size = recipe.rows // 2 if is_reading else recipe.rows
            say = texts.read if is_reading else texts.converse
            grid_side = self._recipe.grid_side
            scenes = [texts.imagine(draw.choice(self._inventories), draw, grid_side) for _ in range(size)]
            yield maker.make([say(scene, draw, grid_side) for scene in scenes], whole=is_whole)


class RowMaker:
    """Makes batches of texts; `draw` decides what is left out and blurred."""

    def __init__(
        self, processor: CambrianProcessor, grid_side: int, recipe: LanguageModelRecipe, draw: random.Random
    ) -> None:
        self._processor, self._side, self._recipe, self._draw = processor, grid_side, recipe, draw
        self._vocabulary = Vocabulary(processor)
        self._neighbours = self._vocabulary.neighbours()

    def make(self, batch: Sequence[texts.Text], whole: bool) -> Rows:
        """Lays texts side by side; `whole` keeps every empty cell."""
        rows, words, weights = [], [], []
        for text in batch:
            ids, labels = self._processor.encode_text(_messages(text), [SQUARE])
            start = ids.index(self._processor.image_token_id)
            cells = self._grid(text)
            kept = [place for place in range(len(cells)) if whole or self._is_kept(cells[place])]
            for place in kept:
                cell = self._blurred(cells[place])
                words.append([word for word, _ in cell] + [0] * (2 * MAX_WORDS - len(cell)))
                weights.append([weight for _, weight in cell] + [0.0] * (2 * MAX_WORDS - len(cell)))
            places = [*range(start), *(start + place for place in kept), *range(start + len(cells), len(ids))]
            rows.append(([ids[place] for place in places], [labels[place] for place in places], places))
        length = max(len(row[0]) for row in rows)
        filled = [_filled([row[part] for row in rows], length, FILL[part]) for part in range(3)]
        return Rows(filled[0], filled[1], filled[2], torch.tensor(words), torch.tensor(weights))

    def _grid(self, text: texts.Text) -> list[tuple[int, ...]]:
        """The ids of every cell's words, each row of cells closed by the newline."""
        side = self._side
        cells = [tuple(self._vocabulary.id(f" {word}") for word in cell) for cell in text.cells]
        newline = (self._vocabulary.id("\n"),)
        return [cell for row in range(side) for cell in (*cells[row * side : (row + 1) * side], newline)]

    def _is_kept(self, cell: tuple[int, ...]) -> bool:
        return len(cell) > 1 or self._draw.random() < self._recipe.empty_share

    def _blurred(self, cell: tuple[int, ...]) -> list[tuple[int, float]]:
        """The words with their weights, some shared with a word that they may be taken for."""
        found = []
        for word in cell:
            others = self._neighbours.get(word)
            if others is None or self._draw.random() >= self._recipe.blur_share:
                found.append((word, 1.0))
                continue
            weight = self._draw.uniform(0.5, 1.0)
            found += [(word, weight), (self._draw.choice(others), 1 - weight)]
        return found


def _messages(text: texts.Text) -> list[dict[str, Any]]:
    image: list[dict[str, str]] = [{"type": "image"}]
    messages = []
    for number, turn in enumerate(text.turns):
        content = [*(image if number == 0 else []), {"type": "text", "text": turn.question}]
        messages.append({"role": "user", "content": content})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
    return messages


def _filled(rows: Sequence[list[int]], length: int, fill: int) -> Tensor:
    return torch.tensor([row + [fill] * (length - len(row)) for row in rows])


def build_language_model(recipe: LanguageModelRecipe, processor: CambrianProcessor) -> LlamaForCausalLM:
    """Builds the language model with fresh weights that are quick to bind.

    Weights are larger than the library's own, and keys begin as copies of the queries, so that from the start a word
    attends to where it occurs; without either, nothing was bound in 500 steps (docs/tiny-parts.md).
    """
    tokenizer = processor.tokenizer
    config = LlamaConfig(
        vocab_size=processor.image_token_id,  # the first id behind the tokenizer's own; it needs no embedding
        hidden_size=recipe.width,
        intermediate_size=recipe.mlp_width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=1024,
        initializer_range=recipe.initializer_range,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)
    return model


def predict(model: LlamaForCausalLM, rows: Rows, image_token_id: int, noise: float) -> Tensor:
    """Returns the logits of every supervised token, (supervised, vocabulary)."""
    embedding = model.get_input_embeddings().weight
    cells = functional.embedding_bag(rows.words, embedding, mode="sum", per_sample_weights=rows.weights) * CELL_SCALE
    scale = cells.detach().square().mean().sqrt()
    cells = cells + torch.randn_like(cells) * scale * noise * 2 * torch.rand(len(cells), 1)
    is_image = rows.input_ids == image_token_id
    embeds = functional.embedding(rows.input_ids.masked_fill(is_image, 0), embedding)
    places = is_image.flatten().nonzero().squeeze(1)
    embeds = embeds.flatten(0, 1).index_copy(0, places, cells).view_as(embeds)
    hidden = model.model(
        inputs_embeds=embeds,
        position_ids=rows.position_ids,
        attention_mask=torch.ones_like(rows.input_ids),  # what fills up stands behind, where nothing sees it
        use_cache=False,
    ).last_hidden_state
    return hidden[:, :-1][rows.labels[:, 1:] != IGNORED_LABEL] @ embedding.T


def text_processor(recipe: TinyPartsRecipe) -> CambrianProcessor:
    """Returns a processor that knows the tiny tokenizer, the chat template and how many tokens a picture fills."""
    stand_in = {"library": "precomputed", "name": "words", "image_side": recipe.side, "width": 1}
    config = CambrianConfig(
        vision_encoders=[{**stand_in, "grid_side": recipe.grid_side}],
        connector={"query_grid_sides": [recipe.grid_side]},
        grid_side=recipe.grid_side,
    )
    return CambrianProcessor.from_config(config, build_tokenizer(), "user_assistant")


def train_language_model(
    inventories: Sequence[Inventory], processor: CambrianProcessor, recipe: TinyPartsRecipe, progress: Progress
) -> LlamaForCausalLM:
    """Trains the language model; the same recipe gives the same weights on the same kind of machine."""
    torch.manual_seed(recipe.seed)
    own = recipe.language_model
    model = build_language_model(own, processor)
    letters = torch.tensor([Vocabulary(processor).id(letter) for letter in LETTERS])
    optimizer = torch.optim.AdamW(model.parameters(), lr=own.lr, betas=(0.9, 0.98), weight_decay=0.01)
    texts = TextRows(inventories, processor, recipe)
    rows = DataLoader(texts, batch_size=None, num_workers=1, worker_init_fn=end_with_parent())
    for step, batch in enumerate(rows):
        for group in optimizer.param_groups:
            group["lr"] = own.lr * learning_rate_factor(step, own.steps)
        logits = predict(model, batch, processor.image_token_id, own.noise)
        wanted = batch.labels[:, 1:][batch.labels[:, 1:] != IGNORED_LABEL]
        weight = torch.where(torch.isin(wanted, letters), own.letter_weight, 1.0)
        loss = (functional.cross_entropy(logits, wanted, reduction="none") * weight).sum() / weight.sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0:
            progress(step + 1, own.steps, loss=loss.item())
    return model


@torch.no_grad()
def measure(
    model: LlamaForCausalLM, inventories: Sequence[Inventory], processor: CambrianProcessor, recipe: TinyPartsRecipe
) -> dict[str, float]:
    """Returns the share of supervised tokens predicted right: in readings, in other texts, and of letters alone."""
    draw = random.Random(f"cambrian tiny-parts measure {recipe.seed}")
    maker = RowMaker(processor, recipe.grid_side, recipe.language_model, draw)
    letters = torch.tensor([Vocabulary(processor).id(letter) for letter in LETTERS])
    found = {}
    for name, say in (("readings", texts.read), ("conversations", texts.converse)):
        scenes = [texts.imagine(inventory, draw, recipe.grid_side) for inventory in inventories]
        rows = maker.make([say(scene, draw, recipe.grid_side) for scene in scenes], whole=True)
        wanted = rows.labels[:, 1:][rows.labels[:, 1:] != IGNORED_LABEL]
        right = predict(model, rows, processor.image_token_id, recipe.language_model.noise).argmax(-1) == wanted
        found[name] = right.float().mean().item()
    found["letters"] = right[torch.isin(wanted, letters)].float().mean().item()
    return {name: round(value, 4) for name, value in found.items()}
