"""The compiler's figures as a table in a document, between two markers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uare_rt.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["BEGIN", "END", "rows", "write_table"]

BEGIN = "<!-- kernels:begin -->"
END = "<!-- kernels:end -->"


def rows(manifest: dict[str, Any]) -> list[str]:
    """Markdown lines: one row per variant, one column per target."""
    entries = manifest["kernels"]
    targets = list(dict.fromkeys(entry["target"] for entry in entries))
    by_name: dict[str, dict[str, Any]] = {}
    for entry in entries:
        by_name.setdefault(entry["name"], {})[entry["target"]] = entry
    lines = [
        f"Triton {manifest['triton']}; {len(by_name)} variants for {len(targets)} targets, "
        f"{sum(entry['spills'] > 0 for entry in entries)} of {len(entries)} kernels spill. Each cell: registers per "
        "thread / shared memory in KiB / share of the multiprocessor's warps that fit and what limits it (r registers, "
        "s shared memory, b blocks, w warps).",
        "",
        "| variant | warps | " + " | ".join(targets) + " |",
        "|---|---:|" + "---|" * len(targets),
    ]
    for name, found in by_name.items():
        warps = "/".join(str(count) for count in sorted({entry["warps"] for entry in found.values()}))
        cells = [_cell(found[target]) if target in found else "" for target in targets]
        lines.append(f"| `{name}` | {warps} | " + " | ".join(cells) + " |")
    return lines


def _cell(entry: dict[str, Any]) -> str:
    spills = f" **{entry['spills']} spills**" if entry["spills"] else ""
    share = f"{100 * entry['occupancy']:.0f} % {entry['limited_by'][0]}"
    return f"{entry['registers']} / {entry['shared'] / 1024:.3g} / {share}{spills}"


def write_table(document: Path, manifest: dict[str, Any]) -> None:
    """Put the table between the markers of a document.

    Raises:
        OutputError: the document cannot be read or written, or has no markers.
    """
    try:
        text = document.read_text()
        if BEGIN not in text or END not in text:
            raise OutputError(f"{document} has no lines {BEGIN} and {END} to write the table between")
        before, rest = text.split(BEGIN, 1)
        after = rest.split(END, 1)[1]
        document.write_text("\n".join((before + BEGIN, *rows(manifest), END + after)))
    except OSError as error:
        raise OutputError(f"{document} cannot be written: {error.strerror or error}") from error
