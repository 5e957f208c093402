"""The `data` section of a recipe: named sources of conversations."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cambrian_model.training.recipe.section import Count, NonNegative, Section, at_most_one, nothing


class ScenesSection(Section):
    """Synthetic scenes, made by whoever starts the run (the command line makes them with `cambrian_data.scenes`)."""

    count: Count
    seed: Annotated[int, Field(ge=0)] = 0
    side: Annotated[int, Field(ge=16, strict=True)] = 64


class SceneQuestionsSection(Section):
    """Questions of a benchmark's kinds about scenes, likewise made by whoever starts the run.

    Attributes:
        scenes: What they are about.
        count_per_task: Questions of each task; None for as many as can be balanced.
        seed: Decides which questions are asked, and how.
    """

    scenes: ScenesSection
    count_per_task: Count | None = None
    seed: Annotated[int, Field(ge=0)] = 0


class TrainingQuestionsSection(SceneQuestionsSection):
    """Questions with their answers.

    Attributes:
        format_prompt: Whether questions end as the evaluation's do, asking for a letter.
        reasoning: Whether answers say where the things are before they name the letter.
    """

    format_prompt: bool = True
    reasoning: bool = False


class QuestionsSection(Section):
    """The benchmark whose kinds of questions are asked."""

    cvbench: TrainingQuestionsSection


MADE = ("scenes", "grounding", "questions")  # sources that are made by whoever starts the run


class GroundingSection(Section):
    """Descriptions of scenes, and readings of their cells, with exact places: for alignment.

    Attributes:
        scenes: What they are about.
        grid_side: Cells along either side of the grid that is read: the model's.
        readings_per_picture: Attributes of which every cell is read, beside the description.
        seed: Of the boxes drawn and the attributes read.
    """

    scenes: ScenesSection
    grid_side: Count
    readings_per_picture: Annotated[int, Field(ge=0, le=6)] = 2
    seed: Annotated[int, Field(ge=0)] = 0


class StreamSection(Section):
    """Records that are read from their beginning to their end, never by number: a folder or data set of the hub.

    Attributes:
        path: Folder, or name of a data set on the hub.
        format: JSON lines, Parquet, or tar files of WebDataset (`KEY.json` with `KEY.jpg`).
        files: Which files, as a glob; None for all of the format.
        split: Of a data set on the hub.
    """

    path: str | None = None
    format: Literal["json", "parquet", "webdataset"] = "json"
    files: str | None = None
    split: str = "train"


class ExpectedSection(Section):
    """What a source is known to hold, for plans that are made without it.

    Attributes:
        samples: Records.
        tokens: Of text in a record, on average.
        images: In a record, on average.
    """

    samples: Count
    tokens: NonNegative
    images: NonNegative = 1.0


class SourceSection(Section):
    """One source of training data: records in a file with their image folder, a stream, or what is made from scenes."""

    records: str | None = None
    images: str | None = None
    stream: StreamSection | None = None
    scenes: ScenesSection | None = None
    grounding: GroundingSection | None = None
    questions: QuestionsSection | None = None
    expected: ExpectedSection | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        at_most_one(self, "records", "stream", *MADE)
        if nothing(self, "stream", *MADE) and "records" not in self.model_fields_set:
            raise ValueError("give records (and images), stream, scenes, grounding, or questions")
        return self

    def made_from(self) -> ScenesSection | None:
        """Returns the scenes that the source is made from, if it is."""
        if self.questions is not None:
            return self.questions.cvbench.scenes
        return self.grounding.scenes if self.grounding is not None else self.scenes
