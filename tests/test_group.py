"""Process groups: what a launcher says, and what is said where a group cannot be joined."""

import os
import sys
from datetime import timedelta

import pytest

from luce import group
from luce.errors import DataError, DivergenceError, GroupError
from luce.group import ALONE, Group, is_silent, join, known, restarted
from tests.ranks import free_port


@pytest.fixture
def launched(monkeypatch):
    """Return a function that sets a launcher's variables."""

    def launch(rank, size, **more):
        own = {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1"}
        for name, value in {**own, "MASTER_PORT": free_port(), **more}.items():
            monkeypatch.setenv(name, str(value))

    return launch


def test_without_a_launcher_a_process_is_alone():
    """Nobody is asked, and nothing is joined."""
    assert join() == known() == ALONE
    assert not restarted()
    assert not is_silent(DataError("no file."))


def test_one_process_of_a_launcher_is_alone(launched):
    """A group of one needs no process group."""
    launched(0, 1)
    assert join() == known() == ALONE


def test_a_number_of_processes_alone_is_no_launcher(monkeypatch):
    """WORLD_SIZE without the other variables, as some schedulers set it, starts nothing."""
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert join() == known() == ALONE


def test_what_a_launcher_says_is_known_before_anybody_is_asked(launched):
    """Rank and size are the variables'; other ranks than 0 leave it to 0 to say what all have."""
    launched(1, 4, TORCHELASTIC_RESTART_COUNT=2)
    assert known() == Group(1, 4)
    assert restarted()
    assert is_silent(KeyboardInterrupt())
    assert is_silent(DivergenceError("the loss became nan."))
    common = DataError("no file.")
    common.add_note(group.COMMON)
    assert is_silent(common)
    assert not is_silent(DataError("no file."))
    assert not is_silent(GroupError("lost."))


def test_a_group_whose_others_do_not_come_is_an_error_that_says_what_to_do(launched, monkeypatch):
    """The address, the time that was waited and the variable for the interface are named."""
    monkeypatch.setattr(group, "JOINED_WITHIN", timedelta(seconds=1))
    launched(1, 2)
    with pytest.raises(GroupError, match=r"rank 1 of 2 could not .* 127.0.0.1:.* 1 s: .*IFNAME"):
        join()
    assert "GLOO_SOCKET_IFNAME" not in os.environ


@pytest.mark.skipif(sys.platform != "linux", reason="interfaces have other names")
def test_gloo_is_told_the_interface_that_leads_to_the_others(launched, monkeypatch):
    """It is the one of the address; one that the user has named stays."""
    launched(0, 2)
    with group._interface():
        assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"
    assert "GLOO_SOCKET_IFNAME" not in os.environ
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    with group._interface():
        assert os.environ["GLOO_SOCKET_IFNAME"] == "eth7"
    monkeypatch.setenv("MASTER_ADDR", "no.such.machine.invalid")
    with group._interface():
        assert os.environ["GLOO_SOCKET_IFNAME"] == "eth7"


def test_a_message_of_pytorch_s_becomes_one_sentence():
    """The place in C++ and the advice behind the first sentence are left out."""
    error = RuntimeError("[/a/b/pair.cc:5] Connection closed by peer [::1]. Check logs.\nat 0x1")
    assert group._line(error) == "Connection closed by peer [::1]"
    assert group._line(RuntimeError()) == "RuntimeError"
