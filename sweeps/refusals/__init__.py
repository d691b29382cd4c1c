"""What an answer of a model is: a refusal, broken text, or neither; pure text, without a model."""

from sweeps.refusals.detector import Detector, detector, is_broken, list_names

__all__ = ["Detector", "detector", "is_broken", "list_names"]
