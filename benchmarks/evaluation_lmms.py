"""The lmms-eval side of `benchmarks/evaluation.py`, for a Python with lmms-eval, cambrian-model and cambrian-eval.

Loads the model once for each adapter, then evaluates the task whenever a line on stdin names an adapter, and answers
with one line of JSON on stdout: seconds of `simple_evaluate`, score, replies by row. Adapters: `toolkit-N`, our bridge
with batches of N, and `plain`, one prompt at a time, written as lmms-eval's own chat models are.
"""

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import torch
from lmms_eval import evaluator  # type: ignore[import-not-found]
from lmms_eval.api.instance import GenerationResult, TokenCounts  # type: ignore[import-not-found]
from lmms_eval.api.model import lmms  # type: ignore[import-not-found]
from lmms_eval.models import MODEL_REGISTRY_V2  # type: ignore[import-not-found]
from lmms_eval.protocol import ChatMessages  # type: ignore[import-not-found]
from lmms_eval.tasks import TaskManager  # type: ignore[import-not-found]

from cambrian_eval.bridges.lmms_eval import MODEL
from cambrian_model import CambrianForConditionalGeneration, CambrianProcessor

PLAIN = "plain"


class PlainCambrian(lmms):
    """One prompt at a time."""

    is_simple = False

    def __init__(self, pretrained: str) -> None:
        super().__init__()
        model = CambrianForConditionalGeneration.from_pretrained(pretrained, dtype="auto").eval()
        self._parts = (model, CambrianProcessor.from_pretrained(pretrained))  # lmms-eval drops attributes with weights

    def generate_until(self, requests: list[Any]) -> list[Any]:
        """Greedy replies that end where the model ends them."""
        return [self._generate(*request.args[1:]) for request in requests]

    def _generate(self, to_messages: Any, settings: dict[str, Any], doc_id: int, task: str, split: str) -> Any:
        model, processor = self._parts
        messages = ChatMessages(messages=to_messages(self.task_dict[task][split][doc_id])).to_hf_messages()
        inputs = processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        stops = processor.stop_token_ids
        with torch.inference_mode():
            tokens = model.generate(
                **inputs,
                max_new_tokens=settings["max_new_tokens"],
                do_sample=False,
                eos_token_id=stops,
                pad_token_id=stops[0],
            )
        reply = tokens[0, inputs["input_ids"].shape[1] :]
        text = processor.decode(reply, skip_special_tokens=True).strip()
        return GenerationResult(text, TokenCounts(output_tokens=len(reply)))

    def loglikelihood(self, requests: list[Any]) -> Any:
        """Not needed."""
        raise NotImplementedError

    def generate_until_multi_round(self, requests: list[Any]) -> Any:
        """Not needed."""
        raise NotImplementedError


def load(adapter: str, model: str) -> Any:
    """The adapter, as lmms-eval makes it; ours through its registry and the entry point."""
    if adapter == PLAIN:
        return PlainCambrian(model)
    size = adapter.rpartition("-")[2]
    return MODEL_REGISTRY_V2.get_model_class(MODEL).create_from_arg_string(f"pretrained={model}", {"batch_size": size})


def run(loaded: Any, manager: Any, task: str) -> dict[str, Any]:
    """One evaluation; reading the data and scoring are part of the time, loading the model is not."""
    begin = time.perf_counter()
    found = evaluator.simple_evaluate(loaded, tasks=[task], task_manager=manager, bootstrap_iters=0)
    seconds = time.perf_counter() - begin
    samples = sorted(found["samples"][task], key=lambda sample: sample["doc_id"])
    score = next(value for key, value in found["results"][task].items() if key.startswith("letter_acc,"))
    return {"seconds": seconds, "score": score, "replies": [sample["filtered_resps"][0] for sample in samples]}


def main() -> None:
    """MODEL TASKS_FOLDER TASK THREADS."""
    model, folder, task, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    manager = TaskManager("ERROR", include_path=folder, include_defaults=False)
    loaded: dict[str, Any] = {}
    out = os.fdopen(os.dup(1), "w")
    with (Path(folder) / "lmms-eval.log").open("a") as log, contextlib.redirect_stdout(log):
        for line in sys.stdin:
            adapter = line.strip()
            if adapter not in loaded:
                loaded[adapter] = load(adapter, model)
            print(json.dumps(run(loaded[adapter], manager, task)), file=out, flush=True)


if __name__ == "__main__":
    main()
