"""Write the results of the benchmarks into documents.

usage: report.py DOCUMENT... [--results benchmarks/results]
Between `<!-- results:begin NAME -->` and `<!-- results:end -->` a document gets the tables of NAME.json, with machine,
versions, data and command; without a NAME it gets the promises of all results in one table.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from results import Limit, limits_table, run_command

from uare_rt.errors import InputError

__all__ = ["main", "render"]

_BENCHMARKS = (
    "evaluate",
    "evaluate_peers",
    "guidance",
    "ablations",
    "ranking",
    "faint",
    "startup",
    "memory",
    "video",
    "peers",
    "scaling",
    "builds",
    "precision",
)
_PLACE = re.compile(r"(<!-- results:begin ?(\w*) -->\n).*?(<!-- results:end -->)", re.DOTALL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("documents", type=Path, nargs="+", help="Markdown files with places for results")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="folder of JSON files")
    chosen = parser.parse_args(arguments)
    results = _read(chosen.results)
    for document in chosen.documents:
        try:
            text = document.read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"{document} cannot be read: {error.strerror}") from error
        document.write_text(render(text, results, str(document)), encoding="utf-8")
    return 0


def render(text: str, results: Mapping[str, Mapping[str, Any]], where: str) -> str:
    """Fill every place for results in a document.

    Args:
        text: Markdown.
        results: documents of the benchmarks by name.
        where: the document, for messages.

    Raises:
        InputError: it has no such place, or a place names a result that is not there.
    """

    def filled(place: re.Match[str]) -> str:
        opening, name, closing = place.groups()
        if not name:
            return f"{opening}{_limits(results)}\n{closing}"
        if name not in results:
            raise InputError(f"{where} asks for results of {name!r}; there are: {', '.join(results) or 'none'}")
        return f"{opening}{_section(results[name])}\n{closing}"

    rendered, count = _PLACE.subn(filled, text)
    if not count:
        raise InputError(f"{where} has no place for results: <!-- results:begin NAME --> and <!-- results:end -->")
    return rendered


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for name in _BENCHMARKS:
        path = folder / f"{name}.json"
        if path.exists():
            found[name] = json.loads(path.read_bytes())
    if not found:
        raise InputError(f"{folder} holds no result; write one with: python benchmarks/evaluate.py ... -o NAME.json")
    weights = {name: result["bundle"]["weights_sha256"][:12] for name, result in found.items()}
    if len(set(weights.values())) > 1:
        told = ", ".join(f"{name} of {digest}" for name, digest in weights.items())
        raise InputError(f"{folder} holds results of different weights ({told}); measure them again with one bundle")
    return found


def _origin(result: Mapping[str, Any]) -> str:
    machine, bundle = result["machine"], result["bundle"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    data = ", ".join(
        f"{name} {value[:12] if name.endswith('sha256') else value}" for name, value in result["data"].items()
    )
    return (
        f"`{result['command']}`, {result['date']}, {machine['cpu']}, {machine['cores']} cores "
        f"(load average {machine['load_average']}); {versions}; {bundle['name']}, "
        f"weights {bundle['weights_sha256'][:12]}; data: {data}."
    )


def _section(result: Mapping[str, Any]) -> str:
    tables = importlib.import_module(result["benchmark"]).tables(result["measured"])
    return "\n\n".join([_origin(result), *(table.markdown() for table in tables)])


def _limits(results: Mapping[str, Mapping[str, Any]]) -> str:
    found: dict[tuple[str, str], Limit] = {}
    for result in results.values():
        for limit in (Limit(**given) for given in result["limits"]):
            # What one run left out, another of the same benchmark may have measured on fewer pictures.
            key = (result["benchmark"], limit.name)
            if key not in found or found[key].value is None:
                found[key] = limit
    machines = {f"{x['machine']['cpu']}, {x['machine']['cores']} cores, {x['date']}" for x in results.values()}
    bundle = next(iter(results.values()))["bundle"]
    origin = f"{bundle['name']}, weights {bundle['weights_sha256'][:12]}, on {'; '.join(sorted(machines))}."
    return "\n\n".join([origin, limits_table(found.values()).markdown()])


if __name__ == "__main__":
    sys.exit(run_command(main))
