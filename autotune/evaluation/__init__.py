"""What a plan does and why, axis by axis, with evidence: the computation behind `autotune evaluate`."""

from autotune.evaluation.claims import Claim, Claims, read_claims
from autotune.evaluation.run import evaluate
from autotune.evaluation.values import AxisVerdict, Check, ClaimVerdict, Evaluation, StageBytes

__all__ = [
    "AxisVerdict",
    "Check",
    "Claim",
    "ClaimVerdict",
    "Claims",
    "Evaluation",
    "StageBytes",
    "evaluate",
    "read_claims",
]
