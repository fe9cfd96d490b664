"""Fetches and unpacks signed Debian packages into a private directory: no root, nothing of the system touched.

apt does the fetching and the checking of signatures and hashes, with sources, lists, cache and status of our own. The
mirror and the keyring are the machine's own: they are read from its sources, never named here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

APT_ETC: Final = Path("/etc/apt")

_UPDATE_SECONDS: Final = 600.0
_FETCH_SECONDS: Final = 900.0
_FIELD: Final = re.compile(r"^([A-Za-z-]+):[ \t]*(.*(?:\n[ \t].*)*)", re.MULTILINE)
_ONE_LINE: Final = re.compile(r"^deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s+(.*)$")
_PRINTED_URI: Final = re.compile(r"^'[^']*' (\S+\.deb) ", re.MULTILINE)


class PackagesUnavailable(Exception):
    """The packages cannot be had from this machine's mirror; the text says why."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """One archive the machine already uses."""

    uri: str
    suite: str
    signed_by: str
    """The keyring the machine trusts for it: a path, an inline key, or empty for apt's own set."""


def find_mirrors(etc: Path = APT_ETC) -> tuple[Mirror, ...]:
    """Read the enabled binary archives from the machine's sources, one-line and deb822 style, in apt's order."""
    listed = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*.list"))]
    found = [mirror for path in listed for mirror in parse_one_line_sources(_read(path))]
    for path in sorted((etc / "sources.list.d").glob("*.sources")):
        found.extend(parse_deb822_sources(_read(path)))
    return tuple(dict.fromkeys(found))


def parse_one_line_sources(text: str) -> Iterator[Mirror]:
    """Parse `deb [options] uri suite component...` lines; others are skipped."""
    for line in text.splitlines():
        match = _ONE_LINE.match(line.split("#", 1)[0].strip())
        if match is None:
            continue
        options = dict(option.split("=", 1) for option in (match[1] or "").split() if "=" in option)
        yield Mirror(match[2], match[3], options.get("signed-by", ""))


def parse_deb822_sources(text: str) -> Iterator[Mirror]:
    """Parse stanzas of `Key: value` fields with continuation lines; disabled ones are skipped."""
    uncommented = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n[ \t]*\n", uncommented):
        fields = {key.lower(): value for key, value in _FIELD.findall(stanza)}
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").strip() in {"no", "false"}:
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield Mirror(uri, suite, fields.get("signed-by", "").strip())


class PrivateApt:
    """apt over one suite of one mirror, all of its state below `root`. Interrupted work is taken up again."""

    def __init__(self, root: Path, mirror: Mirror, suite: str) -> None:
        self._root = root.resolve()
        self._mirror = mirror
        self._suite = suite
        self._config = self._root / "apt.conf"
        self._archives = self._root / "archives"

    def prepare(self) -> None:
        """Write the configuration and fetch the suite's signed index; PackagesUnavailable if there is none."""
        for name in ("lists/partial", "cache/archives/partial", "sources", "archives"):
            (self._root / name).mkdir(parents=True, exist_ok=True)
        (self._root / "status").touch()
        (self._root / "sources" / "private.sources").write_text(self._sources())
        self._config.write_text(self._configuration())
        self._apt(_UPDATE_SECONDS, "apt-get", "update", "-o", "APT::Update::Error-Mode=any")

    def resolve(self, *packages: str) -> tuple[str, ...]:
        """Return the archive names (`name_version_arch.deb`) that `packages` need on an empty system, sorted."""
        printed = self._apt(
            _UPDATE_SECONDS, "apt-get", "install", "--print-uris", "-y", "--no-install-recommends", *packages
        )
        names = sorted(set(_PRINTED_URI.findall(printed)))
        if not names:
            raise PackagesUnavailable(f"apt resolves {' '.join(packages)} to nothing")
        return tuple(names)

    def download(self, archive_names: tuple[str, ...]) -> tuple[Path, ...]:
        """Fetch these exact archives, signatures and hashes checked by apt, and return their paths."""
        wanted = tuple(self._archives / name for name in archive_names)
        missing = [_as_request(path.name) for path in wanted if not path.exists()]
        if missing:
            self._apt(_FETCH_SECONDS, "apt-get", "download", *missing, directory=self._archives)
        absent = [path.name for path in wanted if not path.exists()]
        if absent:
            raise PackagesUnavailable(f"apt did not deliver {', '.join(absent)}")
        return wanted

    def _sources(self) -> str:
        signed_by = f"Signed-By: {self._mirror.signed_by}\n" if self._mirror.signed_by else ""
        return f"Types: deb\nURIs: {self._mirror.uri}\nSuites: {self._suite}\nComponents: main\n{signed_by}"

    def _configuration(self) -> str:
        """Read after the machine's own configuration, so that its proxies and certificates stay in force."""
        root = self._root
        return f"""\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
#clear APT::Default-Release;
#clear Dir::Etc::parts;
Dir::State "{root}";
Dir::State::lists "{root}/lists";
Dir::State::status "{root}/status";
Dir::State::extended_states "{root}/extended_states";
Dir::Cache "{root}/cache";
Dir::Cache::archives "{root}/cache/archives";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{root}/sources";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Log "{root}";
Debug::NoLocking "true";
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
APT::Sandbox::User "root";
APT::Get::Assume-Yes "true";
"""

    def _apt(self, seconds: float, program: str, *arguments: str, directory: Path | None = None) -> str:
        command = [program, "-qq", "-c", str(self._config), *arguments]
        environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
        environment.pop("APT_CONFIG", None)
        try:
            ended = subprocess.run(
                command, capture_output=True, text=True, timeout=seconds, cwd=directory, env=environment, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as failed:
            raise PackagesUnavailable(f"{program} {arguments[0]} failed: {failed}") from failed
        if ended.returncode != 0:
            reason = " ".join(ended.stderr.split())[-400:] or "no reason given"
            raise PackagesUnavailable(f"{program} {arguments[0]} failed: {reason}")
        return ended.stdout


def open_suite(root: Path, suite: str, etc: Path = APT_ETC) -> PrivateApt:
    """Return a prepared apt for `suite` on the first of the machine's mirrors that carries it.

    PackagesUnavailable if the machine has no apt, or no mirror of it has the suite.
    """
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise PackagesUnavailable("this machine has no apt and dpkg")
    complaints: list[str] = []
    for position, mirror in enumerate(_distinct_archives(find_mirrors(etc))):
        apt = PrivateApt(root / str(position), mirror, suite)
        try:
            apt.prepare()
        except PackagesUnavailable as unavailable:
            complaints.append(str(unavailable))
        else:
            return apt
    raise PackagesUnavailable(f"no mirror of this machine has {suite}: {'; '.join(complaints) or 'it has no sources'}")


def unpack(archive: Path, target: Path) -> None:
    """Unpack a package's files below `target`; its scripts never run."""
    ended = subprocess.run(["dpkg", "-x", str(archive), str(target)], capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        # A damaged archive must be fetched again, not found again.
        archive.unlink(missing_ok=True)
        raise PackagesUnavailable(f"dpkg cannot unpack {archive.name}: {ended.stderr.strip()[-200:]}")


def _distinct_archives(mirrors: tuple[Mirror, ...]) -> tuple[Mirror, ...]:
    """Keep one entry per archive, security and update archives last: they carry no suite of their own."""
    by_uri: dict[str, Mirror] = {}
    for mirror in mirrors:
        by_uri.setdefault(mirror.uri.rstrip("/"), mirror)
    return tuple(sorted(by_uri.values(), key=lambda mirror: "security" in mirror.suite))


def _as_request(archive_name: str) -> str:
    """Turn `name_version_arch.deb` into apt's `name:arch=version`; an epoch's colon is escaped in file names."""
    name, version, architecture = archive_name.removesuffix(".deb").split("_")
    target = name if architecture == "all" else f"{name}:{architecture}"
    return f"{target}={version.replace('%3a', ':')}"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, PermissionError):
        return ""
