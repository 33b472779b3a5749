"""Runs: the folder that a training leaves behind, and training inside one."""

from vaelid.runs.config import Config, known_keys, read_config, resolve, setting
from vaelid.runs.contexts import contexts
from vaelid.runs.folder import Run, ensure_new, find_device, new_path
from vaelid.runs.session import (
    SCORING,
    History,
    batch_of,
    fit,
    go,
    load,
    own_model,
    prepare_resume,
    resume,
    score,
    scored_rows,
    start,
)

__all__ = [
    "SCORING",
    "Config",
    "History",
    "Run",
    "batch_of",
    "contexts",
    "ensure_new",
    "find_device",
    "fit",
    "go",
    "known_keys",
    "load",
    "new_path",
    "own_model",
    "prepare_resume",
    "read_config",
    "resolve",
    "resume",
    "score",
    "scored_rows",
    "setting",
    "start",
]
