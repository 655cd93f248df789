"""What is said of a cluster that a study cannot use, in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.ground.errors import TutorialError
from helpers.study import clusters


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a token."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("address", ["here", "10.0.0.1", "10.0.0.1:0", "10.0.0.1:99999", ":6379",
                                     "auto", "ray://10.0.0.1:6379", "a b:6379"])  # fmt: skip
def test_an_address_that_is_none_is_one_sentence(address: str) -> None:
    with pytest.raises(
        TutorialError, match=r"ADDRESS=.* is not understood: give the first"
    ) as told:
        clusters.check(address)
    assert "\n" not in str(told.value)


def test_a_machine_without_a_token_is_one_sentence_and_with_one_it_is_taken(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert clusters.check("") == ""
    with pytest.raises(TutorialError, match=r"has no token .*: copy ~/\.ray/auth_token"):
        clusters.check("10.0.0.1:6379")
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("secret")
    assert clusters.check(" 10.0.0.1:6379 ") == "10.0.0.1:6379"
    (home / ".ray" / "auth_token").unlink()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    assert clusters.check("one.example:6379") == "one.example:6379"


def test_of_the_readers_ray_nothing_but_the_token_of_a_cluster_is_passed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:1")
    assert "RAY_AUTH_TOKEN" not in clusters.environment("")
    told = clusters.environment("10.0.0.1:6379")
    assert told["RAY_AUTH_TOKEN"] == "secret"
    assert "RAY_ADDRESS" not in told


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"why": "silent"}, "No Ray answers at ADDRESS=10.0.0.1:6379: start it there"),
        ({"why": "silent", "log": "x InvalidAuthToken: y"}, "refuses this machine's token: copy"),
        ({"why": "versions"}, "runs another Ray or Python"),
        ({"why": "cards"}, "has none of the cards or cores that the profile asks for"),
        ({"why": "folder", "node": "10.0.0.2", "file": "/shared/x"},
         "The machine 10.0.0.2 of the cluster does not see /shared/x: lay the repository"),
        ({"why": "slow"}, "Ray did not start in ten minutes"),
    ],
)  # fmt: skip
def test_what_a_cluster_lacks_is_one_sentence(
    tmp_path: Path, event: dict[str, str], words: str
) -> None:
    (tmp_path / "log").write_text(event.pop("log", "Failed to connect"))
    told = clusters.refusal(event, "10.0.0.1:6379", tmp_path / "log").message
    assert words in told
    assert "\n" not in told
