"""The command's surface: help without weight, one-line errors, exit statuses, and where dotted flags go."""

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from transom import __version__
from transom.cli import VERBS, main
from transom.errors import BrokerError, SettingsError, TransomError
from transom.flags import default_config, nested, settings_arguments, take_flags

ROOT = Path(__file__).parent.parent


def python(*args: str, **more) -> subprocess.CompletedProcess:
    env = os.environ | {"PYTHONPATH": f"{ROOT / 'agent'}:{ROOT / 'models'}"}
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, timeout=60, env=env, **more)


@pytest.fixture
def verb(monkeypatch):
    """Puts a verb into the table whose run does what the test says; gives the arguments that it was called with."""
    seen: list = []

    def install(action=lambda args: 0, *, with_settings=True):
        def add_arguments(parser):
            if with_settings:
                settings_arguments(parser)
            parser.add_argument("inputs", nargs="*")
            parser.add_argument("--output")

        def run(args):
            seen.append(args)
            return action(args)

        module = types.ModuleType("transom_test_verb")
        vars(module).update(add_arguments=add_arguments, run=run, EXAMPLES="  transom probe a.csv --output out\n")
        monkeypatch.setitem(sys.modules, "transom_test_verb", module)
        monkeypatch.setitem(VERBS, "probe", ("transom_test_verb", "tries the command out"))
        return seen

    return install


def fails(error: BaseException):
    def action(args):
        raise error

    return action


# --- help ---------------------------------------------------------------------------------------------------------


def test_help_lists_every_verb_and_imports_nothing_heavy():
    heavy = "{'torch', 'numpy', 'pydantic', 'paho', 'rich', 'transom_models', 'transom.verbs'}"
    done = python(
        "-c",
        f"import sys; from transom.cli import main; assert main(['--help']) == 0; print({heavy} & set(sys.modules))",
    )
    assert done.returncode == 0
    assert done.stdout.endswith("set()\n")
    for name, (_, text) in VERBS.items():
        assert f"  {name}" in done.stdout
        assert text in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_the_command_alone_shows_the_help(capsys):
    assert main([]) == 0
    assert "verbs:" in capsys.readouterr().out


def test_the_command_runs_as_a_module():
    done = python("-m", "transom", "--version")
    assert (done.returncode, done.stdout) == (0, f"transom {__version__}\n")


def test_a_verbs_help_has_its_arguments_and_examples(verb, capsys):
    verb()
    assert main(["probe", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Tries the command out." in shown
    assert "usage: transom probe [-h] [-c FILE] [--output OUTPUT] [--debug] [inputs ...]" in shown
    assert "--config FILE" in shown
    assert "any key of the configuration is also a flag" in shown
    assert "examples:\n  transom probe a.csv" in shown


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_in_the_table_can_be_asked_for_help(name, capsys):
    assert main([name, "--help"]) == 0
    assert "examples:\n" in capsys.readouterr().out


# --- mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["chekc"], "transom: unknown verb 'chekc'; did you mean 'transom check'? See transom --help"),
        (["zzz"], "transom: unknown verb 'zzz'; see transom --help"),
        (["--verbose"], "transom: unknown option '--verbose'; see transom --help"),
        (
            ["probe", "--ouptut", "x"],
            "transom: transom probe: unrecognized arguments: --ouptut; see transom probe --help",
        ),
        (
            ["probe", "--output"],
            "transom: transom probe: argument --output: expected one argument; see transom probe --help",
        ),
    ],
)
def test_a_mistyped_command_is_one_line_and_status_2(verb, capsys, words, says):
    verb()
    assert main(words) == 2
    assert capsys.readouterr().err.strip() == says


def test_an_error_that_a_user_can_act_on_is_one_line_and_status_1(verb, capsys):
    verb(fails(BrokerError("broker 192.0.2.7:1883", "refused:\nno route", "check broker.host")))
    assert main(["probe"]) == 1
    assert capsys.readouterr().err == "transom: broker 192.0.2.7:1883: refused: no route; check broker.host\n"


def test_every_problem_of_the_settings_has_its_line_then_the_count_and_status_2(verb, capsys):
    verb(fails(SettingsError([TransomError("f: a", "bad", "fix"), TransomError("f: b", "worse")])))
    assert main(["probe"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "transom: f: a: bad; fix", "transom: f: b: worse", "transom: 2 problems in the configuration",
    ]  # fmt: skip


def test_an_unexpected_error_is_one_line_and_a_traceback_only_with_debug(verb, capsys):
    verb(fails(ZeroDivisionError("a\nb")))
    assert main(["probe"]) == 1
    said = "transom: unexpected ZeroDivisionError: a b; run again with --debug and report it\n"
    assert capsys.readouterr().err == said
    assert main(["probe", "--debug"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert shown.endswith(said)
    assert main(["--debug", "probe"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_named(verb, capsys, tmp_path):
    verb(lambda args: (tmp_path / "no" / "out").write_text(""))
    assert main(["probe"]) == 1
    assert capsys.readouterr().err == f"transom: {tmp_path / 'no' / 'out'}: No such file or directory\n"


def test_an_interrupt_is_quiet_and_130(verb, capsys):
    verb(fails(KeyboardInterrupt()))
    assert main(["probe"]) == 130
    assert capsys.readouterr().err == ""


def test_a_closed_pipe_is_quiet():
    program = "import sys; from transom.cli import main; sys.exit(main(['--help']))"
    reader, writer = os.pipe()
    os.close(reader)
    env = os.environ | {"PYTHONPATH": str(ROOT / "agent")}
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, env=env
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_the_status_is_what_the_verb_returns(verb):
    verb(lambda args: 3)
    assert main(["probe"]) == 3


# --- settings on the command line -----------------------------------------------------------------------------------


def test_dotted_flags_work_in_both_forms_and_steal_nothing_from_the_verb(verb):
    seen = verb()
    words = "probe --broker.host h a.csv --streams.pumps.false_alarms=1/day --broker.tls.insecure --output p b.csv"
    assert main(words.split()) == 0
    (args,) = seen
    assert args.overrides == {
        "broker.host": "h", "streams.pumps.false_alarms": "1/day", "broker.tls.insecure": True,
    }  # fmt: skip
    assert (args.inputs, args.output) == (["a.csv", "b.csv"], "p")


def test_dotted_flags_are_refused_by_a_verb_without_settings(verb, capsys):
    verb(with_settings=False)
    assert main(["probe", "--broker.host", "h"]) == 2
    assert "takes no settings such as --broker.host" in capsys.readouterr().err


def test_words_after_a_double_dash_are_no_flags():
    assert take_flags(["--a.b", "1", "--", "--c.d", "2"]) == ({"a.b": "1"}, ["--", "--c.d", "2"])


def test_a_flags_value_may_be_negative_or_hold_an_equals_sign():
    assert take_flags(["--a.b", "-1", "--c.d=x=y", "--e.f="]) == ({"a.b": "-1", "c.d": "x=y", "e.f": ""}, [])


def test_dotted_keys_become_tables():
    assert nested({"a.b": 1, "a.c.d": 2, "e": {"f": 3}, "e.g": 4}) == {
        "a": {"b": 1, "c": {"d": 2}},
        "e": {"f": 3, "g": 4},
    }


def test_the_default_configuration_is_the_named_one_then_the_local_one(verb, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRANSOM_CONFIG", raising=False)
    monkeypatch.setattr("transom.flags.DEFAULT_FILES", (Path("transom.toml"), tmp_path / "etc.toml"))
    assert default_config() is None
    (tmp_path / "etc.toml").touch()
    assert default_config() == tmp_path / "etc.toml"
    (tmp_path / "transom.toml").touch()
    assert default_config() == Path("transom.toml")
    monkeypatch.setenv("TRANSOM_CONFIG", "/no/such.toml")
    assert default_config() == Path("/no/such.toml")
    seen = verb()
    main(["probe"])
    main(["probe", "-c", "given.toml"])
    assert [a.config for a in seen] == [Path("/no/such.toml"), Path("given.toml")]
