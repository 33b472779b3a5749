"""The run folder, format 1: what was asked, what happened, what came of it. No pickle anywhere.

config.toml          everything that was asked, resolved; the model as named parts
data.npz             the rows, where they came from memory; those held out, where a DataLoader gave the others
extras.npz           mask, context and weights, where they were given beside the rows
split.npz            row numbers for training, validation and test; shape of one row
env.json             versions, machine, command
events.jsonl         one line per event of training
checkpoints/         last.safetensors and best.safetensors
model.safetensors    the best weights
metrics.json         how good they are
evidence.json        log p(x) of rows between two sides
report.html          the same for the eye
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self, final

import numpy as np
import torch

import vaelid
from vaelid import parts
from vaelid.data import Dataset, Split, load_arrays, save_arrays
from vaelid.data.readers import open_npz
from vaelid.data.sources import LOADER, MEMORY, read
from vaelid.errors import InputError, RunError, command
from vaelid.files import atomic, umask, write_text
from vaelid.model import VAE
from vaelid.random import Key
from vaelid.runs.config import FORMAT, Config, read_config, resolve
from vaelid.training import Checkpoints, Finished, Saved, checkpoints
from vaelid.training.events import Stream

_AGAIN = "train again into another folder with --out"


@final
class Run:
    """A run folder, opened by `Run.open` or made by `Run.create`."""

    def __init__(self, path: Path, config: Config) -> None:
        self.path, self.config = path, config

    # -- making and opening --------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls, path: Path | str, config: Config, dataset: Dataset, split: Split, extras: dict[str, np.ndarray]
    ) -> Self:
        """Make a run folder, whole or not at all.

        Raises:
            InputError: the folder exists, or cannot be written.
        """
        path = Path(path)
        ensure_new(path)
        building = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            building = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
            (building / "checkpoints").mkdir()
            write_text(building / "config.toml", config.to_toml())
            write_text(building / "env.json", json.dumps(environment(), indent=2))
            (building / "events.jsonl").touch()
            rows = {"train": split.train, "validation": split.validation, "test": split.test}
            with atomic(building / "split.npz") as temporary:
                np.savez(temporary, **rows, event=dataset.x.shape[1:])  # type: ignore[arg-type]
            if config.data.source in (MEMORY, LOADER):
                save_arrays(dataset, building / "data.npz")
            if extras:
                with atomic(building / "extras.npz") as temporary:
                    np.savez(temporary, **extras)  # type: ignore[arg-type]
            building.chmod(0o777 & ~umask())
            building.rename(path)
        except BaseException as error:
            if building is not None:
                shutil.rmtree(building, ignore_errors=True)
            if isinstance(error, OSError | RunError):
                reason = error.strerror if isinstance(error, OSError) else error
                raise InputError(
                    f"the run folder {path} cannot be made ({reason})",
                    "a folder that you may write to, with room",
                    "choose another with --out",
                ) from error
            raise
        return cls(path, config)

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open a run folder.

        Raises:
            InputError: it is not one, is of another format, or lacks a file that every run has.
        """
        path = Path(path)
        if not path.exists():
            raise InputError(f"no run folder {path}", "a folder made by vaelid train", _others(path))
        missing = [name for name in ("config.toml", "split.npz", "events.jsonl") if not (path / name).is_file()]
        if missing:
            raise InputError(f"{path} lacks {', '.join(missing)}", "a whole run folder", _AGAIN)
        table = read_config(path / "config.toml")
        if table.get("format") != FORMAT:
            raise InputError(
                f"{path} is a run of format {table.get('format')}",
                f"format {FORMAT}, which vaelid {vaelid.__version__} reads",
            )
        try:
            return cls(path, resolve(table))
        except InputError as error:
            raise InputError(f"{path / 'config.toml'}: {error}") from error

    # -- what it holds -------------------------------------------------------------------------------------------

    @property
    def checkpoints(self) -> Checkpoints:
        """The folder of checkpoints."""
        again = f"vaelid.resume({str(self.path)!r}, data=loader)" if self.streamed else None
        return Checkpoints(self.path / "checkpoints", again)

    @property
    def streamed(self) -> bool:
        """Whether its training rows came from a ``DataLoader``, and are not in the folder."""
        return self.config.data.source == LOADER

    @property
    def model_file(self) -> Path:
        """The best weights."""
        return self.path / "model.safetensors"

    def split(self) -> Split:
        """The rows for training, validation and test."""
        arrays = self._arrays("split.npz", "train", "validation", "test")
        return Split(arrays["train"], arrays["validation"], arrays["test"])

    def event_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return tuple(self._arrays("split.npz", "event")["event"].tolist())

    def extras(self) -> dict[str, np.ndarray]:
        """Mask, context and weights that were given beside the run's rows, where there are any."""
        return self._arrays("extras.npz") if (self.path / "extras.npz").exists() else {}

    def _arrays(self, name: str, *needed: str) -> dict[str, np.ndarray]:
        path = self.path / name
        with open_npz(path) as stored:
            arrays = {key: stored[key] for key in stored.files}
        if missing := [key for key in needed if key not in arrays]:
            raise InputError(f"{path} lacks {', '.join(missing)}", "a whole run folder", _AGAIN)
        return arrays

    def last_checkpoint(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors and loop state of the last checkpoint.

        Raises:
            InputError: there is none, or it is damaged.
        """
        tensors, state = checkpoints.read(self.checkpoints.last)
        if not state:
            raise InputError(f"{self.checkpoints.last} holds no state of training", "a checkpoint", _AGAIN)
        return tensors, state

    def dataset(self) -> Dataset:
        """The rows that the run was made from; where it was trained on a loader's, those held out.

        Raises:
            InputError: they are gone or have changed.
        """
        if self.config.data.source in (MEMORY, LOADER):
            return load_arrays(self.path / "data.npz")
        dataset = read(self.config.data.source, self.config.data.roles())
        if dataset.fingerprint != self.config.data.fingerprint:
            raise InputError(
                f"{dataset.source} has changed since the run was made",
                f"rows with fingerprint {self.config.data.fingerprint[:12]}",
                "restore the file, or give the data explicitly: vaelid evaluate RUN DATA",
            )
        return dataset

    def read(self, source: Any) -> Dataset:
        """Other rows, read as the run's own were: the same columns by their names, context in the run's encoding.

        Labels and weights may be absent.

        Raises:
            InputError: see `vaelid.data.load`; a context column is absent or holds a category unknown to the run.
        """
        return read(source, self.config.data.roles(lenient=True))

    def build(self) -> VAE:
        """The model from its named parts, with weights as at the start of training, on the run's device."""
        device = find_device(self.config.device)
        with Key(self.config.seed).fold("init").seeding():
            try:
                model = parts.build(self.config.parts)
            except InputError:
                raise
            except (AttributeError, TypeError, ValueError, RuntimeError) as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                file = self.path / "config.toml"
                raise InputError(f"{file} describes no model ({reason})", "the parts of one") from error
        if not isinstance(model, VAE):
            raise InputError(f"{self.path} holds a {type(model).__name__}", "a model")
        return model.to(device)

    def model(self, model: VAE | None = None) -> VAE:
        """The trained model; ``model`` is filled with the weights where the run holds networks of the user's own."""
        if not self.model_file.exists():
            raise InputError(
                f"{self.path} has no model.safetensors: its training did not end",
                "a finished run",
                f"go on with: {command('train', '--resume', self.path)}",
            )
        model = self.build() if model is None else model
        tensors, _ = checkpoints.read(self.model_file, str(model.device))
        try:
            model.load_state_dict(tensors)
        except RuntimeError as error:
            raise InputError(
                f"{self.model_file} does not fit the model ({str(error).splitlines()[-1].strip()})",
                "the model that was trained",
            ) from error
        return model.eval()

    def save_model(self, model: VAE) -> None:
        """Write the model's weights.

        Raises:
            RunError: the disk refuses.
        """
        with self.checkpoints.guarded("the model"):
            checkpoints.write(self.model_file, model.state_dict(), {})

    # -- events and metrics --------------------------------------------------------------------------------------

    def record(self, events: Stream) -> Stream:
        """Pass events through and append each to events.jsonl, on disk for good once a checkpoint is saved.

        Raises:
            RunError: the disk refuses.
        """
        path, guarded = self.path / "events.jsonl", self.checkpoints.guarded
        with contextlib.closing(events):
            for event in events:
                line = json.dumps(event.as_dict() | {"time": round(time.time(), 3)}) + "\n"
                try:
                    with guarded("events.jsonl"), open(path, "a", encoding="utf-8") as file:
                        file.write(line)
                        if isinstance(event, Saved | Finished):
                            file.flush()
                            os.fsync(file.fileno())
                except RunError as error:  # raised where the event came from, which then must not count it as said
                    events.throw(error)
                yield event

    def events(self) -> list[dict[str, Any]]:
        """The recorded events; a last line cut short by a crash is left out."""
        lines = (self.path / "events.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return found

    @property
    def finished(self) -> bool:
        """Whether training came to its end: then model.safetensors holds its result."""
        return any(event["event"] == "Finished" for event in self.events())

    def forget_after(self, said: int) -> None:
        """Keep the first ``said`` events of progress, and what comes before them: training says the others again.

        Raises:
            RunError: the disk refuses.
        """
        kept: list[str] = []
        for event in self.events():
            said -= event["event"] in ("Progress", "EpochDone", "RolledBack")
            if said < 0:
                break
            if event["event"] != "Finished":
                kept.append(json.dumps(event) + "\n")
        with self.checkpoints.guarded("events.jsonl"):
            write_text(self.path / "events.jsonl", "".join(kept))

    def metrics(self) -> dict[str, Any]:
        """What metrics.json holds; empty before the first evaluation."""
        path = self.path / "metrics.json"
        if not path.exists():
            return {}
        try:
            return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]
        except ValueError as error:
            again = f"write it anew: {command('report', self.path)}"
            raise InputError(f"{path} is damaged ({error})", "JSON", again) from error

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """Write metrics.json.

        Raises:
            RunError: the disk refuses.
        """
        with self.checkpoints.guarded("metrics.json"):
            write_text(self.path / "metrics.json", json.dumps(metrics, indent=2))

    def weights(self) -> str:
        """SHA-256 of the best weights: what evidence.json names the model by."""
        with open(self.model_file, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def evidence(self) -> dict[str, Any]:
        """What evidence.json holds; empty where there is none, or where it is about other weights than the run's now.

        Raises:
            InputError: it is damaged.
        """
        path = self.path / "evidence.json"
        if not path.exists() or not self.model_file.exists():
            return {}
        try:
            table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return table if table["model"] == self.weights() else {}
        except (ValueError, KeyError, TypeError) as error:
            again = f"write it anew: {command('evidence', self.path)}"
            raise InputError(f"{path} is damaged ({error})", "a bracket in JSON", again) from error

    def save_evidence(self, table: dict[str, Any]) -> None:
        """Write evidence.json.

        Raises:
            RunError: the disk refuses.
        """
        try:
            write_text(self.path / "evidence.json", json.dumps(table, indent=1))
        except OSError as error:
            given = f"evidence.json could not be written ({error.strerror or error}); the run is as it was"
            raise RunError(
                f"{given}. Make room in {self.path} and type again: {command('evidence', self.path)}"
            ) from error

    def save_config(self, config: Config) -> None:
        """Write config.toml anew, after a resume that asked for more epochs.

        Raises:
            RunError: the disk refuses.
        """
        with self.checkpoints.guarded("config.toml"):
            write_text(self.path / "config.toml", config.to_toml())
        self.config = config


def ensure_new(path: Path) -> None:
    """Refuse a run folder that exists, naming the two commands that might have been meant."""
    if path.exists():
        raise InputError(
            f"{path} exists",
            "a new folder",
            f"to go on with that run: {command('train', '--resume', path)}; to make another: --out {next_free(path)}",
        )


def next_free(path: Path) -> Path:
    """The first of path-2, path-3 … that is free."""
    number = 2
    while (free := path.with_name(f"{path.name}-{number}")).exists():
        number += 1
    return free


def new_path(name: str, root: Path | None = None) -> Path:
    """runs/NAME-001, or the first number after the runs that exist."""
    root = root or Path("runs")
    numbers = [int(p.name.rpartition("-")[2]) for p in root.glob(f"{name}-*") if p.name.rpartition("-")[2].isdigit()]
    return root / f"{name}-{max(numbers, default=0) + 1:03d}"


def find_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        InputError: there is no such device on this machine.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"--device {name}", "cpu, cuda, cuda:N or mps")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device {name}, but no CUDA GPU is visible", "a device of this machine", "use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise InputError(f"--device {name}", f"cuda:0 to cuda:{last}, the GPUs of this machine")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"--device {name}, but there is no Apple GPU", "a device of this machine", "use --device cpu")
    return device


def environment() -> dict[str, Any]:
    """Versions and machine: what bitwise reproduction needs equal."""
    return {
        "vaelid": vaelid.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "command": shlex.join(["vaelid", *sys.argv[1:]]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _others(path: Path) -> str:
    folder = path.parent
    runs = sorted(p.parent.name for p in folder.glob("*/config.toml")) if folder.is_dir() else []
    return f"{folder} holds {', '.join(runs[-5:])}" if runs else "train one first: vaelid train digits"
