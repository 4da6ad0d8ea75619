# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings from environment variables, checked once at the start."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MIN_KEY_LENGTH = 16
LOG_LEVELS = ("debug", "info", "warning", "error")


class SettingsError(Exception):
    """A setting is missing or wrong; the text is one sentence for the operator."""


@dataclass(frozen=True)
class Settings:
    """What the server was told to do. Sizes are counts unless the name says otherwise.

    Attributes:
        gpu_memory_fraction: how much of the GPU's memory this process may take, above 0 and up to 1.
    """

    api_key: str = field(repr=False)
    embedding_model: str
    embedding_name: str
    rerank_model: str | None
    rerank_name: str | None
    expect_gpu: bool
    host: str
    port: int
    max_batch: int
    max_input_chars: int
    max_input_tokens: int
    max_body_mib: int
    max_queue: int
    batch_size: int
    gpu_memory_fraction: float
    log_level: str
    variant: str
    version: str

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings.

        Args:
            environ: the environment variables; docs/image.md lists them.

        Raises:
            SettingsError: one of them is missing or wrong.
        """
        embedding_model = _text(environ, "EMBEDDING_MODEL")
        if embedding_model is None:
            raise SettingsError(
                "EMBEDDING_MODEL is not set: give the path of a model directory in the container, or a name on the Hugging Face hub."
            )
        rerank_model = _text(environ, "RERANK_MODEL")
        embedding_name = _text(environ, "SERVED_EMBEDDING_NAME") or served_name(embedding_model)
        rerank_name = None
        if rerank_model is not None:
            rerank_name = _text(environ, "SERVED_RERANK_NAME") or served_name(rerank_model)
            if rerank_name == embedding_name:
                raise SettingsError(
                    f"Both models would be served as '{rerank_name}': set SERVED_EMBEDDING_NAME or SERVED_RERANK_NAME to tell them apart."
                )
        log_level = (_text(environ, "LOG_LEVEL") or "info").lower()
        if log_level not in LOG_LEVELS:
            raise SettingsError(f"LOG_LEVEL is '{log_level}': use one of {', '.join(LOG_LEVELS)}.")
        return cls(
            api_key=_api_key(environ),
            embedding_model=embedding_model,
            embedding_name=embedding_name,
            rerank_model=rerank_model,
            rerank_name=rerank_name,
            expect_gpu=_flag(environ, "EXPECT_GPU"),
            host=_text(environ, "HOST") or "0.0.0.0",  # noqa: S104  inside a container; the compose project decides what is published
            port=_number(environ, "PORT", 8000, 1, 65535),
            max_batch=_number(environ, "MAX_BATCH", 256, 1, 100_000),
            max_input_chars=_number(environ, "MAX_INPUT_CHARS", 32_768, 1, 100_000_000),
            max_input_tokens=_number(environ, "MAX_INPUT_TOKENS", 0, 0, 100_000_000),
            max_body_mib=_number(environ, "MAX_BODY_MIB", 16, 1, 4096),
            max_queue=_number(environ, "MAX_QUEUE", 64, 1, 100_000),
            batch_size=_number(environ, "BATCH_SIZE", 32, 1, 4096),
            gpu_memory_fraction=_fraction(environ, "GPU_MEMORY_FRACTION"),
            log_level=log_level,
            variant=_text(environ, "DIFYOPS_VARIANT") or "unknown",
            version=_text(environ, "DIFYOPS_IMAGE_VERSION") or "unknown",
        )

    @property
    def models_are_local(self) -> bool:
        """Whether every model is a directory here, so that the hub is not needed."""
        return is_local(self.embedding_model) and (self.rerank_model is None or is_local(self.rerank_model))


def is_local(model: str) -> bool:
    """Whether a model setting is a path; a hub name has one slash at most and does not start with one."""
    return model.startswith(("/", "./", "../", "~")) or Path(model).is_dir()


def served_name(model: str) -> str:
    """The name clients use when none is set: a path's last part, or the hub name without its revision."""
    if is_local(model):
        return Path(model).expanduser().resolve().name
    return model.partition("@")[0]


def offline_environment(settings: Settings) -> dict[str, str]:
    """Environment that must be set before the model libraries are imported.

    With local models nothing may ever be asked of the hub, so a host without internet starts as fast as any other.
    """
    environ = {"HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "true"}
    if settings.models_are_local:
        environ.update({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"})
    return environ


def hub_is_offline() -> bool:
    """Whether the operator forbade downloads from the hub."""
    return any(os.environ.get(name, "").strip().lower() in _TRUE for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def configure_logging(settings: Settings) -> None:
    """Log to standard error, one line per event."""
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")


_TRUE = ("1", "true", "yes", "on")
_FALSE = ("", "0", "false", "no", "off")


def _text(environ: Mapping[str, str], name: str) -> str | None:
    return environ.get(name, "").strip() or None


def _flag(environ: Mapping[str, str], name: str) -> bool:
    value = environ.get(name, "").strip().lower()
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise SettingsError(f"{name} is '{value}': use 1 or 0.")


def _number(environ: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    value = _text(environ, name)
    if value is None:
        return default
    try:
        number = int(value)
    except ValueError:
        number = None
    if number is None or not least <= number <= most:
        raise SettingsError(f"{name} is '{value}': use a whole number from {least} to {most}.")
    return number


def _fraction(environ: Mapping[str, str], name: str) -> float:
    """A share of the whole; 1 where nothing is set. NaN compares as false and is refused with the rest."""
    value = _text(environ, name)
    if value is None:
        return 1.0
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1:
        raise SettingsError(f"{name} is '{value}': use a number above 0 and up to 1, such as 0.5 for half of the GPU's memory.")
    return number


def _api_key(environ: Mapping[str, str]) -> str:
    """The key from API_KEY, or from the file that API_KEY_FILE names. The key itself never appears in a message."""
    path = _text(environ, "API_KEY_FILE")
    key = _text(environ, "API_KEY")
    if key is None and path is not None:
        try:
            key = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"API_KEY_FILE {path} cannot be read ({_reason(error)}).") from None
    if not key:
        raise SettingsError(
            "API_KEY is not set: the server does not start without a key. Set API_KEY, or API_KEY_FILE to a file that holds it."
        )
    if len(key) < MIN_KEY_LENGTH:
        raise SettingsError(f"API_KEY has {len(key)} characters: use at least {MIN_KEY_LENGTH}.")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise SettingsError("API_KEY has characters that an HTTP header cannot carry: use letters and digits.")
    return key


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else "it is not text"
