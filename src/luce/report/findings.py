"""The first thing to read: what the figures say about whether to trust the model, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["findings"]

# Below this many rows, intervals are too wide to tell good from bad.
FEW_ROWS = 100

# A temperature fitted on fewer rows is mostly chance.
FEW_CALIBRATION_ROWS = 100


def findings(content: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return sentences, each with a ``level``: "good", "look" (have a look) or "bad".

    Parameters
    ----------
    content : dict
        What `luce.report.summarise` has found.
    """
    found = [*_rows(content["scored"])]
    if content["figures"].get("headline"):
        found += _accuracy(content["figures"])
        found += _generalisation(content["figures"])
        found += _classes(content)
        found += _calibration(content["calibration"])
        if content["labels"].get("total"):
            found.append(
                _look(
                    f"{content['labels']['total']:,} labels look wrong; a wrong label counts as "
                    "the model's mistake here."
                )
            )
    if content["curves"].get("not_finite"):
        found.append(
            _bad(
                f"{content['curves']['not_finite']:,} values of the training history are not "
                "finite: training was unstable; lower the learning rate."
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
    found = []
    if scored["role"] == "none":
        return [_bad(scored["words"])]
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
        what = "class" if scored["new_classes_total"] == 1 else "classes"
        found.append(
            _bad(
                f"{scored['new_rows']:,} rows are of {scored['new_classes_total']:,} {what} that "
                "the run does not know, and cannot predict."
            )
        )
    if scored["missing_classes_total"]:
        total = scored["missing_classes_total"]
        what = "class has" if total == 1 else "classes have"
        found.append(
            _look(f"{total:,} of the run's {what} no rows here: nothing is known of them.")
        )
    if scored["labelled"] and scored["rows"] < FEW_ROWS:
        rows = "1 row was" if scored["rows"] == 1 else f"{scored['rows']} rows were"
        found.append(_look(f"Only {rows} scored: the intervals are wide."))
    return found


def _accuracy(figures: Mapping[str, Any]) -> list[dict[str, str]]:
    accuracy = figures["headline"]["figures"]["accuracy"]
    low, base = accuracy["interval"]["low"], figures["baseline"]["accuracy"]
    always = f"always saying “{figures['baseline']['class']}” ({base:.1%})"
    if low > base:
        return [_good(f"It beats {always}: {accuracy['value']:.1%}, at least {low:.1%}.")]
    if accuracy["value"] <= base:
        return [_bad(f"It is no better than {always}: {accuracy['value']:.1%}.")]
    return [
        _look(
            f"It may be no better than {always}: {accuracy['value']:.1%}, but the interval begins "
            f"at {low:.1%}."
        )
    ]


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
        share = f"only {worst['recall']:.0%}" if worst["recall"] else "none"
        found.append(
            _look(f"Of the {worst['support']:,} rows of “{worst['class']}” it found {share}.")
        )
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
    elif rows < FEW_CALIBRATION_ROWS:
        found.append(
            _look(f"The temperature was fitted on {rows} validation rows: it is mostly chance.")
        )
    return found
