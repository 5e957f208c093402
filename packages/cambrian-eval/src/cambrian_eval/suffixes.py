"""The format instructions that benchmarks put after a question, one place for all of them.

Source: the reference's evaluation scripts. Wording matters: for Cambrian-8B the letter suffix is worth 11 points on
MMBench.
"""

LETTER = "Answer with the option's letter from the given choices directly."
LETTER_ONLY = "Please answer directly with only the letter of the correct option and nothing else."
WORD = "Answer the question using a single word or phrase."
NUMBER = "Answer the question using a single number or phrase."
SHORT = "Give the short answer directly."
REASON = "First show your reasoning process and then give the final answer."
UNANSWERABLE = f"When the provided information is insufficient, respond with 'Unanswerable'.\n{WORD}"
