"""`RolloutConfig`: what `cegm rollout` is asked to do. No heavy import here: the command line reads this file to print its help."""

from __future__ import annotations

from dataclasses import dataclass

from cegm.lab.declarations import Declared, option

NOT_PROVIDED = "not provided"


@dataclass
class RolloutConfig(Declared):
    """One step of a roll-out: an approval, the router, its state, or the way back.

    Raises:
        ValueError: A value outside its range, in one line.
    """

    release: str = option("", "release folder that cegm audit made; approve and serve need it")
    output_dir: str = option("runs/rollout", "folder of the roll-out: decisions, their state, the log of requests")
    key: str = option("", "approve: the approver's private key, NAME.key of cegm keys new")
    trainer_key: str = option("", "approve, serve: public key of the trainer, NAME.pub")
    approver_key: str = option("", "serve: public key of the approver, NAME.pub")
    approver: str = option(NOT_PROVIDED, "approve: name of who approves")
    local_texts: str = option("", "approve: your own texts, a file or folder, of which 200 are read by the model")
    most_bits_per_byte: float = option(
        None, "approve: above this on local_texts an adaptation run is required first; fixed once", low=0, above=True
    )
    champion: str = option("", "serve: URL of the server of today, or a model folder to start one for")
    challenger: str = option("", "serve: URL of the server of the release (default: one is started for its model)")
    champion_model: str = option("", "serve: name under which the champion's server knows its model")
    challenger_model: str = option("", "serve: name under which the challenger's server knows its model")
    upstream_key: str = option("", "serve: file with the key that both servers want as bearer")
    model_name: str = option("cegm", "serve: name of the model that clients are told")
    host: str = option("127.0.0.1", "serve: address to listen on; another than this machine's own needs api_key")
    port: int = option(8000, "serve: port to listen on, 0 for any", low=0, high=65535)
    api_key: str = option("", "serve: file with the key that clients have to send as bearer")
    shadow_share: float = option(1.0, "serve: share of requests that the challenger sees in the shadow", low=0, high=1)
    most_seconds: float = option(120.0, "serve: time that an answer may take", low=0, above=True)
    challenger_seconds: float = option(
        30.0, "serve: time after which the champion answers instead; to the first byte of a stream", low=0, above=True
    )
    most_body_bytes: int = option(1 << 20, "serve: size that a request may have", low=1)
    stage_requests: int = option(400, "serve: requests of the challenger after which a stage is judged", low=1)
    most_errors: float = option(0.02, "serve: share of the challenger's requests that may fail", low=0, high=1)
    slower: float = option(
        1.5, "serve: how many times the champion's 95th percentile the challenger's may take", low=0, above=True
    )
    keep_texts_days: float = option(0.0, "serve: days for which prompts and answers are kept; 0 keeps none", low=0)
    labels: str = option("", "label: .jsonl file of what was judged elsewhere (default: you are asked)")
    answers: int = option(50, "label: answers to ask about", low=2)
    who: str = option(NOT_PROVIDED, "back, label: name of who decides")
    reason: str = option("", "back: why")
