"""Whatever readers write into a profile, an override or a recipe: settings, or one sentence."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from helpers.ground import files, paths
from helpers.ground.errors import TutorialError
from helpers.inputs import file_kinds, keys, readers, recipes, rows, settings

pytestmark = pytest.mark.usefixtures("runs")
EXAMPLES = settings_of_hypothesis(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck)
)

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner)
)
# Not only YAML that is well-formed, nor only text that is UTF-8.
TEXTS = st.one_of(
    VALUES.map(lambda value: yaml.safe_dump(value, allow_unicode=True).encode()),
    st.text(alphabet="ab:-[]{}#&*!|>%@`'\"\n\t ,?0129.eE~\\", max_size=60).map(str.encode),
    st.binary(max_size=60),
    st.sampled_from([b"a: 2024-99-99", b"? [a]\n: b", b"[" * 3000, b"a: !!python/object:x {}",
                     b"- a", b"", b"\xff\xfe", b"a: &x [*x]", b"1: 2", b"a: !!int x"]),
)  # fmt: skip


def one_line(error: TutorialError) -> None:
    if "\n" in error.message:
        raise AssertionError(error.message)


@EXAMPLES
@given(content=TEXTS)
def test_any_file_as_yaml(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file.yaml"
        file.write_bytes(content)
        try:
            assert isinstance(files.read_yaml(file), dict)
        except TutorialError as error:
            one_line(error)


KEYS = st.sampled_from(["model", "data", "recipe", "predict", "environment", "tuned", "name"])
DATA = st.fixed_dictionaries(
    {},
    optional={
        name: SCALARS for name in ("source", "train", "eval", "curve", "merged", "columns", "more")
    },
)
SOUND = st.just(
    {"model": "tiny-random-qwen2", "data": {"source": "generated", "train": 5, "eval": 2}}
)


@EXAMPLES
@given(
    sound=SOUND,
    odd=st.dictionaries(KEYS | st.text(max_size=5) | st.integers(), VALUES | DATA, max_size=3),
)
def test_any_profile(sound: dict[str, Any], odd: dict[Any, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "PROFILES", Path(folder))
        (Path(folder) / "odd.yaml").write_text(yaml.safe_dump(sound | odd), "utf-8")
        try:
            chosen = settings.resolve("odd")
            assert chosen.profile.name == "odd"
            assert dict(chosen.table().rows)["profile"] == "odd"
        except TutorialError as error:
            one_line(error)


KNOWN = sorted(keys.known())
WORDS = st.one_of(
    st.text(max_size=20),
    st.builds("{}={}".format, st.sampled_from(KNOWN) | st.text(max_size=8), st.text(max_size=20)),
    st.sampled_from(["a=2024-99-99", "a=[1", "a=" + "[" * 3000, "=", "a=", "a==b", "a=&x", "a=*x"]),
)


@EXAMPLES
@given(words=st.lists(WORDS, max_size=4))
def test_any_overrides(words: list[str], runs: Path) -> None:
    """Read, checked, laid over the recipe and written as the YAML that repeats the step."""
    try:
        overrides = settings.parse_overrides(" ".join(words))
        chosen = settings.resolve("smoke", run="test", overrides=overrides)
        chosen.model.path.mkdir(parents=True, exist_ok=True)
        (chosen.model.path / "config.json").write_text('{"model_type": "qwen2"}')
        # A quantised method takes all of them, another all but those of the quantisation.
        used = recipes.for_training("qlora", chosen)
        assert set(overrides) <= set(used)
        bare = recipes.for_training("lora", chosen)
        assert set(overrides) - keys.quantisation() <= set(bare)
        file = recipes.write(used, "train", runs / "recipe.yaml")
        assert repr(files.read_yaml(file)) == repr(used)
    except TutorialError as error:
        one_line(error)


@EXAMPLES
@given(
    name=st.sampled_from(
        ["profile", "model", "run", "data", "methods", "train", "evaluate", "columns"]
    ),
    value=st.text(max_size=40) | st.sampled_from(["x" * 5000, "..", "a\x00b", "~nobody/x", "~"]),
)
def test_any_name(name: str, value: str) -> None:
    try:
        settings.resolve(**({"profile": "smoke"} | {name: value}))
    except TutorialError as error:
        one_line(error)


COLUMNS = st.sampled_from([*rows.COLUMNS, "conversations", "question", ""]) | st.text(max_size=4)
ROWS = st.lists(st.dictionaries(COLUMNS, VALUES, max_size=4) | VALUES, max_size=4)
CONTENTS = st.one_of(
    TEXTS,
    st.binary(max_size=200),
    st.text(alphabet='a,;"\n\r\t0123 {}[]:\\\ufeff', max_size=80).map(str.encode),
    ROWS.map(lambda found: json.dumps(found, default=str).encode()),
    ROWS.map(lambda found: "\n".join(json.dumps(row, default=str) for row in found).encode()),
    st.tuples(
        st.text(alphabet="价格,\n a", max_size=40), st.sampled_from(["utf-8", "utf-16", "gbk"])
    ).map(lambda pair: f"instruction,output\n{pair[0]}".encode(pair[1])),
)


@EXAMPLES
@given(
    content=CONTENTS,
    suffix=st.sampled_from([*file_kinds.KINDS, ".txt", ""]),
    columns=st.dictionaries(st.sampled_from(rows.COLUMNS), COLUMNS, max_size=2),
)
def test_any_data_file(content: bytes, suffix: str, columns: dict[str, str]) -> None:
    """Its rows, each usable or with its fault, or one sentence; the file stays as it is."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"data{suffix}"
        file.write_bytes(content)
        try:
            source = readers.examined(file, fetched=False)
            layout = rows.layout([source], columns)
            wanted = [name for name in layout.columns.values() if name in source.columns]
            found = list(readers.read(source, wanted, range(source.rows)))
            assert len(found) == source.rows
            for _, values in found:
                row = rows.row_of(values, layout)
                assert isinstance(row, rows.Row) or row.words()
        except TutorialError as error:
            one_line(error)
        assert file.read_bytes() == content
