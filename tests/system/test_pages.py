"""Every command of README and docs: run in its page's order where a test can, and at least a verb and flags that exist.

Pages are found by themselves. How a page says what its commands need is told in pages.py.
"""

import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from materials import ALERT, LOOP, MATERIALS, PLANT, SENSORS, TRAINED
from pages import ROOT, UNABLE, Block, Session, blocks, pages, spans
from ports import free_port

from conftest import Mosquitto, missing
from transom.bench.subjects import toml
from transom.cli import VERBS
from transom.settings import load_settings

BLOCKS = [block for page in pages() for block in blocks(page)]
COMMANDS = [b for b in BLOCKS if b.language == "sh"]
SPANS = [(str(page.relative_to(ROOT)), span) for page in pages() for span in spans(page)]


@cache
def parser_help(verb: str, *more: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "transom", verb, *more, "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def mistakes(line: str) -> list[str]:
    """What is wrong with a command of ours: a verb that is none, flags that the verb does not have."""
    found = []
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    for operator, words in itertools.groupby(lexer, key=lambda word: not set(word) - set("();<>|&")):
        typed = [] if operator else list(words)
        place = next((i for i, word in enumerate(typed) if word == "transom" or word.endswith("/transom")), None)
        if place is None or len(typed) == place + 1:
            continue
        verb, rest = typed[place + 1], typed[place + 2 :]
        if verb.startswith("-") or not verb.isascii():
            continue
        if verb not in VERBS:
            found.append(f"there is no verb {verb}")
            continue
        more = [w for w in rest[:1] if verb == "service" and not w.startswith("-")]
        text = parser_help(verb, *more)
        flags = {word.partition("=")[0] for word in rest if re.fullmatch(r"-{1,2}[a-z][\w.-]*(=.*)?", word)}
        setting = re.compile(r"--(agent|broker|http|models|homeassistant|privacy|streams)\.")
        found += [f"{verb} has no {flag}" for flag in flags if not setting.match(flag) and not known(flag, text)]
    return found


def known(flag: str, text: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", text) is not None


@pytest.mark.parametrize("block", COMMANDS, ids=str)
def test_commands_of_ours_have_verbs_and_flags_that_exist(block: Block) -> None:
    assert [m for line in block.lines for m in mistakes(line)] == []


@pytest.mark.parametrize("page", sorted({page for page, _ in SPANS}))
def test_commands_in_running_text_have_verbs_and_flags_that_exist(page: str) -> None:
    assert [(s, m) for p, s in SPANS if p == page for m in mistakes(s)] == []


@pytest.mark.parametrize("block", [b for b in COMMANDS if b.unable is not None], ids=str)
def test_what_is_not_run_says_why_or_which_test_runs_it(block: Block) -> None:
    assert block.unable is not None
    if block.unable not in UNABLE:
        assert (ROOT / block.unable).is_file(), f"{block}: {block.unable} is no reason and no test"


def test_most_commands_are_run() -> None:
    left = [line for b in COMMANDS if b.unable in UNABLE for line in b.lines]
    run = [line for b in COMMANDS if b.unable not in UNABLE for line in b.lines]
    assert len(run) > 2 * len(left), left


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "toml" and b.unable is None], ids=str)
def test_configurations_are_settings_that_hold(block: Block, tmp_path: Path) -> None:
    """As they stand, or where they are a part, in the rest of a configuration; bare keys are those of a stream."""
    given = tomllib.loads(block.body)
    if not any(isinstance(value, dict) for value in given.values()):
        given = {"streams": {"pumps": given}}
    whole = merged({"streams": {"pumps": {"topic": "a/{device}/{channel}", "model": "universal"}}}, given)
    for name in re.findall(r'_file = "([^"/]+)"', block.body):
        (tmp_path / name).write_text("a secret of more than 32 characters\n")
        (tmp_path / name).chmod(0o600)
    (tmp_path / "agent.toml").write_text("\n".join(f"{key} = {toml(value)}" for key, value in whole.items()))
    load_settings(tmp_path / "agent.toml", {})


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = dict(below)
    for key, value in above.items():
        mine = both.get(key)
        both[key] = merged(mine, value) if isinstance(mine, dict) and isinstance(value, dict) else value
    return both


@pytest.mark.parametrize("page", pages(), ids=lambda p: p.name)
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    assert [k for k in links if "://" not in k and not (page.parent / k).exists()] == []


# --- sessions ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Materials, made once and when they are needed."""
    return tmp_path_factory.mktemp("materials")


def provide(name: str, store: Path, folder: Path) -> None:
    if not (store / name).exists() and name in TRAINED:
        source, words = TRAINED[name]
        provide(source, store, store)
        command = [sys.executable, "-m", "transom", "train", "--data", source, *words.split(), "--output", name]
        subprocess.run(command, cwd=store, check=True, capture_output=True, timeout=120)
    elif not (store / name).exists():
        MATERIALS[name](store)
    if store != folder:
        for file in store.glob("run?.csv" if name == "run.csv" else name):
            shutil.copy(file, folder)


@pytest.fixture
def session(mosquitto: Callable[..., Mosquitto], data_dir: Path, tmp_path: Path) -> Iterator[Session]:
    for program in ("mosquitto_pub", "curl"):
        if shutil.which(program) is None:
            missing(f"{program} is not installed (apt install mosquitto-clients curl)")
    broker, http = mosquitto().port, free_port()
    functions = [f'{name}() {{ command {name} -p {broker} "$@"; }}' for name in ("mosquitto_pub", "mosquitto_sub")]
    functions.append(f'curl() {{ command curl -f "${{@/9099/{http}}}"; }}')
    environment = {"TRANSOM_BROKER__PORT": str(broker), "TRANSOM_HTTP__PORT": str(http)}
    typed = Session(tmp_path, data_dir, environment, "\n".join(functions))
    try:
        yield typed
    finally:
        typed.close()


@pytest.mark.mosquitto
@pytest.mark.parametrize("page", [p for p in pages() if any(b.unable is None for b in blocks(p) if b.language == "sh")],
                         ids=lambda p: p.name)  # fmt: skip
def test_the_commands_of_a_page_run_in_their_order(page: Path, session: Session, store: Path) -> None:
    for block in blocks(page):
        if block.file is not None:
            (session.folder / block.file).write_text(block.body)
        if block.language != "sh" or block.unable is not None:
            continue
        for name in block.needs:
            if name == "agent":
                (session.folder / "plant.toml").write_text(PLANT)
                session.run("transom run -c plant.toml", str(block))
            elif name == "sensors":
                session.keep(SENSORS)
            elif name == "alert":
                session.instead[ALERT] = json.loads(session.run(LOOP, str(block)))["id"]
            else:
                provide(name, store, session.folder)
        for line in block.lines:
            session.run(line, str(block))
