"""luce evaluate: how good a run is on labelled data."""

from luce.cli.arguments import AsJson, Debug, Features, RunFolder, Source, Target
from luce.cli.output import next_step, print_json, print_lines, report_handled
from luce.importing import for_command
from luce.plan import check_use

__all__ = ["evaluate"]


def evaluate(
    run: RunFolder,
    source: Source,
    target: Target = None,
    features: Features = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Score RUN on SOURCE, as a whole and class by class."""
    check_use(run, source)
    with for_command():
        from luce import printing
        from luce.run import load_run

    figures = load_run(run).evaluate(source, target=target, features=features)
    if as_json:
        print_json(figures)
        return
    print_lines([f"{run} on {figures['scored_on']}:", "", *printing.evaluation(figures)])
    report_handled(figures["handled"], figures["useless"])
    next_step("", "predict", run, source)
