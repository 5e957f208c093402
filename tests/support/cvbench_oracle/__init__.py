"""An independent judge of a built benchmark: every question is worked out again from the raw annotation files.

Written from the text of the rules, with nothing of `cambrian_data` in it: what it reads are the files that the
benchmark was made from, the files that were written, and the values of the rules that the manifest states.

Reading order: raw, wording, built; then answers, seen, drawing, records, tally, and judge that asks them all.
"""

from tests.support.cvbench_oracle.judge import judge
from tests.support.cvbench_oracle.raw import Source
from tests.support.cvbench_oracle.violations import Violation, kinds

__all__ = ["Source", "Violation", "judge", "kinds"]
