"""Other tools' ways to ask and to read, mistakes included, so that a difference between two scores explains itself.

`reference` is the evaluation scripts of Cambrian-1 (commit 539ffc3), `lmms-eval` is version 0.7.2 (commit 75571cf),
`vlmevalkit` is VLMEvalKit's commit e8e78f0. Nothing here runs their code. Where they crash, guess at random or ask a
judge, ours abstains. What they get wrong, and what our own rules say instead, is in docs/evaluation/differences.md.
"""

from cambrian_eval.compat.application import apply
from cambrian_eval.compat.profiles import PROFILES, aggregate, prompt, score, setting

__all__ = ["PROFILES", "aggregate", "apply", "prompt", "score", "setting"]
