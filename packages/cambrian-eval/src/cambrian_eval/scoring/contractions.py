"""English contractions written without an apostrophe, as the VQA normaliser restores them.

Source: the list of the VQA evaluation (GT-Vision-Lab/VQA, vqaEval.py) in the form of M4C's EvalAIAnswerProcessor,
without its entries in capitals, which can never match a lower-cased word.
"""

_SINGLE = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't it'd
it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't somebody'll
somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's they'd they'll
they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd who'll
who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
"""
_DOUBLE = """
couldn't've hadn't've he'd've it'd've mightn't've 'ow's'at she'd've shouldn't've somebody'd've someone'd've
something'd've there'd've they'd've we'd've who'd've wouldn't've y'all'll y'all'd've you'd've
"""


def _without_one_apostrophe(word: str) -> list[str]:
    return [word[:at] + word[at + 1 :] for at, character in enumerate(word) if character == "'"]


CONTRACTIONS = (
    {word.replace("'", ""): word for word in _SINGLE.split()}
    | {short: word for word in _DOUBLE.split() for short in _without_one_apostrophe(word)}
    | {"somebody'd": "somebodyd"}
)
"""What is written -> what is meant."""
