"""A finished run in the files of other tools, from its log alone, without their packages.

lmms-eval: `DATE_samples_TASK.jsonl` and `DATE_results.json`, as `--log_samples` writes them; read by its `--baseline`.
VLMEvalKit: `MODEL_DATASET.tsv`, its table of predictions (PRED_FORMAT=tsv), and `DATASET.tsv`, the questions that it
goes with: in the folder LMUData they are a custom dataset, so that no row of another edition can be taken for ours.

Source: lmms-eval 0.7.3, `loggers/evaluation_tracker.py` and `baselines/loader.py`; VLMEvalKit (2026-08-18),
`smp/file.py` and `dataset/__init__.py`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from datetime import UTC, datetime
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from cambrian_eval.atomic import write_atomically
from cambrian_eval.errors import EvalError
from cambrian_eval.log import RUN, SAMPLES, read_answers
from cambrian_eval.results import METRICS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from cambrian_eval.types import ScoredAnswer


def export_predictions(run: Path, form: str, output: Path) -> list[Path]:
    """Write a run's predictions in another tool's form.

    Args:
        run: Folder of a finished evaluation.
        form: `lmms-eval` or `vlmevalkit`.
        output: Folder to write into; made if need be.

    Returns:
        The files written.

    Raises:
        EvalError: An unknown form, the folder holds no finished evaluation, or the files cannot lie in `output`.
    """
    if form not in FORMS:
        raise EvalError(f'found format "{form}", expected {" or ".join(FORMS)}.')
    identity, metrics = _read_json(run / RUN), _read_json(run / METRICS)
    if not metrics.get("complete"):
        raise EvalError(
            f"{run}: found an evaluation with {metrics.get('n_failed')} questions not answered, expected a finished "
            "one; run it again to ask them."
        )
    answers = read_answers(run)
    if not answers:
        raise EvalError(f"{run}: found no answers, expected a finished evaluation; run it first.")
    if output.exists() and not output.is_dir():
        raise EvalError(f"{output}: found a file, expected a folder to write into; choose another output.")
    output.mkdir(parents=True, exist_ok=True)
    files = FORMS[form](run, identity, metrics, answers)
    for name, text in files.items():
        path = output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    return [output / name for name in files]


def row_numbers(answers: Sequence[ScoredAnswer]) -> list[int]:
    """The number of each question in its data set: the one that its id ends in, where all ids end in different ones.

    Else it is the place in the log, which is the order of the data.
    """
    found = [re.search(r"(\d+)$", answer.question.id) for answer in answers]
    numbers = [int(match[1]) for match in found if match is not None]
    return numbers if len(set(numbers)) == len(answers) else list(range(len(answers)))


# lmms-eval.


def _lmms_eval(
    run: Path, identity: Mapping[str, Any], metrics: Mapping[str, Any], answers: Sequence[ScoredAnswer]
) -> dict[str, str]:
    task, folder = identity["task"], _file_name(identity["model"])
    date = datetime.fromtimestamp((run / SAMPLES).stat().st_mtime, UTC).strftime("%Y%m%d_%H%M%S")
    lines = [
        json.dumps(_sample(answer, number), ensure_ascii=False)
        for answer, number in zip(answers, row_numbers(answers), strict=True)
    ]
    results = {
        "results": {task: {"alias": task} | _score(metrics)},
        "versions": {task: identity["task_version"]},
        "n-samples": {task: {"original": len(answers), "effective": len(answers)}},
        "config": {"model": identity["model"], "limit": identity["limit"]},
        "model_name": identity["model"],
    }
    return {
        f"{folder}/{date}_samples_{task}.jsonl": "".join(f"{line}\n" for line in lines),
        f"{folder}/{date}_results.json": json.dumps(results, indent=2, ensure_ascii=False) + "\n",
    }


def _score(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The headline as lmms-eval has it: a share, or points where the benchmark counts points."""
    score, row = metrics.get("score"), metrics.get("scores", {}).get("score", {})
    if score is None:
        return {}
    return {"score,none": score / 100 if row.get("full", 100) == 100 else score}


def _sample(answer: ScoredAnswer, number: int) -> dict[str, Any]:
    """One line; its score is left out where the data keeps the answer secret."""
    tokens = answer.answer.reply_tokens
    named = json.dumps([answer.question.id, [picture.sha256 for picture in answer.prompt.pictures]])
    sample = {
        "doc_id": number,
        "target": answer.question.answers[0] if answer.question.answers else "",
        "filtered_resps": answer.answer.text,
        "token_counts": [None if tokens is None else {"output_tokens": tokens}],
        "doc_hash": hashlib.sha256(named.encode()).hexdigest(),
        "score": answer.score.value,
        "input": answer.prompt.text,
    }
    return {key: value for key, value in sample.items() if key != "score" or value is not None}


# VLMEvalKit.


def _vlmevalkit(
    run: Path, identity: Mapping[str, Any], metrics: Mapping[str, Any], answers: Sequence[ScoredAnswer]
) -> dict[str, str]:
    """Its data sets have one part each, so a run over several parts becomes several."""
    files: dict[str, str] = {}
    numbers = row_numbers(answers)
    for part in sorted({answer.question.part for answer in answers}):
        dataset = _file_name("-".join(filter(None, ("cambrian", identity["task"], part))))
        rows = [
            (_question(answer, number), answer.answer.text)
            for answer, number in zip(answers, numbers, strict=True)
            if answer.question.part == part
        ]
        files[f"{dataset}.tsv"] = _table([question for question, _ in rows])
        predictions = [{**question, "prediction": reply} for question, reply in rows]
        files[f"{_file_name(identity['model'])}_{dataset}.tsv"] = _table(predictions)
    return files


def _question(answer: ScoredAnswer, number: int) -> dict[str, str | int]:
    asked = answer.question
    row: dict[str, str | int] = {"index": number, "question": asked.text}
    row |= dict(zip(ascii_uppercase, asked.choices, strict=False))
    row["answer"] = asked.answers[0] if len(asked.answers) == 1 else json.dumps(asked.answers, ensure_ascii=False)
    row |= {"category": asked.task, "source": asked.source}
    return row | ({"split": asked.part} if asked.part else {})


def _table(rows: Sequence[Mapping[str, str | int]]) -> str:
    """Tab-separated, every field in quotes, so that tabs and line ends inside a reply stay where they are."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    letters = sorted(name for name in columns if name in ascii_uppercase)
    others = [name for name in columns if name not in ascii_uppercase]
    text = io.StringIO()
    writer = csv.DictWriter(
        text, [*others[:2], *letters, *others[2:]], "", delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text).strip("-")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise EvalError(
            f"{path.parent}: found no {path.name}, expected the folder of a finished evaluation; run it to its end."
        ) from error
    except ValueError as error:
        raise EvalError(f"{path}: not JSON ({error}); run the evaluation again.") from error
    if not isinstance(found, dict):
        raise EvalError(f"{path}: found a {type(found).__name__}, expected an object; run the evaluation again.")
    return found


FORMS: dict[str, Callable[[Path, Mapping[str, Any], Mapping[str, Any], Sequence[ScoredAnswer]], dict[str, str]]] = {
    "lmms-eval": _lmms_eval,
    "vlmevalkit": _vlmevalkit,
}
