# SPDX-License-Identifier: MIT
"""The front page: its Python runs, its figures are right, and what it names exists."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import lucid_c
from lucid_c.cli.command_line import build_parser
from lucid_c.cli.info import describe
from lucid_c.models._cards import CARDS

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
if not README.exists():
    pytest.skip("no checkout around the tests", allow_module_level=True)
TEXT = README.read_text(encoding="utf-8")


def blocks(language, text=TEXT):
    """(line number, code) of the fenced blocks of a language."""
    return [
        (text.count("\n", 0, match.start(1)), match[1])
        for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]


def test_the_python_runs(tmp_path, monkeypatch, capsys):
    """All blocks in one namespace; what a line prints is what its comment says."""
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("safetensors")
    monkeypatch.chdir(tmp_path)
    lucid_c.create_model("resnet_50").save("resnet50.safetensors")
    image.fromarray(np.full((90, 120, 3), 77, np.uint8)).save("cat.jpg")
    code = blocks("python")
    assert len(code) >= 5
    namespace = {"__name__": "readme"}
    for line, text in code:
        exec(compile("\n" * line + text, str(README), "exec"), namespace)
    assert namespace["logits"].shape == (2, 1000) and namespace["logits"].dtype == np.float32
    assert namespace["x"].shape == (1, 3, 224, 224)
    promised = re.findall(r"print\(.*\.shape\)  # (\(.*\))$", TEXT, re.MULTILINE)
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("(")]
    assert printed == promised and len(promised) == 3


def test_set_up_is_one_block_of_two_commands():
    section = TEXT.partition("## Install and test\n")[2].partition("\n## ")[0]
    fences = re.findall(r"^```.*$", section, re.MULTILINE)
    assert fences == ["```sh", "```"]
    ((_, commands),) = blocks("sh", section)
    set_up, test = commands.splitlines()
    assert set_up.endswith("lucid-c demo") and test.endswith("pytest -q tests")


def test_command_lines_are_understood():
    commands = [
        shlex.split(line, comments=True)[1:]
        for _, code in blocks("sh")
        for line in code.splitlines()
        if line.startswith("lucid-c ")
    ]
    assert {words[0] for words in commands} == {
        "classify",
        "train",
        "validate",
        "info",
        "list",
        "config",
        "bench",
        "demo",
    }
    for words in commands:
        assert callable(build_parser().parse_args(words).run)


def variants():
    rows = re.findall(r"^\| (\w+) \| (\d+) \| ([\d,]+) \| ([\d,]+) \|$", TEXT, re.MULTILINE)
    return {name: [int(n.replace(",", "")) for n in numbers] for name, *numbers in rows}


def test_table_of_variants():
    table = variants()
    assert list(table) == list(CARDS)
    for name, (size, parameters, _) in table.items():
        assert (size, parameters) == (CARDS[name].image_size, CARDS[name].parameters)


# Recording the largest ones takes seconds and gigabytes.
SMALL = [name for name, card in CARDS.items() if card.parameters < 65_000_000]


@pytest.mark.parametrize("name", SMALL)
def test_multiply_adds(name):
    report = describe(name)
    assert variants()[name] == [
        report["input_shape"][-1],
        report["parameters"],
        report["multiply_adds"],
    ]
    assert report["card"]["flops"] == CARDS[name].flops


def test_files_that_are_named_exist():
    named = set(re.findall(r"`((?:csrc|lucid_c|tests)/[\w./]*)`", TEXT))
    folders = TEXT.partition("    csrc/ ")[2].partition("\n\n")[0]
    named |= {f"csrc/{name}" for name in re.findall(r"^ {6}(\w+/)", folders, re.MULTILINE)}
    assert len(named) > 10
    assert not [name for name in named if not (ROOT / name).exists()]


def test_variables_that_are_named_are_read_somewhere():
    sources = [
        path.read_text(encoding="utf-8")
        for folder, pattern in (("csrc", "*.c"), ("lucid_c", "*.py"), (".", "setup.py"))
        for path in (ROOT / folder).rglob(pattern)
        if ".venv" not in path.parts and "build" not in path.parts
    ]
    for name in set(re.findall(r"`((?:LUCID_C|OMP)_[A-Z_]+)`", TEXT)):
        assert any(name in source for source in sources), name
