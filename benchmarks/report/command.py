"""The commands ``report`` and ``quote`` of ``python -m benchmarks``."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.report.parts import read_results
from bertrec.errors import InvalidInput
from train.progress import say

RESULTS = Path("benchmarks/results")


def add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the two commands' options."""
    report = commands.add_parser("report", help="one page of all results, with plots, from their JSON files alone")
    report.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    report.add_argument("--html", type=Path, metavar="report.html", help="a page that needs nothing else")
    report.add_argument("--markdown", type=Path, metavar="docs/report.md", help="with its plots in a folder of its name")
    report.set_defaults(run_recorded=_report)
    quote = commands.add_parser("quote", help="put the results into the marked blocks of a page")
    quote.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    quote.add_argument("--page", type=Path, default=Path("README.md"))
    quote.set_defaults(run_recorded=_quote)


def _report(given: argparse.Namespace) -> int:
    from benchmarks.report.pages import html_page, markdown_page, write_plots  # matplotlib takes a second to load

    if given.html is None and given.markdown is None:
        raise InvalidInput("neither --html nor --markdown is given; accepted is either or both, such as --html report.html")
    results = read_results(given.results)
    for path in (path for path in (given.html, given.markdown) if path is not None):
        path.parent.mkdir(parents=True, exist_ok=True)
    if given.html is not None:
        given.html.write_text(html_page(results), encoding="utf-8")
        say(f"written to {given.html}")
    if given.markdown is not None:
        plots = given.markdown.with_suffix("")
        write_plots(results, plots)
        given.markdown.write_text(markdown_page(results, plots=plots.name), encoding="utf-8")
        say(f"written to {given.markdown} and {plots}")
    return 0


def _quote(given: argparse.Namespace) -> int:
    from benchmarks.report.quote import quoted

    before = given.page.read_text(encoding="utf-8")
    after = quoted(before, read_results(given.results))
    if after != before:
        given.page.write_text(after, encoding="utf-8")
    say(f"{given.page}: {'as it was' if after == before else 'figures put in'}")
    return 0
