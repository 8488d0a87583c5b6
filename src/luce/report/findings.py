"""The first thing to read: what the figures say about whether to trust the model, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luce.report.text import counted

__all__ = ["findings"]

# Below this many rows, intervals are too wide to tell good from bad.
FEW_ROWS = 100

# Figures of a class with fewer rows are mostly chance.
FEW_MEMBERS = 20

# Fewer rows say little of the temperature.
FEW_CALIBRATION_ROWS = 100


def findings(content: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return sentences, each with a ``level``: "good", "look" (have a look) or "bad".

    Parameters
    ----------
    content : dict
        What `luce.report.summarise` has found.
    """
    found = [*_rows(content["scored"]), *map(_look, content["about"]["warnings"])]
    if content["figures"].get("headline"):
        found += _accuracy(content["figures"])
        found += _rare(content)
        found += _generalisation(content["figures"])
        found += _classes(content)
        found += _calibration(content["calibration"])
        if content["labels"].get("total"):
            wrong = f"{counted(content['labels']['total'], 'label looks', 'labels look')} wrong"
            rare = content["thresholds"].get("rare")
            found.append(
                _look(
                    f"{wrong}, as rows of a rare class often do: look before you believe it."
                    if rare
                    else f"{wrong}; a wrong label counts as the model's mistake here."
                )
            )
    if content["curves"].get("not_finite"):
        found.append(
            _bad(
                "Training was unstable: "
                f"{counted(content['curves']['not_finite'], 'value is', 'values are')} not finite "
                "in its history; lower the learning rate."
            )
        )
    return found


def _good(text: str) -> dict[str, str]:
    return {"level": "good", "text": text}


def _look(text: str) -> dict[str, str]:
    return {"level": "look", "text": text}


def _bad(text: str) -> dict[str, str]:
    return {"level": "bad", "text": text}


def _rows(scored: Mapping[str, Any]) -> list[dict[str, str]]:
    if scored["role"] == "none":
        return [_bad(scored["words"])]
    found = [_bad(sentence) for sentence in scored["useless"]]
    if not scored["labelled"]:
        found.append(
            _look(
                "The rows have no label that the run knows: this page cannot show accuracy, "
                "confusion, calibration, mistakes or label errors."
            )
        )
    elif scored["role"] == "validation":
        found.append(
            _look(
                "There are no test rows. The figures are of the validation rows, which chose the "
                "model and its temperature: they flatter."
            )
        )
    if scored["new_classes_total"]:
        rows = counted(scored["new_rows"], "row is", "rows are")
        what = counted(scored["new_classes_total"], "class", "classes")
        found.append(_bad(f"{rows} of {what} that the run does not know, and cannot predict."))
    if scored["missing_classes_total"]:
        total = scored["missing_classes_total"]
        what = (
            "has no rows here: nothing is known of it."
            if total == 1
            else ("have no rows here: nothing is known of them.")
        )
        found.append(_look(f"{total:,} of the run's classes {what}"))
    if scored["labelled"] and scored["rows"] < FEW_ROWS:
        rows = counted(scored["rows"], "row was", "rows were")
        found.append(_look(f"Only {rows} scored: the intervals are wide."))
    return found


def _accuracy(figures: Mapping[str, Any]) -> list[dict[str, str]]:
    accuracy = figures["headline"]["figures"]["accuracy"]
    low, base = accuracy["interval"]["low"], figures["baseline"]["accuracy"]
    # Near 100% the first decimals are all the same.
    digits = 1 if base < 0.99 else 2
    value, end = f"{accuracy['value']:.{digits}%}", f"{low:.{digits}%}"
    always = f"always saying “{figures['baseline']['class']}” ({base:.{digits}%})"
    if low > base:
        return [_good(f"Its accuracy beats {always}: {value}, at least {end}.")]
    if accuracy["value"] <= base:
        return [_bad(f"Its accuracy is no better than {always}: {value}.")]
    return [
        _look(
            f"Its accuracy may be no better than {always}: {value}, but the interval begins at "
            f"{end}."
        )
    ]


def _rare(content: Mapping[str, Any]) -> list[dict[str, str]]:
    """Say when accuracy is not the figure to look at, and what the better figures say."""
    thresholds = content["thresholds"]
    if not thresholds.get("rare"):
        return []
    members, prevalence = thresholds["rows"], thresholds["share"]
    label, precision = thresholds["class"], thresholds["average_precision"]
    found = [
        _look(
            f"Accuracy is not the figure to look at: “{label}” has {counted(members, 'row')} of "
            f"{content['scored']['rows']:,} ({prevalence:.2%}), and it hardly sees them."
        )
    ]
    if members < FEW_MEMBERS:
        few = "a single row" if members == 1 else f"{members} rows"
        found.append(
            _look(f"What is said of “{label}” rests on {few} of it, and is mostly chance.")
        )
    words = f"average precision {precision:.1%}, where chance gives {prevalence:.2%}"
    if precision < 2 * prevalence:
        return [*found, _bad(f"It hardly ranks “{label}” above the rest: {words}.")]
    return [*found, _good(f"It ranks “{label}” above the rest: {words}.")]


def _generalisation(figures: Mapping[str, Any]) -> list[dict[str, str]]:
    train = next((part for part in figures["parts"] if part["label"] == "training"), None)
    if train is None:
        return []
    before, after = train["figures"]["accuracy"], figures["headline"]["figures"]["accuracy"]
    gap = before["value"] - after["value"]
    # Their intervals do not meet: more than chance.
    if gap > 0.01 and before["interval"]["low"] > after["interval"]["high"]:
        return [
            _look(
                f"It does {100 * gap:.1f} points worse here than on the rows it was trained on "
                f"({before['value']:.1%}): part of that was learnt by heart."
            )
        ]
    return [
        _good(
            f"It does about as well here as on the rows it was trained on ({before['value']:.1%})."
        )
    ]


def _classes(content: Mapping[str, Any]) -> list[dict[str, str]]:
    found = []
    never = content["confusion"]["never_predicted_total"]
    if never:
        names = ", ".join(f"“{each}”" for each in content["confusion"]["never_predicted"][:5])
        more = ", …" if never > 5 else ""
        found.append(_look(f"It never predicted {names}{more} on these rows."))
    rows = [row for row in content["classes"]["worst"] if row["support"]]
    accuracy = content["figures"]["headline"]["figures"]["accuracy"]["value"]
    worst = min(rows, key=lambda row: row["recall"])
    if worst["recall"] < accuracy - 0.1:
        found_of = f"only {worst['recall']:.0%}" if worst["recall"] else "none"
        of = "the only row" if worst["support"] == 1 else f"the {worst['support']:,} rows"
        found.append(_look(f"Of {of} of “{worst['class']}” it found {found_of}."))
    return found


def _calibration(calibration: Mapping[str, Any]) -> list[dict[str, str]]:
    after, before = calibration["after"], calibration["before"]
    found = []
    gap = after["mean_confidence"] - after["accuracy"]
    words = f"Its probabilities are off by {100 * after['ece']:.1f} points on average" + (
        f" ({100 * before['ece']:.1f} before calibration)" if before else ""
    )
    if after["ece"] <= 0.02:
        found.append(_good(f"{words}: they can be read as frequencies."))
    else:
        side = "too sure" if gap > 0 else "not sure enough"
        found.append(_look(f"{words}; on the whole it is {side} of itself."))
    rows = calibration["rows"]
    if calibration["temperature"] is None:
        found.append(_look("It was trained without validation rows: nothing is calibrated."))
    elif rows < FEW_CALIBRATION_ROWS and calibration["temperature"] != 1:  # 1 changes nothing
        found.append(
            _look(
                f"The temperature was fitted on {counted(rows, 'validation row')}, which say "
                "little of it."
            )
        )
    return found
