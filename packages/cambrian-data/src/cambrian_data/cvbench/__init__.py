"""CV-Bench questions from annotations: counts, relations, depth and distances, with choices, letters and wording.

Reading order: annotations, sources, rules, candidates, rejections, makers with kinship, balance, questions with names,
build; then drawing, pictures, layout and folder for a benchmark, answers and training for records, scenes for both from
rendered scenes; inputs, geometry, tables, card and benchmark for a benchmark from any annotation files; review and
audit for what comes after. `benchmark` needs pyarrow, `rulebook` PyYAML; nothing that is imported here does.
"""

from cambrian_data.cvbench.answers import reasoned_answer, short_answer
from cambrian_data.cvbench.build import TaskSummary
from cambrian_data.cvbench.candidates import Candidate, Task
from cambrian_data.cvbench.questions import Question
from cambrian_data.cvbench.rules import CountRules, RelationRules, Rules, SeenRules, SpaceRules
from cambrian_data.cvbench.scenes import (
    QuestionsSummary,
    scene_questions,
    write_scene_benchmark,
    write_scene_records,
)
from cambrian_data.cvbench.training import to_record

__all__ = [
    "Candidate",
    "CountRules",
    "Question",
    "QuestionsSummary",
    "RelationRules",
    "Rules",
    "SeenRules",
    "SpaceRules",
    "Task",
    "TaskSummary",
    "reasoned_answer",
    "scene_questions",
    "short_answer",
    "to_record",
    "write_scene_benchmark",
    "write_scene_records",
]
