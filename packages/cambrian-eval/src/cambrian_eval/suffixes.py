"""The format instructions that benchmarks put after a question, one place for all of them.

Source: the reference's evaluation scripts. Wording matters: for Cambrian-8B the letter suffix is worth 11 points on
MMBench.
"""

LETTER = "Answer with the option's letter from the given choices directly."
