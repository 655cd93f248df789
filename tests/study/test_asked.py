"""What a study asks for, and what it refuses before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.ground.errors import TutorialError
from helpers.study import asked

SMOKE = {"profile": "smoke", "models": ["tiny-random-qwen2"], "methods": ["lora", "qlora"]}


def test_trials_are_every_combination_each_with_a_run_of_its_own(runs: Path) -> None:
    wanted = asked.Asked.model_validate(SMOKE | {"seeds": 2})
    found = asked.trials("s", wanted)
    assert [(each.method, each.seed) for each in found] == [
        ("lora", 42), ("lora", 43), ("qlora", 42), ("qlora", 43),
    ]  # fmt: skip
    assert found[3].run == "s-tiny-random-qwen2-qlora-43"
    settings = asked.settings_of(found[3], wanted)
    assert settings.run.name == found[3].run
    assert settings.overrides["seed"] == 43
    assert [method.name for method in settings.methods] == ["qlora"]


@pytest.mark.parametrize(
    ("study", "names", "methods", "seeds", "words"),
    [
        ("", "", "", "", "Say what to study: MODELS="),
        ("", "tiny-random-qwen2", "", "two", "SEEDS='two'"),
        ("", "tiny-random-qwen2", "", "99", "SEEDS='99'"),
        ("nobody", "", "", "", "There is no study 'nobody': STUDY= takes one of article"),
        ("", "tiny-random-qwen3", "", "", "There is no model 'tiny-random-qwen3'"),
        ("", "tiny-random-qwen2", "lora lota", "", "There is no method lota"),
        ("", "tiny-random-qwen2 tiny-random-qwen2", "", "", "Two trials are called s-tiny"),
    ],
)
def test_what_cannot_be_studied_is_one_sentence(
    runs: Path, study: str, names: str, methods: str, seeds: str, words: str
) -> None:
    with pytest.raises(TutorialError) as refused:
        asked.trials("s", asked.asked(study, names, methods, seeds, "smoke"))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_articles_study_and_what_is_said_instead_of_a_line() -> None:
    article = asked.asked("article", "", "", "", "auto")
    assert (article.profile, article.seeds) == ("npu", 3)
    assert len(asked.trials("s", article)) == 3 * 2 * 3
    other = asked.asked("article", "Qwen2-0.5B", "", "2", "cuda")
    assert (other.models, other.profile, other.seeds) == (["Qwen2-0.5B"], "cuda", 2)


def test_a_file_that_is_no_study_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text("models: [Qwen2-0.5B]\nmethods: []\n")
    monkeypatch.setattr(asked, "STUDIES", tmp_path)
    with pytest.raises(TutorialError, match="is no study: methods: List should have"):
        asked.of_file("mine")


def test_a_name_that_no_folder_can_have_is_one_sentence() -> None:
    assert asked.check_name("mine-2") == "mine-2"
    with pytest.raises(TutorialError, match=r"RUN='a/b' cannot name a study"):
        asked.check_name("a/b")
