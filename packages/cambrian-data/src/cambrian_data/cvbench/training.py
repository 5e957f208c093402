"""Questions as training records, in chat form."""

from __future__ import annotations

from cambrian_data.cvbench.answers import reasoned_answer, short_answer
from cambrian_data.cvbench.questions import FORMAT_PROMPT, Question
from cambrian_data.records import Record


def to_record(question: Question, *, id: str, source: str, image: str, format_prompt: bool, reasoning: bool) -> Record:
    """One question and its answer.

    Args:
        question: that is asked.
        id: of the record.
        source: of the record.
        image: path of the question's picture, relative to the records' folder.
        format_prompt: end the question as the evaluation does, asking for a letter.
        reasoning: answer with names, places, relation and letter; with the letter alone otherwise.
    """
    asked = f"{question.prompt}\n{FORMAT_PROMPT}" if format_prompt else question.prompt
    answer = reasoned_answer(question) if reasoning else short_answer(question)
    return Record(
        id=id,
        source=source,
        messages=[
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": asked}]},
            {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        ],
        images=[image],
    )
