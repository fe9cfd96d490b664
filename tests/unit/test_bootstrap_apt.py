"""The machine's own archives are read from its own sources, in both of their notations."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deploy.bootstrap.private_apt import (
    Mirror,
    PackagesUnavailable,
    find_mirrors,
    open_suite,
    parse_deb822_sources,
    parse_one_line_sources,
    unpack,
)

ARCHIVE = "http://archive.example/debian"
SECURITY = "http://archive.example/security"
KEYRING = "/usr/share/keyrings/archive.gpg"


def test_reads_one_line_sources() -> None:
    text = f"""
        # deb {ARCHIVE} commented main
        deb {ARCHIVE} stable main contrib  # a remark
        deb-src {ARCHIVE} stable main
        deb [arch=amd64 signed-by={KEYRING}] {SECURITY} stable-security main
    """

    assert tuple(parse_one_line_sources(text)) == (
        Mirror(ARCHIVE, "stable", ""),
        Mirror(SECURITY, "stable-security", KEYRING),
    )


def test_reads_stanzas_with_comments_and_several_suites() -> None:
    text = f"""Types: deb deb-src
# http://snapshot.example/20250520T000000Z
URIs: {ARCHIVE}
Suites: stable stable-updates
Components: main
Signed-By: {KEYRING}

Types: deb
URIs: {SECURITY}
Suites: stable-security
"""

    assert tuple(parse_deb822_sources(text)) == (
        Mirror(ARCHIVE, "stable", KEYRING),
        Mirror(ARCHIVE, "stable-updates", KEYRING),
        Mirror(SECURITY, "stable-security", ""),
    )


def test_keeps_a_key_that_stands_in_the_stanza_itself() -> None:
    key = "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDME\n -----END PGP PUBLIC KEY BLOCK-----"
    text = f"Types: deb\nURIs: {ARCHIVE}\nSuites: stable\n{key}\n"

    (mirror,) = parse_deb822_sources(text)

    assert mirror.signed_by.startswith("-----BEGIN")
    assert mirror.signed_by.endswith("KEY BLOCK-----")


@pytest.mark.parametrize("stanza", ["Types: deb-src\n", "Types: deb\nEnabled: no\n", "Types: deb\nEnabled: false\n"])
def test_skips_what_apt_would_not_install_from(stanza: str) -> None:
    assert tuple(parse_deb822_sources(f"{stanza}URIs: {ARCHIVE}\nSuites: stable\n")) == ()


def test_finds_the_archives_of_a_machine_once_each(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text(f"deb {ARCHIVE} stable main\n")
    (parts / "again.list").write_text(f"deb {ARCHIVE} stable main\n")
    (parts / "more.sources").write_text(f"Types: deb\nURIs: {SECURITY}\nSuites: stable-security\n")
    (parts / "old.sources.disabled").write_text("Types: deb\nURIs: http://old.example\nSuites: old\n")

    assert find_mirrors(tmp_path) == (Mirror(ARCHIVE, "stable", ""), Mirror(SECURITY, "stable-security", ""))


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="this machine has no apt")
def test_says_so_where_a_machine_has_no_archive(tmp_path: Path) -> None:
    with pytest.raises(PackagesUnavailable, match="no sources"):
        open_suite(tmp_path / "work", "sid", tmp_path)


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="this machine has no dpkg")
def test_throws_a_damaged_archive_away_so_that_the_next_run_fetches_it_anew(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged_1_all.deb"
    damaged.write_bytes(b"half of an archive")

    with pytest.raises(PackagesUnavailable, match="cannot unpack damaged_1_all"):
        unpack(damaged, tmp_path / "target")

    assert not damaged.exists()
