"""The folder of a training run: its checkpoints, its recipe, and nothing of another run."""

from pathlib import Path
from typing import Optional

from ..errors import UserError
from .checkpoint import write_atomically
from .recipe import Recipe, dump_recipe


class RunFolder:
    """``<save>/<arch>``: checkpoint, best, recipe.yaml, metrics.jsonl, log.txt, curves.png.

    Args:
        save, arch: as given by the flags.
        resume: "auto" for the checkpoint in this folder if there is one, a path, or None.
    """

    def __init__(self, save: str, arch: str, resume: Optional[str]):
        self.path = Path(save) / arch
        self.checkpoint = self.path / "checkpoint.safetensors"
        self.best = self.path / "best.safetensors"
        self.resume_from: Optional[Path] = None  # None: the run starts anew
        if resume == "auto":
            self.resume_from = self.checkpoint if self.checkpoint.exists() else None
        elif resume is not None:
            self.resume_from = Path(resume)

    def prepare(self, recipe: Recipe) -> None:
        """Make the folder and write the recipe.

        Raises:
            UserError: when it cannot be made, or holds a run that this one would overwrite.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be made: {error.strerror}; choose another with --save"
            ) from None
        if self.checkpoint.exists() and not self._resumes_here():
            raise UserError(
                f"{self.checkpoint}: holds a run already; continue it with --resume auto, or "
                "choose another folder with --save"
            )
        if not self.resume_from:
            for name in ("metrics.jsonl", "log.txt"):  # of a run that never got to a checkpoint
                (self.path / name).unlink(missing_ok=True)
        write_atomically(self.path / "recipe.yaml", dump_recipe(recipe).encode())

    def _resumes_here(self) -> bool:
        source = self.resume_from
        return source is not None and source.exists() and source.samefile(self.checkpoint)
