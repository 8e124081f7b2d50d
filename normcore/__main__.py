"""`python -m normcore sweep`: many races as one table, on the processes of this machine or on a Dask cluster."""

import argparse
import sys
from contextlib import ExitStack
from typing import Any

from normcore.core import NormcoreError
from normcore.lab.sweeps import sweep


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; 0 when all is done, 2 for something that cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m normcore", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_sweep(commands.add_parser("sweep", help="norms × batch sizes × learning rates × seeds"))
    options = parser.parse_args(arguments)
    try:
        return _sweep(options)
    except NormcoreError as error:
        print(error, file=sys.stderr)
        return 2


def _add_sweep(parser: Any) -> None:
    parser.add_argument("out", help="a file of JSON lines; what stands there is not run again")
    parser.add_argument("--task", default="threshold_sum")
    parser.add_argument("--model", default="mlp")
    parser.add_argument("--norm", nargs="+", default=["none", "batch_norm", "layer_norm", "group_norm"])
    parser.add_argument("--batch-size", nargs="+", type=int, default=[64])
    parser.add_argument("--learning-rate", nargs="+", type=float, default=[1e-3])
    parser.add_argument("--seeds", type=int, default=4, help="how many")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--optimizer", default="adam")
    parser.add_argument("--workers", type=int, help="how many processes; all cores if left out")
    parser.add_argument("--scheduler", help="the address of a Dask scheduler, such as tcp://10.0.0.1:8786")


def _sweep(options: argparse.Namespace) -> int:
    with ExitStack() as stack:
        executor = None
        if options.scheduler:
            from distributed import Client  # noqa: PLC0415 - an extra: pip install normcore[cluster]

            executor = stack.enter_context(Client(options.scheduler)).get_executor()
        pieces = sweep(
            [None if norm == "none" else norm for norm in options.norm],
            options.batch_size,
            options.learning_rate,
            options.seeds,
            options.out,
            executor,
            options.workers,
            task=options.task,
            model=options.model,
            steps=options.steps,
            optimizer=options.optimizer,
        )
        for piece in pieces:
            first = piece.rows[0]
            losses = [row.loss for row in piece.rows if row.diverged < 0]
            end = f"loss {sum(losses) / len(losses):.4g}" if losses else "diverged"
            gone = len(piece.rows) - len(losses)
            print(
                f"{piece.done}/{piece.total}  {first.contestant}  batch {first.batch_size}  "
                f"learning rate {first.learning_rate:g}  {end}"
                + (f"  ({gone} of {len(piece.rows)} seeds diverged)" if gone and losses else "")
                + ("" if piece.fresh else "  (known)"),
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
