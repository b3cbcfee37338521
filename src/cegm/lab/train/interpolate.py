"""A model between before and after a run, written as a model: `cegm interpolate`."""

from __future__ import annotations

from pathlib import Path

from cegm.lab.declarations import read_yaml
from cegm.lab.models.interpolation import interpolated
from cegm.lab.train.interpolate_options import InterpolateConfig
from cegm.lab.train.model import load_trained


def write_interpolated(config: InterpolateConfig) -> Path:
    """Writes the weights at `share` of the way, and the tokenizer, and returns their folder; ValueError where the two do not fit."""
    output = Path(config.output)
    if output.exists():
        raise ValueError(f"output={output} exists already; give another folder")
    after, tokenizer = load_trained(config.model_name_or_path, config.trust_remote_code)
    before, _ = load_trained(config.before or _began_as(Path(config.model_name_or_path)), config.trust_remote_code)
    after.load_state_dict(interpolated(before.state_dict(), after.state_dict(), config.share))
    after.save_pretrained(output)
    tokenizer.save_pretrained(output)
    return output


def _began_as(model: Path) -> str:
    """What the run of a model began as, by its `config.yaml`."""
    written = model.parent / "config.yaml"
    found = read_yaml(str(written)).get("config") if written.exists() else None
    name = found.get("model_name_or_path") if isinstance(found, dict) else None
    if not name:
        raise ValueError(f"no config.yaml beside {model} says what it began as; give --before")
    return str(name)
