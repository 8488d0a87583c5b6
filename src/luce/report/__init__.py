"""The report: what a run learnt, where it is wrong, whether its probabilities can be believed.

A plain dict first (`summarise`), one HTML file second (`Report`).
"""

from luce.report.causes import Learnt
from luce.report.render import Report
from luce.report.several import summarise_labels
from luce.report.subject import Scored, Subject, score_rows
from luce.report.summary import summarise

__all__ = [
    "Learnt",
    "Report",
    "Scored",
    "Subject",
    "score_rows",
    "summarise",
    "summarise_labels",
]
