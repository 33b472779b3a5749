"""Make the run that the lesson opens with: `python web/lesson_model.py` writes src/vaelid/lesson/model/.

The run is that of the command in `COMMAND`, and of what it leaves only what opens it: config.toml, split.npz,
model.safetensors, and of events.jsonl the first and the last line.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

COMMAND = (
    "vaelid train digits --latent 2 --seed 2 --epochs 250 --set objective.samples=8 --set model.hidden=[128,64] "
    "--set training.schedule=cosine --set training.learning_rate=0.003 --set training.patience=0 "
    "--set evaluation.evidence=0"
)
FOLDER = Path(__file__).parents[1] / "src" / "vaelid" / "lesson" / "model"


def main() -> None:
    """Train in a folder of its own and keep what the package ships."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        subprocess.run([sys.executable, "-m", *COMMAND.split(), "--out", str(run)], check=True)
        FOLDER.mkdir(exist_ok=True)
        for name in ("config.toml", "split.npz", "model.safetensors"):
            shutil.copyfile(run / name, FOLDER / name)
        events = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    kept = [event for event in events if event["event"] in ("Started", "Finished")]
    lines = [json.dumps({name: value for name, value in event.items() if name != "time"}) + "\n" for event in kept]
    (FOLDER / "events.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
