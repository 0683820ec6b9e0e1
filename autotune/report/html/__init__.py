"""Pages for people: one self-contained HTML file each, readable offline and on paper."""

from autotune.report.html.comparison import comparison_page
from autotune.report.html.evaluation import evaluation_page
from autotune.report.html.tune import tune_page

__all__ = ["comparison_page", "evaluation_page", "tune_page"]
