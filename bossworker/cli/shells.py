"""``completion``: scripts by which shells complete command lines. They ask nothing of Python at a Tab but for ids.

A name may hold blanks, quotes, and what a shell would run: it is a line that no script has a shell expand.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import chain, islice

from bossworker.cli.command_parser import told
from bossworker.cli.entries import described, short
from bossworker.cli.looking import NEWEST
from bossworker.cli.parsers import GROUPS, IDS, SHELLS, all_parsers, completion_parser, options_of
from bossworker.cli.queue_files import all_groups
from bossworker.cli.selecting import ALL, FAILED, LAST, everything, pools_there

WITH_IDS = ("show", "log", "wait", "kill", "pause", "resume", "send", "retry", "clean", "stack", "trace")
WITH_COMMANDS = ("run", "start", "add")
WITH_FILES = (*WITH_COMMANDS, "web")
_IDS, _GROUPS = f"bossworker completion {IDS} 2>/dev/null", f"bossworker completion {GROUPS} 2>/dev/null"
_ASKED = {"--after": _IDS, "--group": _GROUPS}  # what lists the values of an option


def completion(argv: Sequence[str]) -> int:
    wanted = completion_parser().parse_args(argv).shell

    def work() -> int:
        if wanted in SHELLS:
            print(script(wanted), end="")
        for line in _ids() if wanted == IDS else (folder.group for folder in all_groups()) if wanted == GROUPS else ():
            print(line)
        return 0

    return told("completion", work)


def _ids() -> Iterator[str]:
    """And names, but for those that cannot be typed."""
    yield from (LAST, ALL, FAILED)
    for entry in chain(pools_there(), islice(everything(), NEWEST)):
        if (found := described(entry)) is not None:
            yield found["id"] if entry.kind == "pool" else short(found["id"])
            if found["name"] and found["name"].isprintable():
                yield found["name"]


def script(shell: str) -> str:
    """For bash, zsh or fish."""
    options = {name: options_of(parser) for name, parser in all_parsers().items()}
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](options)


_Options = dict[str, list[argparse.Action]]


def _texts() -> dict[str, str]:
    from bossworker.cli.main import COMMANDS

    return {name: text for name, (*_, text) in COMMANDS.items()}


def _flags(found: list[argparse.Action], valued: bool = False) -> str:
    """All options, or those that take a value."""
    return " ".join(flag for one in found for flag in one.option_strings if one.nargs != 0 or not valued)


def _bash(options: _Options) -> str:
    cases = "\n".join(
        f'        {name}) words="{_flags(found)}" valued=" {_flags(found, True)} " ;;'
        for name, found in options.items()
    )
    return f"""\
# bash completion for bossworker
_bossworker_lines() {{  # those lines that begin with the current word, as they are typed
    local line quoted word=${{COMP_WORDS[COMP_CWORD]}}
    while IFS= read -r line; do
        printf -v quoted %q "$line"
        [[ $word == [\\"\\']* ]] && quoted=$line
        [[ $quoted == "$1"* || $line == "$1"* ]] && COMPREPLY+=("$quoted")
    done
}}
_bossworker() {{
    local current=${{2-${{COMP_WORDS[COMP_CWORD]}}}} command=${{COMP_WORDS[1]}} before=${{COMP_WORDS[COMP_CWORD-1]}}
    local words="" valued=""
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{" ".join(_texts())}" -- "$current"))
        compopt +o default 2>/dev/null
        return
    fi
    case $command in
{cases}
    esac
    if [[ $current == -* ]]; then
        COMPREPLY=($(compgen -W "$words" -- "$current"))
        return
    fi
    if [[ $valued == *" $before "* ]]; then
        case $before in
            --after) _bossworker_lines "$current" < <({_IDS}) ;;
            -g|--group) _bossworker_lines "$current" < <({_GROUPS}) ;;
        esac
        return  # a file, where there is nothing else
    fi
    case $command in
        {"|".join(WITH_IDS)}) _bossworker_lines "$current" < <({_IDS}) ;;
        group) _bossworker_lines "$current" < <({_GROUPS}) ;;
        completion) COMPREPLY=($(compgen -W "{" ".join(SHELLS)}" -- "$current")) ;;
        {"|".join(WITH_COMMANDS)})
            if [[ $before == "$command" || $before == -* ]]; then
                _bossworker_lines "$current" < <(compgen -c -- "$current")
            fi ;;
    esac
    case $command in {"|".join(WITH_FILES)}) ;; *) compopt +o default 2>/dev/null ;; esac
}}
complete -o default -F _bossworker bossworker
"""


def _zsh(options: _Options) -> str:
    commands = "\n".join(f"        '{name}:{_quoted(text)}'" for name, text in _texts().items())
    cases = "\n".join(
        f"        {name}) flags=({' '.join(_zsh_flag(flag, one) for one in found for flag in one.option_strings)})\n"
        f"            valued=({_flags(found, True)}) ;;"
        for name, found in options.items()
    )
    return f"""\
#compdef bossworker
_bossworker() {{
    local -a names flags valued lines
    names=(
{commands}
    )
    if (( CURRENT == 2 )); then
        _describe command names
        return
    fi
    case $words[2] in
{cases}
    esac
    if [[ $PREFIX == -* ]]; then
        _describe option flags
        return
    fi
    if (( ${{valued[(Ie)$words[CURRENT-1]]}} )); then
        case $words[CURRENT-1] in
            --after) lines=(${{(f)"$({_IDS})"}}); compadd -a lines ;;
            -g|--group) lines=(${{(f)"$({_GROUPS})"}}); compadd -a lines ;;
            *) _files ;;
        esac
        return
    fi
    case $words[2] in
        {"|".join(WITH_IDS)}) lines=(${{(f)"$({_IDS})"}}); compadd -a lines ;;
        group) lines=(${{(f)"$({_GROUPS})"}}); compadd -a lines ;;
        completion) compadd {" ".join(SHELLS)} ;;
        {"|".join(WITH_COMMANDS)}) _alternative 'commands:command:_command_names -e' 'files:file:_files' ;;
        web) _files ;;
    esac
}}
if [[ $funcstack[1] == _bossworker ]]; then  # this file is that function: the first Tab has loaded it
    _bossworker "$@"
else
    compdef _bossworker bossworker
fi
"""


def _zsh_flag(flag: str, one: argparse.Action) -> str:
    return f"'{flag}:{_quoted(_help(one))}'"


def _help(one: argparse.Action) -> str:
    return (one.help or "").replace("%%", "%")


def _quoted(text: str) -> str:
    return text.replace("'", "'\\''").replace(":", "\\:")


def _fish(options: _Options) -> str:
    lines = ["# fish completion for bossworker", "complete -c bossworker -n __fish_use_subcommand -f"]
    for name, text in _texts().items():
        lines.append(f"complete -c bossworker -n __fish_use_subcommand -a {name} -d '{_fish_quoted(text)}'")
    for name, found in options.items():
        seen = f"complete -c bossworker -n '__fish_seen_subcommand_from {name}'"
        if name not in WITH_FILES:
            lines.append(f"{seen} -f")
        for one in found:
            flags = " ".join(map(_fish_flag, one.option_strings))
            lines.append(f"{seen} {flags}{_fish_value(one)} -d '{_fish_quoted(_help(one))}'")
    for names, told_ in ((WITH_IDS, _IDS), (("group",), _GROUPS)):
        seen = f"complete -c bossworker -n '__fish_seen_subcommand_from {' '.join(names)}'"
        lines.append(f"{seen} -f -a '({_fish_quoted(told_)})'")
    commands = " ".join(WITH_COMMANDS)
    lines.append(f"complete -c bossworker -n '__fish_seen_subcommand_from {commands}' -a '(__fish_complete_command)'")
    lines.append(f"complete -c bossworker -n '__fish_seen_subcommand_from completion' -f -a '{' '.join(SHELLS)}'")
    return "\n".join(lines) + "\n"


def _fish_value(one: argparse.Action) -> str:
    """Of an option that takes one: a file, where nothing lists what there is."""
    asked = next((_ASKED[flag] for flag in one.option_strings if flag in _ASKED), None)
    return "" if one.nargs == 0 else " -rF" if asked is None else f" -x -a '({_fish_quoted(asked)})'"


def _fish_flag(flag: str) -> str:
    return f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"


def _fish_quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")
