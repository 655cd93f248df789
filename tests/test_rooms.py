"""The rooms of helpers/: imports go down, no module is long, and the face is quick to load."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from helpers.ground import paths

MOST_LINES = 400
# Tests of more than one module of their room, and of what.
TESTED = {
    "test_fault_table.py": "tests/FAULTS.md against every fault of the room",
    "test_make_doctor.py": "the command behind `make doctor`",
    "test_plans_are_true.py": "what is planned, against the allocator",
    "test_ai_core.py": "what the 4-bit kernels dispatch, against tests/worker/ai_core.toml",
    "test_doors.py": "the entry points that bitsandbytes loads",
    "test_several_cards.py": "a training on two processes, against one on one",
    "test_whole_study.py": "a study for real, with its trainings, killed in the middle",
}
LAYERS = tomllib.loads((paths.ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [program, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    shutil.copytree(paths.ROOT / "helpers", tmp_path / "helpers")
    shutil.copy(paths.ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_an_import_that_goes_up_is_found(copied: Path) -> None:
    module = copied / "helpers/inputs/models.py"
    module.write_text(module.read_text("utf-8") + "\nfrom helpers.results import comparison\n")
    done = lint(copied)
    assert done.returncode == 1
    assert "helpers.inputs" in done.stdout
    assert "helpers.results" in done.stdout


def test_a_room_that_no_level_knows_is_found(copied: Path) -> None:
    (copied / "helpers/attic").mkdir()
    (copied / "helpers/attic/__init__.py").write_text("")
    done = lint(copied)
    assert done.returncode != 0
    assert "attic" in done.stdout


def test_no_module_is_long() -> None:
    long = {
        paths.shown(file): lines
        for file in (paths.ROOT / "helpers").rglob("*.py")
        if (lines := len(file.read_text("utf-8").splitlines())) > MOST_LINES
    }
    assert long == {}


def test_the_map_names_every_room() -> None:
    page = (paths.ROOT / "helpers/README.md").read_text("utf-8")
    rooms = [folder.name for folder in (paths.ROOT / "helpers").iterdir()
             if (folder / "__init__.py").is_file()]  # fmt: skip
    assert [room for room in rooms if f"`{room}/`" not in page] == []


def test_tests_mirror_the_rooms() -> None:
    for folder in (paths.ROOT / "tests").iterdir():
        for file in (
            folder.glob("test_*.py") if (paths.ROOT / "helpers" / folder.name).is_dir() else ()
        ):
            module = paths.ROOT / "helpers" / folder.name / file.name.removeprefix("test_")
            assert module.is_file() or TESTED.get(file.name), paths.shown(file)


def test_no_module_names_a_method() -> None:
    """Notebooks tell of LoRA and QLoRA; the helpers take any method that is a file."""
    import ast

    named = []
    for file in (paths.ROOT / "helpers").rglob("*.py"):
        tree = ast.parse(file.read_text("utf-8"))
        named += [
            f"{paths.shown(file)}: {node.value}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and node.value in ("qlora", "dora", "QLoRA", "DoRA")
        ]
    assert named == []


def test_the_face_is_quick_to_load_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, time; begin = time.process_time(); from helpers import Tutorial; "
        "seconds = time.process_time() - begin; "
        "heavy = {'torch', 'pyarrow', 'scipy', 'statsmodels', 'matplotlib', 'pandas', "
        "'transformers', 'datasets', 'helpers.inputs.wordproblems'} & set(sys.modules); "
        "assert not heavy, heavy; assert seconds < 0.5, seconds"
    )
    # Other tests run beside this one: the best of three tries is the face's own.
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return
    raise AssertionError(done.stderr)


def test_no_two_test_files_have_one_name() -> None:
    """pytest imports them by their bare names, and refuses the second."""
    names = [file.name for file in (paths.ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
