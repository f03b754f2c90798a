"""What a terminal gets, and a pipe does not."""

from __future__ import annotations

import signal

from tests.cli.conftest import Shell, Sold


def test_a_terminal_gets_colors_and_no_more_than_its_width(sold: Sold) -> None:
    with sold.shell.terminal("list", width=60) as terminal:
        assert terminal.ends() == 0
    assert "\x1b[32m✓ completed\x1b[0m" in terminal.said
    assert "…" in terminal.said


def test_no_color_is_honoured_on_a_terminal(sold: Sold) -> None:
    with sold.shell.terminal("show", sold.declined, NO_COLOR="1") as terminal:
        assert terminal.ends() == 0
    assert "✗ failed" in terminal.said
    assert "\x1b" not in terminal.said


def test_a_hostile_name_cannot_write_to_the_terminal(sold: Sold) -> None:
    with sold.shell.terminal("show", "\x1b[2Jx", NO_COLOR="1") as terminal:
        assert terminal.ends() == 2
    assert "\x1b" not in terminal.said


def test_a_watched_list_follows_what_happens_until_ctrl_c(shell: Shell) -> None:
    shell.make_store()
    with shell.terminal("list", "--watch") as terminal:
        terminal.says("WORKFLOW")
        shell.start("declined")
        terminal.says("pending")
        with shell.worker():
            terminal.says("failed")
        assert terminal.stop(signal.SIGINT) == 0


def test_a_watched_list_in_a_pipe_is_a_line_for_each_change(shell: Shell) -> None:
    shell.make_store()
    with shell.process("list", "--watch") as pipe:
        id = shell.start("declined")
        pipe.says(f"{id}  declined  pending\n")
        with shell.worker():
            pipe.says(f"{id}  declined  failed  Fail: card �[31mdeclined\n")
        assert pipe.stop(signal.SIGINT) == 0
    assert pipe.said.count("declined  failed") == 1
