"""The notebooks in JupyterLab in a real browser: the project's own, and one in another Python.

The first notebooks train; all that come after re-use what there is. What is waited for is always a
condition: a training stands still at two steps until the test has seen it there.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import forget_settings
from holding import Held
from PIL import Image

from helpers.ground import paths
from helpers.programs import kernel

CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("no browser: 'apt-get install chromium' brings it", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="run 'make setup' for playwright")

RUN = "browser"
TOKEN = "of-the-tests"
SECONDS = 600  # that the slowest notebook may take where two cores do much else
STEPS = 12
HELD_AT = (5, 9)  # steps after which a training waits for the test
# What the tutorial has and another Python has not.
TUTORIAL = re.compile(r"(lora_against_qlora|llamafactory|torch|transformers|__pycache__)|.*\.pth$")


def other_python(folder: Path) -> Path:
    """Make an environment that has JupyterLab and a kernel, and nothing of the tutorial's."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    [target] = folder.glob("lib/python3*/site-packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not TUTORIAL.match(entry.name):
            (target / entry.name).symlink_to(entry)
    share = Path("share/jupyter")
    (folder / share / "kernels").mkdir(parents=True)
    (folder / share / "lab").symlink_to(Path(sys.prefix) / share / "lab")
    argv = [str(folder / "bin/python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "Python 3 (other)", "language": "python"}
    (folder / share / "kernels/python3").mkdir()
    (folder / share / "kernels/python3/kernel.json").write_text(json.dumps(spec))
    return folder / "bin/python"


@dataclass
class Lab:
    """A JupyterLab that runs."""

    url: str
    folder: str  # of the notebooks, as this server has it

    def page_of(self, name: str) -> str:
        return f"{self.url}lab/tree/{self.folder}{name}.ipynb?token={TOKEN}&reset"


def serve(python: Path | str, root: Path, base: str, env: dict[str, str]) -> tuple[Any, str]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    url = f"http://127.0.0.1:{port}{base}"
    server = subprocess.Popen(
        [python, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
         f"--port={port}", f"--ServerApp.base_url={base}", f"--ServerApp.root_dir={root}",
         f"--IdentityProvider.token={TOKEN}", "--LabApp.expose_app_in_browser=True"],
        env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{url}api?token={TOKEN}", timeout=5).close()
            break
        except OSError:
            assert server.poll() is None, "JupyterLab did not start"
            time.sleep(0.1)
    return server, url


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    """Trainings that stand still at two steps."""
    found = Held(tmp_path_factory.mktemp("held"), HELD_AT)
    yield found
    for method in ("lora", "qlora"):
        found.let_go_on(method)


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory, held: Held) -> Iterator[dict[str, str]]:
    """The environment of a user who has set the tutorial up, and nothing else."""
    home = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        forget_settings(patch)
        kernel._register_for_user(home / "data/kernels" / kernel.NAME)
        settings = home / "settings/@jupyterlab"
        for name, values in {
            "docmanager-extension/plugin": {"autosave": False},  # the notebooks are committed
            "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
        }.items():
            (settings / name).parent.mkdir(parents=True)
            (settings / f"{name}.jupyterlab-settings").write_text(json.dumps(values))
        own = {
            "JUPYTER_DATA_DIR": "data", "JUPYTER_CONFIG_DIR": "config", "TUTORIAL_RUNS": "runs",
            "JUPYTER_RUNTIME_DIR": "runtime", "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        }  # fmt: skip
        found = os.environ | {name: str(home / folder) for name, folder in own.items()}
        for name in ("TUTORIAL_HEADLESS", "JUPYTER_PREFER_ENV_PATH"):
            found.pop(name, None)
        yield found | held.env | {"TUTORIAL_PROFILE": "smoke", "TUTORIAL_RUN": RUN}


@pytest.fixture(scope="module")
def committed() -> Iterator[None]:
    """The committed notebooks, which no test may change."""

    def hashes() -> list[str]:
        files = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
        return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]

    before = hashes()
    yield
    assert hashes() == before


@pytest.fixture(scope="module")
def own(env: dict[str, str], committed: None) -> Iterator[Lab]:
    """The project's own JupyterLab, as `make lab` starts it."""
    server, url = serve(
        sys.executable, paths.NOTEBOOKS, "/", env | {"JUPYTER_PREFER_ENV_PATH": "1"}
    )
    yield Lab(url, "")
    server.terminate()
    server.wait(30)


@pytest.fixture(scope="module")
def foreign(
    env: dict[str, str], committed: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lab]:
    """A JupyterLab in another Python, under /jupyter/, its root folder above the repository."""
    python = other_python(tmp_path_factory.mktemp("other"))
    server, url = serve(python, paths.ROOT.parent, "/jupyter/", env)
    yield Lab(url, f"{paths.ROOT.name}/notebooks/")
    server.terminate()
    server.wait(30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        # One for all pages: what JupyterLab is made of is fetched once.
        yield found.new_context(viewport={"width": 1200, "height": 900})
        found.close()


class Page:
    """One page with one notebook."""

    def __init__(self, browser: Any, lab: Lab, name: str) -> None:
        self.page = browser.new_page()
        self.page.set_default_timeout(1000 * SECONDS)
        self.page.on("dialog", lambda dialog: dialog.accept())  # "leave this page?"
        self.url = lab.page_of(name)
        self.open()

    def open(self) -> None:
        self.page.goto(self.url)
        self.page.wait_for_function(
            "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"
        )
        self.page.evaluate(
            """async () => {
                const widget = jupyterapp.shell.currentWidget;
                await widget.context.ready;
                await widget.sessionContext.ready;
            }"""
        )

    def run_all(self) -> None:
        self.page.evaluate(
            """() => {
                window.ended = null;
                jupyterapp.commands.execute('notebook:run-all-cells').then(
                    done => { window.ended = done; }, error => { window.ended = String(error); });
            }"""
        )

    def ended(self) -> Any:
        """Return how running all cells has ended, once it has; None before."""
        return self.page.evaluate("() => window.ended")

    def outputs(self) -> list[dict[str, Any]]:
        cells = self.page.evaluate(
            "() => jupyterapp.shell.currentWidget.content.model.toJSON().cells"
        )
        return [output for cell in cells for output in cell.get("outputs", [])]

    def errors(self) -> list[str]:
        return ["\n".join(o["traceback"]) for o in self.outputs() if o["output_type"] == "error"]

    def live(self) -> list[str]:
        """Return what is shown in place of the cells that watch a call."""
        htmls = [output.get("data", {}).get("text/html", "") for output in self.outputs()]
        return ["".join(html) for html in htmls if "<code>" in "".join(html)]

    def steps(self) -> list[int]:
        """Return the optimizer steps that the training's line shows now."""
        return [int(n) for html in self.live() for n in re.findall(rf"step (\d+)/{STEPS}", html)]

    def dialogs(self) -> list[str]:
        return list(self.page.locator(".jp-Dialog").all_inner_texts())

    def kernel(self) -> str:
        """Return what its kernel does: "idle", "busy", "dead", ..."""
        return str(
            self.page.evaluate(
                "() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.status"
            )
        )

    def finish(self) -> None:
        """Wait until all cells have run, and look whether all is well."""
        assert wait_for(lambda: self.ended() is not None, SECONDS), self.live()
        assert self.errors() == []
        assert self.ended() is True
        assert self.dialogs() == []
        assert self.kernel() in ("idle", "busy")
        found = [output.get("data", {}).get("image/png") for output in self.outputs()]
        pictures = [picture for picture in found if picture]
        pictures += [m for html in self.live() for m in re.findall(r"base64,([^\"]+)", html)]
        assert pictures or "01_env" in self.url
        for picture in pictures:
            with Image.open(io.BytesIO(base64.b64decode("".join(picture)))) as image:
                assert image.width * image.height > 10_000
                assert len(image.convert("RGB").getcolors(10**6) or [0] * 9) > 2
        widths = self.page.eval_on_selector_all(
            ".jp-OutputArea img", "images => images.map(image => image.naturalWidth)"
        )
        assert all(width > 0 for width in widths)

    def close(self) -> None:
        self.page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        self.page.close()


def wait_for(what: Callable[[], object], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.3)
    return bool(what())


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[[Lab, str], Page]]:
    pages: list[Page] = []

    def open_page(lab: Lab, name: str) -> Page:
        pages.append(Page(browser, lab, name))
        return pages[-1]

    yield open_page
    for page in pages:
        page.close()


Open = Callable[[Lab, str], Page]


@pytest.mark.parametrize("name", paths.NOTEBOOK_NAMES[:2])
def test_the_first_two_run_in_the_projects_own_lab(own: Lab, opened: Open, name: str) -> None:
    page = opened(own, name)
    page.run_all()
    page.finish()


def trained(env: dict[str, str], method: str) -> dict[str, Any]:
    """Return the facts of a training, each of whose steps is told once."""
    file = Path(env["TUTORIAL_RUNS"]) / RUN / method / "training.json"
    facts: dict[str, Any] = json.loads(file.read_text("utf-8"))
    assert [point["step"] for point in facts["loss"]] == list(range(1, STEPS + 1))
    return facts


def test_a_reloaded_page_attaches_to_the_training_again(
    own: Lab, opened: Open, env: dict[str, str], held: Held
) -> None:
    page, (early, late) = opened(own, "03_lora"), HELD_AT
    page.run_all()
    assert wait_for(lambda: page.steps() == [early], SECONDS), page.errors()
    page.open()  # the page is loaded anew; the kernel is still watching for the old one
    assert all(f"run {RUN}" not in html for html in page.live())
    page.run_all()
    assert wait_for(lambda: page.steps() == [early], SECONDS), page.errors()
    held.let_go_on("lora", early)
    assert wait_for(lambda: page.steps() == [late], SECONDS), page.errors()  # live
    held.let_go_on("lora", late)
    page.finish()
    last = next(html for html in page.live() if f"step {STEPS}/{STEPS}" in html)
    assert f"run {RUN}" in last
    assert trained(env, "lora")["resumed_at"] == []


def test_the_stop_button_leaves_a_checkpoint(
    own: Lab, opened: Open, env: dict[str, str], held: Held
) -> None:
    page = opened(own, "04_qlora")
    page.run_all()
    assert wait_for(lambda: page.steps() == [HELD_AT[0]], SECONDS), page.errors()
    page.page.evaluate("() => jupyterapp.commands.execute('notebook:interrupt-kernel')")
    assert wait_for(lambda: page.ended() is not None, SECONDS)
    assert page.errors() == [
        "The training was stopped: run this cell again, and it goes on from its last checkpoint, "
        "or begins where it has none yet."
    ]
    held.let_go_on("qlora")
    page.run_all()
    page.finish()
    assert trained(env, "qlora")["resumed_at"] == [HELD_AT[0] + 1]  # the step that was going on


@pytest.mark.parametrize("name", paths.NOTEBOOK_NAMES[4:])
def test_the_last_two_run_in_the_projects_own_lab(own: Lab, opened: Open, name: str) -> None:
    page = opened(own, name)
    page.run_all()
    page.finish()


@pytest.mark.parametrize("name", paths.NOTEBOOK_NAMES)
def test_all_six_run_in_a_lab_of_another_python(foreign: Lab, opened: Open, name: str) -> None:
    page = opened(foreign, name)
    page.run_all()
    page.finish()


def test_a_wrong_kernel_says_so_in_one_sentence(foreign: Lab, opened: Open) -> None:
    page = opened(foreign, "03_lora")
    page.page.evaluate(
        """async () => {
            const context = jupyterapp.shell.currentWidget.sessionContext;
            await context.changeKernel({name: 'python3'});
            await context.session.kernel.info;
        }"""
    )
    # What is asked of a kernel that is still being connected to may be dropped.
    page.page.wait_for_function(
        """() => {
            const kernel = jupyterapp.shell.currentWidget.sessionContext.session?.kernel;
            return kernel?.name === 'python3' && kernel.connectionStatus === 'connected'
                && kernel.status === 'idle';
        }"""
    )
    page.run_all()
    assert wait_for(lambda: page.ended() is not None, SECONDS)
    assert len(page.errors()) == 1, (page.ended(), page.outputs(), page.dialogs())
    [error] = page.errors()
    assert error.startswith("This is Python 3.")
    assert "choose the kernel 'LoRA against QLoRA'" in error
    assert "请选择内核" in error
    assert "Traceback" not in error
