"""What the documents tell people to type: commands and options that exist, Python that runs, files that are there."""

from __future__ import annotations

import pkgutil
import re
import shlex
from pathlib import Path

import click
import numpy as np
import pytest
import typer
from PIL import Image

from uare_rt.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "MODEL_CARD.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


def blocks(document: Path, *languages: str) -> list[str]:
    text = document.read_text(encoding="utf-8")
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def command_lines() -> list[tuple[str, ...]]:
    """The arguments of every `uare-rt` in a block, also behind a pipe or a semicolon."""
    found = []
    for document in DOCUMENTS:
        for line in "".join(blocks(document, "console", "sh", "bash")).replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="|;&")
            lexer.whitespace_split = True
            parts: list[list[str]] = [[]]
            for word in lexer:
                if set(word) <= set("|;&"):
                    parts.append([])
                else:
                    parts[-1].append(word)
            found += [tuple(part[1:]) for part in parts if part[:1] == ["uare-rt"]]
    return found


def test_commands_were_found() -> None:
    assert len(command_lines()) > 40


@pytest.mark.parametrize("words", command_lines(), ids=" ".join)
def test_a_documented_command_is_understood(words: tuple[str, ...]) -> None:
    group = typer.main.get_command(app)
    name, *arguments = words
    command = group.get_command(click.Context(group), name)
    assert command is not None, f"no command {name}"
    command.make_context(name, arguments)  # parses and checks every option and choice; runs nothing


def test_the_python_of_the_readme_runs(photo: Path) -> None:
    (example,) = blocks(ROOT / "README.md", "python")
    with Image.open(photo) as image:
        frame = np.asarray(image.convert("RGB"))[:128, :160]
    assert "np.ndarray = ..." in example
    names = {"given": frame}
    exec(compile(example.replace("np.ndarray = ...", "np.ndarray = given"), "README.md", "exec"), names)
    assert names["restored"].image.shape == (256, 320, 3)
    assert names["restored"].image.dtype == frame.dtype
    assert names["more"].image.shape == frame.shape
    assert names["verdict"].description.endswith(".")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_names_is_there(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = {target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target}
    missing = [link for link in links if link and not (document.parent / link).exists()]
    scripts = set(re.findall(r"python ((?:benchmarks|examples|tests)/[\w/]+\.py)", text))
    results = set(re.findall(r"(?<!-o )\bbenchmarks/results/[\w-]+\.json", text))
    missing += [name for name in scripts | results if not (ROOT / name).exists()]
    assert not missing


def test_the_names_of_the_readme_exist() -> None:
    names = re.findall(r"`(uare_rt(?:\.\w+)+)`", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert "uare_rt.UareError" in names
    for name in names:
        pkgutil.resolve_name(name)
