"""Three pictures with what the model says of them: the first thing one wants to see after training.

Scenes, and questions about them or descriptions of them, are held out: of a seed that no source of the recipe uses. A
recipe on one's own records trains on all of them, so its pictures were seen in training, and everything that shows them
says so.
"""

import json
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cambrian_cli import datasets
from cambrian_cli.output import Report
from cambrian_cli.speaker import Speaker

if TYPE_CHECKING:
    from cambrian_model.training.index import Dataset
    from cambrian_model.training.recipe import Recipe

FILE = "captions.json"
NUM_PICTURES = 3
NUM_SCENES_TO_ASK_ABOUT = 40  # enough for a question of every task
MAX_NEW_TOKENS = 96
PICTURE_SIDE = 224
TEXT_WIDTH = 70  # characters


class Caption(NamedTuple):
    """One picture, what was asked, what the model replied, and what the data says."""

    image: str
    question: str
    answer: str
    reference: str


class Captions(NamedTuple):
    """The pictures shown after a run; `held_out` tells whether the model had never seen them."""

    captions: list[Caption]
    held_out: bool

    @property
    def title(self) -> str:
        """What the pictures are, in a few words."""
        return "held-out pictures" if self.held_out else "training pictures (this recipe holds none out)"


def make(recipe: "Recipe", sources: Mapping[str, "Dataset"], checkpoint: Path, run_dir: Path) -> Captions:
    """Captions three pictures with a checkpoint and writes ``captions.json`` and ``captions.png`` beside the run."""
    samples, held_out = choose(recipe, sources)
    speaker = Speaker.load(checkpoint) if samples else None
    found: list[Caption] = []
    for sample in samples:
        question, reference = datasets.question_and_reference(sample)
        answer = speaker.answer(question, sample["images"], MAX_NEW_TOKENS) if speaker else ""
        picture = _keep(Path(sample["images"][0]), run_dir, len(found))
        found.append(Caption(str(picture), question, answer, reference))
    captions = Captions(found, held_out)
    write(captions, run_dir)
    return captions


def stored(run_dir: Path) -> Captions | None:
    """Returns the captions of a run that has them already."""
    file = run_dir / FILE
    if not file.is_file():
        return None
    content = json.loads(file.read_text(encoding="utf-8"))
    captions = [Caption(**fields) for fields in content["captions"]]
    return Captions([c._replace(image=str(run_dir.absolute() / c.image)) for c in captions], content["held_out"])


def choose(recipe: "Recipe", sources: Mapping[str, "Dataset"]) -> tuple[list[Mapping[str, Any]], bool]:
    """Returns the samples to show, and whether they are held out."""
    scenes = next((recipe.data[name].scenes for name in sources if recipe.data[name].scenes), None)
    if scenes is not None:
        other = scenes.model_copy(update={"count": NUM_PICTURES, "seed": datasets.held_out_seed(recipe)})
        return list(datasets.read_scenes(other)), True
    questions = next((recipe.data[name].questions for name in sources if recipe.data[name].questions), None)
    if questions is not None:
        held_out = questions.cvbench.scenes.model_copy(
            update={"count": NUM_SCENES_TO_ASK_ABOUT, "seed": datasets.held_out_seed(recipe)}
        )
        one_each = questions.cvbench.model_copy(update={"scenes": held_out, "count_per_task": 1})
        return list(datasets.read_questions(one_each)[:NUM_PICTURES]), True
    grounding = next((recipe.data[name].grounding for name in sources if recipe.data[name].grounding), None)
    if grounding is not None:
        other = grounding.scenes.model_copy(update={"count": NUM_PICTURES, "seed": datasets.held_out_seed(recipe)})
        described = grounding.model_copy(update={"scenes": other, "readings_per_picture": 0})
        return list(datasets.read_grounding(described)), True
    by_image: dict[str, Mapping[str, Any]] = {}
    for sample in _of_one_picture(sources.values()):
        picture = sample["images"][0]
        if picture not in by_image and _can_be_read(Path(picture)):
            by_image[picture] = sample
        if len(by_image) == NUM_PICTURES:
            break
    return list(by_image.values()), False


def _of_one_picture(sources: Iterable["Dataset"]) -> Iterator[Mapping[str, Any]]:
    """Yields the samples with exactly one picture file, without records that cannot be read: training listed them."""
    from cambrian_model.training.bad_samples import UnreadableSampleError

    for samples in sources:
        for number in range(len(samples)):
            try:
                sample = samples[number]
            except UnreadableSampleError:
                continue
            if len(sample["images"]) == 1 and isinstance(sample["images"][0], str):
                yield sample


def _can_be_read(picture: Path) -> bool:
    from cambrian_data.errors import ImageError
    from cambrian_data.images import load_image

    try:
        load_image(picture)
    except ImageError:
        return False
    return True


def show(out: Report, captions: Captions) -> None:
    """Prints the captions for people."""
    if not captions.captions:
        out.line("No captions: no record of this recipe's data has exactly one picture.")
        return
    out.line(f"The model on {len(captions.captions)} {captions.title}:")
    for caption in captions.captions:
        out.line()
        for line in _lines(caption):
            out.line(line)
    out.line()


def write(captions: Captions, folder: Path) -> None:
    """Writes, if there are any, ``captions.png``, and ``captions.json`` with the pictures' paths inside the folder."""
    from cambrian_eval.atomic import write_atomically

    if captions.captions:
        _draw(captions).save(folder / "captions.png")
    inside = [c._replace(image=Path(c.image).relative_to(folder.absolute()).as_posix()) for c in captions.captions]
    content = {"held_out": captions.held_out, "captions": [caption._asdict() for caption in inside]}
    write_atomically(folder / FILE, json.dumps(content, indent=2, ensure_ascii=False) + "\n")  # last: all is there


def _keep(picture: Path, run_dir: Path, number: int) -> Path:
    """Copies a picture into the run, which is to outlive the cache and the user's own pictures."""
    kept = run_dir.absolute() / "captions" / f"{number}{picture.suffix.lower()}"
    kept.parent.mkdir(exist_ok=True)
    shutil.copyfile(picture, kept)
    return kept


def _lines(caption: Caption) -> list[str]:
    return [
        caption.image,
        f"  asked:     {caption.question}",
        f"  model:     {caption.answer}",
        f"  reference: {caption.reference}",
    ]


def _draw(captions: Captions) -> Any:
    """Returns a PIL picture: a row for each caption, the picture on the left and the words beside it."""
    from PIL import Image, ImageDraw, ImageFont

    margin, top = 16, 48
    text_x = 2 * margin + PICTURE_SIDE
    font, bold = ImageFont.load_default(size=16), ImageFont.load_default(size=20)
    texts = [_wrapped(caption) for caption in captions.captions]
    pictures = [_thumbnail(Path(caption.image)) for caption in captions.captions]
    heights = [
        max(picture.height, 21 * (text.count("\n") + 1)) + margin for picture, text in zip(pictures, texts, strict=True)
    ]
    sheet = Image.new("RGB", (text_x + 8 * TEXT_WIDTH + margin, top + sum(heights)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((margin, 12), f"The model on {captions.title}", fill="black", font=bold)
    y = top
    for picture, text, height in zip(pictures, texts, heights, strict=True):
        sheet.paste(picture, (margin, y))
        draw.multiline_text((text_x, y), text, fill="black", font=font, spacing=4)
        y += height
    return sheet


def _wrapped(caption: Caption) -> str:
    parts = {"asked": caption.question, "model": caption.answer, "reference": caption.reference}
    return "\n\n".join(textwrap.fill(f"{name}: {text}", TEXT_WIDTH) for name, text in parts.items())


def _thumbnail(path: Path) -> Any:
    """Returns the picture fitted into a square: small ones enlarged pixel by pixel, large ones reduced smoothly."""
    from PIL import Image, ImageOps

    from cambrian_data.images import load_image

    image = load_image(path)
    method = Image.Resampling.NEAREST if max(image.size) < PICTURE_SIDE else Image.Resampling.LANCZOS
    return ImageOps.contain(image, (PICTURE_SIDE, PICTURE_SIDE), method)
