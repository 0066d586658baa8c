"""The parsers of all commands, for what is made of them: completion and the manual page."""

from __future__ import annotations

import argparse

from bossworker.cli import (
    detached,
    doctor,
    looking,
    queue_commands,
    run_parser,
    steering,
    top,
    web_command,
)
from bossworker.cli.command_parser import make_parser

SHELLS = ("bash", "zsh", "fish")
IDS, GROUPS = "ids", "groups"  # what their scripts ask for


def all_parsers() -> dict[str, argparse.ArgumentParser]:
    """By the commands' names."""
    return {
        "run": run_parser.build_parser(),
        "start": detached.start_parser(),
        "add": queue_commands.add_parser(),
        "group": queue_commands.group_parser(),
        "ps": looking.ps_parser(),
        "show": looking.show_parser(),
        "log": looking.log_parser(),
        "wait": steering.wait_parser(),
        "kill": steering.kill_parser(),
        "pause": steering.pause_parser(),
        "resume": steering.resume_parser(),
        "send": steering.send_parser(),
        "retry": detached.retry_parser(),
        "clean": detached.clean_parser(),
        "stack": looking.stack_parser(),
        "top": top.top_parser(),
        "trace": looking.trace_parser(),
        "web": web_command.web_parser(),
        "doctor": doctor.doctor_parser(),
        "completion": completion_parser(),
    }


def completion_parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "completion",
        "Print the script by which a shell completes bossworker's command lines.",
        ["bash > ~/.local/share/bash-completion/completions/bossworker", "zsh > ~/.zfunc/_bossworker",
         "fish > ~/.config/fish/completions/bossworker.fish"],
        as_json=False,
    )  # fmt: skip
    parser.add_argument(
        "shell", choices=(*SHELLS, IDS, GROUPS), help="which shell; the others are what scripts ask for"
    )
    return parser


def options_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """What begins with a dash, and is for people."""
    return [one for one in parser._actions if one.option_strings and one.help is not argparse.SUPPRESS]
