"""Kill a training run again and again, and show that nothing is lost.

    python tools/crash_test.py --kills 100

It trains a tiny model in a process of its own, with a save after every batch. It kills the process (SIGKILL) at random
moments, some of them during a save, and resumes the run. Then it compares the end with a run that was never killed. It checks that

- every checkpoint on the disk can be read after a kill,
- the newest checkpoint is never older than before the kill,
- the final weights, optimizer state and losses are equal in both runs, bit for bit,
- both runs have the same checkpoints at the end,
- no unfinished file is left behind.

If a check fails, it exits with 1 and names the difference.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import utils
from config import OPTIONS
from jojo.checkpoints.checkpoint import load_checkpoint
from jojo.checkpoints.file import read_stamp
from jojo.checkpoints.run_files import RunFiles
from jojo.command import Parser, run_command

CLOCK = {"elapsed_s", "tokens_per_s", "samples_per_s", "mfu", "peak_memory_bytes"}  # differ between any two runs
ANIMALS = ("fox", "hen", "bear", "mouse", "owl", "goat", "swan")
TRAIN = [
    *("--dataset", "crash", "--device", "cpu", "--dtype", "float32", "--model.n_layer", "1", "--model.n_head", "2"),
    *("--model.n_embd", "8", "--model.block_size", "16", "--model.dropout", "0.1", "--batch_size", "2"),
    *("--training.gradient_accumulation_steps", "2", "--learning_rate", "0.01", "--epochs", "1000"),
    *("--checkpoint_interval", "1", "--training.keep_checkpoints", "2", "--eval_interval", "7"),
    *("--training.eval_iters", "2", "--log_interval", "0"),
]  # fmt: skip


class Victim:
    """A run in a folder of its own."""

    def __init__(self, folder: Path, batches: int, architecture: str) -> None:
        self.folder = folder
        self.files = RunFiles(folder / "models" / "crash.pt")
        self.command = [
            sys.executable, str(ROOT / "train.py"), *TRAIN,
            "--max_iters", str(batches), "--output_checkpoint", "models/crash.pt", "--model.architecture", architecture,
        ]  # fmt: skip
        (folder / "data").mkdir(parents=True)
        for split, count in (("train", 60), ("val", 10)):
            lines = [{"text": f"{split} {i}: the {ANIMALS[i % 7]} met the {ANIMALS[i % 5]}."} for i in range(count)]
            (folder / "data" / f"crash-{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def start(self) -> subprocess.Popen[bytes]:
        """Start the run; resume it if it has a checkpoint."""
        resume = ["--resume"] if self.files.newest_first() else []
        return subprocess.Popen(
            [*self.command, *resume], cwd=self.folder, env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def finish(self) -> None:
        """Start the run and let it train to its end. Raises UserError when it fails."""
        self.wait(self.start())

    def wait(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for the process; returns its exit code, negative for a signal. Raises UserError when the run failed by itself."""
        errors = process.communicate()[1]
        if process.returncode > 0:
            raise utils.UserError(f"The run failed with exit code {process.returncode}: {errors.decode().strip()}")
        return process.returncode

    def kill(self, chance: random.Random) -> bool:
        """Start the run and kill it at a random moment: while it starts, while it trains or during a save.

        Returns:
            False if the run ended before the kill.
        """
        newest, process = self.newest(), self.start()
        moment = chance.choice(["start", "train", "train", "save", "save"])
        deadline = time.monotonic() + chance.uniform(0.0, 3.0)
        while moment == "start" and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        while moment != "start" and self.newest() <= newest and process.poll() is None:
            time.sleep(0.005)
        deadline = time.monotonic() + chance.uniform(0.0, 1.0)
        while moment != "start" and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.001)
        while moment == "save" and not self.unfinished() and process.poll() is None:
            pass
        process.kill()
        return self.wait(process) != 0

    def unfinished(self) -> list[str]:
        """Names of the temporary files of an unfinished save."""
        return sorted(path.name for path in (self.folder / "models").glob(".*.tmp"))

    def newest(self) -> int:
        """The batch of the newest checkpoint; 0 if there is none."""
        stamps = [read_stamp(path) for path in self.files.newest_first()[:1]]
        return max((stamp.batch for stamp in stamps if stamp), default=0)

    def kept(self) -> dict[str, int]:
        """The batch of every checkpoint on the disk, by file name."""
        return {path.name: stamp.batch for path, stamp in self.files.stamps().items()}

    def check_all(self) -> int:
        """Read every checkpoint and return their number. Raises UserError at the first damaged one."""
        paths = self.files.newest_first()
        for path in paths:
            load_checkpoint(path)
        return len(paths)

    def result(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The final state, and the rows of the metrics file without the values that depend on the clock."""
        state = load_checkpoint(self.files.last).state
        rows = [json.loads(line) for line in self.files.metrics.read_text().splitlines()]
        return state, [{key: value for key, value in row.items() if key not in CLOCK} for row in rows]


def equal(a: Any, b: Any) -> bool:
    """Whether two nested values are equal, tensors bit for bit."""
    import torch

    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return bool(a == b)


def compare(victim: Victim, undisturbed: Victim) -> None:
    """Raise a UserError that names the differences between the two finished runs, if there are any."""
    (state, rows), (expected, expected_rows) = victim.result(), undisturbed.result()
    parts = ("model", "optimizer", "scaler", "rng", "loader", "batch_counter", "best_val_loss", "worst_val_loss")
    wrong = [part for part in parts if not equal(state[part], expected[part])]
    if rows != expected_rows:
        wrong.append("the metrics file")
    if victim.kept() != undisturbed.kept():
        wrong.append("the checkpoints that were kept")
    if wrong:
        raise utils.UserError(f"The killed run ended differently in: {', '.join(wrong)}.")
    if leftover := victim.unfinished():
        raise utils.UserError(f"These unfinished files were left behind: {', '.join(leftover)}.")


def main(arguments: Sequence[str]) -> int:
    """Run the test with these arguments; returns the exit code."""
    parser = Parser(prog="crash_test.py", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, metavar="N", help="how often to kill the run [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the random moments [%(default)s]")
    choices = OPTIONS["model.architecture"].choices
    parser.add_argument("--architecture", choices=choices, default=choices[0], help="of the model [%(default)s]")
    parser.add_argument("--debug", action="store_true", help="show tracebacks with errors")
    args = parser.parse_args(arguments)
    chance, batches = random.Random(args.seed), 40 * args.kills
    with tempfile.TemporaryDirectory(prefix="jojo-crash-") as name:
        victim, undisturbed = (
            Victim(Path(name) / run, batches, args.architecture) for run in ("victim", "undisturbed")
        )
        newest, in_save, read = 0, 0, 0
        for number in range(1, args.kills + 1):
            if not victim.kill(chance):
                raise utils.UserError(
                    f"The run ended before kill {number}: this machine trains {batches} batches too fast."
                )
            in_save += bool(victim.unfinished())
            read += victim.check_all()
            if (now := victim.newest()) < newest:
                raise utils.UserError(
                    f"Kill {number} lost a checkpoint: batch {newest} was saved, but the newest is batch {now}."
                )
            newest = now
            utils.log.info(
                "kill %d of %d: the newest checkpoint is batch %d of %d", number, args.kills, newest, batches
            )
        victim.finish()
        utils.log.info("The killed run is finished; now the run that is never killed.")
        undisturbed.finish()
        compare(victim, undisturbed)
    utils.log.info(
        "%d kills, %d of them during a save. %d checkpoints were read, and none was damaged or lost. Weights, optimizer and "
        "losses after %d batches equal those of the run that was never killed.",
        args.kills, in_save, read, batches,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    run_command(main)
