"""Output heads, told from the structure of a model: by whatever name, behind whatever wrapper, and no layer of the body."""

import pytest
from torch import nn

from cegm import CEGM
from cegm.roles import assign
from models import holding, reasons, roles

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")


def llama(**changes):
    sizes = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    return transformers.LlamaConfig(**{**sizes, "num_attention_heads": 2, **changes})


def linear_roles(model):
    """Role of every layer, by the name of its module."""
    return {a.name.removesuffix(".weight"): a.role for a in assign(model) if a.name.endswith("weight")}


class Decoder(nn.Module):
    """A language model of nobody's library, whose head may be called anything and stand anywhere."""

    def __init__(self, name, words=64, width=16, first=False):
        super().__init__()
        head = nn.Linear(width, words, bias=False)
        if first:
            self.add_module(name, head)
        self.tokens = nn.Embedding(words, width)
        self.blocks = nn.ModuleList(
            [nn.Sequential(nn.Linear(width, 32), nn.GELU(), nn.Linear(32, width)) for _ in range(2)]
        )
        if not first:
            self.add_module(name, head)


@pytest.mark.parametrize("name", ["decoder", "words", "to_vocabulary", "out", "predict"])
@pytest.mark.parametrize("first", [False, True])
def test_as_many_outputs_as_words_and_nothing_behind_is_a_head_by_whatever_name(name, first):
    found = reasons(Decoder(name, first=first))
    assert found[f"{name}.weight"] == "output head"
    assert sum(reason == "linear layer" for reason in found.values()) == 4


def test_a_vocabulary_as_large_as_the_model_is_wide():
    """Bytes over a width of 256: every square layer has as many outputs, and only the last one nothing behind it."""
    model = nn.ModuleDict({"bytes": nn.Embedding(256, 256), "body": nn.Linear(256, 256), "out": nn.Linear(256, 256)})
    assert reasons(model) == {
        "bytes.weight": "embedding",
        "body.weight": "linear layer",
        "body.bias": "vector",
        "out.weight": "output head",
        "out.bias": "vector",
    }


def test_a_layer_of_the_body_is_no_head_because_of_its_name_or_size():
    class Scorer(nn.Module):
        def __init__(self):
            super().__init__()
            self.positions = nn.Embedding(32, 16)
            self.score, self.head, self.output = nn.Linear(16, 16), nn.Linear(16, 32), nn.Linear(32, 16)
            self.last = nn.Linear(16, 16)

    found = roles(Scorer())
    assert {name for name, role in found.items() if role == "matrix"} == {
        "score.weight", "head.weight", "output.weight", "last.weight"
    }  # fmt: skip


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_fused_projection_as_high_as_the_vocabulary_is_no_head(blocks):
    class Attention(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.add_module(name, nn.Linear(16, 48))
            self.project = nn.Linear(16, 16)

    for name in ("c_attn", "to_everything"):
        model = nn.ModuleDict(
            {
                "tokens": nn.Embedding(48, 16),
                "layers": nn.ModuleList([Attention(name) for _ in range(blocks)]),
                "heads": nn.ModuleList([nn.Linear(16, 48) for _ in range(3)]),
            }
        )
        found = reasons(model)
        heads = [each for each, reason in found.items() if reason == "output head"]
        assert heads == [f"heads.{number}.weight" for number in range(3)]
        assert sum(reason == "linear layer" for reason in found.values()) == 2 * blocks


def test_heads_of_classifiers_are_told_by_the_number_of_classes():
    roberta = transformers.RobertaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_labels=5
    )
    found = reasons(transformers.RobertaForSequenceClassification(roberta))
    assert found["classifier.out_proj.weight"] == "output head"
    assert found["classifier.dense.weight"] == "linear layer"
    rewards = transformers.LlamaForSequenceClassification(llama(num_labels=3, pad_token_id=0))
    assert reasons(rewards)["score.weight"] == "output head"

    class Timm(nn.Module):
        num_classes = 7

        def __init__(self):
            super().__init__()
            self.stem, self.last = nn.Linear(8, 16), nn.Linear(16, 7)

        def get_classifier(self):
            return self.last

    assert reasons(Timm())["last.weight"] == "output head"
    assert roles(Timm())["stem.weight"] == "matrix"


@pytest.mark.parametrize("wrap", ["lightning", "parallel", "twice"])
def test_what_a_model_calls_its_output_embeddings_is_seen_through_wrappers(wrap):
    class Wrapper(nn.Module):
        def __init__(self, inside):
            super().__init__()
            self.inside = inside

    model = transformers.LlamaForCausalLM(llama())
    wrapped = {"lightning": Wrapper, "parallel": nn.DataParallel, "twice": lambda m: Wrapper(Wrapper(m))}[wrap](model)
    found = reasons(wrapped)
    assert [name for name, reason in found.items() if reason == "output head"] == [
        name for name in found if name.endswith("lm_head.weight")
    ]


def test_heads_behind_adapters():
    kept = peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    adapted = peft.LoraConfig(r=4, target_modules=["q_proj", "lm_head"], task_type="CAUSAL_LM")
    found = reasons(peft.get_peft_model(transformers.LlamaForCausalLM(llama()), kept))
    assert [reason for name, reason in found.items() if "lm_head" in name] == ["output head"]
    found = reasons(peft.get_peft_model(transformers.LlamaForCausalLM(llama()), adapted))
    head = {name.split("lora_")[1][0]: reason for name, reason in found.items() if "lm_head" in name}
    assert head == {"A": "linear layer", "B": "output head"}


def test_an_adapter_whose_rank_is_the_number_of_classes_is_no_head():
    model = transformers.LlamaForSequenceClassification(llama(num_labels=8, pad_token_id=0))
    model = peft.get_peft_model(
        model, peft.LoraConfig(r=8, target_modules=["q_proj", "down_proj"], task_type="SEQ_CLS")
    )
    found = reasons(model)
    assert {reason for name, reason in found.items() if "lora_" in name} == {"linear layer"}
    assert {reason for name, reason in found.items() if "score" in name} == {"output head"}


# ---------------------------------------------------------------------- what stands behind what


def block(width=16, hidden=64):
    """Attention with grouped queries, and a feed-forward layer."""
    sizes = {"q": (width, width), "k": (width, width // 2), "v": (width, width // 2), "o": (width, width)}
    layers = {name: nn.Linear(*size) for name, size in sizes.items()}
    return holding(norm=nn.LayerNorm(width), **layers, up=nn.Linear(width, hidden), down=nn.Linear(hidden, width))


@pytest.mark.parametrize("repeated", [True, False])
def test_no_layer_of_a_block_as_wide_as_the_vocabulary_is_a_head(repeated):
    inside = nn.ModuleList([block()]) if repeated else block()
    model = holding(words=nn.Embedding(64, 16), inside=inside, norm=nn.LayerNorm(16), name_it=nn.Linear(16, 64))
    heads = [name for name, role in linear_roles(model).items() if role == "adamw"]
    assert heads == ["words", "inside.0.norm" if repeated else "inside.norm", "norm", "name_it"]


@pytest.mark.parametrize("depth", [0, 1])
def test_a_cut_projection_of_a_single_block_as_high_as_the_vocabulary_is_no_head(depth):
    attention = {"to_all": nn.Linear(16, 48), "project": nn.Linear(16, 16)}
    inside = {"attention": holding(**attention)} if depth else attention
    found = linear_roles(holding(words=nn.Embedding(48, 16), **inside, say=nn.Linear(16, 48)))
    assert [role for name, role in found.items() if name.endswith(("to_all", "project"))] == ["matrix", "matrix"]
    assert found["say"] == "adamw"


@pytest.mark.parametrize("behind", [nn.Linear(16, 1), nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1))])
def test_the_head_of_a_value_behind_a_square_head_takes_nothing_from_it(behind):
    model = holding(bytes=nn.Embedding(16, 16), body=nn.Linear(16, 16), lm_head=nn.Linear(16, 16), value=behind)
    found = linear_roles(model)
    assert (found["body"], found["lm_head"]) == ("matrix", "adamw")


def test_a_square_head_registered_first_and_the_body_behind_the_embedding():
    layers = {
        "say": nn.Linear(16, 16),
        "bytes": nn.Embedding(16, 16),
        "one": nn.Linear(16, 16),
        "two": nn.Linear(16, 16),
    }
    found = linear_roles(holding(**layers, norm=nn.LayerNorm(16)))
    assert (found["say"], found["one"], found["two"]) == ("adamw", "matrix", "matrix")


@pytest.mark.parametrize("words", [16, 50])
@pytest.mark.parametrize("wrap", [nn.ModuleDict, lambda both: nn.ModuleList(both.values())])
def test_heads_of_several_models_side_by_side(wrap, words):
    both = {
        name: holding(words=nn.Embedding(words, 16), body=nn.Linear(16, 16), say=nn.Linear(16, words))
        for name in ("student", "teacher")
    }
    found = linear_roles(holding(models=wrap(both)))
    assert [role for name, role in found.items() if name.endswith("say")] == ["adamw"] * 2
    assert [role for name, role in found.items() if name.endswith("body")] == ["matrix"] * 2


@pytest.mark.parametrize("outputs", [50, 64])
def test_several_heads_of_several_layers(outputs):
    several = [nn.Sequential(nn.Linear(16, 16), nn.SiLU(), nn.Linear(16, outputs)) for _ in range(2)]
    model = holding(words=nn.Embedding(50, 16), body=nn.Linear(16, 16), ahead=nn.ModuleList(several))
    found = linear_roles(model)
    assert [found[f"ahead.{number}.{layer}"] for number in range(2) for layer in (0, 2)] == ["matrix", "adamw"] * 2


# ---------------------------------------------------------------------- numbers of classes


@pytest.mark.parametrize("outputs", [48, 50, 51, 64, 128])
def test_a_vocabulary_without_its_marks_or_with_padding(outputs):
    model = holding(
        words=nn.Embedding(50, 16), body=nn.Linear(16, 16), say=nn.Linear(16, outputs), more=nn.Linear(16, 9)
    )
    assert linear_roles(model)["say"] == "adamw"


@pytest.mark.parametrize("outputs", [80, 84, 76])
def test_codebooks_side_by_side(outputs):
    words = nn.ModuleList([nn.Embedding(20, 16) for _ in range(4)])
    model = holding(words=words, body=nn.Linear(16, 16), say=nn.Linear(16, outputs), more=nn.Linear(16, 9))
    assert linear_roles(model)["say"] == "adamw"


@pytest.mark.parametrize("source", ["module", "hparams", "config"])
@pytest.mark.parametrize("name", ["n_classes", "num_classes", "num_object_labels", "nclass"])
def test_numbers_of_classes_are_found_in_modules_configurations_and_hyperparameters(source, name):
    model = holding(body=nn.Linear(8, 8), say=nn.Linear(8, 7), other=nn.Linear(8, 9))
    if source == "module":
        setattr(model, name, 7)
    else:
        setattr(model, source, {name: 7, "lr": 0.1})
    assert linear_roles(model) == {"body": "matrix", "say": "adamw", "other": "adamw"}


def test_several_classifiers_are_heads():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.body = nn.Linear(8, 7), nn.Linear(8, 8), nn.Linear(8, 8)

        def get_classifier(self):
            return self.one, self.two

    assert linear_roles(Two()) == {"one": "adamw", "two": "adamw", "body": "matrix"}


@pytest.mark.parametrize("name", ["fc2", "linear", "outc", "finish", "char_head"])
def test_without_a_number_of_classes_the_last_layer_is_none_of_the_body(name):
    layers = {"conv1": nn.Conv2d(1, 8, 3), "fc1": nn.Linear(72, 32)}
    found = linear_roles(holding(**layers, **{name: nn.Linear(32, 10)}))
    assert found == {"conv1": "matrix", "fc1": "matrix", name: "adamw"}


def test_heads_of_several_tasks():
    several = {"color": nn.Linear(16, 5), "shape": nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 7))}
    found = linear_roles(holding(body=nn.Linear(16, 16), heads=nn.ModuleDict(several), project=nn.Linear(16, 16)))
    heads = {name for name, role in found.items() if role == "adamw"}
    assert heads == {"heads.color", "heads.shape.2"}


def test_an_ensemble_has_a_last_layer_in_each_member():
    def member():
        return holding(body=nn.Linear(16, 16), finish=nn.Linear(16, 5))

    for model in (nn.ModuleList([member(), member()]), holding(net=member(), average=member(), loss=nn.MSELoss())):
        assert list(linear_roles(model).values()) == ["matrix", "adamw"] * 2


def test_a_stack_of_numbered_layers_has_no_head_by_its_place():
    """Nobody has called anything anything: a stack may be the body of something else."""
    assert set(linear_roles(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 5))).values()) == {"matrix"}


@pytest.mark.parametrize("name", ["linear", "fc", "out"])
def test_a_lone_layer_is_no_head_by_a_name_that_others_have(name):
    assert linear_roles(holding(**{name: nn.Linear(8, 5)})) == {name: "matrix"}


def test_a_modulation_as_high_as_three_widths_is_no_head():
    """Per block, scale, shift and gate: nothing takes as many, and it ends its block."""
    blocks = [holding(up=nn.Linear(16, 32), down=nn.Linear(32, 16), linear=nn.Linear(16, 48)) for _ in range(2)]
    model = holding(into=nn.Linear(4, 16), blocks=nn.ModuleList(blocks), say=nn.Linear(16, 4))
    assert {role for name, role in linear_roles(model).items() if "blocks" in name} == {"matrix"}


def test_the_last_layer_is_named_in_the_summary_where_it_is_large():
    model = holding(first=nn.Linear(8, 16), second=nn.Linear(16, 8), finish=nn.Linear(8, 5))
    assert "finish.weight (40, last layer)" in CEGM(model).summary().splitlines()[-1]


def test_the_channels_of_a_convolution_go_on_where_they_are_flattened():
    features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3))
    classifier = nn.Sequential(nn.Linear(16 * 49, 32), nn.ReLU(), nn.Linear(32, 10))
    found = linear_roles(holding(features=features, classifier=classifier))
    assert list(found.values()) == ["matrix", "matrix", "matrix", "adamw"]


def test_two_projections_into_one_space_are_alike():
    model = holding(text=nn.Linear(8, 16), image=nn.Linear(8, 16), one=nn.Linear(16, 24), two=nn.Linear(16, 24))
    assert set(linear_roles(model).values()) == {"matrix"}


def test_what_takes_one_hot_words_is_an_embedding():
    model = holding(into=nn.Linear(50, 16), body=nn.Linear(16, 16), say=nn.Linear(16, 50))
    model.vocab_size = 50
    assert linear_roles(model) == {"into": "adamw", "body": "matrix", "say": "adamw"}
    sizes = {"vocab_size": 40, "hidden_size": 16, "embedding_size": 8, "intermediate_size": 32, "num_hidden_layers": 1}
    bert = transformers.MobileBertConfig(**sizes, num_attention_heads=2, intra_bottleneck_size=16)
    found = reasons(transformers.MobileBertForMaskedLM(bert))
    assert found["cls.predictions.dense.weight"] == "embedding"


def test_adapters_of_experts_are_no_heads():
    sizes = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    model = transformers.MixtralForCausalLM(
        transformers.MixtralConfig(**sizes, num_attention_heads=2, num_key_value_heads=2, num_local_experts=4)
    )
    adapters = peft.LoraConfig(r=4, target_modules=["q_proj"], target_parameters=["gate_up_proj"])
    found = linear_roles(peft.get_peft_model(model, adapters))
    assert set(found.values()) == {"matrix"}
