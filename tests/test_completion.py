"""`deployctl completion`: the scripts work in the shells they are for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deployctl.cli.main import COMMANDS

SCRIPTS = Path(sys.executable).parent

LINES = (
    "deployctl pu",
    "deployctl ",
    "deployctl --vers",
    "deployctl push --dr",
    "deployctl push --",
    "deployctl push --output ",
    "deployctl push x -o j",
    "deployctl completion z",
)

# Each reads lines from standard input, and prints for each a line of its own with what could stand at its end.
BASH = """
eval "$(deployctl completion bash)"
complete -p deployctl >&2
while IFS= read -r line; do
  COMP_WORDS=($line); [[ $line == *' ' ]] && COMP_WORDS+=('')
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
  _deployctl_completion deployctl
  echo "${COMPREPLY[@]}"
done
"""
ZSH = """
autoload -U compinit && compinit -D -u
eval "$(deployctl completion zsh)"
print -r -- "$_comps[deployctl]" >&2
_describe() { print -rn -- ${completions_with_descriptions%%:*} "" }
compadd() { print -rn -- "$completions" }
while IFS= read -r line; do
  words=("${(@s: :)line}") CURRENT=${#words}
  _deployctl_completion
  print
done
"""
FISH = """
deployctl completion fish | source
complete -c deployctl >&2
while read -l line
  complete -C $line | string split -f 1 \\t | string join ' '
end
"""
SHELLS = {
    "bash": ("bash", "--norc", "--noprofile", "-c", BASH),
    "zsh": ("zsh", "-f", "-c", ZSH),
    "fish": ("fish", "--no-config", "-c", FISH),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_commands_options_and_values_are_completed(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run(
        SHELLS[shell],
        input="".join(f"{line}\n" for line in LINES),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PATH": f"{SCRIPTS}:{os.environ['PATH']}", "TERM": "dumb"},
    )
    assert "_deployctl_completion" in done.stderr, done.stderr
    assert "error" not in done.stderr.lower()
    offered = dict(zip(LINES, map(str.split, done.stdout.splitlines()), strict=True))
    assert offered["deployctl pu"] == ["push"]
    assert set(offered["deployctl "]) == set(COMMANDS)
    assert offered["deployctl --vers"] == ["--version"]
    assert offered["deployctl push --dr"] == ["--dry-run"]
    assert {"--inventory", "--limit", "--output"} <= set(offered["deployctl push --"])
    assert set(offered["deployctl push --output "]) == {"auto", "live", "plain", "json"}
    assert offered["deployctl push x -o j"] == ["json"]
    assert offered["deployctl completion z"] == ["zsh"]


def test_commands_are_completed_without_importing_any() -> None:
    code = (
        "import os, sys\n"
        "from deployctl.cli.main import run\n"
        "try:\n    run()\nexcept SystemExit:\n    pass\n"
        "sys.exit('pydantic' in sys.modules)"
    )
    env = {
        **os.environ,
        "_DEPLOYCTL_COMPLETE": "bash_complete",
        "COMP_WORDS": "deployctl ",
        "COMP_CWORD": "1",
    }
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"plain,{name}" for name in COMMANDS]
