"""What a plan does and why, axis by axis, with evidence: the computation behind `autotune evaluate`."""

from autotune.evaluation.evaluate_plan import evaluate
from autotune.evaluation.report_claims import Claim, Claims, read_claims
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
