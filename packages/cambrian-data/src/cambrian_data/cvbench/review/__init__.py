"""Review of a benchmark by people: a local page, a log of decisions for each reviewer, the reviewed set, agreement.

Reading order: geometry, benchmark, changes, decisions (the log); projection, session, server, page/ (what a reviewer
sees); verdicts, agreement, card, export (what comes of it).
"""

from cambrian_data.cvbench.review.agreement import Agreement, AgreementSummary, measure_agreement
from cambrian_data.cvbench.review.benchmark import Benchmark, Item, read_benchmark
from cambrian_data.cvbench.review.changes import Changes
from cambrian_data.cvbench.review.decisions import Decision, cut_lines, cut_notices, default_reviewer
from cambrian_data.cvbench.review.export import ExportSummary, export_reviewed, read_reviews
from cambrian_data.cvbench.review.server import ReviewServer, open_server
from cambrian_data.cvbench.review.session import Review
from cambrian_data.cvbench.review.verdicts import Outcome, Rule

__all__ = [
    "Agreement",
    "AgreementSummary",
    "Benchmark",
    "Changes",
    "Decision",
    "ExportSummary",
    "Item",
    "Outcome",
    "Review",
    "ReviewServer",
    "Rule",
    "cut_lines",
    "cut_notices",
    "default_reviewer",
    "export_reviewed",
    "measure_agreement",
    "open_server",
    "read_benchmark",
    "read_reviews",
]
