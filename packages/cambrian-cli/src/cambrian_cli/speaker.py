"""A checkpoint that answers questions about pictures; what `cambrian ask` and the captions after training use."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cambrian_cli.runs import checkpoint_in


class Speaker(NamedTuple):
    """A model and its processor."""

    model: Any
    processor: Any

    @classmethod
    def load(cls, checkpoint: str | Path) -> "Speaker":
        """Loads a run folder, a checkpoint folder, or a model of the hub.

        Raises:
            CheckpointError: Nothing of that name, or something else than a Cambrian checkpoint.
        """
        from cambrian_model import CambrianForConditionalGeneration, CambrianProcessor

        source = str(checkpoint_in(Path(checkpoint)))
        model = CambrianForConditionalGeneration.from_pretrained(source, dtype="auto").eval()
        return cls(model, CambrianProcessor.from_pretrained(source))

    def answer(self, question: str, images: Sequence[str | Path], max_new_tokens: int = 64) -> str:
        """Returns the model's most likely reply to one question about the pictures, in their order."""
        pictures = [{"type": "image", "path": str(image)} for image in images]
        messages = [{"role": "user", "content": [*pictures, {"type": "text", "text": question}]}]
        inputs = self.processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        tokens = self.model.generate(
            **inputs, max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=self.processor.stop_token_ids
        )
        (reply,) = self.processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return str(reply).strip()
