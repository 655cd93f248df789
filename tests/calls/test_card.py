"""`make card`: what it tries, and all of it on the simulated NPU with small shapes."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import npusim
import pytest
import yaml

from helpers.calls import card as calls
from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.inputs import settings
from helpers.records.card import Card
from helpers.results import card_page

REASON = npusim.available()
SMALL = {
    "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "dtype": "bfloat16",
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 128, "vocab_size": 512, "tie_word_embeddings": True,
}  # fmt: skip
WHAT: dict[str, Any] = {
    "models": {"small": SMALL, "wider": SMALL | {"hidden_size": 128}},
    "tokens": 64,
    "steps": 2,
    "seconds": 3000,  # what it takes here says nothing: other tests run beside it
}
NPU_SMI = paths.ROOT / "tests" / "fixtures" / "npu_smi" / "910b3_24.1_idle.txt"


def written(folder: Path, **changes: Any) -> Path:
    file = folder / "card.yaml"
    file.write_text(yaml.safe_dump({**WHAT, **changes}))
    return file


def run(folder: Path, what: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """`make card` on the simulated NPU, as on a host that has npu-smi."""
    tool = folder / "bin" / "npu-smi"
    tool.parent.mkdir(exist_ok=True)
    tool.write_text(f"#!/bin/sh\ncat '{NPU_SMI}'\n")
    tool.chmod(0o755)
    env = npusim.environment(
        PATH=f"{tool.parent}:{os.environ['PATH']}", TUTORIAL_RUNS=str(folder / "runs"), **more
    )
    command = [sys.executable, "-m", "helpers", "card", "--profile", "npu"]
    command += ["--folder", str(folder / "cards"), "--what", str(what)]
    return subprocess.run(
        command, env=env, cwd=paths.ROOT, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def visited(tmp_path_factory: pytest.TempPathFactory) -> tuple[Card, str, str]:
    """The card, the page and the JSON of a whole visit."""
    if REASON:
        pytest.skip(REASON)
    folder = tmp_path_factory.mktemp("card")
    done = run(folder, written(folder))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (found,) = (folder / "cards").glob("*.json")
    (page,) = (folder / "cards").glob("*.md")
    text = found.read_text("utf-8")
    return Card.model_validate_json(text), page.read_text("utf-8"), text


@pytest.mark.long
def test_every_training_was_taken(visited: tuple[Card, str, str]) -> None:
    card = visited[0]
    # Not even LLaMA-Factory's fused kernels for NPUs can be had without an NPU.
    faults = {each.setting for each in card.steps if each.fault}
    assert faults <= {"use_v1_kernels=True"}
    article = [(s.model, s.method, s.kernels) for s in card.steps if not s.setting]
    assert article == [
        ("small", "lora", ""), ("small", "qlora", "chosen"),
        ("wider", "lora", ""), ("wider", "qlora", "chosen"),
        ("small", "qlora", "default"), ("wider", "qlora", "default"),
    ]  # fmt: skip
    tuned = settings.resolve("npu").profile.tuned
    assert tuned
    tried = {each.setting for each in card.steps if each.setting}
    assert len(tried) == 5
    for key in (*tuned.recipe, *tuned.environment):
        assert any(key in name for name in tried), key


@pytest.mark.long
def test_what_was_allocated_is_what_was_planned(visited: tuple[Card, str, str]) -> None:
    """The planner knows the device; 5 % are left for tensors that are this small."""
    for each in visited[0].steps:
        if each.planned_bytes and each.allocated_bytes:
            assert abs(each.allocated_bytes / each.planned_bytes - 1) < 0.05, each.model_dump()
    assert sum(bool(each.planned_bytes) for each in visited[0].steps) >= 8


@pytest.mark.long
def test_the_kernels_have_the_defaults_bits_on_every_matrix(
    visited: tuple[Card, str, str],
) -> None:
    card = visited[0]
    assert {row.matrix for row in card.kernels} == {
        f"{model} {layer}" for model in ("small", "wider")
        for layer in ("q, o", "k, v", "gate, up", "down")
    }  # fmt: skip
    assert {row.formulation for row in card.kernels} == {"pairs4", "pairs8", "default"}
    assert all(row.equal and row.nanoseconds for row in card.kernels)


@pytest.mark.long
def test_the_profile_tells_the_aicpus_operators(visited: tuple[Card, str, str]) -> None:
    """The default backend shifts, which a 910B's AICPU does; the tutorial's kernels do not."""
    found = {(s.model, s.method, s.kernels): s.operators for s in visited[0].steps if s.operators}
    assert set(found) == {
        ("small", "lora", ""), ("small", "qlora", "chosen"), ("small", "qlora", "default")
    }  # fmt: skip
    shifts = [each.name for each in found["small", "qlora", "default"] if each.slow]
    assert any("rshift" in name for name in shifts)
    assert not [each for each in found["small", "qlora", "chosen"] if each.slow]


@pytest.mark.long
def test_the_page_says_simulated_in_every_heading(visited: tuple[Card, str, str]) -> None:
    card, page, _ = visited
    headings = [line for line in page.splitlines() if line.startswith("#")]
    assert len(headings) >= 10
    assert all("simulated" in heading for heading in headings)
    assert page == card_page.page(card)


@pytest.mark.long
def test_nothing_of_the_host_is_in_the_files(visited: tuple[Card, str, str]) -> None:
    for text in visited[1:]:
        assert socket.gethostname() not in text
        assert str(paths.ROOT) not in text
        assert not re.search(r"(?<![\w.])/(home|root|tmp|usr|work|opt|mnt)\b", text)


@pytest.mark.skipif(REASON is not None, reason=str(REASON))
@pytest.mark.long
def test_what_has_not_begun_in_time_is_left_out(tmp_path: Path) -> None:
    done = run(tmp_path, written(tmp_path, models={"small": SMALL}, seconds=1))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (found,) = (tmp_path / "cards").glob("*.json")
    steps = json.loads(found.read_text())["steps"]
    assert {each["fault"] for each in steps} == {"late"}


def test_a_processor_is_no_card(tmp_path: Path) -> None:
    with pytest.raises(TutorialError, match="PROFILE=npu or PROFILE=cuda"):
        calls.visit(settings.resolve("smoke"), written(tmp_path))


@pytest.mark.parametrize(
    "changes", [{"tokens": 60}, {"steps": 0}, {"models": {}}, {"speed": 1}, {"seconds": "long"}]
)
def test_what_cannot_be_asked_for_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(TutorialError, match=next(iter(changes))):
        calls.asked(written(tmp_path, **changes))


def test_a_model_without_shapes_is_refused(tmp_path: Path) -> None:
    wanted = calls.asked(written(tmp_path, models={"tiny-random-qwen2": None}))
    with pytest.raises(TutorialError, match="the shapes of tiny-random-qwen2"):
        calls.matrices(wanted)


def test_what_is_asked_for_on_a_card_is_the_articles_models() -> None:
    wanted = calls.asked(paths.CONFIGS / "card.yaml")
    assert calls.matrices(wanted)["Qwen2-0.5B gate, up"] == (4864, 896)
    assert wanted.seconds <= 600
    found = calls.cases_of(settings.resolve("npu").profile, wanted)
    assert [case.key for case in found[:5]] == [
        "Qwen2-0.5B|lora||", "Qwen2-0.5B|qlora||chosen", "Qwen2-7B|lora||",
        "Qwen2-7B|qlora||chosen", "Qwen2-0.5B|qlora||default",
    ]  # fmt: skip
    assert len({case.key for case in found}) == len(found)


def test_settings_that_belong_together_are_one() -> None:
    names = [each.name for each in calls.settings_of(settings.resolve("cuda").profile)]
    assert names == [
        "disable_gradient_checkpointing=True",
        "per_device_train_batch_size=8 gradient_accumulation_steps=2",
    ]
    assert calls.settings_of(settings.resolve("smoke").profile) == []


@pytest.mark.long
def test_a_cards_files_are_named_after_it(visited: tuple[Card, str, str]) -> None:
    name = calls.stem(visited[0])
    assert re.fullmatch(r"[A-Za-z0-9.-]+", name)
    assert "simulated" in name
