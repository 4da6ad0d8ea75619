# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The `.env` of a Dify release and the file of its secrets: what they have to be, and writing them. It is private to difyops.gpu."""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import string
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple
from urllib.parse import quote

from ansible_collections.difyops.gpu.plugins.module_utils import _dotenv

BROKEN_RELEASE, NO_SPACE, BAD_SECRET, BAD_OPTION = "DG902", "DG906", "DG913", "DG922"
_TITLE = "Set by difyops.gpu; not in the release's .env.example"
_HEADER = "# Secrets of Dify, made by difyops.gpu. Whoever loses them loses what is encrypted with them.\n"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
# Passwords stand in URLs and in shell commands of the compose project; keys and tokens in headers.
_SAFE_PASSWORD = re.compile(r"[A-Za-z0-9._~-]+", re.ASCII)
_SAFE_KEY = re.compile(r"[A-Za-z0-9._~+/=@:,-]+", re.ASCII)
_INIT_PASSWORD_MAX = 30
_MAX_SIZE = 4 << 20
_KINDS = ("letters", "base64url32")
_REASONS = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up", errno.EROFS: "the file system is read-only"}
MASK = "(not shown)"


class Problem(Exception):  # noqa: N818  it is no mistake of the program
    """Why nothing is written: a code and a sentence without any secret."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Spec(NamedTuple):
    """One secret that a release needs: `also` holds the same value, and `in_env` tells whether it is a variable at all."""

    name: str
    kind: str
    length: int
    also: Sequence[str]
    in_env: bool


class Wish(NamedTuple):
    """The options of dify_env, checked."""

    path: str
    template: str
    settings: Mapping[str, str]
    secrets_file: str
    specs: Sequence[Spec]
    derived: Mapping[str, str]
    given: Mapping[str, str]
    forbidden: Mapping[str, frozenset[str]]


class Secrets(NamedTuple):
    """The secrets as they have to be: what the file holds, the variables of `.env`, and which were made, replaced or found to be public."""

    file: Mapping[str, str]
    variables: Mapping[str, str]
    generated: Sequence[str]
    defaults: Sequence[str]
    replaced: Sequence[str] = ()


class Outcome(NamedTuple):
    """What has to be written, and what that changes. `text` is None where there is no template to make it of."""

    text: str | None
    before: str | None
    secrets: Secrets
    secrets_before: str | None
    added: Sequence[str]
    changed: Sequence[str]
    removed: Sequence[str]
    warnings: Sequence[str]

    @property
    def secrets_text(self) -> str:
        """The file of secrets as it has to be."""
        return secrets_text(self.secrets_before, self.secrets.file)


def wish(options: Mapping[str, Any]) -> Wish:
    """Return the checked options. Raises Problem."""
    settings = _texts(options.get("settings"), "settings")
    given = _texts(options.get("given"), "given")
    specs = [_spec(item) for item in _list(options.get("secrets"), "secrets")]
    derived = _texts(options.get("derived"), "derived")
    forbidden = options.get("forbidden") or {}
    if not isinstance(forbidden, Mapping):
        raise Problem(BAD_OPTION, "forbidden has to be a dictionary of lists.")
    digests = {str(name): frozenset(str(item) for item in _list(items, "forbidden")) for name, items in forbidden.items()}
    held = {name for item in specs for name in (item.name, *item.also)} | set(derived)
    both = sorted(set(settings) & (held | set(given)))
    if both:
        raise Problem(BAD_SECRET, f"{', '.join(both)} hold secrets and belong in given (dify_secrets), not in settings (dify_env).")
    return Wish(
        str(options.get("path") or ""),
        str(options.get("template") or ""),
        settings,
        str(options.get("secrets_file") or ""),
        specs,
        derived,
        given,
        digests,
    )


def _list(value: object, option: str) -> Sequence[object]:
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)):
        raise Problem(BAD_OPTION, f"{option} has to be a list.")
    return value


def _texts(value: object, option: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise Problem(BAD_OPTION, f"{option} has to be a dictionary.")
    found = {}
    for name, item in value.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise Problem(BAD_OPTION, f"{option} has the name {str(name)[:80]!r}, and no variable can have that name.")
        if isinstance(item, (Mapping, list, tuple)):
            raise Problem(BAD_OPTION, f"{name} in {option} has to be a text.")
        # YAML's own words for what Dify reads as text.
        found[name] = ("true" if item else "false") if isinstance(item, bool) else "" if item is None else str(item)
    return found


def _spec(item: object) -> Spec:
    if not isinstance(item, Mapping) or not _NAME.fullmatch(str(item.get("name", ""))) or item.get("kind", "letters") not in _KINDS:
        raise Problem(BAD_OPTION, "secrets has an entry that is no secret: it needs a name and a kind (letters or base64url32).")
    try:
        length = int(item.get("length") or 40)
    except (TypeError, ValueError) as error:
        raise Problem(BAD_OPTION, f"The length of the secret {item['name']} has to be a number.") from error
    if not 8 <= length <= 512:
        raise Problem(BAD_OPTION, f"The length of the secret {item['name']} has to be between 8 and 512.")
    also = tuple(_dotenv.names(str(name) for name in _list(item.get("also"), "also")))
    return Spec(str(item["name"]), str(item.get("kind", "letters")), length, also, item.get("in_env") is not False)


def plan(wanted: Wish, make: Callable[[Spec], str] | None = None) -> Outcome:
    """Return what has to be written. `make` makes a secret, None for the real way. Raises Problem."""
    template = _read(wanted.template, "The template")
    held = _read(wanted.secrets_file, "The file of secrets", BAD_SECRET)
    before = _read(wanted.path, "The file")
    known, warnings = _known(wanted.path, before)
    _fits(wanted, template)
    found = _parse_secrets(wanted.secrets_file, held)
    made = resolve(wanted, found, known, make or generate)
    if template is None:
        return Outcome(None, before, made, held, (), (), (), warnings)
    try:
        values = {**wanted.settings, **made.variables}
        values.update(_filled(wanted, made, _dotenv.values(template)))
        text = _dotenv.edit(template, values, _TITLE)
        after = _dotenv.values(text)
    except _dotenv.DotenvError as error:
        raise Problem(BAD_OPTION, f"{wanted.path} is not written: {str(error).rstrip('.')}.") from error
    added = sorted(set(after) - set(known))
    changed = sorted(name for name in set(after) & set(known) if after[name] != known[name])
    return Outcome(text, before, made, held, added, changed, sorted(set(known) - set(after)), warnings)


def _fits(wanted: Wish, template: str | None) -> None:
    """Refuse values that no line can hold, and a template that is none. Raises Problem."""
    for option, values in (("settings", wanted.settings), ("given", wanted.given)):
        for name, value in values.items():
            _renders(option, name, value)
    if template is not None:
        try:
            _dotenv.parse(template)
        except _dotenv.DotenvError as error:
            raise Problem(BROKEN_RELEASE, f"{wanted.template} cannot be read: {str(error).rstrip('.')}.") from error


def _renders(option: str, name: str, value: str) -> None:
    try:
        _dotenv.render(value)
    except _dotenv.DotenvError as error:
        code = BAD_OPTION if option == "settings" else BAD_SECRET
        raise Problem(code, f"{name} in {option} cannot be used: {error}.") from error


def _known(path: str, before: str | None) -> tuple[dict[str, str], list[str]]:
    if before is None:
        return {}, []
    try:
        return _dotenv.values(before), []
    except _dotenv.DotenvError as error:
        return {}, [f"{path} cannot be read by compose ({str(error).rstrip('.')}); it is replaced, and what is in it counts for nothing."]


def resolve(wanted: Wish, found: Mapping[str, str], known: Mapping[str, str], make: Callable[[Spec], str]) -> Secrets:
    """Return the secrets: given ones first, then those of the file, then those of a `.env` that is there, else new ones.

    Raises Problem.
    """
    public = frozenset(digest for digests in wanted.forbidden.values() for digest in digests)
    file, variables = dict(found), {}
    generated: list[str] = []
    defaults: list[str] = []
    for spec in wanted.specs:
        names = (spec.name, *spec.also)
        value = _given(wanted, spec, public)
        if value is None:
            there = _there(spec, found, known)
            defaults += [name for name in names if _plain(known, name) and is_public(_plain(known, name) or "", public)]
            if there is not None and is_public(there, public):
                defaults.append(spec.name)
                there = None
            if there is None and _made_by_dify(spec, known):
                continue
            if there is None:
                there = make(spec)
                generated.append(spec.name)
            value = there
        file[spec.name] = value
        for name in names if spec.in_env else ():
            variables[name] = value
    mine = {name for spec in wanted.specs for name in (spec.name, *spec.also)}
    for name, value in wanted.given.items():
        if name not in mine:
            if is_public(value, public) and value:
                raise Problem(BAD_SECRET, f"{name} is given with a value that is public: the release has it as a default.")
            file[name] = variables[name] = value
    replaced = [spec.name for spec in wanted.specs if _replaces(found.get(spec.name), file.get(spec.name), public)]
    return Secrets(file, variables, sorted(generated), sorted(set(defaults)), sorted(replaced))


def _replaces(there: str | None, value: str | None, public: frozenset[str]) -> bool:
    """Whether a secret that counted so far is given with another value."""
    return bool(there) and there != value and not is_public(there or "", public)


def _given(wanted: Wish, spec: Spec, public: frozenset[str]) -> str | None:
    """Return the value that is given for a secret, None where none is. Raises Problem."""
    values = {name: wanted.given[name] for name in (spec.name, *spec.also) if wanted.given.get(name)}
    if not values:
        return None
    if len(set(values.values())) > 1:
        raise Problem(BAD_SECRET, f"{' and '.join(sorted(values))} are given with different values, and Dify needs the same one.")
    name, value = next(iter(values.items()))
    if is_public(value, public):
        raise Problem(BAD_SECRET, f"{name} is given with a value that is public: the release has it as a default. Give another one.")
    reason = trouble(spec, value)
    if reason:
        raise Problem(BAD_SECRET, f"{name} is given with a value that cannot be used: {reason}.")
    return value


def trouble(spec: Spec, value: str) -> str | None:
    """Return why a value cannot be used for a secret, None where it can; nothing of the value is told."""
    if not spec.in_env:
        return None
    if spec.kind == "base64url32":
        return None if _is_key(value) else "it has to be 32 bytes in base64url without padding (43 characters)"
    if spec.name == "INIT_PASSWORD" and len(value) > _INIT_PASSWORD_MAX:
        return f"it has more than {_INIT_PASSWORD_MAX} characters, and Dify takes no more"
    if spec.name.endswith("PASSWORD") and not _SAFE_PASSWORD.fullmatch(value):
        return "it has characters that break the URLs it stands in; letters, digits and . _ ~ - are safe"
    if not _SAFE_KEY.fullmatch(value):
        return "it has characters that are not safe in commands and headers; letters, digits and . _ ~ + / = @ : , - are"
    return None


def _is_key(value: str) -> bool:
    try:
        decoded = base64.b64decode(value.encode("ascii") + b"=", altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        return False
    return len(decoded) == 32 and base64.urlsafe_b64encode(decoded).rstrip(b"=").decode("ascii") == value


def _there(spec: Spec, found: Mapping[str, str], known: Mapping[str, str]) -> str | None:
    if found.get(spec.name):
        return found[spec.name]
    # The file of secrets was lost, or Dify was there before: what the databases were made with counts.
    return next((value for value in (_plain(known, name) for name in (spec.name, *spec.also)) if value), None) if spec.in_env else None


def _made_by_dify(spec: Spec, known: Mapping[str, str]) -> bool:
    """Whether Dify itself keeps this secret in its storage: another one would make what is encrypted with it worthless."""
    return spec.name == "SECRET_KEY" and known.get(spec.name) == ""


def _plain(known: Mapping[str, str], name: str) -> str | None:
    return _dotenv.plain(known[name]) if name in known else None


def is_public(value: str, public: frozenset[str]) -> bool:
    """Whether a value is one of the public defaults, given as digests."""
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest() in public


def generate(spec: Spec) -> str:
    """Return a new secret."""
    if spec.kind == "base64url32":
        return base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode("ascii")
    alphabet = string.ascii_letters + string.digits
    while True:
        value = "".join(secrets.choice(alphabet) for _place in range(spec.length))
        # Some of what takes these passwords wants each of the three.
        if all(any(char in group for char in value) for group in (string.ascii_lowercase, string.ascii_uppercase, string.digits)):
            return value


def _filled(wanted: Wish, made: Secrets, template: Mapping[str, str]) -> dict[str, str]:
    """Return the derived variables: of an address, the parts follow what is set. Raises Problem."""
    secret = set(made.variables)
    found = {}
    for name, pattern in wanted.derived.items():
        if wanted.given.get(name):
            continue

        def value(match: re.Match[str]) -> str:
            key = match[1]
            text = made.variables.get(key, wanted.settings.get(key))
            if text is None:
                text = _dotenv.plain(template.get(key, "")) or ""
            return quote(text, safe="") if key in secret or key.endswith("USERNAME") else text

        found[name] = _PLACE.sub(value, pattern)
    return found


def preview(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what dify_env would do, by name, and `error`. Never raises for what is on the host.

    `changes` and `defaults` are variables; `generates` are secrets that it would make, `replaces` those that are given with another value
    than the file has.
    """
    nothing: dict[str, list[str]] = {"added": [], "changed": [], "removed": []}
    try:
        outcome = plan(wish(options))
    except Problem as problem:
        return {"changes": nothing, "generates": [], "replaces": [], "defaults": [], "error": str(problem)}
    changes = {"added": list(outcome.added), "changed": list(outcome.changed), "removed": list(outcome.removed)}
    secrets_made = outcome.secrets
    return {
        "changes": changes,
        "generates": list(secrets_made.generated),
        "replaces": list(secrets_made.replaced),
        "defaults": list(secrets_made.defaults),
        "error": None,
    }


def difference(wanted: Wish, outcome: Outcome) -> dict[str, str]:
    """Return what Ansible shows with --diff: names, and values only of settings."""
    old = _known(wanted.path, outcome.before)[0]
    new = _dotenv.values(outcome.text or "")

    def shown(values: Mapping[str, str]) -> str:
        names = (name for name in sorted({*outcome.added, *outcome.changed, *outcome.removed}) if name in values)
        lines = (f"{name}={values[name] if name in wanted.settings else MASK + _which(outcome, name, values is new)}\n" for name in names)
        return "".join(lines)

    return {"before_header": wanted.path, "before": shown(old), "after_header": wanted.path, "after": shown(new)}


def _which(outcome: Outcome, name: str, after: bool) -> str:
    """Return what tells one masked value from the other, where both are masked."""
    return ", new" if after and name in outcome.changed else ""


def secrets_text(before: str | None, wanted: Mapping[str, str]) -> str:
    """Return the file of secrets: lines that are there stay where they are, new ones come at the end."""
    left, lines = dict(wanted), []
    for line in (before if before is not None else _HEADER).rstrip("\n").split("\n"):
        name, sign, _value = line.partition("=")
        lines.append(f"{name}={left.pop(name)}" if sign and name in left else line)
    return "".join(f"{line}\n" for line in [*lines, *(f"{name}={value}" for name, value in left.items())])


def _parse_secrets(path: str, text: str | None) -> dict[str, str]:
    """Return the secrets of a file: to the letter, without quotes. Raises Problem."""
    found = {}
    for number, line in enumerate((text or "").split("\n"), 1):
        name, sign, value = line.rstrip("\r").partition("=")
        if not line.strip() or line.startswith("#"):
            continue
        if not sign or not _NAME.fullmatch(name):
            told = f"{path} cannot be read: line {number} is no NAME=value. Nothing is written, so that no secret is lost."
            raise Problem(BAD_SECRET, told)
        found[name] = value
    return found


def _read(path: str, what: str, code: str = BAD_OPTION) -> str | None:
    """Return the text of a file, None where there is none. Raises Problem."""
    if not path:
        return None
    try:
        # A pipe must not hold the run up.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Problem(code, f"{what} {path} is no file.")
            content = file.read(_MAX_SIZE + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Problem(code, f"{what} {path} cannot be read: {_reason(error)}.") from error
    if len(content) > _MAX_SIZE:
        raise Problem(code, f"{what} {path} has more than {_MAX_SIZE >> 20} MiB.")
    return content.decode("utf-8", "surrogateescape")


def open_to_others(path: str) -> int | None:
    """Return the mode of a file that others than its owner may read or write, None for one that is closed to them or not there."""
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return None
    return mode if mode & 0o077 else None


def write(wanted: Wish, outcome: Outcome, backup: bool) -> str | None:
    """Write secrets and `.env`, the secrets first, and return the name of the backup. Raises Problem."""
    if outcome.text is None:
        raise Problem(BROKEN_RELEASE, f"The template {wanted.template} is not there; the release has to be unpacked first.")
    if outcome.secrets_text != outcome.secrets_before:
        _replace(wanted.secrets_file, outcome.secrets_text, 0o700)
    _tighten(wanted.secrets_file)
    kept = None
    if outcome.text != outcome.before:
        if backup and outcome.before is not None:
            kept = f"{wanted.path}.{os.getpid()}.{time.strftime('%Y-%m-%d@%H:%M:%S~')}"
            _replace(kept, outcome.before, None)
        _replace(wanted.path, outcome.text, None)
    _tighten(wanted.path)
    return kept


def _tighten(path: str) -> None:
    if open_to_others(path) is not None:
        try:
            os.chmod(path, 0o600)
        except OSError as error:
            raise Problem(BAD_SECRET, f"{path} can be read by others, and that cannot be changed: {_reason(error)}.") from error


def _replace(path: str, text: str, folder_mode: int | None) -> None:
    """Put a text in the place of a file, all or nothing, closed to others from its first byte. Raises Problem."""
    folder, name = os.path.split(path)
    new = None
    try:
        if folder_mode is not None:
            os.makedirs(folder, mode=folder_mode, exist_ok=True)
        # Made with 0600, so that nobody else reads it before it is whole either.
        descriptor, new = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
        with open(descriptor, "wb") as file:
            file.write(text.encode("utf-8", "surrogateescape"))
            file.flush()
            os.fsync(file.fileno())
        os.rename(new, path)
        new = None
        _sync(folder)
    except OSError as error:
        code = NO_SPACE if error.errno in (errno.ENOSPC, errno.EDQUOT) else BAD_OPTION
        raise Problem(code, f"{path} cannot be written: {_reason(error)}. It is as it was.") from error
    finally:
        if new is not None:
            with contextlib.suppress(OSError):
                os.unlink(new)


def _sync(folder: str) -> None:
    """Bring the renaming to the disk; a file system that cannot do that is none of ours to judge."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _reason(error: OSError) -> str:
    return _REASONS.get(error.errno or 0, error.strerror or str(error))
