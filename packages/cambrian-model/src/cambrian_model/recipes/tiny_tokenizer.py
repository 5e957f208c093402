"""The tokenizer of the recipe "tiny": a byte-level BPE whose merges spell the words of scenes and of CV-Bench.

Every word below is one token, and so is every phrase that questions and answers are made of, which makes a question 20
to 30 tokens long; everything else falls back to bytes. The files in `tiny/` are made by ``write_tokenizer(folder)``; a
test checks that they are what this module makes.
"""

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>")

WORDS = """
red green blue yellow purple cyan orange white black grey gray brown pink
ball balls cube cubes cylinder cylinders cone cones pyramid pyramids ring rings box boxes sphere spheres
small large big tiny left right upper lower top bottom middle front behind above below near far closer closest
no one two three four five six seven eight nine ten a an the this that these it its there is are in on at of to and or
with by from for as be not yes no does do how many what where which who when why
object objects picture image photo scene colour colours color colors kind kinds place places shape shapes size
Describe every List all with their What do you see Name each say where Give Show Count Tell Look
There are is The A An In On Two Three Four Five Six One
How many are in the image Considering the relative positions of provided where is located with respect to
annotated highlighted by red blue green box Which object is closer to the camera taking this photo
Estimate the real-world distances between objects in this image Select Answer choices following answer letter option
User Assistant Answer question with the option's letter from given choices directly using single word or phrase short
"""

SENTENCES = (
    "There are two objects: a red ball on the left and a blue cube in the middle.",
    "There is one object: a green cone at the top.",
    "How many rings are in the image?",
    "User: Describe the picture. Assistant: There are three objects: an orange ball, (A) left (B) right",
    "(A) 0 (B) 1 (C) 2 (D) 3 (E) 4 (F) 5",
)


KINDS = ("ball", "cube", "cylinder", "cone", "pyramid", "ring")
COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan")
BOX_COLOURS = ("red", "blue", "green")
ATTRIBUTES = ("kinds", "colours", "boxes", "columns", "rows", "depths")

QUESTIONS = (
    "Describe every object in the picture, with its place.",
    *(f"Read the {attribute} cell by cell." for attribute in ATTRIBUTES),
    "How many",
    " are in the image? Select from the following choices.",
    "Considering the relative positions of the",
    " in the image provided, where is the",
    " located with respect to the",
    "Which object is closer to the camera taking this photo, the",
    "Estimate the real-world distances between objects in this image. Which object is closer to the",
    "? Select from the following choices.",
    "\nAnswer with the option's letter from the given choices directly.",
    *(
        f" ({word} box)"
        for colour in BOX_COLOURS
        for word in (f"annotated by the {colour}", f"highlighted by a {colour}")
    ),
    *(f"\n({letter})" for letter in "ABCDEF"),
    "User: ",
    " Assistant:",
)

ANSWERS = (
    *(" I see a", " I see the", " I see no", ", a", ", the", " and a", " and the", " or the", " is", "."),
    *(" in all. The answer is (", ". The answer is (", ").", ". Seen from the", ". From the", " metres away"),
    *(". Closer to the camera is the", ". Closer to the", " is the", " left", " right", " above", " below"),
    *(f" in the {colour} box" for colour in BOX_COLOURS),
    *(f" {kind}" for kind in KINDS),
    *(f" {kind}s" for kind in KINDS),
    *(f" {colour}" for colour in COLOURS),
    *(f" at x{step}" for step in range(16)),
    *(f" y{step}" for step in range(16)),
    *(f" z{step}" for step in range(32)),
    *(f" {number}" for number in range(16)),
    " empty",
    ",",
    "\n",
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Trains the tokenizer; the same every time."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = WORDS.split()
    texts = [f"{word} {word}" for word in words for _ in range(2)]  # at a text's beginning, and behind a space
    tokenizer.train_from_iterator([*texts, *SENTENCES], trainer)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_tokens([AddedToken(phrase, normalized=False) for phrase in (*QUESTIONS, *ANSWERS)])
    pad, start, end = SPECIAL_TOKENS
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, bos_token=start, eos_token=end, model_max_length=1024
    )


def write_tokenizer(folder: Path) -> None:
    """Writes the tokenizer to a folder, from which `AutoTokenizer` loads it."""
    build_tokenizer().save_pretrained(folder)
