"""How fast evaluation is: our runner, generation one by one, lmms-eval, and what the harness itself costs.

One model, the checkpoint of a run of recipe `tiny`, and one CV-Bench-like set about rendered scenes, written as the hub
has it (Parquet with embedded pictures), with the same prompt and the same cap on a reply everywhere. Within a round all
ways run one after the other, in turned order; ratios are taken within rounds. Every reply ends where the model ends it:
one by one, no reply waits for a longer one. Seconds are those of a whole evaluation, from reading the data to the
score, with the model loaded before: `evaluate` with its log and report, lmms-eval's `simple_evaluate`, and a plain loop
that reads, asks and scores. How many replies are equal to those of the loop is told for each way.

The harness is measured with a model that answers A without looking: everything but the model, once with reading of the
data and pictures and once without; the disk's flush of every batch, scoring, metrics and the report are in both.

lmms-eval runs in a process and an environment of its own, idle while another way runs; without --lmms-python that part
is left out. Its Python needs lmms-eval 0.7 and, from this workspace, cambrian-model and cambrian-eval.

    uv run python -m benchmarks.evaluation --model runs/tiny --rounds 5 --lmms-python lmms/bin/python
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from scipy import stats

from cambrian_data.cvbench import write_scene_benchmark
from cambrian_data.scenes import write_scenes
from cambrian_eval import TASKS, evaluate
from cambrian_eval.models.baselines import ConstantReply
from cambrian_eval.models.cambrian import Cambrian, load
from cambrian_model import CambrianForConditionalGeneration, CambrianProcessor

TASK = "cvbench"
CHECKPOINT = "checkpoint"  # the trained model inside a run's folder
PARTS = ("2d", "3d")
NUM_TASKS = 4
SCENES_PER_QUESTION, SCENE_SIDE, SCENE_SEED = 3, 64, 1
HARNESS_ROUNDS = 5

TEXT = {"dtype": "string", "_type": "Value"}
FEATURES = {
    "idx": {"dtype": "int64", "_type": "Value"},
    "choices": {"feature": TEXT, "_type": "List"},
    **dict.fromkeys(("type", "task", "question", "answer", "prompt", "filename", "source"), TEXT),
    "image": {"_type": "Image"},
}

TASK_YAML = """\
task: {task}
dataset_path: parquet
dataset_kwargs:
  data_files: {{test: {files}}}
test_split: test
output_type: generate_until
doc_to_visual: !function cvbench_scenes.doc_to_visual
doc_to_text: !function cvbench_scenes.doc_to_text
doc_to_target: answer
process_results: !function cvbench_scenes.process_results
generation_kwargs: {{max_new_tokens: {cap}}}
metric_list:
  - {{metric: letter_acc, aggregation: mean, higher_is_better: true}}
metadata: {{version: 0}}
"""
TASK_CODE = """\
from cambrian_eval.scoring.letters import extract_letter
from cambrian_eval.suffixes import LETTER


def doc_to_visual(doc):
    return [doc["image"].convert("RGB")]


def doc_to_text(doc, lmms_eval_specific_kwargs=None):
    return f"{doc['prompt']}\\n{LETTER}"


def process_results(doc, results):
    letter = extract_letter(results[0], doc["choices"]).letter
    return {"letter_acc": float(f"({letter})" == doc["answer"])}
"""


class Outcome(NamedTuple):
    """One evaluation: seconds, share of right answers, and replies in the order of the data."""

    seconds: float
    score: float
    replies: list[str]


def make_data(folder: Path, count: int) -> Path:
    """Renders scenes and writes questions about them as the hub has them."""
    scenes, plain, made = folder / "scenes", folder / "plain", folder / "data"
    write_scenes(scenes, count=SCENES_PER_QUESTION * count // NUM_TASKS, seed=SCENE_SEED, side=SCENE_SIDE)
    write_scene_benchmark(scenes, plain, count_per_task=count // NUM_TASKS)
    made.mkdir()
    for part in PARTS:
        rows = [json.loads(line) for line in (plain / f"test_{part}.jsonl").read_text().splitlines()]
        images = [{"bytes": (plain / row["filename"]).read_bytes(), "path": row["filename"]} for row in rows]
        columns = {name: [row[name] for row in rows] for name in FEATURES if name != "image"}
        table = pa.table(
            {**columns, "image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))}
        )
        features = json.dumps({"info": {"features": FEATURES}})  # by this `datasets` knows that images are images
        pq.write_table(table.replace_schema_metadata({"huggingface": features}), made / f"test_{part}.parquet")
    return made


def ours(model: Cambrian, data: Path, folder: Path, cap: int, batch_size: int) -> Outcome:
    """Our runner."""
    begin = time.perf_counter()
    evaluate(TASK, model, data=data, output=folder, max_new_tokens=cap, batch_size=batch_size)
    seconds = time.perf_counter() - begin
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    return Outcome(seconds, float(np.mean([line["value"] for line in lines])), [line["reply"] for line in lines])


def one_by_one(model: Any, processor: Any, data: Path, cap: int) -> Outcome:
    """A loop over `generate`, as anybody would write it."""
    task = TASKS.get(TASK)
    begin = time.perf_counter()
    replies, values = [], []
    for question in task.questions(data, task.splits[0]):
        replies.append(generate(model, processor, task.prompt(question).messages(), cap))
        values.append(task.score(question, replies[-1]).value)
    return Outcome(time.perf_counter() - begin, float(np.mean(values)), replies)


def generate(model: Any, processor: Any, messages: Sequence[dict[str, Any]], cap: int) -> str:
    """One greedy reply."""
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    stops = processor.stop_token_ids
    with torch.inference_mode():
        tokens = model.generate(
            **inputs, max_new_tokens=cap, do_sample=False, eos_token_id=stops, pad_token_id=stops[0]
        )
    return str(processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())


class LmmsEval:
    """lmms-eval in its own process, with the task as files of its own."""

    def __init__(self, python: Path, model: Path, data: Path, folder: Path, cap: int, threads: int) -> None:
        folder.mkdir()
        files = json.dumps([str(data / f"test_{part}.parquet") for part in PARTS])
        name = "cvbench_scenes"
        (folder / f"{name}.yaml").write_text(TASK_YAML.format(task=name, files=files, cap=cap))
        (folder / f"{name}.py").write_text(TASK_CODE)
        self._log = (folder / "stderr.log").open("w")
        self._process = subprocess.Popen(
            [python, Path(__file__).with_name("evaluation_lmms.py"), model, folder, name, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def run(self, adapter: str) -> Outcome:
        """One evaluation with an adapter."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(adapter, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"lmms-eval stopped; its last words:\n{Path(self._log.name).read_text()[-3000:]}")
        return Outcome(**json.loads(line))

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._log.close()


def interval(ratios: np.ndarray) -> str:
    """Median of the rounds' ratios, and its 95 % interval from resampled rounds."""
    if len(ratios) < 2:
        return f"{ratios[0]:.2f} (one round)"
    low, high = stats.bootstrap((ratios,), np.median, method="percentile", rng=0).confidence_interval
    return f"{np.median(ratios):.2f} (95 %: {low:.2f} to {high:.2f}), rounds {' '.join(f'{r:.2f}' for r in ratios)}"


def compare(ways: dict[str, Callable[[int], Outcome]], first: str, loop: str, rounds: int, count: int) -> None:
    """Runs all ways in every round and prints how the others compare with the first one."""
    names = list(ways)
    seconds = np.zeros((rounds, len(names)))
    outcomes: dict[str, Outcome] = {}
    for number in range(rounds):
        for place in np.roll(range(len(names)), number):
            outcomes[names[place]] = ways[names[place]](number)
            seconds[number, place] = outcomes[names[place]].seconds
    for place, name in enumerate(names):
        found = outcomes[name]
        equal = np.mean([a == b for a, b in zip(found.replies, outcomes[loop].replies, strict=True)])
        took = np.median(seconds[:, place])
        print(f"{name}: {took:.1f} s, {1000 * took / count:.1f} ms a question, ", end="")
        print(f"{100 * found.score:.1f} % right, {100 * equal:.1f} % of replies as one by one")
        if name != first:
            print(f"  over {first}: {interval(seconds[:, place] / seconds[:, names.index(first)])}")


def harness(data: Path, folder: Path, count: int) -> None:
    """Prints what everything but the model costs."""
    task = TASKS.get(TASK)
    whole, reading = [], []
    for number in range(HARNESS_ROUNDS + 1):
        begin = time.perf_counter()
        evaluate(TASK, ConstantReply("A"), data=data, output=folder / f"constant-{number}")
        middle = time.perf_counter()
        task.questions(data, task.splits[0])
        whole.append(middle - begin)
        reading.append(time.perf_counter() - middle)
    per_question = 1000 * np.array([whole[1:], reading[1:]]) / count  # the first round warms up
    total, read = np.median(per_question, axis=1)
    print(f"harness: {total:.3f} ms a question with reading of the data and pictures, {total - read:.3f} ms without")
    print(f"  rounds, with reading: {' '.join(f'{one:.3f}' for one in per_question[0])}")


def main() -> None:
    """Runs all parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a run of recipe tiny, or a checkpoint folder")
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--max-new-tokens", type=int, default=96, help="cap on a reply, as in the recipe's evaluation")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lmms-python", type=Path, help="Python of an environment with lmms-eval")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = make_data(folder, args.questions)
        harness(data, folder, args.questions)
        inside = args.model / CHECKPOINT
        checkpoint = inside if inside.is_dir() else args.model
        model = load(str(checkpoint))
        plain = CambrianForConditionalGeneration.from_pretrained(checkpoint, dtype="auto").eval()
        processor = CambrianProcessor.from_pretrained(checkpoint)
        size, cap = args.batch_size, args.max_new_tokens
        ours_name, loop = f"our runner, batches of {size}", "one by one"
        ways: dict[str, Callable[[int], Outcome]] = {
            ours_name: lambda number: ours(model, data, folder / f"ours-{number}", cap, size),
            loop: lambda number: one_by_one(plain, processor, data, cap),
        }
        if args.lmms_python:
            other = LmmsEval(args.lmms_python, checkpoint, data, folder / "lmms", cap, args.threads)
            ways |= {
                "lmms-eval, an adapter that asks one by one": lambda number: other.run("plain"),
                "lmms-eval, our bridge, batches of 1": lambda number: other.run("toolkit-1"),
                f"lmms-eval, our bridge, batches of {size}": lambda number: other.run(f"toolkit-{size}"),
            }
        for way in ways.values():
            way(-1)  # warms up
        compare(ways, ours_name, loop, args.rounds, args.questions)
        if args.lmms_python:
            other.close()


if __name__ == "__main__":
    main()
