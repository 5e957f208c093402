"""Leakage audit: near-duplicates of a benchmark's pictures, and its questions, in what models are trained on."""

from cambrian_data.leakage.audit import audit
from cambrian_data.leakage.methods import FUNCTIONS as HASHES
from cambrian_data.leakage.summary import (
    AuditSummary,
    Drawing,
    Overlap,
    QuestionOverlap,
    Request,
    SetSummary,
)

__all__ = ["HASHES", "AuditSummary", "Drawing", "Overlap", "QuestionOverlap", "Request", "SetSummary", "audit"]
