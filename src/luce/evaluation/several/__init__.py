"""Several labels at once: figures, thresholds, sets of controlled risk, and a temperature.

Labels that do not exclude each other have a probability each, (rows, labels), which do not add up
to 1. Every function takes ``(labels, probabilities, names)``: which labels are on, as an indicator
(rows, labels) of 0 and 1 or as lists of labels; the probability that each is on; and the label of
each column.
"""

from luce.evaluation.several.metrics import (
    average_precisions,
    calibration_errors,
    hamming_loss,
    label_ranking_average_precision,
    log_loss,
    per_label_scores,
    subset_accuracy,
    summary,
)
from luce.evaluation.several.risk import LabelSets, control_misses, label_set_figures
from luce.evaluation.several.temperature import fit_label_temperature
from luce.evaluation.several.thresholds import choose_thresholds

__all__ = [
    "LabelSets",
    "average_precisions",
    "calibration_errors",
    "choose_thresholds",
    "control_misses",
    "fit_label_temperature",
    "hamming_loss",
    "label_ranking_average_precision",
    "label_set_figures",
    "log_loss",
    "per_label_scores",
    "subset_accuracy",
    "summary",
]
