"""The report: one page that holds all of a run, and nothing that would run, fetch, or betray."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest
from conftest import ORIGIN, make_training
from fontTools.ttLib import TTFont
from results import made

from helpers import Tutorial
from helpers.ground import fonts, paths, words
from helpers.ground.errors import TutorialError
from helpers.ground.files import write_bytes
from helpers.planning.plan import RunPlans
from helpers.records import scoring
from helpers.records.schema import ArticleMemory, LossPoint
from helpers.results import comparison, run_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SCRIPT = "<script>document.title='ran'</script>"
LINK = "[press](javascript:alert(1)) ![x](http://127.0.0.1:9/x.png)"
HOSTILE = f"{SCRIPT} <img src=http://127.0.0.1:9/y.png onerror=document.title='ran'> {LINK} </p>"
KEY = "sk-0123456789abcdef"


class _Seen(HTMLParser):
    """What a page holds: its tags, with what they lead to, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.reached: list[str] = []
        self.handlers: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.reached += [value or "" for name, value in attrs if name in ("src", "href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


def seen(page: str) -> _Seen:
    found = _Seen()
    found.feed(page)
    return found


def records(**changes: dict[str, Any]) -> Any:
    """Write the records of a run and compare them; its settings come back."""
    chosen = made.chosen()
    made.write(chosen, **changes)
    comparison.compare(chosen)
    return chosen


def planned(chosen: Any) -> None:
    """Leave plans, and what a few steps with the article's settings took."""
    plans = {method.name: made.plan() for method in chosen.methods}
    kept = RunPlans.model_construct(run=plans, article=plans)
    question = {"recipe": {}, "device": "cpu"}
    for plan in plans.values():
        plan.question, plan.largest_micro_batch, plan.seconds = question, None, 1.0
    write_bytes(chosen.run.root / "plan.json", kept.model_dump_json(warnings=False).encode())
    measured = ArticleMemory(training=dict.fromkeys(plans, 2 * 2**30), origin=ORIGIN)
    write_bytes(chosen.run.root / "article_memory.json", measured.model_dump_json().encode())


def written(chosen: Any) -> str:
    return run_report.write(chosen.run).read_text("utf-8")


def test_it_tells_all_of_a_run_with_the_verdict_first(runs: Path) -> None:
    chosen = records()
    planned(chosen)
    page = written(chosen)
    found = seen(page)
    order = ["The verdict", "The comparison", "Curves and cost", "Memory, planned and measured",
             "Answers, with their intervals", "Merged models", "Examples, right and wrong",
             "Settings that differ from the article's", "Hashes", "The same run again"]  # fmt: skip
    headings = [unescape(each) for each in re.findall("<h2>(.*?)</h2>", page)]
    assert [heading for heading in headings if heading in order] == order
    for said in ("base model", "QLoRA, merged (dequantised base)", "answering: cutoff_len",
                 "torch", "2.10.0", "0123456789abcdef", "make run PROFILE=smoke RUN=test",
                 ORIGIN.note(), "problem 1", "✓", "✗"):  # fmt: skip
        assert said in found.text, said
    pictures = [each for each in found.reached if each.startswith("data:image/svg+xml")]
    assert len(pictures) == 6
    for picture in pictures:
        assert b"<svg" in base64.b64decode(picture.partition(",")[2])
    assert page.startswith("<!DOCTYPE html>")


def test_it_is_one_file_without_a_script_and_reaches_nothing(runs: Path) -> None:
    chosen = records()
    planned(chosen)
    found = seen(written(chosen))
    assert not {"script", "iframe", "link", "object", "embed", "form"} & set(found.tags)
    assert found.handlers == []
    for reached in found.reached:
        assert reached.startswith(("data:image/svg+xml;base64,", "#")), reached[:80]
    for picture in [each for each in found.reached if each.startswith("data:")]:
        drawn = base64.b64decode(picture.partition(",")[2]).decode()
        assert not re.search(r"<script|(?:href|src)=\"(?!#)|url\((?!#)", drawn)
    # The notebooks' own figures are theirs: the report's may be in another language.
    assert not list(chosen.run.figures.glob("*"))


def hostile(text: str) -> dict[str, dict[str, Any]]:
    """Return changes that put text wherever data or a model can."""
    chosen = made.chosen()
    changes: dict[str, dict[str, Any]] = {}
    for name in chosen.subjects:
        record = made.record(chosen, name)
        answer = scoring.score(text, f"{text}\n#### 7", f"{text}\n#### {text}")
        answers = record.answers.model_copy(update={"items": [answer] * record.answers.n})
        facts = record.data.model_copy(update={"source": "file", "name": text})
        changes[name] = {"answers": answers, "data": facts, "model": text}
    return changes


def test_what_data_and_models_say_is_text(runs: Path) -> None:
    page = written(records(**hostile(HOSTILE)))
    found = seen(page)
    assert not {"script", "iframe"} & set(found.tags)
    assert "table" in found.tags
    assert found.handlers == []
    assert HOSTILE in " ".join(found.text.split())
    assert not [each for each in found.reached if "javascript" in each or "http" in each]


class _Counting(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        pass


def opened(file: Path, folder: Path) -> str:
    """Return what becomes of a page in a browser that reaches this machine alone."""
    done = subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
         "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
         "--virtual-time-budget=3000", f"--user-data-dir={folder / 'profile'}", file.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="the Debian package chromium is not installed")
def test_in_chromium_nothing_runs_and_nothing_is_fetched(runs: Path, tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Counting)
    Thread(target=server.serve_forever, daemon=True).start()
    text = HOSTILE.replace("127.0.0.1:9", f"127.0.0.1:{server.server_port}")
    try:
        # As it is, it runs and fetches: else the browser would prove nothing.
        bare = tmp_path / "bare.html"
        bare.write_text(f"<!DOCTYPE html><title>t</title>{text}")
        assert "<title>ran" in opened(bare, tmp_path)
        assert "/y.png" in _Counting.asked
        _Counting.asked.clear()
        chosen = records(**hostile(text))
        page = opened(run_report.write(chosen.run), tmp_path)
        assert "<title>ran" not in page
        assert "&lt;script&gt;" in page
        assert _Counting.asked == []
    finally:
        server.shutdown()


def test_no_key_and_no_absolute_path_is_in_it(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWANLAB_API_KEY", KEY)
    origin = ORIGIN.model_copy(
        update={"environment": {"LD_PRELOAD": "/opt/lib/own/libjemalloc.so.2"}}
    )
    overrides = {"media_dir": "/home/me/pictures", "lora_rank": 16}
    changes: dict[str, dict[str, Any]] = {}
    for name, subject in made.chosen().subjects.items():
        record = made.record(made.chosen(), name)
        answers = record.answers.model_copy(update={"origin": origin})
        changes[name] = {
            "overrides": overrides, "model_source": "folder", "answers": answers,
        }  # fmt: skip
        if subject.kind == "adapter":
            recipe = record.recipes["train"] | overrides
            changes[name] |= {
                "training": make_training(origin=origin),
                "recipes": record.recipes | {"train": recipe},
            }
    text = seen(written(records(**changes))).text
    assert KEY not in text
    for folder in ("/opt/lib", "/home/me", str(paths.ROOT), str(runs), str(Path.home()) + "/"):
        assert folder not in text, folder
    assert "…/libjemalloc.so.2" in text
    assert "…/pictures" in text
    assert "MODEL=path/to/tiny" in text
    assert "OVERRIDES='media_dir=path/to/pictures lora_rank=16'" in text


def test_a_key_that_an_answer_repeats_is_not_shown(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWANLAB_API_KEY", KEY)
    page = written(records(**hostile(f"the key is {KEY}")))
    assert KEY not in page
    assert "&lt;SWANLAB_API_KEY&gt;" in page


def test_settings_that_differ_from_the_articles_are_told_with_whose_they_are(runs: Path) -> None:
    qlora = made.record(made.chosen(), "qlora").recipes
    predict = qlora["predict"] | {"max_new_tokens": 16}
    chosen = records(qlora={"recipes": qlora | {"predict": predict}})
    page = written(chosen)
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</th><td>(.*?)</td><td>(.*?)</td>"
                      r"<td>(.*?)</td></tr>", page)  # fmt: skip
    assert ("model", "Qwen2-0.5B", "tiny", "everything") in rows
    assert ("device", "npu", "cpu", "everything") in rows
    [told] = [row for row in rows if row[0] == "answering: max_new_tokens"]
    assert told[1:3] == ("256", "16")
    assert told[3] == "every model"
    [told] = [row for row in rows if row[0] == "answering: double_quantization"]
    assert told[3] == "QLoRA"
    # What the article says itself is no difference.
    assert not [row for row in rows if row[0] == "training: lora_rank"]


def test_it_speaks_the_language_that_is_set_and_else_the_runs(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (words.LANGUAGE, "LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    chosen = records()
    executed = chosen.run.notebooks / "06_compare.ipynb"
    source = paths.NOTEBOOKS / "zh" / "06_compare.ipynb"
    write_bytes(executed, f'{{"metadata": {{"papermill": {{"input_path": "{source}"}}}}}}'.encode())
    assert '<html lang="zh-CN">' in written(chosen)
    assert words.language() == "en"  # of this process, as before
    monkeypatch.setenv(words.LANGUAGE, "en")
    assert '<html lang="en">' in written(chosen)


def test_it_brings_the_chinese_font_that_it_needs_and_no_more(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = records()
    monkeypatch.setenv(words.LANGUAGE, "en")
    assert "@font-face" not in written(chosen)
    monkeypatch.setenv(words.LANGUAGE, "zh")
    page = written(chosen)
    font = base64.b64decode(re.findall(r"url\(data:font/woff;base64,([^)]+)\)", page)[0])
    with TTFont(io.BytesIO(font)) as part, TTFont(fonts.FILE) as whole:
        needed = {ord(sign) for sign in page if sign >= "\u2e80"}
        assert len(needed) > 100
        assert needed <= part.getBestCmap().keys()
        assert len(part.getBestCmap()) < len(whole.getBestCmap()) / 4
    # Another font that is asked first may keep what it has set.
    assert re.search(r'font: [^;]*?1\.5 "Report Chinese"', page)


def test_a_large_run_stays_small(runs: Path) -> None:
    steps = [LossPoint(step=i, loss=2 + (i * 7919 % 100) / 100) for i in range(1, 3001)]
    seconds = [i / 2 for i in range(20_000)]
    used = [10**9 + i * 7919 % 10**8 for i in range(20_000)]
    memory = {"measure": "resident", "seconds": seconds, "bytes_used": used}
    long = make_training(loss=steps, eval_loss=steps[::10], memory=memory)
    changes = {
        name: {"answers": change["answers"]}
        for name, change in hostile("a very long problem " * 5000).items()
    }
    for name in ("lora", "qlora"):
        changes[name]["training"] = long
    chosen = records(**changes)
    planned(chosen)
    assert len(written(chosen).encode()) < 3_000_000


def test_a_run_without_a_comparison_is_one_sentence(runs: Path) -> None:
    with pytest.raises(
        TutorialError, match=r"'test' has no comparison .*make run RUN=test"
    ) as told:
        Tutorial("smoke", run="test").report()
    assert len(str(told.value).splitlines()) == 1
    assert not paths.RunFolder("test").report.exists()


def test_the_command_ends_in_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "helpers", "report", "--profile", "smoke", "--run", "none"],
        cwd=paths.ROOT, env=os.environ | {"TUTORIAL_RUNS": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert re.fullmatch(r"\nRun 'none' has no comparison [^\n]*\n", done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_has_gone_names_the_notebook_that_makes_it(runs: Path) -> None:
    chosen = records()
    (chosen.run.results / "lora.json").unlink()
    with pytest.raises(TutorialError, match="run the notebook 03_lora first"):
        run_report.write(chosen.run)


def test_the_way_to_it_is_a_link_where_somebody_reads_and_a_name_where_nobody_does(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = records()
    monkeypatch.delenv("TUTORIAL_HEADLESS", raising=False)
    monkeypatch.chdir(paths.NOTEBOOKS)
    report = Tutorial("smoke", run="test").report()
    target = re.search(r"\]\(<(.*)>\)", report.markdown())
    assert target
    assert (paths.NOTEBOOKS / target[1]).samefile(chosen.run.report)
    monkeypatch.setenv("TUTORIAL_HEADLESS", "1")
    assert "](" not in report.markdown()
    assert report.plain().endswith("runs/test/report.html")
