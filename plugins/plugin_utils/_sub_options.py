# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checking an option of gpu_plan that is a dictionary of settings (driver, engine, toolkit), with one sentence for each mistake."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.difyops.gpu.plugins.plugin_utils._findings import WishError, option

REPOSITORY_KEYS = ("url", "suite", "components", "key", "fingerprint")

_URL = re.compile(r"(?:https?|file)://\S+")
_CREDENTIALS = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s]*@", re.IGNORECASE)
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._:~-]*")
_FINGERPRINT = re.compile(r"[0-9A-F]{40}|[0-9A-F]{64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Repository:
    """Where packages come from, in place of what the collection knows of the source: a mirror of it. Empty texts: as it is known.

    `key` is a URL, or a file on the controller. `fingerprint` has capital letters and no spaces.
    """

    url: str = ""
    suite: str = ""
    components: str = ""
    key: str = ""
    fingerprint: str = ""


class Given:
    """What was given for one such option, of which the methods return one setting each, checked. All of them raise WishError."""

    def __init__(self, name: str, given: object, names: Sequence[str]) -> None:
        """Take the settings of option `name`, which may be None; `names` are those that it has. Raises WishError."""
        if not isinstance(given, Mapping) and given is not None:
            raise WishError(f"{name} must be a dictionary of settings; found {given!r}.")
        unknown = sorted(_shown(key) for key in given or {} if key not in names)
        if unknown:
            raise WishError(f"{name} has {', '.join(unknown)}, which is none of its settings: {', '.join(sorted(names))}.")
        self.name = name
        # None and an empty text are how a role variable says "as the collection has it".
        self.settings = {str(key): value for key, value in (given or {}).items() if value is not None and value != ""}

    def option_of(self, name: str) -> str:
        """Return a setting as every sentence names it: with the variable by which the role's users know it."""
        return option(f"{self.name}.{name}")

    def get(self, name: str) -> Any:
        """Return a setting as it was given, None where it was not."""
        return self.settings.get(name)

    def choices(self, known: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Return the settings that have choices, as far as they were given."""
        found: dict[str, Any] = {}
        for name in known:
            value = self.settings.get(name)
            if value is None:
                continue
            if "true" in known[name] and value not in known[name]:
                value = _word(value)
            if value not in known[name] or not isinstance(value, str):
                raise WishError(f"{self.option_of(name)} must be one of {', '.join(known[name])}; found {value!r}.")
            found[name] = value
        return found

    def flags(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the settings that are true or false, as far as they were given."""
        found: dict[str, Any] = {}
        for name in names:
            if name not in self.settings:
                continue
            try:
                found[name] = bool(boolean(self.settings[name]))
            except TypeError:
                raise WishError(f"{self.option_of(name)} must be true or false; found {self.settings[name]!r}.") from None
        return found

    def lists(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the settings that are lists of names, as far as they were given, each name once."""
        return {name: self._list(name, self.settings[name]) for name in names if name in self.settings}

    def _list(self, name: str, value: object) -> tuple[str, ...]:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)):
            raise WishError(f"{self.option_of(name)} must be a list of names; found {value!r}.")
        for item in items:
            if not isinstance(item, str) or not item.strip() or _CONTROL.search(item):
                raise WishError(f"{self.option_of(name)} must be a list of names; found {item!r} in it.")
        return tuple(dict.fromkeys(item.strip() for item in items))

    def packages(self, names: Sequence[str]) -> None:
        """Refuse what is no name of a package."""
        wrong = next((name for name in names if _PACKAGE.fullmatch(name) is None), None)
        if wrong is not None:
            raise WishError(f"{self.option_of('packages')} must list names of packages, without versions; found {wrong!r}.")

    def version(self, name: str, pattern: str, example: str) -> str | None:
        """Return a setting that is a version, None where it was not given.

        Args:
            name: of the setting.
            pattern: regular expression of what it may be.
            example: what it is to look like, for the sentence.
        """
        value = self.settings.get(name)
        if value is None:
            return None
        if isinstance(value, float):
            # 2.40 is 2.4 by now, and nobody can tell.
            raise WishError(f"{self.option_of(name)} must be quoted in YAML, since it is no number; found {value}.")
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if not isinstance(text, str) or re.fullmatch(pattern, text) is None:
            raise WishError(f"{self.option_of(name)} must be {example}; found {value!r}.")
        return text

    def repository(self) -> Repository:
        """Return the setting ``repository``."""
        value = self.settings.get("repository")
        if value is None:
            return Repository()
        name = self.option_of("repository")
        if not isinstance(value, Mapping):
            # What is there is not shown, since it may have a secret.
            raise WishError(f"{name} must be a dictionary with {', '.join(REPOSITORY_KEYS)}.")
        unknown = sorted(_shown(key) for key in value if key not in REPOSITORY_KEYS)
        if unknown:
            raise WishError(f"{name} has {', '.join(unknown)}, which is none of its keys: {', '.join(REPOSITORY_KEYS)}.")
        texts = {str(key): _repository_text(name, str(key), text) for key, text in value.items() if text is not None}
        repository = Repository(**texts)
        _check_addresses(name, repository)
        return repository


def _word(value: object) -> object:
    """Return `true` or `false` for what YAML or a template makes of the words; anything else as it is."""
    try:
        return "true" if boolean(value) else "false"
    except TypeError:
        return value


def _shown(name: object) -> str:
    return name if isinstance(name, str) and name.isidentifier() else repr(name)


def _repository_text(option_name: str, name: str, value: object) -> str:
    if not isinstance(value, str) or _CONTROL.search(value):
        raise WishError(f"{option_name}: {name} must be one line of text; found {value!r}.")
    text = value.strip()
    if name == "fingerprint":
        text = re.sub(r"[\s:]", "", text).upper()
        if text and _FINGERPRINT.fullmatch(text) is None:
            raise WishError(f"{option_name}: fingerprint must be the 40 hexadecimal digits of an OpenPGP key; found {value!r}.")
    return text


def _check_addresses(name: str, repository: Repository) -> None:
    for key, text in (("url", repository.url), ("key", repository.key)):
        if _CREDENTIALS.match(text):
            # Not shown, since it has a secret.
            where = "credentials for a repository belong into a file of mode 0600 on the host, such as one in /etc/apt/auth.conf.d"
            raise WishError(f"{name}: {key} has credentials, which would be readable to everybody on the host; {where}.")
    if repository.url and _URL.fullmatch(repository.url) is None:
        raise WishError(f"{name}: url must begin with https://, http:// or file://; found {repository.url!r}.")
    if " " in repository.suite:
        raise WishError(f"{name}: suite must be one word, such as noble or ./; found {repository.suite!r}.")
