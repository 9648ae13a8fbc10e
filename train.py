"""Train a model: flags -> Run -> Trainer.

    python train.py --config configs/story-small.json     a small model in minutes, with nothing to download
    python train.py --dataset NAME --epochs 2             a prepared data set (see prepare.py)
    python train.py --resume models/NAME_epoch2.pt        continue exactly after an interruption
    python train.py --config FILE --show_config           what would run, and where every value comes from

Every config field is a flag (--model.n_layer 8); docs/configuration.md explains them.
"""

from __future__ import annotations

from contextlib import ExitStack, closing

from jojo.command import TRAINED_MODEL, run_command
from training.flags import build_parser, read_request
from utils import UserError, log, user_path


def main(arguments: list[str]) -> int:
    """Run train.py with these arguments; returns the exit code."""
    args = build_parser(__doc__).parse_args(arguments)
    request = read_request(args, arguments)

    from jojo.config_file import save_config
    from jojo.machine.launch import joined
    from training.decisions import Reasons
    from training.resume import resolve_request
    from training.run import prepare_run
    from training.summary import memory_explained, show_config, show_options

    with joined() as ranks, ExitStack() as opened:
        try:
            run = opened.enter_context(closing(prepare_run(request, ranks)))
        except UserError:  # for example, the data are not prepared yet
            if args.show_config:
                resolved = resolve_request(request, ranks)
                log.info(show_options(resolved.config, Reasons(resolved.sources)))
            raise
        if args.save_config and ranks.is_main:
            save_config(run.config, user_path(args.save_config))
        if args.show_config:
            log.info(show_config(run))
            return 0

        from trainer import Trainer

        with memory_explained(run):
            trainer = Trainer(run)
            if args.eval_only:
                shown = "training loss %(train_loss_eval).4f, validation loss %(val_loss).4f, %(bpb).4f bits per byte"
                log.info(shown, trainer.evaluate())
                return 0
            return trainer.train()


if __name__ == "__main__":
    run_command(main, if_full=TRAINED_MODEL, has_ranks=True)
