"""`deployctl completion`: the scripts work in the shells they are for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(sys.executable).parent

BASH = """
eval "$(deployctl completion bash)"
complete -p deployctl >&2
COMP_WORDS=({words} "$1") COMP_CWORD={place}
_deployctl_completion deployctl "$1"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
ZSH = """
autoload -U compinit && compinit -D -u
eval "$(deployctl completion zsh)"
print -r -- "$_comps[deployctl]" >&2
_describe() {{ print -rl -- ${{completions_with_descriptions%%:*}} }}
compadd() {{ print -rl -- $completions }}
_path_files() {{ print FILES }}
words=({words} "$1") CURRENT=$(({place} + 1))
_deployctl_completion
"""
FISH = """
deployctl completion fish | source
complete -c deployctl >&2
complete -C "{words} $LAST" | string split -f 1 \\t
"""
OPTIONS = {"bash": ["--norc", "--noprofile"], "zsh": ["-f"], "fish": ["--no-config"]}
TEMPLATES = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def complete(shell: str, *words: str) -> list[str]:
    """What `shell` offers for the last of `words`."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    *before, last = words
    script = TEMPLATES[shell].format(words=" ".join(before), place=len(before))
    done = subprocess.run(
        [shell, *OPTIONS[shell], "-c", script, *([] if shell == "fish" else [shell, last])],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PATH": f"{SCRIPTS}:{os.environ['PATH']}", "TERM": "dumb", "LAST": last},
    )
    assert "_deployctl_completion" in done.stderr, done.stderr
    assert "error" not in done.stderr.lower()
    return [line for line in done.stdout.splitlines() if line]


pytestmark = pytest.mark.parametrize("shell", TEMPLATES)


def test_commands(shell: str) -> None:
    assert complete(shell, "deployctl", "pu") == ["push"]
    assert {"push", "activate", "inventory", "completion"} <= set(complete(shell, "deployctl", ""))


def test_options_of_a_command(shell: str) -> None:
    assert complete(shell, "deployctl", "push", "--dr") == ["--dry-run"]
    assert {"--inventory", "--limit", "--output"} <= set(complete(shell, "deployctl", "push", "--"))
    assert complete(shell, "deployctl", "--vers") == ["--version"]


def test_values_of_an_option(shell: str) -> None:
    assert set(complete(shell, "deployctl", "push", "--output", "")) == {"auto", "live", "plain", "json"}
    assert complete(shell, "deployctl", "push", "x", "-o", "j") == ["json"]
    assert complete(shell, "deployctl", "completion", "z") == ["zsh"]
