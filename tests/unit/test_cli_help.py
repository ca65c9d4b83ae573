"""Every command has a help text, examples that are right, and is completed by the shell."""

import shlex
import subprocess
from pathlib import Path

import pytest

from straxflow.cli import main
from straxflow.cli.main import COMMANDS, _config_files_apart, module_of, parser_of


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_are_command_lines_that_are_understood(command: str) -> None:
    examples = module_of(command).EXAMPLES
    called = set()
    for example in examples:
        # what follows a wide gap says what it does; and a shell's redirection is none of ours
        line = example.split("    ")[0].split(" > ")[0]
        program, *words = shlex.split(line, comments=True)
        assert program == "straxflow", example
        words = _config_files_apart(words)
        called.add(parser_of(words).parse_args(words).command)
    assert command in called


@pytest.mark.parametrize("command", COMMANDS)
def test_help_tells_what_it_does_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert module_of(command).DESCRIPTION.splitlines()[0].split("%")[0] in out
    assert "example" in out
    assert "straxflow" in out.partition("example")[2]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("completion")
    found = {}
    for shell in ("bash", "zsh", "fish"):
        found[shell] = folder / shell
        done = subprocess.run(["straxflow", "completion", shell], capture_output=True, text=True, check=True)
        found[shell].write_text(done.stdout)
    return found


def completions(script: Path, *words: str) -> set[str]:
    """What bash offers for the last word."""
    line = " ".join(map(shlex.quote, ("straxflow", *words)))
    code = f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; _shtab_straxflow; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=False)
    return set(done.stdout.split())


def test_bash_completes_commands_options_choices_and_profiles(scripts: dict[str, Path]) -> None:
    assert completions(scripts["bash"], "sta") == {"status", "stats"}
    assert completions(scripts["bash"], "runs", "--st") == {"--state"}
    assert completions(scripts["bash"], "stats", "--by", "") == {"day", "mode", "state"}
    assert "stoomboot" in completions(scripts["bash"], "--profile", "st")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_understand_their_script(scripts: dict[str, Path], shell: str) -> None:
    subprocess.run([shell, "-n", str(scripts[shell])], check=True)
    assert "stuck" in scripts[shell].read_text()
