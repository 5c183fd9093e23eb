"""Models that train in stages (S3Rec, RaCT), trained by one command.

RecBole trains one stage a run and leaves it to the user to name the checkpoint of the stage before.
Here, unless `train_stage` is named, the stages follow each other in one run: each begins with the
parameters of the one before, read from its checkpoint, which is kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from logging import getLogger
from pathlib import Path
from typing import Any

from recbole_m3rec.hooks import wrap

STAGES = {
    "S3Rec": ("pretrain", "finetune"),
    "RaCT": ("actor_pretrain", "critic_pretrain", "finetune"),
}
LAST = "finetune"


def install() -> None:
    """Put the stages into the trainers of these models."""
    from recbole.trainer import trainer as trainers

    for model in STAGES:
        wrap(getattr(trainers, f"{model}Trainer"), "fit")(fit)

    @wrap(trainers.PretrainTrainer, "pretrain")
    def pretrain(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        if self.pretrain_epochs % self.save_step:  # RecBole would keep no checkpoint of the end
            name = f"{self.config['model']}-{self.config['dataset']}-{self.pretrain_epochs}.pth"
            file = str(Path(self.checkpoint_dir) / name)
            self.save_pretrained_model(self.pretrain_epochs - 1, file)
        return result

    @wrap(trainers.PretrainTrainer, "save_pretrained_model")
    def save(original: Callable[..., None], self: Any, epoch: int, saved_model_file: str) -> None:
        run = getattr(self, "_run_of_stages", None)
        if run is not None:  # runs side by side keep files of their own
            stage = self.config["train_stage"]
            saved_model_file = str(run.with_name(f"{run.stem}-{stage}-{epoch + 1}.pth"))
        original(self, epoch, saved_model_file)


def all_stages(config: Any) -> tuple[str, ...]:
    """Return the stages that a run trains one after the other, () where it trains one or has none.

    A stage that the user named is the only one.
    """
    stages = STAGES.get(config["model"], ())
    is_named = "train_stage" in getattr(config, "_named_keys", ())
    return () if is_named or config["train_stage"] not in stages[:1] else stages


def fit(
    original: Callable[..., Any],
    self: Any,
    train_data: Any,
    valid_data: Any = None,
    verbose: bool = True,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Train all stages, or the one that the user named, or what is left of a resumed one."""
    config, logger = self.config, getLogger()
    stages = all_stages(config)
    if not stages or self.start_epoch > 0:
        return original(self, train_data, valid_data, verbose, *args, **kwargs)
    self._run_of_stages = Path(self.saved_model_file)
    for number, (stage, following) in enumerate(itertools.pairwise(stages), start=1):
        logger.info(
            f"{config['model']} trains in {len(stages)} stages, and this is stage {number}: "
            f"{stage}, {self.pretrain_epochs} epochs (pretrain_epochs)"
        )
        original(self, train_data, None, verbose, *args, **kwargs)
        checkpoint = self.saved_model_file
        logger.info(f"{stage} is done and kept in {checkpoint}; now {following} goes on from it")
        config["train_stage"], config["pre_model_path"] = following, checkpoint
        model = config.model_class(config, train_data._dataset).to(config["device"])
        run = self._run_of_stages
        self.__init__(config, model)
        self._run_of_stages = run
    return original(self, train_data, valid_data, verbose, *args, **kwargs)


def settings_of_saved(model: str, stage: Any, checkpoint: Path) -> dict[str, Any]:
    """Return the settings with which a checkpoint of the last stage is built and resumed.

    The model reads a checkpoint of the stage before while it is built. This one will do, and is
    there.
    """
    if model not in STAGES or stage != LAST:
        return {}
    return {"train_stage": LAST, "pre_model_path": str(checkpoint.resolve())}
