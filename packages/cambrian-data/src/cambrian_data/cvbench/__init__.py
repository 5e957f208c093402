"""CV-Bench questions from annotations: counts, relations, depth and distances, with choices, letters and wording.

Reading order: annotations, sources, rules, candidates, makers, balance, questions, build; then drawing, pictures and
layout for the benchmark, answers and training for records, scenes for both from rendered scenes.
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
