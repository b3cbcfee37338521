"""One training run: configuration, data, model, trainer, checkpoints and the run folder. Start with `cegm.lab.train.run.train`."""

from importlib.util import find_spec

for _name in ("transformers", "trl", "datasets", "accelerate", "peft", "yaml", "rich"):
    if find_spec(_name) is None:
        raise ImportError(f"{_name} is not installed and training needs it: pip install 'cegm[train]'")
