"""What an answer of a model is: a refusal, broken text, or neither; pure text, without a model."""

from sweeps.refusals.detector import Detector, detector, is_broken, list_names
from sweeps.refusals.questions import Question, question, question_names

__all__ = [
    "Detector",
    "Question",
    "detector",
    "is_broken",
    "list_names",
    "question",
    "question_names",
]
