"""``completion``: scripts by which shells complete command lines. They ask nothing of Python at a Tab but for ids."""

from __future__ import annotations

from collections.abc import Sequence

from bossworker.cli.parsers import SHELLS, all_parsers, completion_parser, options_of

WITH_IDS = ("show", "log", "wait", "kill", "pause", "resume", "send", "retry", "clean", "stack", "trace")
WITH_COMMANDS = ("run", "start", "add")
_IDS = "bossworker ps 2>/dev/null | awk 'NR > 1 { print $1; if ($2 != \"-\") print $2 }'"


def completion(argv: Sequence[str]) -> int:
    print(script(completion_parser().parse_args(argv).shell), end="")
    return 0


def script(shell: str) -> str:
    """For bash, zsh or fish."""
    options = {
        name: [(one.option_strings, (one.help or "").replace("%%", "%")) for one in options_of(parser)]
        for name, parser in all_parsers().items()
    }
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](options)


_Options = dict[str, list[tuple[Sequence[str], str]]]


def _texts() -> dict[str, str]:
    from bossworker.cli.main import COMMANDS

    return {name: text for name, (*_, text) in COMMANDS.items()}


def _bash(options: _Options) -> str:
    cases = "\n".join(
        f'        {name}) words="{" ".join(flag for flags, _ in found for flag in flags)}" ;;'
        for name, found in options.items()
    )
    return f"""\
# bash completion for bossworker
_bossworker() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} command=${{COMP_WORDS[1]}} words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{" ".join(_texts())}" -- "$current"))
        return
    fi
    case $command in
{cases}
    esac
    if [[ $current == -* ]]; then
        COMPREPLY=($(compgen -W "$words" -- "$current"))
        return
    fi
    case $command in
        {"|".join(WITH_IDS)}) COMPREPLY=($(compgen -W "last all failed $({_IDS})" -- "$current")) ;;
        completion) COMPREPLY=($(compgen -W "{" ".join(SHELLS)}" -- "$current")) ;;
        *) COMPREPLY=($(compgen -f -c -- "$current")) ;;
    esac
}}
complete -F _bossworker bossworker
"""


def _zsh(options: _Options) -> str:
    commands = "\n".join(f"        '{name}:{_quoted(text)}'" for name, text in _texts().items())
    cases = "\n".join(
        f"        {name}) flags=({' '.join(_zsh_flag(flag, text) for flags, text in found for flag in flags)}) ;;"
        for name, found in options.items()
    )
    return f"""\
#compdef bossworker
_bossworker() {{
    local -a names flags ids
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
    case $words[2] in
        {"|".join(WITH_IDS)}) ids=(last all failed ${{(f)"$({_IDS})"}}); compadd -a ids ;;
        completion) compadd {" ".join(SHELLS)} ;;
        {"|".join(WITH_COMMANDS)}) _alternative 'commands:command:_command_names -e' 'files:file:_files' ;;
        *) _files ;;
    esac
}}
if [[ $funcstack[1] == _bossworker ]]; then  # this file is that function: the first Tab has loaded it
    _bossworker "$@"
else
    compdef _bossworker bossworker
fi
"""


def _zsh_flag(flag: str, text: str) -> str:
    return f"'{flag}:{_quoted(text)}'"


def _quoted(text: str) -> str:
    return text.replace("'", "'\\''").replace(":", "\\:")


def _fish(options: _Options) -> str:
    lines = ["# fish completion for bossworker", "complete -c bossworker -n __fish_use_subcommand -f"]
    for name, text in _texts().items():
        lines.append(f"complete -c bossworker -n __fish_use_subcommand -a {name} -d '{_fish_quoted(text)}'")
    for name, found in options.items():
        seen = f"complete -c bossworker -n '__fish_seen_subcommand_from {name}'"
        for flags, text in found:
            lines.append(f"{seen} {' '.join(map(_fish_flag, flags))} -d '{_fish_quoted(text)}'")
    ids = " ".join(WITH_IDS)
    told = _fish_quoted(f"last all failed ({_IDS})")
    lines.append(f"complete -c bossworker -n '__fish_seen_subcommand_from {ids}' -f -a '{told}'")
    commands = " ".join(WITH_COMMANDS)
    lines.append(f"complete -c bossworker -n '__fish_seen_subcommand_from {commands}' -a '(__fish_complete_command)'")
    lines.append(f"complete -c bossworker -n '__fish_seen_subcommand_from completion' -f -a '{' '.join(SHELLS)}'")
    return "\n".join(lines) + "\n"


def _fish_flag(flag: str) -> str:
    return f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"


def _fish_quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")
