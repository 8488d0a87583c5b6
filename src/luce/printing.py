"""Plain results → the lines that the command line prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from luce.data.wording import in_bytes, listed, shown
from luce.models.candidates import options_in_words
from luce.texttable import table

__all__ = [
    "columns_by_kind",
    "distillation",
    "environment",
    "evaluation",
    "exported",
    "headline",
    "information",
    "kernels",
    "leaderboard",
    "plan",
    "trials",
]

# Above this many classes a table of all of them helps nobody: the worst are shown.
SHOWN_CLASSES = 30

# Of the inputs of an exported model, so many are named.
SHOWN_COLUMNS = 20

# Of the candidates that a search tried, so many are shown.
SHOWN_TRIALS = 5


def columns_by_kind(target: str | None, columns: Sequence[Any]) -> list[str]:
    """Return a table's columns by kind, a line each: how many, and the first few names.

    What a user may want to change is named: the columns left out and why.
    """
    lines = [] if target is None else [("target", shown(target))]
    kinds = dict.fromkeys(type(column) for column in columns)
    for kind in sorted(kinds, key=lambda kind: not kind.used):
        own = [column for column in columns if type(column) is kind]
        if not kind.used:
            few = [f"{shown(column.name)} ({column.note})" for column in own[:5]]
            names = "; ".join(few) + (f"; and {len(own) - 5:,} more" if len(own) > 5 else "")
        else:
            names = listed([column.name for column in own])
        lines.append((kind.plural, f"{len(own):,}: {names}"))
    return table(lines, left=2)


def leaderboard(board: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the candidates, best first."""
    head = ["model", "val. accuracy", "val. log-loss", "seconds", "parameters"]
    rows = [
        [
            str(record.get("label", record["model"])),
            f"{record['accuracy']:.2%}" if "accuracy" in record else "–",
            f"{record['log_loss']:.4f}" if "log_loss" in record else "–",
            f"{record['seconds']:.1f}",
            f"{record['parameters']:,}",
        ]
        for record in board
    ]
    lines = table([head, *rows])
    for record in board:
        if "weights" in record:
            parts = (f"{weight:.2f} {label}" for label, weight in record["weights"].items())
            lines.append(f"{record['label']} = {' + '.join(parts)}")
    return lines


def trials(tuning: Mapping[str, Any]) -> list[str]:
    """Return the best candidates of a search, the best first, and how many others there are."""
    complete = [trial for trial in tuning["trials"] if trial["state"] == "complete"]
    best = sorted(complete, key=lambda trial: (trial["log_loss"], trial["number"]))[:SHOWN_TRIALS]
    rows = [
        [
            str(trial["number"]),
            f"{trial['log_loss']:.4f}",
            f"{trial['accuracy']:.2%}",
            f"  {trial['model']} {options_in_words(trial['options'])}".rstrip(),
        ]
        for trial in best
    ]
    table_of = table([["trial", "log-loss", "accuracy"], *(row[:3] for row in rows)])
    lines = [table_of[0] + "  candidate"]
    lines += [line + row[3] for line, row in zip(table_of[1:], rows, strict=True)]
    others = len(tuning["trials"]) - len(best)
    if others:
        given_up = sum(trial["state"] == "pruned" for trial in tuning["trials"])
        early = f", of which {given_up:,} {'was' if given_up == 1 else 'were'} given up early"
        lines.append(f"and {others:,} more{early if given_up else ''}")
    return [f"mean of {tuning['folds']} folds:", *lines]


def plan(planned: Mapping[str, Any]) -> list[str]:
    """Return what a fit will take, and what that rests on."""
    problem, workers, passes = planned["problem"], planned["workers"], planned["passes"]
    kind = "sparse rows" if problem["values"] is not None else "rows"
    head = (
        f"{problem['rows']:,} {kind} × {problem['features']:,} columns, {problem['classes']:,} "
        f"classes, {workers:,} {'worker' if workers == 1 else 'workers'}"
    )
    share, source = planned["worker_rows_bytes"], planned["source_bytes"]
    each = f", {in_bytes(share)} of it for each worker" if workers > 1 else ""
    lines = [
        ("files", "not known" if source is None else in_bytes(source)),
        ("cache", f"{in_bytes(planned['cache_bytes'])}{each}"),
        ("passes", f"{passes:,} over the cache"),
        ("lanes", f"{planned['lanes']:,}, with {in_bytes(planned['sums_bytes'])} of sums each"),
    ]
    if workers > 1:
        up, down = in_bytes(planned["up_bytes"]), in_bytes(planned["down_bytes"])
        traffic = in_bytes(planned["traffic_bytes"])
        lines.append(
            ("network", f"{up} to the driver and {down} from it in a pass, {traffic} in all")
        )
    held = planned["worker_bytes"] + share
    keeps = f"{in_bytes(planned['worker_bytes'])}, {in_bytes(held)} to keep its rows"
    owner = "each worker" if workers > 1 else "in all"
    driver = f"; driver {in_bytes(planned['driver_bytes'])}" if workers > 1 else ""
    lines.append(("memory", f"{owner} {keeps}{driver}"))
    encode = planned["encode_seconds"]
    lines += [
        ("encoding", "not known without files of a table" if encode is None else in_time(encode)),
        ("fit", f"{in_time(planned['fit_seconds'])}, {in_time(planned['pass_seconds'])} a pass"),
    ]
    return [head, "", *table(lines, left=2), "", *planned["assumptions"]]


def in_time(seconds: float) -> str:
    """Return seconds in the unit that suits them.

    Examples
    --------
    >>> from luce.printing import in_time
    >>> in_time(0.0123), in_time(90), in_time(7200), in_time(1e6)
    ('12 ms', '90.0 s', '2.0 h', '11.6 days')
    """
    if seconds < 1:
        return f"{1e3 * seconds:.2g} ms"
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def headline(figures: Mapping[str, Any]) -> list[str]:
    """Return the figures of the whole, without the classes."""
    if "per_label" in figures:
        return _of_labels(figures)
    interval, baseline = figures["accuracy_interval"], figures["baseline"]
    beside = f"95% interval {interval['low']:.2%} to {interval['high']:.2%}"
    always = f"always {baseline['class']!r}: {baseline['accuracy']:.2%}"
    return [
        f"accuracy    {figures['accuracy']:.2%}  ({beside}; {always})",
        *_alike(figures),
        f"log-loss    {figures['log_loss']:.4f}",
        f"Brier       {figures['brier_score']:.4f}",
        f"ECE         {figures['ece']:.4f}  (top label, 15 bins of equal width)",
        f"macro-F1    {figures['macro_f1']:.4f}",
        *_uncalibrated(figures),
        *_hidden(figures),
    ]


def _of_labels(figures: Mapping[str, Any]) -> list[str]:
    """Return the figures of several labels at once."""
    interval = figures["subset_accuracy_interval"]
    beside = f"95% interval {interval['low']:.2%} to {interval['high']:.2%}"
    precision, base = figures["mean_average_precision"], figures["baseline_log_loss"]
    micro = f"precision {figures['micro_precision']:.4f}, recall {figures['micro_recall']:.4f}"
    ranking = "label ranking average precision"
    lines = [
        f"log-loss    {figures['log_loss']:.4f}  (per label; of the frequencies alone: {base:.4f})",
        f"ECE         {figures['ece']:.4f}  (mean of the labels', 15 bins of equal width)",
        f"micro-F1    {figures['micro_f1']:.4f}  ({micro})",
        f"macro-F1    {figures['macro_f1']:.4f}",
        f"Hamming     {figures['hamming_loss']:.4f}  (share of all labels that are wrong)",
        f"all right   {figures['subset_accuracy']:.2%}  (rows of which every label is; {beside})",
        f"ranking     {figures['label_ranking_average_precision']:.4f}  ({ranking})",
        *_uncalibrated(figures),
    ]
    if precision is not None:
        lines.insert(1, f"mAP         {precision:.4f}  (mean average precision of the labels)")
    return lines


def _each_label(per_label: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a table of labels; of the worst, where they are many."""
    lines, shown_labels = [], list(per_label)
    if len(shown_labels) > SHOWN_CLASSES:
        shown_labels = sorted(per_label, key=lambda row: row["f1"])[:SHOWN_CLASSES]
        lines = [f"the {SHOWN_CLASSES} worst of {len(per_label)} labels:"]
    rows = [
        [
            str(row["label"]),
            f"{row['rows']:,}",
            *(f"{row[key]:.4f}" for key in ("log_loss", "ece")),
            "–" if row["average_precision"] is None else f"{row['average_precision']:.4f}",
            *(f"{row[key]:.4f}" for key in ("threshold", "precision", "recall", "f1")),
        ]
        for row in shown_labels
    ]
    head = ["label", "rows", "log-loss", "ECE", "av. prec."]
    return [*lines, *table([[*head, "threshold", "precision", "recall", "F1"], *rows])]


def tested(metrics: Mapping[str, Any]) -> list[str]:
    """Return what a run scored on its test rows; nothing where there are none."""
    figures = metrics["test"]
    if not figures:
        return []
    return ["", f"on {figures['rows']:,} test rows, touched once:", *headline(figures)]


def _alike(figures: Mapping[str, Any]) -> list[str]:
    """Return the figures that count all classes alike, however many rows they have."""
    watched, area = figures["watched"], figures["roc_auc"]
    many = "" if len(figures["per_class"]) == 2 else "  (mean over the classes)"
    lines = [f"balanced    {figures['balanced_accuracy']:.2%}  (mean recall of the classes)"]
    if area is not None:
        lines.append(f"ROC AUC     {area:.4f}{many}")
    if watched is not None:
        chance = f"chance: {watched['share']:.4f}"
        what = f"average precision of class {watched['class']!r}; {chance}"
        lines.append(f"av. prec.   {watched['average_precision']:.4f}  ({what})")
    return lines


def _hidden(figures: Mapping[str, Any]) -> list[str]:
    """Return the line that says when accuracy is not the figure to look at."""
    watched, baseline = figures["watched"], figures["baseline"]
    if not figures["rare_classes"] or watched is None:
        return []
    share = f"{watched['rows']:,} of {figures['rows']:,} rows"
    line = (
        f"accuracy is not the figure to look at: class {watched['class']!r} has {share}, and "
        f"always {baseline['class']!r} is right in {baseline['accuracy']:.2%}. Look at the average "
        "precision, and at the thresholds that luce evaluate prints."
    )
    return [line]


def _uncalibrated(figures: Mapping[str, Any]) -> list[str]:
    """Return the line of the figures before calibration, if that changed any as printed."""
    before = figures.get("uncalibrated")
    parts = (("log-loss", "log_loss"), ("Brier", "brier_score"), ("ECE", "ece"))
    if before is None or all(f"{before[k]:.4f}" == f"{figures[k]:.4f}" for _, k in parts):
        return []
    shown = ", ".join(f"{label} {before[key]:.4f}" for label, key in parts)
    return [f"before calibration: {shown}"]


def evaluation(figures: Mapping[str, Any]) -> list[str]:
    """Return what `metrics.summary` found, for a person; or `several.summary`, of labels."""
    lines = headline(figures)
    if "per_label" in figures:
        return [*lines, "", *_each_label(figures["per_label"])]
    per_class = figures["per_class"]
    shown = per_class
    if len(per_class) > SHOWN_CLASSES:
        shown = sorted(per_class, key=lambda r: r["f1"])[:SHOWN_CLASSES]
        lines += ["", f"the {SHOWN_CLASSES} worst of {len(per_class)} classes:"]
    rows = [
        [
            str(r["class"]),
            *(f"{r[k]:.4f}" for k in ("precision", "recall", "f1")),
            f"{r['support']:,}",
        ]
        for r in shown
    ]
    lines += ["", *table([["class", "precision", "recall", "F1", "rows"], *rows])]
    if figures["watched"] is not None:
        lines += ["", *_thresholds(figures["watched"])]
    if figures["most_confused"]:
        pairs = [
            [f"{r['true']} taken for {r['predicted']}", f"{r['count']:,}", f"{r['share']:.2%}"]
            for r in figures["most_confused"][:5]
        ]
        lines += ["", *table([["most confused", "rows", "of class"], *pairs])]
    return lines


def _thresholds(watched: Mapping[str, Any]) -> list[str]:
    """Return the table of what happens at which threshold."""
    rows = [
        [
            "none" if row["threshold"] is None else f"{row['threshold']:.4g}",
            f"{row['flagged']:,}",
            *(f"{row[key]:.4f}" for key in ("precision", "recall", "f1", "cost")),
            "  " + ", ".join(row["notes"]),
        ]
        for row in watched["thresholds"]
    ]
    title = (
        f"class {watched['class']!r}, flagged where its probability is at least the threshold "
        f"(cost, per row: a miss counts as {watched['miss_cost']:,.4g} false alarms):"
    )
    return [
        title,
        *table([["threshold", "flagged", "precision", "recall", "F1", "cost", ""], *rows]),
    ]


# How a distillation's models are called.
SIDES = {"teacher": "teacher", "student": "student", "alone": "without a teacher"}


def distillation(content: Mapping[str, Any]) -> list[str]:
    """Return teacher, student and the student without a teacher, and where they disagree."""
    head = ["", "accuracy", "log-loss", "ECE", "parameters", "FLOPs", "rows/s"]
    rows = [
        [
            f"{SIDES[each['who']]} ({each['model']})",
            *(
                "–" if each[key] is None else format(each[key], form)
                for key, form in (("accuracy", ".2%"), ("log_loss", ".4f"), ("ece", ".4f"))
            ),
            f"{each['parameters']:,}",
            f"{each['flops_per_example']:,}",
            f"{each['rows_per_second']:,.0f}",
        ]
        for each in content["models"]
    ]
    count, of = content["disagreements"], content["rows"]
    line = f"student and teacher disagree in {count:,} of {of:,} rows ({count / of:.2%})"
    if content["teacher_right"] is not None and count:
        line += (
            f": there the teacher is right in {content['teacher_right']:,}, "
            f"the student in {content['student_right']:,}"
        )
    return [
        f"on {content['scored_on']} (rows/s: on this machine, from raw rows to probabilities):",
        *table([head, *rows]),
        line,
    ]


def information(info: Mapping[str, Any]) -> list[str]:
    """Return what `Run.info` found, for a person."""
    counted = info["data"]["rows"]
    shape = " × ".join(str(n) for n in info["input_shape"])
    counts = ", ".join(f"{counted[part]:,} {part}" for part in ("train", "validation", "test"))
    lines = [
        f"run         {info['path']} (luce {info['luce']})",
        f"data        {info['data']['name']}: {counts} rows",
        f"model       {info['model']}: {shape} → {info['classes']} {_classes(info)}",
        f"parameters  {info['parameters']:,}",
        f"FLOPs       {info['flops_per_example']:,} per example; multiply and add count as two",
        f"size        {info['file_bytes']:,} bytes",
        f"calibrated  {_temperature(info['temperature'])}",
        *_solved(info),
    ]
    lines += [
        f"{'part':<11} {part['label']}: {part['model']}, weight {part['weight']:.3f}"
        for part in info["options"].get("parts", ())
    ]
    layers = [[layer["name"], layer["layer"]] for layer in info["layers"]]
    lines += ["", *table(layers, left=2), ""]
    for part in ("test", "validation", "train"):
        scored = info["metrics"].get(part)
        if scored:
            rows = "1 row" if scored["rows"] == 1 else f"{scored['rows']:,} rows"
            lines.append(
                f"{part:<11} accuracy {scored['accuracy']:.2%}, log-loss {scored['log_loss']:.4f}, "
                f"ECE {scored['ece']:.4f} ({rows})"
            )
    return lines


def _solved(info: Mapping[str, Any]) -> list[str]:
    """Return what is known of a convex fit: link, penalty, what that left, and the proof."""
    outcome = info.get("outcome", {})
    lines = []
    if "link" in outcome:
        problems = outcome.get("binary_problems")
        of = "" if problems is None else f": {problems:,} binary problem{'s' * (problems != 1)}"
        lines.append(f"link        {outcome['link']}{of}")
    if outcome.get("penalty") is not None:
        share, groups = outcome.get("l1_ratio", 0.0), outcome["penalty"] == "group"
        other = "groups of a feature's coefficients" if groups else outcome["penalty"].upper()
        named = "L1" if share == 1 else f"{share:g} L1, {1 - share:g} {other}" if share else other
        if "nonzero_coefficients" in outcome:
            named += (
                f": {outcome['nonzero_coefficients']:,} coefficients are not zero, of "
                f"{outcome['used_features']:,} features"
            )
        lines.append(f"penalty     {named}")
    if "C" in outcome:
        lines.append(f"C           {outcome['C']:g}, chosen")
    if outcome.get("duality_gap") is not None:
        lines.append(f"proven      within {outcome['duality_gap']:.1e} of the optimum")
    return lines


def _classes(info: Mapping[str, Any]) -> str:
    """Return what the model tells apart."""
    return "labels, each on or off" if info.get("several") else "classes"


def _temperature(temperature: float | None) -> str:
    return "no: no validation rows" if temperature is None else f"temperature {temperature:.4f}"


def exported(content: Mapping[str, Any]) -> list[str]:
    """Return what was exported, and how it was compared, for a person."""
    rows = [["file", f"{content['path']}, {content['bytes']:,} bytes"]]
    if content["ir_version"] is not None:
        needs = [
            f"opset {version}" if name == "ai.onnx" else f"{name} {version}"
            for name, version in content["opsets"].items()
        ]
        rows.append(["needs", f"ONNX {', '.join(needs)}; IR version {content['ir_version']}"])
    for title in ("inputs", "outputs"):
        items = [f"{shown(name)[1:-1]}: {kind}" for name, kind in content[title].items()]
        few = items[:SHOWN_COLUMNS]
        more = [f"and {len(items) - len(few):,} more"] * (len(items) > len(few))
        rows += [[title if not i else "", each] for i, each in enumerate([*few, *more])]
    for i, each in enumerate(content["compared"]):
        same = f"within {each['difference']:.1e}, the same labels" if each["rows"] else "no answer"
        rows.append(["compared" if not i else "", f"{each['words']}: {same}"])
    return table(rows, left=2)


def environment(content: Mapping[str, Any]) -> list[str]:
    """Return the installation's versions and kernel backends, for a person."""
    flat = {
        k: v
        for k, v in content.items()
        if k not in ("packages", "backends", "compiled", "trained_at")
    }
    flat |= content["packages"]
    for name, reason in content["backends"].items():
        flat[f"backend {name}"] = "available" if reason is None else f"not available: {reason}"
    lines = table([[name, str(value)] for name, value in flat.items()])
    return lines + kernels(content["compiled"])


def kernels(compiled: Mapping[str, Any]) -> list[str]:
    """Return what is compiled on disk, for a person."""
    counts = compiled["kernels"].values()
    if not counts:
        return ["No compiled kernels are kept here: no Numba, or no folder (see NUMBA_CACHE_DIR)."]
    there = sum(n > 0 for n in counts)
    lines = [f"{there} of {len(counts)} kernels are compiled, for {sum(counts)} kinds of input."]
    if compiled["folder"] is not None:
        lines.append(f"They are in {compiled['folder']}")
    if there < len(counts):
        lines.append("The others compile at their first use; luce warm-up compiles most now.")
    return lines
